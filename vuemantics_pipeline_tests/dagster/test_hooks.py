"""Run-status sensors leave the batch row true, however often they fire."""

from uuid import UUID

import dagster as dg
import pytest

from vuemantics_pipeline.ledger import batches, leases
from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline.orchestration.hooks import (
    batch_after_cancellation,
    batch_after_failure,
    batch_after_success,
)
from vuemantics_pipeline_tests.dagster.conftest import World


def _run(world: World, batch_id: UUID, *, try_number: int = 1) -> dg.DagsterRun:
    world.instance.add_dynamic_partitions("upload_batch", [str(batch_id)])
    return world.instance.create_run_for_job(
        world.definitions.resolve_job_def("process_batch"),
        tags={"dagster/partition": str(batch_id), "vuemantics/try": str(try_number)},
        status=dg.DagsterRunStatus.STARTED,
    )


def _open(world: World, database_url: str, batch_id: UUID, run: dg.DagsterRun) -> None:
    with connect(database_url) as worker:
        batches.open_batch(leases.acquire(worker, batch_id, run.run_id), reopen=False)


def _fire(world: World, run: dg.DagsterRun, kind: str) -> None:
    if kind == "failure":
        event = world.instance.report_run_failed(run, "It broke.")
    elif kind == "cancellation":
        event = world.instance.report_run_canceled(run)
    else:
        event = dg.DagsterEvent(
            event_type_value=dg.DagsterEventType.RUN_SUCCESS.value, job_name=run.job_name
        )
    hook = {
        "failure": batch_after_failure,
        "cancellation": batch_after_cancellation,
        "success": batch_after_success,
    }[kind]
    context = dg.build_run_status_sensor_context(
        sensor_name=hook.name,
        dagster_event=event,
        dagster_instance=world.instance,
        dagster_run=run,
    )
    hook(context.for_run_failure() if kind == "failure" else context)


@pytest.mark.parametrize(
    ("kind", "status"),
    [("failure", "pending"), ("cancellation", "cancelled"), ("success", "pending")],
)
def test_an_unsettled_batch_is_settled_once(
    world: World, database_url: str, kind: str, status: str
) -> None:
    batch_id = world.add_batch("a.jpg")
    run = _run(world, batch_id)
    _open(world, database_url, batch_id, run)

    _fire(world, run, kind)

    settled = world.batch(batch_id)
    assert settled.status == status
    assert settled.error_message
    assert (settled.completed_at is not None) == (status == "cancelled")
    _fire(world, run, kind)
    assert world.batch(batch_id) == settled


@pytest.mark.parametrize("kind", ["failure", "cancellation", "success"])
def test_a_completed_batch_stays_completed(world: World, kind: str) -> None:
    batch_id = world.add_batch("a.jpg")
    result = world.run_as_sensor(batch_id)
    run = world.instance.get_run_by_id(result.run_id)
    assert run is not None
    before = world.batch(batch_id)

    _fire(world, run, kind)

    assert world.batch(batch_id) == before


@pytest.mark.parametrize("kind", ["failure", "cancellation"])
def test_a_run_that_never_got_the_batch_cannot_move_it(
    world: World, database_url: str, kind: str
) -> None:
    batch_id = world.add_batch("a.jpg")
    holder, other = _run(world, batch_id), _run(world, batch_id)
    _open(world, database_url, batch_id, holder)

    _fire(world, other, kind)

    assert world.batch(batch_id).status == "processing"


def test_a_run_that_failed_at_launch_gets_its_batch_another_try(world: World) -> None:
    batch_id = world.add_batch("a.jpg")
    batches.mark_requested(world.connection, [batch_id])

    _fire(world, _run(world, batch_id), "failure")

    (request,) = batches.ready_batches(world.connection, limit=5, grace_seconds=900)
    assert request.try_number == 2


def test_a_queued_run_that_is_cancelled_cancels_its_batch(world: World) -> None:
    batch_id = world.add_batch("a.jpg")
    batches.mark_requested(world.connection, [batch_id])

    _fire(world, _run(world, batch_id), "cancellation")

    assert world.batch(batch_id).status == "cancelled"


def test_too_many_runs_in_a_row_that_got_nothing_done_fail_the_batch(
    world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VUEMANTICS_MAX_TRIES", "2")
    batch_id = world.add_batch("a.jpg")
    for try_number in (1, 2):
        run = _run(world, batch_id, try_number=try_number)
        _open(world, database_url, batch_id, run)
        _fire(world, run, "failure")

    batch = world.batch(batch_id)
    assert batch.status == "failed"
    assert batch.error_message
    assert batch.completed_at is not None


def test_runs_that_are_not_of_a_batch_are_passed_over(world: World) -> None:
    @dg.job
    def other() -> None:
        pass

    run = world.instance.create_run_for_job(other, status=dg.DagsterRunStatus.STARTED)
    _fire(world, run, "failure")
