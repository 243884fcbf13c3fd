"""Progress on standard error: a bar where that is a terminal, else a line for every change."""

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from uuid import UUID

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from vuemantics_pipeline.cli.output import notices
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.records import Batch, BatchStatus
from vuemantics_pipeline.status.batches import follow_batch

_PATIENCE_SECONDS = 20.0


def follow_to_end(connection: Connection, batch_id: UUID) -> Batch:
    """Show how a batch gets on until it has ended, and return it as it is then.

    Raises:
        UsageError: code 'no_such_batch'.
        BackendUnavailable: the database went away.
    """
    return show_progress(_with_hint(follow_batch(connection, batch_id)))


def show_progress(batches: Iterable[Batch]) -> Batch:
    """Show the states of one batch as they come, at least one, and return the last."""
    console = notices()
    progress = _progress()
    said = ""
    with progress:
        task = progress.add_task("", total=None)
        for batch in batches:
            failed = f", {batch.failed_uploads} failed" if batch.failed_uploads else ""
            progress.update(
                task,
                description=f"{batch.status}{failed}",
                total=batch.total_uploads or None,
                completed=batch.processed_uploads,
            )
            line = f"{batch.status} {batch.processed_uploads}/{batch.total_uploads}{failed}"
            if not console.is_terminal and line != said:
                console.print(line)
                said = line
    return batch


@contextmanager
def file_progress(verb: str) -> Iterator[Callable[[int, int], None]]:
    """Give a function that shows (files done, files in all)."""
    with _progress() as progress:
        task = progress.add_task(verb, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


def _progress() -> Progress:
    console = notices()
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _with_hint(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Say it once when nobody seems to be there to process the batch."""
    impatient_at: float | None = time.monotonic() + _PATIENCE_SECONDS
    for batch in batches:
        if batch.status is not BatchStatus.PENDING:
            impatient_at = None
        elif impatient_at is not None and time.monotonic() > impatient_at:
            notices().print("No run has taken the batch yet: is `vuemantics up` running?")
            impatient_at = None
        yield batch
