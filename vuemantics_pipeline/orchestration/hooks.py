"""Run-status sensors: after every run of a batch they leave the batch row true.

A run that ends in an orderly way has settled its batch already, and these change nothing. They
are for runs that ended otherwise, and may be repeated: only the run that was the last to be given
the batch can move it, and only once.
"""

from collections.abc import Callable

import dagster as dg

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger import batches
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.orchestration.resources import back_off
from vuemantics_pipeline.orchestration.story import tell_of_cancellation
from vuemantics_pipeline.orchestration.tags import BatchRun, batch_run
from vuemantics_pipeline.settings import Settings, load_settings

_ON = dg.DefaultSensorStatus.RUNNING


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.SUCCESS,
    name="batch_after_success",
    description="Gives a batch back if its run succeeded without finishing it.",
    minimum_interval_seconds=1,
    default_status=_ON,
)
def batch_after_success(context: dg.RunStatusSensorContext) -> dg.SkipReason:
    return _settle(context.dagster_run, _requeue("The run ended before every upload was done."))


@dg.run_failure_sensor(
    name="batch_after_failure",
    description="Gives a batch back after a failed run, or fails it after too many in a row.",
    minimum_interval_seconds=1,
    default_status=_ON,
)
def batch_after_failure(context: dg.RunFailureSensorContext) -> dg.SkipReason:
    return _settle(context.dagster_run, _requeue(_failure_reason(context.failure_event)))


@dg.run_status_sensor(
    run_status=dg.DagsterRunStatus.CANCELED,
    name="batch_after_cancellation",
    description="Sets the batch of a terminated run to cancelled; the run says why it ended.",
    minimum_interval_seconds=1,
    default_status=_ON,
)
def batch_after_cancellation(context: dg.RunStatusSensorContext) -> dg.SkipReason:
    return _settle(context.dagster_run, _cancel(context.instance, context.dagster_run))


def _failure_reason(event: dg.DagsterEvent) -> str:
    error = getattr(event.event_specific_data, "error", None)
    return (error.message if error else event.message or "").strip() or "The run failed."


_Settlement = Callable[[Connection, BatchRun, Settings], str]


def _settle(run: dg.DagsterRun, settlement: _Settlement) -> dg.SkipReason:
    try:
        batch = batch_run(run)
    except UsageError:
        return dg.SkipReason(f"Run {run.run_id} is not a run of a batch.")
    settings = load_settings()
    with connect(settings.require_database_url()) as connection:
        return dg.SkipReason(settlement(connection, batch, settings))


def _requeue(reason: str) -> _Settlement:
    def settlement(connection: Connection, run: BatchRun, settings: Settings) -> str:
        status = batches.requeue(
            connection,
            run.batch_id,
            run_id=run.run_id,
            try_number=run.try_number,
            reason=reason,
            backoff=back_off(settings),
            max_tries=settings.max_tries,
        )
        return f"Batch {run.batch_id} is {status} now." if status else _nothing(run)

    return settlement


def _cancel(instance: dg.DagsterInstance, cancelled: dg.DagsterRun) -> _Settlement:
    def settlement(connection: Connection, run: BatchRun, settings: Settings) -> str:  # noqa: ARG001
        changed = batches.cancel(
            connection,
            run.batch_id,
            message=f"Run {run.run_id} was terminated in Dagster; what was done is kept.",
            run_id=run.run_id,
            try_number=run.try_number,
        )
        tell_of_cancellation(instance, connection, cancelled, run.batch_id)
        return f"Batch {run.batch_id} is cancelled now." if changed else _nothing(run)

    return settlement


def _nothing(run: BatchRun) -> str:
    return f"Batch {run.batch_id} was settled already."
