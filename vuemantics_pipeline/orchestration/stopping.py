"""How a run ends before its uploads do: the batch is given back first, then the run stops.

An exception alone cannot stop a run: the in-process executor takes it for the failure of one
step, and with a retry policy even a request to terminate only counts as a retry. So an op fails
with `StopRun`, and the hook on that failure raises what the executor does not catch.
"""

from collections.abc import Iterator
from contextlib import contextmanager, suppress

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError
from vuemantics_pipeline.ledger import batches
from vuemantics_pipeline.ledger.connection import database_errors
from vuemantics_pipeline.ledger.leases import BatchStopped, LeaseHeld, LeaseLost
from vuemantics_pipeline.orchestration.resources import RunLedger
from vuemantics_pipeline.orchestration.tags import REFUSED


class StopRun(dg.Failure):
    """The failure of an op that ends its run, whatever is left to do in it."""

    def __init__(self, description: str) -> None:
        super().__init__(description, allow_retries=False)


class RunStopped(BaseException):
    """Leaves the executor. Not an `Exception`, because those it turns into failed steps."""


@dg.failure_hook
def stop_run(context: dg.HookContext) -> None:
    """End the run at once when an op failed with `StopRun`."""
    if isinstance(context.op_exception, StopRun):
        raise RunStopped(context.op_exception.description)


@contextmanager
def stopping(context: dg.OpExecutionContext, ledger: RunLedger) -> Iterator[None]:
    """Turn whatever has to end the run into `StopRun`, after the batch was given back.

    Raises:
        StopRun: the run has to end; its description says why and what to do.
    """
    try:
        with database_errors(ledger.connection):
            yield
    except LeaseHeld as reason:
        context.instance.add_run_tags(context.run_id, {REFUSED: reason.message})
        raise StopRun(str(reason)) from reason
    except LeaseLost as reason:
        raise StopRun(str(reason)) from reason
    except BatchStopped as reason:
        context.instance.report_run_canceling(context.run, str(reason))
        raise StopRun(str(reason)) from reason
    except PipelineError as reason:
        give_back(ledger, reason)
        raise StopRun(str(reason)) from reason
    except DagsterExecutionInterruptedError as interrupt:
        raise StopRun(_interrupted(context, ledger)) from interrupt


def give_back(ledger: RunLedger, reason: PipelineError) -> None:
    """Return the batch of a run to the sensor, if the database is there to be told."""
    with suppress(BackendUnavailable):
        ledger.give_back(reason)


def _interrupted(context: dg.OpExecutionContext, ledger: RunLedger) -> str:
    run = context.instance.get_run_by_id(context.run_id)
    if run is None or run.status != dg.DagsterRunStatus.CANCELING:
        stopped = PipelineError(
            "worker_stopped", "The run's worker was told to stop.", "Another run goes on with it."
        )
        give_back(ledger, stopped)
        return str(stopped)
    reason = f"Run {context.run_id} was terminated in Dagster; what was done is kept."
    with suppress(BackendUnavailable):
        batches.cancel(
            ledger.connection,
            ledger.run.batch_id,
            message=reason,
            run_id=ledger.run.run_id,
            try_number=ledger.run.try_number,
        )
    return reason
