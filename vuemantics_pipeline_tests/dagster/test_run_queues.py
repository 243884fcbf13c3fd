"""Who waits for whom: batches for each other, reports for each other, operators for nobody."""

from collections.abc import Iterator
from importlib import resources
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.remote_origin import (
    GrpcServerCodeLocationOrigin,
    RemoteJobOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.run_coordinator import SubmitRunContext
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from dagster._serdes import ConfigurableClassData

from vuemantics_pipeline.orchestration.build import build_definitions
from vuemantics_pipeline.orchestration.run_coordinator import (
    QUEUE,
    Queue,
    SortingRunCoordinator,
    queue_of,
)

REPORT = dg.AssetKey("daily_batch_report")
BATCH = dg.AssetKey("upload_batch")


EVENTS = {
    dg.DagsterRunStatus.STARTED: dg.DagsterEventType.RUN_START,
    dg.DagsterRunStatus.SUCCESS: dg.DagsterEventType.RUN_SUCCESS,
    dg.DagsterRunStatus.FAILURE: dg.DagsterEventType.RUN_FAILURE,
    dg.DagsterRunStatus.CANCELING: dg.DagsterEventType.RUN_CANCELING,
    dg.DagsterRunStatus.CANCELED: dg.DagsterEventType.RUN_CANCELED,
}


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    """An instance with the coordinator and the limits of the dagster.yaml that is shipped."""
    text = (resources.files("vuemantics_pipeline.home") / "dagster.yaml").read_text()
    shipped = yaml.safe_load(text)
    named = shipped["run_coordinator"]
    coordinator = ConfigurableClassData(
        named["module"], named["class"], yaml.safe_dump(named["config"])
    ).rehydrate(as_type=SortingRunCoordinator)
    settings = {"concurrency": shipped["concurrency"]}
    with dg.DagsterInstance.ephemeral(settings=settings) as instance:
        coordinator.register_instance(instance)
        instance._run_coordinator = coordinator
        yield instance


@pytest.fixture(scope="module")
def definitions() -> dg.Definitions:
    return build_definitions()


def submit(
    instance: dg.DagsterInstance, definitions: dg.Definitions, job: str, *assets: dg.AssetKey
) -> str:
    """Submit a run of a job, or of assets as "Materialize" does it; return its id."""
    job_def = definitions.get_repository_def().get_job(job)
    if assets:
        job_def = job_def.get_subset(asset_selection=set(assets))
    run = instance.create_run_for_job(
        job_def,
        asset_selection=frozenset(assets) or None,
        tags=job_def.run_tags,
        remote_job_origin=_origin(job),
    )
    # Neither Dagster's coordinator nor ours looks at the workspace.
    workspace: Any = None
    instance.run_coordinator.submit_run(SubmitRunContext(run, workspace))
    return run.run_id


def _origin(job: str) -> RemoteJobOrigin:
    """Where the daemon would find the job's code."""
    location = GrpcServerCodeLocationOrigin("127.0.0.1", 1)
    return RemoteJobOrigin(RemoteRepositoryOrigin(location, "__repository__"), job)


def next_runs(instance: dg.DagsterInstance) -> set[str]:
    """What the daemon would start now."""
    daemon = QueuedRunCoordinatorDaemon(interval_seconds=1)
    runs = daemon._get_runs_to_dequeue(instance, instance.get_concurrency_config(), None)
    return {run.run_id for run in runs}


def report_status(instance: dg.DagsterInstance, run_id: str, status: dg.DagsterRunStatus) -> None:
    """Let a run have come so far."""
    run = instance.get_run_by_id(run_id)
    assert run is not None
    instance.report_dagster_event(dg.DagsterEvent(EVENTS[status].value, run.job_name), run_id)


def test_batches_are_serial_and_nobody_else_waits_for_them(
    instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    first = submit(instance, definitions, "process_batch")
    second = submit(instance, definitions, "__ASSET_JOB", BATCH)
    third = submit(instance, definitions, "process_batch")
    assert next_runs(instance) == {first}

    report_status(instance, first, dg.DagsterRunStatus.STARTED)
    assert next_runs(instance) == set()
    reanalyze = submit(instance, definitions, "reanalyze")
    audit = submit(instance, definitions, "audit_ledger")
    report = submit(instance, definitions, "report_day")
    backfilled = submit(instance, definitions, "__ASSET_JOB", REPORT)
    assert next_runs(instance) == {reanalyze, audit, report}

    for run_id in (reanalyze, audit, report):
        report_status(instance, run_id, dg.DagsterRunStatus.STARTED)
    assert next_runs(instance) == set()
    report_status(instance, report, dg.DagsterRunStatus.SUCCESS)
    assert next_runs(instance) == {backfilled}
    report_status(instance, first, dg.DagsterRunStatus.FAILURE)
    assert next_runs(instance) == {second, backfilled}
    report_status(instance, second, dg.DagsterRunStatus.STARTED)
    report_status(instance, second, dg.DagsterRunStatus.CANCELING)
    assert next_runs(instance) == {backfilled}, "it still has the model"
    report_status(instance, second, dg.DagsterRunStatus.CANCELED)
    assert next_runs(instance) == {third, backfilled}


def test_every_run_says_where_it_stands(
    instance: dg.DagsterInstance, definitions: dg.Definitions
) -> None:
    for job, assets, queue in (
        ("process_batch", (), Queue.BATCHES),
        ("__ASSET_JOB", (BATCH,), Queue.BATCHES),
        ("__ASSET_JOB", (BATCH, REPORT), Queue.BATCHES),
        ("__ASSET_JOB", (REPORT,), Queue.REPORTS),
        ("report_day", (), Queue.REPORTS),
        ("prune_history", (), Queue.OPERATORS),
    ):
        run = instance.get_run_by_id(submit(instance, definitions, job, *assets))
        assert run is not None
        assert run.status == dg.DagsterRunStatus.QUEUED
        assert run.tags[QUEUE] == queue, (job, assets)
        assert queue_of(run) is queue


def test_checks_by_themselves_do_not_wait_for_batches() -> None:
    checks = frozenset({dg.AssetCheckKey(BATCH, "no_failed_uploads")})
    alone = dg.DagsterRun("__ASSET_JOB", asset_check_selection=checks)
    after_a_batch = dg.DagsterRun(
        "__ASSET_JOB", asset_selection=frozenset({BATCH}), asset_check_selection=checks
    )
    assert queue_of(alone) is Queue.OPERATORS
    assert queue_of(after_a_batch) is Queue.BATCHES
