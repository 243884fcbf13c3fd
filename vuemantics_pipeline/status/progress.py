"""How far batches and uploads have come, each with the number of the change that brought it there.

A batch's `progress_seq` is raised in the transaction of every change that is announced, while the
batch's row is locked, so the numbers of a batch become visible in order. Whoever has read a batch
at number n, and then all that bears a higher one, has missed nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any, LiteralString
from uuid import UUID

from psycopg.rows import dict_row, kwargs_row

from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.records import Batch, BatchStatus, Stage, UploadStatus
from vuemantics_pipeline.status.batches import Outcome, as_batch
from vuemantics_pipeline.status.paging import Position, after
from vuemantics_pipeline.status.percent import DONE, percent
from vuemantics_pipeline.status.timing import paces, seconds_to_finish

_SQL = queries("progress")
_STATUSES = frozenset(status.value for status in BatchStatus)
# Of an upload that another worker has in hand, which writes no attempts.
_STAGE_OF_STATUS: Mapping[str, Stage] = {
    UploadStatus.PENDING: Stage.QUEUED,
    UploadStatus.ANALYZING: Stage.VISION_ANALYSIS,
    UploadStatus.EMBEDDING: Stage.EMBEDDING_GENERATION,
}


@dataclass(frozen=True)
class BatchProgress:
    """How far a batch has come.

    Attributes:
        seq: raised by every change that is announced.
        sweeping_seq: of the last change that may have moved any upload of the batch.
        seconds_to_finish: at the pace of the run at work; None while no run is, or before it has
            finished an upload.
    """

    batch: Batch
    seq: int
    sweeping_seq: int
    seconds_to_finish: float | None


@dataclass(frozen=True)
class UploadProgress:
    """How far an upload has come.

    Attributes:
        file_size: in bytes.
        stage: in the words of the application's messages: of `Stage`, `completed` or `failed`.
        progress_percent: 0-100; see `status/percent.py`.
        frames_done, frames_total: of a video in the hands of the vision model.
        attempts: tries begun and not given back since it was last asked for, 0-2.
        description_audit_score: 0-100.
        thumbnail_path: relative to UPLOAD_PATH.
        seq: of the last change of its batch that named this upload, 0 if none has.
    """

    upload_id: UUID
    batch_id: UUID | None
    user_id: UUID
    filename: str
    file_size: int
    file_type: str
    processing_status: str
    stage: str
    progress_percent: int
    frames_done: int | None
    frames_total: int | None
    attempts: int
    description: str | None
    description_audit_score: int | None
    error_message: str | None
    thumbnail_path: str | None
    created_at: datetime
    seq: int

    @property
    def position(self) -> Position:
        """Where it stands in the list of its batch's uploads."""
        return Position(self.created_at, self.upload_id)


def batch_progress(
    connection: Connection, batch_ids: Sequence[UUID], *, measured: bool = True
) -> list[BatchProgress]:
    """Return how far some batches have come, in any order; those that are not there are left out.

    Args:
        measured: with the time to finish, which costs more than the rest.
    """
    found = _batches(connection, _SQL["batches_by_id"], {"batch_ids": list(batch_ids)})
    return with_time_to_finish(connection, found, paces) if measured else found


def running_batches(connection: Connection, user_id: UUID | None = None) -> list[BatchProgress]:
    """Return how far the batches that have not ended have come, oldest first, unmeasured.

    Args:
        user_id: only this user's.
    """
    return _batches(connection, _SQL["running_batches"], {"user_id": user_id})


def with_time_to_finish(
    connection: Connection,
    found: Sequence[BatchProgress],
    measure: Callable[[Connection, Sequence[UUID]], Mapping[UUID, float]],
) -> list[BatchProgress]:
    """Add to batches how long they still take.

    Args:
        measure: how to learn the seconds that an upload takes, by batch.
    """
    at_work = [p.batch.batch_id for p in found if p.batch.status is BatchStatus.PROCESSING]
    pace = measure(connection, at_work) if at_work else {}
    return [replace(p, seconds_to_finish=seconds_to_finish(p.batch, pace)) for p in found]


