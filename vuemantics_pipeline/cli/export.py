"""`vuemantics export`"""

import os
import sys
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from enum import StrEnum
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import notices
from vuemantics_pipeline.errors import UsageError

if TYPE_CHECKING:
    from pandas import DataFrame

_STDOUT = Path("-")


class Rows(StrEnum):
    """What there is one row for."""

    BATCHES = "batches"
    UPLOADS = "uploads"
    ATTEMPTS = "attempts"


class Format(StrEnum):
    """Of the file."""

    PARQUET = "parquet"
    CSV = "csv"


def command(
    rows: Annotated[Rows, typer.Argument(help="What to write: one row for each of these.")],
    format_: Annotated[
        Format,
        typer.Option(
            "--format", help="Parquet keeps types and texts; CSV guards against formulas."
        ),
    ] = Format.CSV,
    output: Annotated[
        Path,
        typer.Option(metavar="FILE", help="Where to; a file there is replaced. [default: -]"),
    ] = _STDOUT,
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="Batches and uploads added, attempts begun from then on."
        ),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="And before then.")] = None,
    user: Annotated[
        str | None, typer.Option(metavar="ID", help="Only those of the user with this id.")
    ] = None,
    batch: Annotated[
        str | None, typer.Option(metavar="BATCH", help="Only those of this batch.")
    ] = None,
    status: Annotated[
        str | None,
        typer.Option(metavar="STATUS", help="Only with this status, attempts with this outcome."),
    ] = None,
    analyzer: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only where the newest attempt was its.")
    ] = None,
    home: options.Home = None,
) -> None:
    """Write batches, uploads or attempts to a file, page by page; CSV also to standard output.

    Times are ISO 8601, in UTC where they name no zone. The columns are those of the views
    `batch_facts`, `upload_facts` and `attempt_facts`.

    Example: `vuemantics export uploads --format parquet --output uploads.parquet`
    """
    from vuemantics_pipeline.cli.following import file_progress
    from vuemantics_pipeline.cli.session import settings_for
    from vuemantics_pipeline.home.database import database
    from vuemantics_pipeline.ledger.connection import connect
    from vuemantics_pipeline.status.analytics import files, frames
    from vuemantics_pipeline.status.analytics.selection import select

    if output == _STDOUT and format_ is Format.PARQUET:
        raise UsageError(
            "no_output", "Parquet is not for standard output.", "Name a file with --output FILE."
        )
    selection = select(
        since=since, until=until, user=user, batch=batch, status=status, analyzer=analyzer
    )
    view = {
        Rows.BATCHES: frames.BATCH_FACTS,
        Rows.UPLOADS: frames.UPLOAD_FACTS,
        Rows.ATTEMPTS: frames.ATTEMPT_FACTS,
    }[rows]
    write = files.write_parquet if format_ is Format.PARQUET else files.write_csv
    done = 0

    def shown(pages: Iterable["DataFrame"]) -> Iterator["DataFrame"]:
        nonlocal done
        for page in pages:
            yield page
            done += len(page)
            show(done, max(done, total))

    # An analyst may not read which migrations were applied, so that is not asked first.
    with (
        database(settings_for(home)) as url,
        connect(url) as connection,
        file_progress(f"exporting {rows}") as show,
        _opened(output) as file,
    ):
        total = frames.count(connection, view, selection)
        with closing(frames.pages(connection, view, selection)) as pages:
            write(view.columns, shown(pages), file)
    if output != _STDOUT:
        notices().print(f"{done} rows in {output}.", soft_wrap=True)


@contextmanager
def _opened(output: Path) -> Iterator[IO[bytes]]:
    """Open a file that takes its place only once it is whole, or standard output.

    Raises:
        UsageError: code 'cannot_write'.
    """
    if output == _STDOUT:
        with _whoever_reads():
            yield sys.stdout.buffer
        return
    partial = output.parent / f".{output.name}.{uuid4().hex}"
    try:
        with partial.open("xb") as file:
            yield file
        partial.replace(output)
    except OSError as error:
        raise UsageError(
            "cannot_write",
            f"{output} cannot be written: {error.strerror or error}.",
            "Name a file in a folder that is there, on a disk with room.",
        ) from error
    finally:
        partial.unlink(missing_ok=True)


@contextmanager
def _whoever_reads() -> Iterator[None]:
    """Stop quietly when the reader of a pipe has seen enough, as `head` does."""
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError:
        # Else Python flushes once more at its end, and complains.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit from None
