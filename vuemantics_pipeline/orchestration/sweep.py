"""What no run can mend by itself, because it is gone: the sensor sweeps at every look."""

from collections.abc import Iterator

import dagster as dg

from vuemantics_pipeline.ledger import batches
from vuemantics_pipeline.ledger.batches import BackOff, Orphan, RunRequest
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.orchestration.launcher import WatchfulRunLauncher
from vuemantics_pipeline.orchestration.resources import back_off
from vuemantics_pipeline.orchestration.tags import RUN_KEY, run_key
from vuemantics_pipeline.settings import Settings

_AT_ONCE = BackOff(0, 0)
_TERMINATED = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


def offer_again(instance: dg.DagsterInstance, connection: Connection) -> None:
    """Offer batches again whose request was lost: the daemon died before it heard of it.

    At the start of a tick what the tick before asked for has become runs.
    """
    requested = batches.requested_batches(connection)
    if not requested:
        return
    with_keys = dg.RunsFilter(tags={RUN_KEY: [run_key(request) for request in requested]})
    known = {run.tags.get(RUN_KEY) for run in instance.get_runs(with_keys)}
    lost = [request.batch_id for request in requested if run_key(request) not in known]
    batches.unmark_requested(connection, lost)


def is_spent(
    instance: dg.DagsterInstance, connection: Connection, request: RunRequest, settings: Settings
) -> bool:
    """Say whether this try's run has ended before it began; the batch then gets its next try.

    Dagster uses a run key once: a run that failed at launch would otherwise strand its batch.
    """
    if not request.was_requested:
        return False
    with_key = dg.RunsFilter(tags={RUN_KEY: run_key(request)})
    runs = instance.get_runs(with_key, limit=1)
    if not runs or not runs[0].is_finished:
        return False
    batches.requeue(
        connection,
        request.batch_id,
        run_id=runs[0].run_id,
        try_number=request.try_number,
        reason="The last run of this batch ended before it began.",
        backoff=back_off(settings),
        max_tries=settings.max_tries,
    )
    return True


def sweep(
    instance: dg.DagsterInstance, connection: Connection, settings: Settings
) -> Iterator[str]:
    """Mend what no run does by itself.

    Batches whose worker is gone go back to `pending`, and the runs that died with it are ended.
    A batch whose run was being terminated when its worker died is cancelled instead. Runs that
    are still busy long after their batch was cancelled are interrupted.

    Yields:
        A sentence for each batch.
    """
    for orphan in batches.orphaned_batches(connection, grace_seconds=settings.grace_seconds):
        if orphan.run_id is None:
            batches.adopt(connection, orphan.batch_id)
            yield f"Batch {orphan.batch_id} was left by another worker; it is pending again."
            continue
        run = instance.get_run_by_id(orphan.run_id)
        reason = f"The worker of run {orphan.run_id} died; another run takes its batch over."
        # Two at once would share a model. What only lost its connection gives its upload back.
        if run and _end_worker(instance, run):
            reason = f"Run {orphan.run_id} lost its lease; another run takes its batch over."
        if run and run.status in _TERMINATED:
            yield _cancel(instance, connection, orphan, run.run_id)
            continue
        batches.requeue(
            connection,
            orphan.batch_id,
            run_id=orphan.run_id,
            reason=reason,
            backoff=_AT_ONCE,
            max_tries=settings.max_tries,
        )
        run = instance.get_run_by_id(orphan.run_id)
        if run and not run.is_finished:
            instance.report_run_failed(run, reason)
        yield f"Batch {orphan.batch_id}: {reason}"
    for batch_id in batches.cut_off_batches(connection):
        batches.end_cut_off(connection, batch_id)
        yield f"Batch {batch_id} was cancelled, and its worker died; its upload in hand is ended."
    overdue = batches.cancelled_but_held(connection, after_seconds=settings.cancel_seconds)
    for held in overdue:
        if held.run_id and instance.run_coordinator.cancel_run(held.run_id):
            yield f"Batch {held.batch_id} was cancelled; its run {held.run_id} is interrupted."


def _cancel(
    instance: dg.DagsterInstance, connection: Connection, orphan: Orphan, run_id: str
) -> str:
    """Finish what a run was told to do and died of: the batch is not to be taken up again."""
    reason = f"Run {run_id} was terminated in Dagster; what was done is kept."
    batches.cancel(connection, orphan.batch_id, message=reason, run_id=run_id)
    run = instance.get_run_by_id(run_id)
    if run and not run.is_finished:
        instance.report_run_canceled(run, reason)
    return f"Batch {orphan.batch_id}: {reason}"


def _end_worker(instance: dg.DagsterInstance, run: dg.DagsterRun) -> bool:
    launcher = instance.run_launcher
    return isinstance(launcher, WatchfulRunLauncher) and launcher.end_worker(run)
