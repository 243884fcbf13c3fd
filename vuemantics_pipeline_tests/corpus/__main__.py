"""`make corpus`: every corpus that can be had, through the real pipeline, and what came of it."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vuemantics_pipeline.cli.output import (
    BAD_NEWS,
    INTERRUPTED,
    answers,
    cell,
    exit_code,
    notices,
    print_error,
    table,
)
from vuemantics_pipeline.errors import PipelineError
from vuemantics_pipeline.settings import AnalyzerName
from vuemantics_pipeline_tests.corpus.gather import CORPORA, CannotFetch
from vuemantics_pipeline_tests.corpus.generate import generated
from vuemantics_pipeline_tests.corpus.run import Part, Report, Result, run
from vuemantics_pipeline_tests.corpus.samples import COMPLETED, GENERATED, Sample

_SHOWN_CODES = 4
_SHOWN_PROBLEMS = 20
_SOURCES = [GENERATED, *(corpus.name for corpus in CORPORA)]


def main(
    source: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help=f"Only this one: {', '.join(_SOURCES)}. [default: all]"),
    ] = None,
    folder: Annotated[
        Path, typer.Option(help="Where corpora are kept and the run takes place.")
    ] = Path(".home/corpus"),
    analyzer: Annotated[AnalyzerName, typer.Option(help="Which one.")] = AnalyzerName.NONE,
    decode_seconds: Annotated[
        float, typer.Option(min=1, help="Time limit for decoding one file.")
    ] = 20,
    heavy: Annotated[
        bool, typer.Option(help="Generate the files that take seconds or gigabytes, too.")
    ] = True,
) -> None:
    """Run all corpora of bad input as ordinary batches. Ends with 1 unless all checks hold."""
    if unknown := set(source or []) - set(_SOURCES):
        raise typer.BadParameter(f"There is no corpus {', '.join(sorted(unknown))}.")
    folder = folder.absolute()
    try:
        samples, left_out = _gather(source or _SOURCES, folder / "sources", heavy)
        with _progress(sum(map(len, samples.values()))) as show:
            report = run(
                samples,
                folder / "run",
                analyzer=analyzer,
                decode_seconds=decode_seconds,
                on_progress=show,
            )
    except PipelineError as error:
        print_error(error)
        raise typer.Exit(exit_code(error)) from None
    except KeyboardInterrupt:
        raise typer.Exit(INTERRUPTED) from None
    listed = folder / "results.jsonl"
    listed.write_text("".join(json.dumps(_record(result)) + "\n" for result in report.results))
    _print(report, left_out)
    answers().print(f"Every file by itself: {listed}")
    if not report.is_clean:
        raise typer.Exit(BAD_NEWS)


def _gather(
    sources: list[str], cache: Path, heavy: bool
) -> tuple[dict[str, list[Sample]], dict[str, str]]:
    """The samples by source, and why a source was left out."""
    samples, left_out = {}, {}
    console = notices()
    for corpus in CORPORA:
        if corpus.name in sources:
            with console.status(f"Fetching {corpus.name} ..."):
                try:
                    samples[corpus.name] = corpus.samples(cache)
                except CannotFetch as error:
                    left_out[corpus.name] = str(error)
    if GENERATED in sources:
        samples[GENERATED] = generated(heavy=heavy)
    return samples, left_out


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str, int], None]]:
    """Give a function that takes a source and how many of its files are done."""
    console: Console = notices()
    done: dict[str, int] = {}
    progress = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
    with progress:
        task = progress.add_task("Starting ...", total=total)

        def show(source: str, count: int) -> None:
            if source not in done and not console.is_terminal:
                console.print(f"{source} ...")
            done[source] = count
            progress.update(task, description=source, completed=sum(done.values()))

        yield show


def _record(result: Result) -> dict[str, object]:
    row, sample = result.row, result.sample
    return {
        "source": sample.source,
        "name": sample.name,
        "outcome": result.outcome,
        "expected": sorted(sample.expected),
        "message": row.message,
        "remedy": row.remedy,
        "seconds": round(row.seconds, 3),
        "attempts": row.attempts,
        "bytes": row.file_size,
        "format": row.format,
        "width": row.width,
        "height": row.height,
        "video_codec": row.video_codec,
        "duration_seconds": row.duration_seconds,
        "upload_id": str(row.upload_id),
    }


def _print(report: Report, left_out: dict[str, str]) -> None:
    columns = ["Source", "Files", "Completed", "Failed", "Most common codes", "Slowest"]
    grid = table([*columns, "Worker MiB", "Decoder MiB"], whole=["Source"])
    for part in report.parts:
        grid.add_row(*map(cell, _summary(part)))
    for name, reason in left_out.items():
        grid.add_row(cell(name), cell("left out", "yellow"), cell(""), cell(""), cell(reason))
    answers().print(grid)
    for part in report.parts:
        for sample, reason in part.left_out:
            answers().print(f"Left out: {part.source} {sample.name}: {reason}.")
    for check, problems in report.problems.items():
        mark = cell("not ok", "bold red") if problems else cell("ok", "green")
        answers().print(mark, cell(f" {check}"))
        for problem in problems[:_SHOWN_PROBLEMS]:
            answers().print(cell(f"    {problem}"))
        if len(problems) > _SHOWN_PROBLEMS:
            answers().print(f"    and {len(problems) - _SHOWN_PROBLEMS} more")
    for check in report.unchecked:
        answers().print(cell("not checked", "yellow"), cell(f" {check}"))


def _summary(part: Part) -> list[str]:
    outcomes = Counter(result.outcome for result in part.results)
    completed = outcomes.pop(COMPLETED, 0)
    codes = ", ".join(f"{code} {count}" for code, count in outcomes.most_common(_SHOWN_CODES))
    slowest = max(part.results, key=lambda result: result.row.seconds, default=None)
    return [
        part.source,
        str(len(part.results)),
        str(completed),
        str(outcomes.total()),
        codes,
        f"{slowest.row.seconds:.1f} s {slowest.sample.name[-40:]}" if slowest else "",
        str(part.worker_bytes >> 20),
        str(part.decoder_bytes >> 20),
    ]


if __name__ == "__main__":
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(main)
    app(prog_name="python -m vuemantics_pipeline_tests.corpus")
