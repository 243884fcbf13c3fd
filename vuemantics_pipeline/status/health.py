"""Whether the pipeline as a whole is well: queue, worker, model, sensor and books."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from uuid import UUID

from psycopg.rows import class_row

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.ledger.audit import Audit, audit
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries

_SQL = queries("reports")
_SILENCE = timedelta(seconds=60)  # a tick takes 5 s at most, and the next follows within 5 s


@dataclass(frozen=True)
class Queue:
    """What waits and what is at work.

    Attributes:
        unfinished_uploads: of pending and processing batches.
        oldest_pending: when the batch was created that has waited longest.
    """

    pending_batches: int
    processing_batches: int
    unfinished_uploads: int
    oldest_pending: datetime | None


@dataclass(frozen=True)
class RunningBatch:
    """A batch that says `processing`.

    Attributes:
        has_worker: whether a run holds its lease.
        upload_id, stage, attempt_started_at: of the upload in hand, None between two.
    """

    batch_id: UUID
    run_id: str | None
    total_uploads: int
    processed_uploads: int
    has_worker: bool
    upload_id: UUID | None
    stage: str | None
    attempt_started_at: datetime | None


@dataclass(frozen=True)
class Backend:
    """The analyzer in use: `detail` says what was found, or what is wrong and what to do."""

    analyzer: str
    ok: bool
    detail: str


@dataclass(frozen=True)
class Tick:
    """The last time the sensor looked for batches.

    Attributes:
        status: Dagster's word: 'started', 'success', 'skipped' or 'failure'.
    """

    started_at: datetime
    status: str


@dataclass(frozen=True)
class Health:
    """The state of the pipeline.

    Attributes:
        last_tick: None where Dagster has not run on this database, or its tables may not be read.
        problems: what is not well, each a sentence or two that say what to do.
    """

    queue: Queue
    running: Sequence[RunningBatch]
    backend: Backend
    last_tick: Tick | None
    audit: Audit
    problems: Sequence[str]


def pipeline_health(
    connection: Connection, analyzer: Analyzer, *, user_id: UUID | None = None
) -> Health:
    """Look at everything; nothing that is found wrong is raised.

    Args:
        user_id: count and name only what is this user's. Model and sensor are everybody's.
    """
    key = {"user_id": user_id}
    with connection.cursor(row_factory=class_row(Queue)) as cursor:
        queue = cursor.execute(_SQL["queue"], key).fetchone()
    assert queue is not None
    with connection.cursor(row_factory=class_row(RunningBatch)) as cursor:
        running = cursor.execute(_SQL["running"], key).fetchall()
    backend = _backend(analyzer)
    tick = _last_tick(connection)
    books = _audit(connection, user_id)
    problems = _problems(queue, running, backend, tick, books)
    return Health(queue, running, backend, tick, books, problems)


def _backend(analyzer: Analyzer) -> Backend:
    try:
        return Backend(analyzer.identity.analyzer, True, analyzer.check())
    except BackendUnavailable as error:
        return Backend(analyzer.identity.analyzer, False, str(error))


def _last_tick(connection: Connection) -> Tick | None:
    if connection.execute(_SQL["may_read_ticks"]).fetchone() is None:
        return None
    with connection.cursor(row_factory=class_row(Tick)) as cursor:
        return cursor.execute(_SQL["last_tick"]).fetchone()


def _audit(connection: Connection, user_id: UUID | None) -> Audit:
    found = audit(connection)
    if user_id is None:
        return found
    batch_ids = [violation.batch_id for violation in found.violations]
    row = connection.execute(_SQL["owned"], {"user_id": user_id, "batch_ids": batch_ids}).fetchone()
    assert row is not None
    batches, own = row
    return Audit(batches, [one for one in found.violations if one.batch_id in own])


def _problems(
    queue: Queue,
    running: Sequence[RunningBatch],
    backend: Backend,
    tick: Tick | None,
    books: Audit,
) -> list[str]:
    problems = []
    if not backend.ok:
        problems.append(backend.detail)
    if queue.pending_batches and (tick is None or datetime.now(UTC) - tick.started_at > _SILENCE):
        problems.append(
            "Batches wait, but the sensor has not looked for any within the last minute. "
            "Start `vuemantics up`, or look at the daemon's log."
        )
    if tick is not None and tick.status == "failure":
        problems.append("The sensor's last tick failed. The Dagster UI shows why.")
    problems += [
        f"Batch {batch.batch_id} is processing, but no worker holds it. "
        "The sensor gives it back at its next tick; `vuemantics up` has to run for that."
        for batch in running
        if not batch.has_worker
    ]
    if books.violations:
        problems.append(
            "The audit found rows that contradict each other. `vuemantics audit` lists them."
        )
    return problems
