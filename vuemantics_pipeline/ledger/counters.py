"""The counters of a batch, and the word to whoever follows it."""

from uuid import UUID

from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries

PROGRESS_CHANNEL = "vuemantics_progress"
"""Postgres notifies it with {"batch_id"[, "upload_id"]} whenever a batch or an upload moves."""

_SQL = queries("counters")


def recount(connection: Connection, batch_id: UUID) -> None:
    """Set the counters to what the upload rows say. Counting rows cannot count one twice."""
    connection.execute(_SQL["recount"], {"batch_id": batch_id})


def announce(connection: Connection, batch_id: UUID, upload_id: UUID | None = None) -> None:
    """Say that a batch, or an upload in it, has moved; heard only if the transaction commits.

    It also raises the batch's `progress_seq`, so that whoever follows knows what they have missed.
    Call it last, with the batch's row locked.

    Args:
        upload_id: the only upload that moved; None: any of them may have.
    """
    connection.execute(_SQL["announce"], {"batch_id": batch_id, "upload_id": upload_id})


def mark_fruitful(connection: Connection, batch_id: UUID) -> None:
    """Note that a run got something done, so that its end does not count towards the back-off."""
    connection.execute(_SQL["mark_fruitful"], {"batch_id": batch_id})
