"""What is told of a batch at its end: how much it was, how long it took, what it came to."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from uuid import UUID

from psycopg.rows import class_row

from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.leases import no_such_batch
from vuemantics_pipeline.ledger.queries import queries

_SQL = queries("facts")


@dataclass(frozen=True)
class BatchFacts:
    """A row of the view `batch_facts`.

    Attributes:
        uploads_reused: took over what was made of the same bytes; no model was asked.
        bytes_total: of the files.
        duration_seconds: in which a run was at work; None before the first attempt.
        seconds_waiting_in_queue: from the last upload's arrival to the start; None before that.
        uploads_per_minute: None without a duration.
        audit_score_mean: 0-100; None if nothing is described.
        attempts_total: used up, those that a re-run superseded left out.
        takeovers: how often another run had to go on with it.
        analyzer, vision_model, embedding_model, prompt_version: of the newest attempt.
    """

    batch_id: UUID
    user_id: UUID
    status: str
    uploads_total: int
    uploads_succeeded: int
    uploads_failed: int
    uploads_reused: int
    bytes_total: int
    duration_seconds: float | None
    seconds_waiting_in_queue: float | None
    uploads_per_minute: float | None
    audit_score_mean: float | None
    attempts_total: int
    takeovers: int
    analyzer: str | None
    vision_model: str | None
    embedding_model: str | None
    prompt_version: str | None

    @property
    def seconds_per_upload(self) -> float | None:
        """Of `duration_seconds`, for each upload that was finished."""
        finished = self.uploads_succeeded + self.uploads_failed
        if self.duration_seconds is None or finished == 0:
            return None
        return self.duration_seconds / finished


@dataclass(frozen=True)
class UsualPace:
    """How long an upload usually takes.

    Attributes:
        batches: how many it was measured on.
        seconds_per_upload: their median, None for none.
    """

    batches: int
    seconds_per_upload: float | None


@dataclass(frozen=True)
class Thumbnail:
    """Where an upload's thumbnail is said to be.

    Attributes:
        thumbnail_path: as stored, relative to UPLOAD_PATH and not yet trusted.
    """

    user_id: UUID
    thumbnail_path: str


@dataclass(frozen=True)
class PoorDescription:
    """An upload whose description the audit does not think fit for search.

    Attributes:
        audit_score: 0-100.
    """

    upload_id: UUID
    filename: str
    audit_score: int
    description: str


def batch_facts(connection: Connection, batch_id: UUID) -> BatchFacts:
    """Return the facts of one batch.

    Raises:
        UsageError: code 'no_such_batch'.
    """
    with connection.cursor(row_factory=class_row(BatchFacts)) as cursor:
        facts = cursor.execute(_SQL["batch"], {"batch_id": batch_id}).fetchone()
    if facts is None:
        raise no_such_batch(batch_id)
    return facts


def usual_pace(connection: Connection, facts: BatchFacts, *, batches: int) -> UsualPace:
    """Measure the last completed batches, but for this one.

    Args:
        batches: how many to look at. Those of another analyzer or vision model are left out.
    """
    parameters = {
        "batch_id": facts.batch_id,
        "limit": batches,
        "analyzer": facts.analyzer,
        "vision_model": facts.vision_model,
    }
    paces = [pace for (pace,) in connection.execute(_SQL["recent_paces"], parameters)]
    return UsualPace(len(paces), median(paces) if paces else None)


def list_thumbnails(connection: Connection, batch_id: UUID, *, limit: int) -> Sequence[Thumbnail]:
    """Return the thumbnails of a batch in the order its uploads were added, at most `limit`."""
    with connection.cursor(row_factory=class_row(Thumbnail)) as cursor:
        parameters = {"batch_id": batch_id, "limit": limit}
        return cursor.execute(_SQL["thumbnails"], parameters).fetchall()


def list_poor_descriptions(
    connection: Connection, batch_id: UUID, *, pass_mark: int
) -> Sequence[PoorDescription]:
    """Return a batch's uploads that score below `pass_mark`, the worst first."""
    with connection.cursor(row_factory=class_row(PoorDescription)) as cursor:
        parameters = {"batch_id": batch_id, "pass_mark": pass_mark}
        return cursor.execute(_SQL["poor_descriptions"], parameters).fetchall()


def first_error(connection: Connection, upload_id: UUID) -> str | None:
    """Return why the first try at an upload failed, or None if it did not."""
    row = connection.execute(_SQL["first_error"], {"upload_id": upload_id}).fetchone()
    return row[0] if row else None
