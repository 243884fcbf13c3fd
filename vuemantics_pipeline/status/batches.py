"""How batches stand, and the uploads in them."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from uuid import UUID

from psycopg import sql
from psycopg.rows import class_row, kwargs_row

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.connection import Connection, database_errors
from vuemantics_pipeline.ledger.counters import PROGRESS_CHANNEL
from vuemantics_pipeline.ledger.leases import no_such_batch
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.records import Batch, BatchStatus
from vuemantics_pipeline.status.paging import Position, after

_SQL = queries("status")
_REREAD_SECONDS = 1.0
_GATHER_SECONDS = 0.1


class Outcome(StrEnum):
    """How far an upload has come, in what matters to its owner."""

    COMPLETED = "completed"
    FAILED = "failed"
    UNFINISHED = "unfinished"


@dataclass(frozen=True)
class UploadRow:
    """One upload of a batch.

    Attributes:
        description_audit_score: 0-100.
        attempts: tries used up so far, 0-2.
        seconds: wall-clock time of all tries that have ended, None before the first has.
    """

    upload_id: UUID
    filename: str
    processing_status: str
    description: str | None
    description_audit_score: int | None
    error_message: str | None
    created_at: datetime
    attempts: int
    seconds: float | None


@dataclass(frozen=True)
class Failure:
    """An upload that failed for good.

    Attributes:
        error_code, remedy: None where the application's own worker failed it.
        attempts: tries used up.
    """

    upload_id: UUID
    filename: str
    error_code: str | None
    error_message: str | None
    remedy: str | None
    attempts: int | None


def parse_batch_id(text: str) -> UUID:
    """Read a batch id as a person or a client gives it.

    Raises:
        UsageError: code 'not_a_batch_id'.
    """
    try:
        return UUID(text.strip())
    except ValueError:
        raise UsageError(
            "not_a_batch_id",
            f"{text!r} is not a batch id: those look like 1b4e28ba-2fa1-4d2f-883f-0016d3cca427.",
            "`vuemantics batches` lists the batches there are.",
        ) from None


def list_batches(
    connection: Connection,
    *,
    status: BatchStatus | None = None,
    user_id: UUID | None = None,
    since: datetime | None = None,
    position: Position | None = None,
    limit: int = 50,
) -> list[Batch]:
    """Return the newest batches first, at most `limit`.

    Args:
        status: only batches with this status.
        user_id: only batches of this user.
        since: only batches created then or later; a time with a zone.
        position: only batches after this one.
    """
    parameters = {"status": status, "user_id": user_id, "since": since, "limit": limit}
    with connection.cursor(row_factory=kwargs_row(as_batch)) as cursor:
        return cursor.execute(_SQL["batches"], parameters | after(position)).fetchall()


def get_batch(connection: Connection, batch_id: UUID, *, user_id: UUID | None = None) -> Batch:
    """Return one batch.

    Args:
        user_id: there are no other users' batches.

    Raises:
        UsageError: code 'no_such_batch'.
    """
    with connection.cursor(row_factory=kwargs_row(as_batch)) as cursor:
        batch = cursor.execute(_SQL["batch"], {"batch_id": batch_id}).fetchone()
    if batch is None or user_id not in (None, batch.user_id):
        raise no_such_batch(batch_id)
    return batch


def follow_batch(connection: Connection, batch_id: UUID) -> Iterator[Batch]:
    """Yield a batch as it is now, and again whenever it may have moved, until it has ended.

    It waits for Postgres to announce a change, and reads again every second besides: changes by
    the application itself are not announced.

    Raises:
        UsageError: code 'no_such_batch', also when it is deleted meanwhile.
        BackendUnavailable: the connection is lost.
    """
    channel = sql.Identifier(PROGRESS_CHANNEL)
    with database_errors(connection):
        connection.execute(sql.SQL("LISTEN {}").format(channel))
        try:
            while True:
                batch = get_batch(connection, batch_id)
                yield batch
                if batch.status.is_terminal:
                    return
                if list(connection.notifies(timeout=_REREAD_SECONDS, stop_after=1)):
                    # A quick batch announces hundreds of changes a second: read once for all.
                    list(connection.notifies(timeout=_GATHER_SECONDS))
        finally:
            connection.execute(sql.SQL("UNLISTEN {}").format(channel))


def list_uploads(
    connection: Connection,
    batch_id: UUID,
    *,
    outcome: Outcome | None = None,
    position: Position | None = None,
    limit: int | None = None,
) -> list[UploadRow]:
    """Return a batch's uploads in the order they were added; none for an unknown batch.

    Args:
        outcome: only uploads with this outcome.
        position: only uploads after this one.
        limit: how many at most, None: all.
    """
    parameters = {"batch_id": batch_id, "outcome": outcome, "limit": limit}
    with connection.cursor(row_factory=class_row(UploadRow)) as cursor:
        return cursor.execute(_SQL["uploads"], parameters | after(position)).fetchall()


def list_failures(connection: Connection, batch_id: UUID) -> Sequence[Failure]:
    """Return the uploads of a batch that failed for good, each with the reason of its last try."""
    with connection.cursor(row_factory=class_row(Failure)) as cursor:
        return cursor.execute(_SQL["failures"], {"batch_id": batch_id}).fetchall()


def batch_run(connection: Connection, batch_id: UUID) -> str | None:
    """Return the id of the Dagster run that was last given the batch, or None before any was."""
    row = connection.execute(_SQL["batch_run"], {"batch_id": batch_id}).fetchone()
    return row[0] if row else None


def as_batch(
    *,
    batch_id: UUID,
    user_id: UUID,
    status: str,
    total_uploads: int,
    processed_uploads: int,
    successful_uploads: int,
    failed_uploads: int,
    error_message: str | None,
    created_at: datetime,
    started_at: datetime | None,
    completed_at: datetime | None,
) -> Batch:
    """Return a row as a record: the status as our word for it, times in UTC, whatever the zone."""
    return Batch(
        batch_id=batch_id,
        user_id=user_id,
        status=BatchStatus(status),
        total_uploads=total_uploads,
        processed_uploads=processed_uploads,
        successful_uploads=successful_uploads,
        failed_uploads=failed_uploads,
        error_message=error_message,
        created_at=created_at.astimezone(UTC),
        started_at=started_at and started_at.astimezone(UTC),
        completed_at=completed_at and completed_at.astimezone(UTC),
    )