def upload_progress(connection: Connection, upload_ids: Sequence[UUID]) -> list[UploadProgress]:
    """Return how far some uploads have come, in any order; those not there are left out."""
    return _uploads(connection, _SQL["uploads_by_id"], {"upload_ids": list(upload_ids)})


def uploads_page(
    connection: Connection,
    batch_id: UUID,
    *,
    outcome: Outcome | None = None,
    position: Position | None = None,
    limit: int,
) -> list[UploadProgress]:
    """Return at most `limit` uploads of a batch, in the order they were added.

    Args:
        outcome: only uploads with this outcome.
        position: only uploads after this one.
    """
    parameters = {"batch_id": batch_id, "outcome": outcome, "limit": limit}
    return _uploads(connection, _SQL["uploads_page"], parameters | after(position))


def uploads_of_batches(connection: Connection, batch_ids: Sequence[UUID]) -> list[UploadProgress]:
    """Return all uploads of some batches, in any order."""
    return _uploads(connection, _SQL["uploads_of_batches"], {"batch_ids": list(batch_ids)})


def uploads_in_hand(connection: Connection, batch_ids: Sequence[UUID]) -> list[UploadProgress]:
    """Return the uploads of some batches that a worker is at, in any order."""
    return _uploads(connection, _SQL["uploads_in_hand"], {"batch_ids": list(batch_ids)})


def uploads_moved(
    connection: Connection, after_seqs: Mapping[UUID, int], *, limit: int | None = None
) -> list[UploadProgress]:
    """Return the uploads that changes since then have named, in the order of those changes.

    Args:
        after_seqs: batch -> number of the last change that is known already.
        limit: how many at most, None: all.
    """
    return _uploads(
        connection,
        _SQL["uploads_moved"],
        {
            "batch_ids": list(after_seqs),
            "after_seqs": list(after_seqs.values()),
            "limit": limit,
        },
    )


def _batches(
    connection: Connection, condition: LiteralString, parameters: dict[str, Any]
) -> list[BatchProgress]:
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_SQL["batches"] + "\n" + condition, parameters).fetchall()
    return [
        BatchProgress(
            seq=row.pop("seq"),
            sweeping_seq=row.pop("sweeping_seq"),
            seconds_to_finish=None,
            batch=as_batch(**row),
        )
        for row in rows
        # Where the column has no CHECK, it may hold what is no status of a batch.
        if row["status"] in _STATUSES
    ]


def _uploads(
    connection: Connection, condition: LiteralString, parameters: dict[str, Any]
) -> list[UploadProgress]:
    with connection.cursor(row_factory=kwargs_row(_upload)) as cursor:
        return cursor.execute(_SQL["uploads"] + "\n" + condition, parameters).fetchall()


def _upload(
    *,
    processing_status: str,
    stage: str | None,
    reached: list[dict[str, float]],
    frame_share: float,
    created_at: datetime,
    **columns: Any,
) -> UploadProgress:
    """A row as a record.

    Args:
        stage: of the attempt that is open, None if none is.
        reached: the stages of each attempt since the upload was last asked for.
    """
    if processing_status in (UploadStatus.COMPLETED, UploadStatus.FAILED):
        stage, progress_percent = processing_status, DONE
    else:
        stage = Stage(stage or _STAGE_OF_STATUS.get(processing_status, Stage.QUEUED))
        all_reached = [stage, *(Stage(name) for names in reached for name in names)]
        progress_percent = percent(all_reached, frame_share)
    return UploadProgress(
        processing_status=processing_status,
        stage=stage,
        progress_percent=progress_percent,
        created_at=created_at.astimezone(UTC),
        **columns,
    )
