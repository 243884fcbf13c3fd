"""What happens to a batch: offered, opened, closed, requeued, failed, cancelled."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from vuemantics_pipeline.errors import PipelineError, UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.counters import announce, mark_fruitful, recount
from vuemantics_pipeline.ledger.leases import BatchStopped, Lease, guard
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.records import BatchStatus, Scope, UploadKey
from vuemantics_pipeline.ledger.reruns import reset_uploads
from vuemantics_pipeline.ledger.text import storable
from vuemantics_pipeline.ledger.transactions import transaction

BATCH_CHANNEL = "vuemantics_batches"
"""Postgres notifies it whenever a batch is added or its status or total changes."""

DIED_TWICE = "The worker died twice while processing this file."

_SQL = queries("batches")


@dataclass(frozen=True)
class RunRequest:
    """A batch that wants a run. `(batch_id, try_number)` is unique for each run.

    Attributes:
        was_requested: this try was asked for before, and has not begun.
    """

    batch_id: UUID
    user_id: UUID
    try_number: int
    was_requested: bool


@dataclass(frozen=True)
class Orphan:
    """A batch that says `processing` while no worker holds its lease.

    Attributes:
        run_id: of the run that held it last; None if it was never one of ours.
    """

    batch_id: UUID
    run_id: str | None


@dataclass(frozen=True)
class Closed:
    """How a batch stands after `close_batch`: it is done only when `unfinished` is 0."""

    total: int
    successful: int
    failed: int
    unfinished: int


@dataclass(frozen=True)
class BackOff:
    """How long a batch waits after runs that got nothing done, in seconds.

    Not at all after the first, then base, 2 * base, 4 * base, ... up to max.
    """

    base_seconds: float
    max_seconds: float

    def wait_seconds(self, in_a_row: int) -> float:
        if in_a_row <= 1:
            return 0
        return min(self.base_seconds * 2.0 ** min(in_a_row - 2, 30), self.max_seconds)


def ready_batches(
    connection: Connection, *, limit: int, grace_seconds: float
) -> Sequence[RunRequest]:
    """Return pending batches that are wholly there, oldest first, at most `limit`.

    A batch is ready when its uploads number `total_uploads`, or when nothing has been added for
    `grace_seconds`. A batch asked for within the last minute is left out: its run is on its way.
    """
    with connection.cursor(row_factory=class_row(RunRequest)) as cursor:
        parameters = {"limit": limit, "grace_seconds": grace_seconds}
        return cursor.execute(_SQL["ready"], parameters).fetchall()


def mark_requested(connection: Connection, batch_ids: Sequence[UUID]) -> None:
    """Remember that runs were asked for, so that the next tick offers other batches."""
    connection.execute(_SQL["mark_requested"], {"batch_ids": list(batch_ids)})


def requested_batches(connection: Connection) -> Sequence[RunRequest]:
    """Return pending batches whose run was asked for 4 to 60 s ago: in a tick that has ended."""
    with connection.cursor(row_factory=class_row(RunRequest)) as cursor:
        return cursor.execute(_SQL["requested"]).fetchall()


def unmark_requested(connection: Connection, batch_ids: Sequence[UUID]) -> None:
    """Offer batches again whose requests went astray."""
    connection.execute(_SQL["unmark_requested"], {"batch_ids": list(batch_ids)})


def orphaned_batches(connection: Connection, *, grace_seconds: float) -> Sequence[Orphan]:
    """Return `processing` batches without a worker.

    A batch that no run of this pipeline ever held belongs to some other worker; it counts as
    orphaned only after `grace_seconds` without any change.
    """
    with connection.cursor(row_factory=class_row(Orphan)) as cursor:
        return cursor.execute(_SQL["orphaned"], {"grace_seconds": grace_seconds}).fetchall()


def require_filled(connection: Connection, batch_id: UUID, *, grace_seconds: float) -> None:
    """Refuse a batch that the application is still adding uploads to.

    Raises:
        UsageError: code 'batch_is_filling'.
    """
    key = {"batch_id": batch_id, "grace_seconds": grace_seconds}
    row = connection.execute(_SQL["filling"], key).fetchone()
    if row is not None:
        raise UsageError(
            "batch_is_filling",
            f"Only {row[0]} of the {row[1]} uploads of batch {batch_id} have arrived.",
            "The sensor starts it by itself once they are all there.",
        )


def open_batch(
    lease: Lease, *, reopen: bool, scope: Scope = Scope.UNFINISHED, root_run_id: str = ""
) -> Sequence[UploadKey]:
    """Set a batch to `processing` and return its unfinished uploads, oldest first.

    Attempts that a dead worker left open are used up; an upload that has none left is failed.

    Args:
        reopen: a person asked for this run, so a batch that has ended is taken up again.
        scope: finished uploads to begin anew.
        root_run_id: of the run that was first given this scope. Re-executions of it share it:
            they go on with what it began, and reset nothing again.

    Raises:
        BatchStopped: the batch has ended, and `reopen` is not set.
        LeaseLost: another run took over.
    """
    connection, key = lease.connection, {"batch_id": lease.batch_id}
    with transaction(connection):
        status = BatchStatus(guard(lease))
        if status.is_terminal and not reopen:
            raise BatchStopped(
                "batch_stopped", f"Batch {lease.batch_id} is {status}; there is nothing to run."
            )
        dead = _end_open_attempts(connection, lease.batch_id)
        worn_out = connection.execute(_SQL["fail_worn_out"], key | {"error_message": DIED_TWICE})
        if dead or worn_out.rowcount:
            # Using up an attempt is getting on, too: it cannot go on for ever.
            mark_fruitful(connection, lease.batch_id)
        connection.execute(_SQL["return_interrupted"], key)
        if scope.reset and _is_first(connection, lease.batch_id, root_run_id):
            reset_uploads(connection, lease.batch_id, scope)
        recount(connection, lease.batch_id)
        with connection.cursor(row_factory=class_row(UploadKey)) as cursor:
            unfinished = cursor.execute(_SQL["unfinished"], key).fetchall()
        if unfinished or not status.is_terminal:
            connection.execute(_SQL["open"], key)
        announce(connection, lease.batch_id)
    return unfinished


def close_batch(lease: Lease) -> Closed:
    """Count what is there and, if nothing is left to do, set the batch to `completed`.

    Raises:
        BatchStopped: the batch was cancelled.
        LeaseLost: another run took over.
    """
    connection, key = lease.connection, {"batch_id": lease.batch_id}
    with transaction(connection):
        status = BatchStatus(guard(lease))
        if status is BatchStatus.CANCELLED:
            raise BatchStopped("batch_stopped", f"Batch {lease.batch_id} was cancelled.")
        row = connection.execute(_SQL["count"], key).fetchone()
        assert row is not None
        total, successful, failed, expected = row
        closed = Closed(total, successful, failed, total - successful - failed)
        if closed.unfinished == 0 and not status.is_terminal:
            connection.execute(
                _SQL["complete"], key | {"message": _summary(closed, expected), "total": total}
            )
            recount(connection, lease.batch_id)
            announce(connection, lease.batch_id)
    return closed


def requeue(
    connection: Connection,
    batch_id: UUID,
    *,
    run_id: str,
    try_number: int | None = None,
    reason: str,
    backoff: BackOff,
    max_tries: int | None = None,
) -> BatchStatus | None:
    """Give an unfinished batch back to the sensor after the run that held it has ended.

    Idempotent: only the run that was the last to be given the batch can return it, once.

    Args:
        try_number: of a run that may have ended before it took the lease.
        reason: what ended the run; stored as the batch's `error_message` until it goes on.
        max_tries: after so many runs in a row that got nothing done the batch is failed instead.
            None: never, for ends that are no fault of the batch.

    Returns:
        The batch's new status, or None where nothing was to be done.
    """
    key = {"batch_id": batch_id, "run_id": run_id, "try_number": try_number}
    message = storable(reason)
    with transaction(connection):
        row = connection.execute(_SQL["lock_held_by_run"], key).fetchone()
        if row is None:
            return None
        fruitless_runs, outages = row
        if max_tries is None:
            outages += 1
        else:
            fruitless_runs += 1
        if max_tries is not None and fruitless_runs >= max_tries:
            _end_open_attempts(connection, batch_id)
            connection.execute(_SQL["return_interrupted"], key)
            connection.execute(_SQL["fail"], key | {"message": message})
            status = BatchStatus.FAILED
        else:
            in_a_row = outages if max_tries is None else fruitless_runs
            connection.execute(_SQL["back_to_pending"], key | {"message": message})
            connection.execute(
                _SQL["next_try"],
                {
                    "batch_id": batch_id,
                    "fruitless_runs": fruitless_runs,
                    "outages": outages,
                    "wait_seconds": backoff.wait_seconds(in_a_row),
                },
            )
            status = BatchStatus.PENDING
        recount(connection, batch_id)
        announce(connection, batch_id)
    return status


def adopt(connection: Connection, batch_id: UUID) -> None:
    """Return to `pending` a batch that another worker left in `processing`.

    A batch that a run has taken meanwhile is left to it.
    """
    with transaction(connection):
        if connection.execute(_SQL["adopt"], {"batch_id": batch_id}).rowcount == 1:
            recount(connection, batch_id)
            announce(connection, batch_id)


def cancel(
    connection: Connection,
    batch_id: UUID,
    *,
    message: str,
    run_id: str | None = None,
    try_number: int | None = None,
) -> bool:
    """Set a batch that has not ended to `cancelled`; what is done is kept.

    Args:
        run_id, try_number: of the run that was cancelled; then the batch follows only if it was
            the last to be given the batch.

    Returns:
        Whether that changed anything.
    """
    key = {"batch_id": batch_id, "run_id": run_id, "try_number": try_number}
    with transaction(connection):
        if run_id and connection.execute(_SQL["lock_held_by_run"], key).fetchone() is None:
            return False
        cancelled = connection.execute(_SQL["cancel"], key | {"message": storable(message)})
        changed = cancelled.rowcount == 1
        if changed:
            recount(connection, batch_id)
            announce(connection, batch_id)
    return changed


def cancelled_but_held(connection: Connection, *, after_seconds: float) -> Sequence[Orphan]:
    """Return cancelled batches whose run had that long to stop, and has not."""
    with connection.cursor(row_factory=class_row(Orphan)) as cursor:
        parameters = {"after_seconds": after_seconds}
        return cursor.execute(_SQL["cancelled_but_held"], parameters).fetchall()


def cut_off_batches(connection: Connection) -> Sequence[UUID]:
    """Return cancelled batches whose worker died before it could end the upload in hand."""
    return [batch_id for (batch_id,) in connection.execute(_SQL["cut_off"])]


def end_cut_off(connection: Connection, batch_id: UUID) -> None:
    """End what the dead worker of a cancelled batch left open. Repeating it changes nothing."""
    key = {"batch_id": batch_id}
    with transaction(connection):
        if connection.execute(_SQL["lock_cut_off"], key).fetchone() is None:
            return
        _end_open_attempts(connection, batch_id)
        connection.execute(_SQL["fail_worn_out"], key | {"error_message": DIED_TWICE})
        connection.execute(_SQL["return_interrupted"], key)
        recount(connection, batch_id)
        announce(connection, batch_id)


def release_own_attempts(
    connection: Connection, batch_id: UUID, *, run_id: str, reason: PipelineError
) -> None:
    """Give back whatever attempt a run left open when its own connection died under it.

    Needs no lease: it touches only attempts of that run, and none that somebody has closed.
    """
    with transaction(connection):
        connection.execute(_SQL["lock"], {"batch_id": batch_id})
        released = connection.execute(
            _SQL["release_own_attempts"],
            {
                "batch_id": batch_id,
                "run_id": run_id,
                "error_code": reason.code,
                "error_message": storable(reason.message),
            },
        )
        if released.rowcount:
            recount(connection, batch_id)
            announce(connection, batch_id)


def _end_open_attempts(connection: Connection, batch_id: UUID) -> int:
    """End what a worker that is gone left open; return how many attempts that used up."""
    connection.execute(_SQL["release_cut_off"], {"batch_id": batch_id})
    return connection.execute(_SQL["end_dead_attempts"], {"batch_id": batch_id}).rowcount


def _is_first(connection: Connection, batch_id: UUID, root_run_id: str) -> bool:
    key = {"batch_id": batch_id, "root_run_id": root_run_id}
    return connection.execute(_SQL["note_reset"], key).rowcount == 1


def _summary(closed: Closed, expected: int) -> str | None:
    """The batch's `error_message` at its end: what a person should know, or None."""
    if closed.total == 0:
        return "None of the files offered was accepted, so there was nothing to process."
    notes = []
    if closed.failed:
        notes.append(f"{closed.failed} of {closed.total} uploads failed.")
    if expected > closed.total:
        notes.append(f"{expected - closed.total} of {expected} announced files never arrived.")
    return " ".join(notes) or None
