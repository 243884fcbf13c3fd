"""The run coordinator: Dagster's queue, which tells runs of batches from others.

Batches run one at a time, because compute is limited to one model. Whoever cancels a batch cannot
wait for it to end, though, and a month of reports must not stand before somebody's photos. So
every run says in a tag which queue it stands in, and dagster.yaml limits each queue by itself.
"""

from enum import StrEnum

import dagster as dg
from dagster._core.run_coordinator import QueuedRunCoordinator, SubmitRunContext

QUEUE = "vuemantics/queue"


class Queue(StrEnum):
    """The values of the tag; the limits are in dagster.yaml."""

    BATCHES = "batches"
    REPORTS = "reports"
    OPERATORS = "operators"


REPORT_KEY = dg.AssetKey("daily_batch_report")


def queue_of(run: dg.DagsterRun) -> Queue:
    """Return the queue a run stands in: its job's, or that of the assets it was launched for.

    Asset checks by themselves are an operator's. Whatever is neither an operator's nor a report may
    need the model, and stands with the batches.
    """
    for queue in Queue:
        if run.tags.get(QUEUE) == queue:
            return queue
    if run.asset_check_selection and not run.asset_selection:
        return Queue.OPERATORS
    return Queue.REPORTS if run.asset_selection == {REPORT_KEY} else Queue.BATCHES


class SortingRunCoordinator(QueuedRunCoordinator[dg.DagsterInstance]):
    """`QueuedRunCoordinator` with queues; named in dagster.yaml under `run_coordinator`."""

    def submit_run(self, context: SubmitRunContext) -> dg.DagsterRun:
        """Note a run's queue on it, then enqueue it.

        "Materialize" and backfills launch assets without a job that could have the tag.
        """
        run = context.dagster_run
        self._instance.add_run_tags(run.run_id, {QUEUE: queue_of(run).value})
        return super().submit_run(context)
