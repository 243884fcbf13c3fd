"""Batches, uploads and search results as a person reads them."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from rich.text import Text

from vuemantics_pipeline.cli.output import answers, cell, table
from vuemantics_pipeline.ledger.records import Batch

if TYPE_CHECKING:
    from vuemantics_pipeline.ingest import Ingested
    from vuemantics_pipeline.status.batches import Failure, UploadRow
    from vuemantics_pipeline.status.search import SearchHit

STYLES = {"completed": "green", "failed": "red", "cancelled": "yellow", "processing": "cyan"}


def print_batches(batches: Sequence[Batch]) -> None:
    """One line for each batch."""
    columns = ["Batch", "Status", "Done", "Failed", "Created", "Message"]
    grid = table(columns, whole=columns[:-1])
    for batch in batches:
        grid.add_row(
            cell(batch.batch_id),
            cell(batch.status, STYLES.get(batch.status, "")),
            cell(f"{batch.processed_uploads}/{batch.total_uploads}"),
            cell(batch.failed_uploads or None, "red"),
            cell(f"{batch.created_at.astimezone():%Y-%m-%d %H:%M}"),
            cell(batch.error_message),
        )
    answers().print(grid)


def print_batch(batch: Batch, failures: Sequence[Failure]) -> None:
    """A batch in full, with what failed in it and why."""
    grid = table(["", ""])
    grid.show_header = False
    for name, value in (
        ("Batch", cell(batch.batch_id)),
        ("Status", cell(batch.status, STYLES.get(batch.status, ""))),
        ("Uploads", _counts(batch)),
        ("Created", cell(_local(batch.created_at))),
        ("Started", cell(_local(batch.started_at))),
        ("Completed", cell(_local(batch.completed_at))),
        ("Message", cell(batch.error_message)),
    ):
        if value.plain:
            grid.add_row(Text(name, style="dim"), value)
    console = answers()
    console.print(grid)
    if failures:
        reasons = table(["Failed file", "Reason", "What to do"])
        for failure in failures:
            reasons.add_row(
                cell(failure.filename), cell(failure.error_message), cell(failure.remedy)
            )
        console.print()
        console.print(reasons)


def print_uploads(uploads: Sequence[UploadRow]) -> None:
    """One line for each upload: file, outcome, description or reason, seconds."""
    columns = ["File", "Outcome", "Description", "Score", "Seconds"]
    grid = table(columns, whole=["Outcome", "Score", "Seconds"])
    for upload in uploads:
        grid.add_row(
            cell(upload.filename),
            cell(upload.processing_status, STYLES.get(upload.processing_status, "")),
            cell(upload.error_message or upload.description),
            cell(upload.description_audit_score),
            cell(None if upload.seconds is None else f"{upload.seconds:.2f}"),
        )
    answers().print(grid)


def print_hits(hits: Sequence[SearchHit]) -> None:
    """One line for each upload that was found, the best first."""
    grid = table(["Score", "File", "Description", "Thumbnail"])
    for hit in hits:
        grid.add_row(
            cell(f"{hit.score:.3f}"),
            cell(hit.filename),
            cell(hit.description),
            cell(hit.thumbnail_path, "dim"),
        )
    answers().print(grid)


def print_ingested(ingested: Ingested) -> None:
    """The batch that was made, and what was left out of it and why."""
    console = answers()
    accepted = counted(ingested.accepted, "file", "files")
    console.print(f"Batch {ingested.batch_id}: {accepted} accepted.")
    if ingested.refused:
        grid = table(["Left out", "Reason"])
        for one in ingested.refused:
            grid.add_row(cell(one.file), cell(one.reason))
        console.print(grid)


def counted(number: int, one: str, many: str) -> str:
    """A number and its noun."""
    return f"{number} {one if number == 1 else many}"


def _counts(batch: Batch) -> Text:
    return cell(
        f"{batch.processed_uploads} of {batch.total_uploads} processed "
        f"({batch.progress_percentage:g} %): {batch.successful_uploads} successful, "
        f"{batch.failed_uploads} failed"
    )


def _local(moment: datetime | None) -> str | None:
    return moment.astimezone().strftime("%Y-%m-%d %H:%M:%S") if moment else None
