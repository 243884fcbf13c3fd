"""Where a batch's time goes, and how much of it is left."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.records import Batch, BatchStatus, Stage

_SQL = queries("reports")
_ORDER = [stage.value for stage in Stage]

TIMED_STAGES = tuple(stage for stage in Stage if stage not in (Stage.QUEUED, Stage.INDEXING))
"""Those in which work is done; the others are a moment at the beginning and at the end."""


@dataclass(frozen=True)
class StageTiming:
    """Wall-clock seconds that one stage took in a batch, over all tries that reached it.

    Attributes:
        p50_seconds, p95_seconds: of a single try.
    """

    stage: str
    tries: int
    sum_seconds: float
    p50_seconds: float
    p95_seconds: float


@dataclass(frozen=True)
class BatchTiming:
    """How long a batch took so far, and takes still.

    Attributes:
        stages: in the order an upload goes through them.
        seconds_to_finish: at the pace of the run at work; None while no run is, or before it has
            finished an upload.
    """

    stages: Sequence[StageTiming]
    seconds_to_finish: float | None


def batch_timing(connection: Connection, batch: Batch) -> BatchTiming:
    """Measure a batch by its own attempts; those that a re-run superseded do not count."""
    stages = stage_timings(connection, batch.batch_id)
    return BatchTiming(stages, seconds_to_finish(batch, paces(connection, [batch.batch_id])))


def stage_timings(connection: Connection, batch_id: UUID) -> Sequence[StageTiming]:
    """Return what each stage took in a batch, in the order an upload goes through them."""
    with connection.cursor(row_factory=class_row(StageTiming)) as cursor:
        stages = cursor.execute(_SQL["stage_seconds"], {"batch_id": batch_id}).fetchall()
    return sorted(stages, key=lambda timing: _ORDER.index(timing.stage))


def paces(connection: Connection, batch_ids: Sequence[UUID]) -> dict[UUID, float]:
    """Return how many seconds the run at work takes for an upload, by batch.

    A batch is left out while no run is at work on it, or before it has finished an upload.
    """
    rows = connection.execute(_SQL["paces"], {"batch_ids": list(batch_ids)}).fetchall()
    return {batch_id: pace for batch_id, pace in rows if pace is not None}


def seconds_to_finish(batch: Batch, pace: Mapping[UUID, float]) -> float | None:
    """Return how long a batch still takes at its pace; None where that is not known."""
    if batch.status is not BatchStatus.PROCESSING or batch.batch_id not in pace:
        return None
    left = batch.total_uploads - batch.processed_uploads
    return round(max(left, 0) * pace[batch.batch_id], 1)
