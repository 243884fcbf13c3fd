"""Which batches the sensor starts, in which order, and what it does for those that are stuck."""

import threading
import time
from uuid import UUID

import dagster as dg
import pytest

from vuemantics_pipeline.ledger import batches, leases
from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline.orchestration.sensors import pending_upload_batches
from vuemantics_pipeline.orchestration.sweep import sweep
from vuemantics_pipeline.settings import load_settings
from vuemantics_pipeline_tests.dagster.conftest import World
from vuemantics_pipeline_tests.support import add_batch


def _tick(world: World) -> dg.SensorResult | dg.SkipReason:
    context = dg.build_sensor_context(
        instance=world.instance, repository_def=world.definitions.get_repository_def()
    )
    result = pending_upload_batches(context)
    assert isinstance(result, dg.SensorResult | dg.SkipReason)
    return result


def _asked_for(world: World) -> list[str | None]:
    result = _tick(world)
    if isinstance(result, dg.SkipReason):
        return []
    return [request.partition_key for request in result.run_requests or []]


def test_ready_batches_are_asked_for_oldest_first(world: World) -> None:
    ids = [world.add_batch("a.jpg") for _ in range(3)]
    world.connection.execute(
        "UPDATE upload_batches SET created_at = now() - interval '1 hour' WHERE id = %s", [ids[2]]
    )

    assert _asked_for(world) == [str(ids[2]), str(ids[0]), str(ids[1])]


def test_a_request_carries_its_run_key_partition_and_tags(world: World) -> None:
    batch_id = world.add_batch("a.jpg")

    result = _tick(world)

    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or []
    assert request.run_key == f"{batch_id}:1"
    assert request.tags["vuemantics/batch_id"] == str(batch_id)
    assert request.tags["vuemantics/user_id"] == str(world.user_id)
    assert request.tags["vuemantics/try"] == "1"
    (partitions,) = result.dynamic_partitions_requests or []
    assert list(partitions.partition_keys) == [str(batch_id)]


def test_at_most_the_settable_number_is_asked_for_in_a_tick(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VUEMANTICS_BATCHES_PER_TICK", "2")
    ids = [str(world.add_batch("a.jpg")) for _ in range(3)]

    assert _asked_for(world) == ids[:2]
    assert _asked_for(world) == ids[2:], "batches already asked for were offered again"


def test_a_batch_still_being_filled_waits_for_its_last_upload(world: World) -> None:
    batch_id = world.add_batch("a.jpg", offered=2)
    assert _asked_for(world) == []

    world.connection.execute(
        "UPDATE upload_batches SET total_uploads = 1 WHERE id = %s", [batch_id]
    )
    assert _asked_for(world) == [str(batch_id)]


def test_a_batch_nobody_fills_any_more_is_ready_after_the_grace_period(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VUEMANTICS_GRACE_SECONDS", "60")
    batch_id = world.add_batch("a.jpg", offered=2)
    assert _asked_for(world) == []

    for table, column in (("upload_batches", "id"), ("uploads", "batch_id")):
        world.connection.execute(
            f"UPDATE {table} SET created_at = now() - interval '2 min', "
            f"updated_at = now() - interval '2 min' WHERE {column} = %s",
            [batch_id],
        )
    assert _asked_for(world) == [str(batch_id)]

    world.run_as_sensor(batch_id)
    batch = world.batch(batch_id)
    assert (batch.status, batch.total_uploads) == ("completed", 1)
    assert batch.error_message == "1 of 2 announced files never arrived."


def test_a_waiting_tick_wakes_when_a_batch_arrives(
    world: World, database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VUEMANTICS_LISTEN_SECONDS", "30")
    found: list[str | None] = []
    waiting = threading.Thread(target=lambda: found.extend(_asked_for(world)))
    waiting.start()
    time.sleep(0.3)
    with connect(database_url) as application:
        batch_id = add_batch(application, world.user_id).batch_id
    waiting.join(timeout=20)

    assert found == [str(batch_id)]


def test_an_unprepared_database_is_a_reason_to_skip_not_an_error(world: World) -> None:
    world.connection.execute("DROP SCHEMA vuemantics_pipeline CASCADE")

    result = _tick(world)

    assert isinstance(result, dg.SkipReason)
    assert "vuemantics migrate" in (result.skip_message or "")


def test_a_database_that_is_down_is_a_reason_to_skip(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://nobody:secret@127.0.0.1:1/none")

    result = _tick(world)

    assert isinstance(result, dg.SkipReason)
    assert "does not answer" in (result.skip_message or "")
    assert "secret" not in (result.skip_message or "")


@pytest.fixture
def stuck(world: World, database_url: str) -> UUID:
    """A batch whose worker died in the middle of an upload."""
    batch_id = world.add_batch("a.jpg", "b.jpg")
    with connect(database_url) as worker:
        lease = leases.acquire(worker, batch_id, _dead_run(world, batch_id))
        batches.open_batch(lease, reopen=False)
    return batch_id


def _dead_run(world: World, batch_id: UUID) -> str:
    world.instance.add_dynamic_partitions("upload_batch", [str(batch_id)])
    job = world.definitions.resolve_job_def("process_batch")
    run = world.instance.create_run_for_job(
        job,
        tags={"dagster/partition": str(batch_id), "vuemantics/try": "1"},
        status=dg.DagsterRunStatus.STARTED,
    )
    return run.run_id


def test_the_sweep_takes_a_batch_from_a_dead_worker_and_fails_its_run(
    world: World, stuck: UUID
) -> None:
    assert _asked_for(world) == [str(stuck)]

    (run,) = world.instance.get_runs()
    assert run.status is dg.DagsterRunStatus.FAILURE
    result = world.run_as_sensor(stuck, try_number=2)
    assert world.status_of(result) is dg.DagsterRunStatus.SUCCESS
    assert world.batch(stuck).successful_uploads == 2


def test_the_sweep_leaves_a_batch_alone_while_its_worker_lives(
    world: World, database_url: str
) -> None:
    batch_id = world.add_batch("a.jpg")
    with connect(database_url) as worker:
        lease = leases.acquire(worker, batch_id, "alive")
        batches.open_batch(lease, reopen=False)

        assert list(sweep(world.instance, world.connection, load_settings())) == []
        assert world.batch(batch_id).status == "processing"


def test_a_batch_left_by_another_worker_is_adopted_after_the_grace_period(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = world.add_batch("a.jpg")
    world.connection.execute("UPDATE upload_batches SET status = 'processing'")
    assert _asked_for(world) == []

    monkeypatch.setenv("VUEMANTICS_GRACE_SECONDS", "0")
    time.sleep(0.05)
    assert _asked_for(world) == [str(batch_id)]


def test_a_try_that_ended_before_it_began_is_followed_by_the_next(world: World) -> None:
    batch_id = world.add_batch("a.jpg")
    assert _asked_for(world) == [str(batch_id)]
    job = world.definitions.resolve_job_def("process_batch")
    world.instance.create_run_for_job(
        job,
        tags={"dagster/run_key": f"{batch_id}:1", "dagster/partition": str(batch_id)},
        status=dg.DagsterRunStatus.FAILURE,
    )
    world.connection.execute(
        "UPDATE vuemantics_pipeline.batch_states SET requested_at = now() - interval '2 min'"
    )

    assert _asked_for(world) == [], "the spent try was asked for again"
    result = _tick(world)
    assert isinstance(result, dg.SensorResult)
    (request,) = result.run_requests or []
    assert request.run_key == f"{batch_id}:2"
