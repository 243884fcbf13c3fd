"""A batch as a document, and as a report that a person can read."""

from typing import Any
from uuid import UUID

from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.mcp_server.library import Library
from vuemantics_pipeline.mcp_server.words import NOTICE, counted, data
from vuemantics_pipeline.status.batches import batch_run, get_batch, list_failures
from vuemantics_pipeline.status.documents import Document, batch_detail_document
from vuemantics_pipeline.status.explain import FailureGroup, group_failures
from vuemantics_pipeline.status.timing import batch_timing

_EXAMPLES = 10


def batch_detail(library: Library, connection: Connection, batch_id: UUID) -> Document:
    """What `get_batch` and the resource of a batch say.

    Raises:
        UsageError: code 'no_such_batch'.
    """
    batch = get_batch(connection, batch_id, user_id=library.user_id)
    run_id = batch_run(connection, batch_id)
    timing = batch_timing(connection, batch)
    return batch_detail_document(batch, timing, run_id, library.run_url(run_id))


def batch_report(library: Library, connection: Connection, batch_id: UUID) -> str:
    """A batch as Markdown: how it stands, where its time went, and what failed and why.

    Raises:
        UsageError: code 'no_such_batch'.
    """
    detail: dict[str, Any] = batch_detail(library, connection, batch_id)
    groups = group_failures(list_failures(connection, batch_id))
    return "\n\n".join(
        [f"# Batch {batch_id}", _standing(detail), *_times(detail), *_failures(groups)]
    )


def _standing(detail: dict[str, Any]) -> str:
    rows = {
        "Status": detail["status"],
        "Uploads": f"{detail['processed_uploads']} of {detail['total_uploads']} processed "
        f"({detail['progress_percentage']:g} %): {detail['successful_uploads']} successful, "
        f"{detail['failed_uploads']} failed",
        "Created": detail["created_at"],
        "Started": detail["started_at"],
        "Completed": detail["completed_at"],
        "Seconds to finish": detail["seconds_to_finish"],
        "Message": detail["error_message"] and data(detail["error_message"]),
        "Run": detail["run_url"],
    }
    return "\n".join(f"- {name}: {value}" for name, value in rows.items() if value is not None)


def _times(detail: dict[str, Any]) -> list[str]:
    if not detail["stages"]:
        return []
    head = "| Stage | Tries | Sum (s) | Median (s) | 95th percentile (s) |\n|---|--:|--:|--:|--:|"
    rows = (
        f"| {one['stage']} | {one['tries']} | {one['sum_seconds']:.2f} "
        f"| {one['p50_seconds']:.3f} | {one['p95_seconds']:.3f} |"
        for one in detail["stages"]
    )
    return ["## Where the time went", "\n".join([head, *rows])]


def _failures(groups: list[FailureGroup]) -> list[str]:
    parts = ["## Failures", NOTICE] if groups else []
    for group in groups:
        number = counted(len(group.failures), "upload", "uploads")
        files = [
            f"- {data(failure.filename)}: {data(failure.error_message or 'no reason given')}"
            for failure in group.failures[:_EXAMPLES]
        ]
        left = len(group.failures) - len(files)
        parts += [
            f"### {group.error_code or 'failed by another worker'}: {number}",
            *([f"What to do: {group.remedy}"] if group.remedy else []),
            "\n".join([*files, *([f"- and {left} more"] if left else [])]),
        ]
    return parts
