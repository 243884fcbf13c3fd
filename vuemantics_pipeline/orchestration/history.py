"""Dagster's own history of batches: what of it is old, and forgetting that."""

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID

import dagster as dg

from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.pruning import prunable_batches, unended_batches
from vuemantics_pipeline.orchestration.assets import upload_batches
from vuemantics_pipeline.orchestration.run_coordinator import Queue, queue_of
from vuemantics_pipeline.orchestration.tags import PARTITION

_ENDED = (
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
)
_RUNS_A_PAGE = 500
_AT_ONCE = 100
_PARTITIONS = str(upload_batches.name)


def old_runs(
    instance: dg.DagsterInstance, connection: Connection, *, older_than_days: int
) -> Sequence[str]:
    """Return the ids of runs that ended so long ago, oldest first.

    Runs of batches that are pending or processing stay, and so do those of the daily report: one
    a day, which hold the report's table and plots.
    """
    unended = {str(batch_id) for batch_id in unended_batches(connection)}
    before = datetime.now(UTC) - timedelta(days=older_than_days)
    ended = dg.RunsFilter(statuses=list(_ENDED), updated_before=before)
    found: list[str] = []
    cursor = None
    while page := instance.get_runs(ended, cursor=cursor, limit=_RUNS_A_PAGE, ascending=True):
        cursor = page[-1].run_id
        found += [
            run.run_id
            for run in page
            if queue_of(run) is not Queue.REPORTS and run.tags.get(PARTITION) not in unended
        ]
    return found


def delete_runs(instance: dg.DagsterInstance, run_ids: Sequence[str]) -> Iterator[int]:
    """Delete runs and all their event rows; yield how many are gone after each hundred."""
    gone = 0
    for page in _pages(run_ids):
        for run_id in page:
            instance.delete_run(run_id)
        gone += len(page)
        yield gone


def old_partitions(
    instance: dg.DagsterInstance, connection: Connection, *, older_than_days: int
) -> Sequence[str]:
    """Return the partitions of `upload_batch` whose batch ended so long ago or is gone."""
    keys = [key for key in instance.get_dynamic_partitions(_PARTITIONS) if _is_uuid(key)]
    return [
        key
        for page in _pages(keys)
        for key in _prunable(connection, page, older_than_days=older_than_days)
    ]


def delete_partitions(
    instance: dg.DagsterInstance,
    connection: Connection,
    keys: Sequence[str],
    *,
    older_than_days: int,
) -> Iterator[int]:
    """Delete partitions of `upload_batch`; yield how many are gone after each hundred.

    A batch that is run again gets its partition back from the sensor. One for which that has
    happened since it was found to be old keeps it.
    """
    gone = 0
    for page in _pages(keys):
        for key in _prunable(connection, page, older_than_days=older_than_days):
            instance.delete_dynamic_partition(_PARTITIONS, key)
            gone += 1
        yield gone


def _prunable(connection: Connection, keys: Sequence[str], *, older_than_days: int) -> list[str]:
    batch_ids = [UUID(key) for key in keys]
    old = prunable_batches(connection, batch_ids, older_than_days=older_than_days)
    return [key for key in keys if UUID(key) in old]


def _pages(keys: Sequence[str]) -> Iterator[Sequence[str]]:
    return (keys[start : start + _AT_ONCE] for start in range(0, len(keys), _AT_ONCE))


def _is_uuid(key: str) -> bool:
    try:
        UUID(key)
    except ValueError:
        return False
    return True
