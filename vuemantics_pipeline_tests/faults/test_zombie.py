"""A worker that was taken for dead and wakes up: it finds out, writes nothing, and ends."""

import pytest

from vuemantics_pipeline_tests.faults.conftest import Ground
from vuemantics_pipeline_tests.faults.worker import (
    FAILED,
    Action,
    Fault,
    Worker,
    calls_in,
    trace_of,
)
from vuemantics_pipeline_tests.support import BatchRow, attempts, batch_row, everything, photo

FILES = {"a.jpg": photo(64, 48), "bad.jpg": b"no photo", "c.jpg": photo(80, 60)}
DONE = BatchRow("completed", 3, 3, 2, 1, "1 of 3 uploads failed.", started=True, ended=True)

MOMENTS = {
    "open": "after:open_batch",
    "begun": "after:start_attempt",
    "in a transaction": "before:reach_stage",
    "at the model": "before:describe",
    "about to complete": "after:embedding_generation",
    "completing": "before:complete",
    "completed": "after:complete",
    "failing": "before:fail",
    "closing": "before:close_batch",
}


@pytest.mark.parametrize("point", MOMENTS.values(), ids=MOMENTS.keys())
def test_a_worker_that_lost_its_connection_in_its_sleep_writes_nothing(
    ground: Ground, point: str
) -> None:
    batch = ground.add_batch(FILES)
    zombie = ground.launch(Fault(point, 1, Action.STOP))
    zombie.wait_until_stopped()
    _end_lease_session(ground, zombie)
    ground.wait_for_lease(batch.batch_id)
    ground.finish(batch.batch_id)
    assert batch_row(ground.connection, batch.batch_id) == DONE
    rows, calls = everything(ground.connection, batch.batch_id), calls_in(zombie.order.calls)

    zombie.resume()

    assert zombie.wait() == FAILED
    assert everything(ground.connection, batch.batch_id) == rows
    _assert_no_commit_after(zombie, point)
    late = calls_in(zombie.order.calls)[len(calls) :]
    assert len(late) == (point == "before:describe"), "it went on with other files"
    ground.fire(zombie.order.run_id, FAILED)
    ground.tick()
    assert ground.requests == []
    assert everything(ground.connection, batch.batch_id) == rows
    ground.assert_sound(batch.batch_id)


def test_a_worker_that_wakes_while_another_is_at_work_leaves_it_alone(ground: Ground) -> None:
    batch = ground.add_batch(FILES)
    zombie = ground.launch(Fault("before:describe", 2, Action.STOP))
    zombie.wait_until_stopped()
    _end_lease_session(ground, zombie)
    ground.wait_for_lease(batch.batch_id)
    other = ground.launch(Fault("before:describe", 1, Action.STOP))
    other.wait_until_stopped()
    assert ground.open_attempts(batch.batch_id) == {batch.uploads["c.jpg"]}
    rows = everything(ground.connection, batch.batch_id)

    zombie.resume()
    assert zombie.wait() == FAILED

    assert everything(ground.connection, batch.batch_id) == rows
    other.resume()
    assert other.wait() == 0
    assert batch_row(ground.connection, batch.batch_id) == DONE
    ground.assert_sound(batch.batch_id)


@pytest.mark.parametrize(
    "point", ["after:open_batch", "after:start_attempt", "before:describe", "after:complete"]
)
def test_a_worker_whose_fence_was_raised_cannot_write_on_a_living_connection(
    ground: Ground, point: str
) -> None:
    batch = ground.add_batch(FILES)
    zombie = ground.launch(Fault(point, 1, Action.STOP))
    zombie.wait_until_stopped()
    # Dagster takes its run for failed; Postgres sees no reason to end the session.
    ground.fire(zombie.order.run_id, FAILED)
    assert batch_row(ground.connection, batch.batch_id).status == "pending"
    rows = everything(ground.connection, batch.batch_id)

    zombie.resume()

    assert zombie.wait() == FAILED
    assert everything(ground.connection, batch.batch_id) == rows
    _assert_no_commit_after(zombie, point)
    ground.finish(batch.batch_id)
    assert batch_row(ground.connection, batch.batch_id) == DONE
    ground.assert_sound(batch.batch_id)
    completed = [
        outcome
        for upload_id in batch.uploads.values()
        for _, outcome, _ in attempts(ground.connection, upload_id)
        if outcome == "completed"
    ]
    assert len(completed) == 2


def _end_lease_session(ground: Ground, worker: Worker) -> None:
    row = ground.connection.execute(
        "SELECT count(*) FILTER (WHERE pg_terminate_backend(pid, 10000)) FROM pg_locks"
        " WHERE locktype = 'advisory' AND granted AND pid <> pg_backend_pid() AND"
        " (classid::bigint << 32) | objid::bigint = vuemantics_pipeline.lease_key(%s)",
        (worker.order.batch_id,),
    ).fetchone()
    assert row == (1,)


def _assert_no_commit_after(worker: Worker, point: str) -> None:
    """The worker committed nothing of an upload or of the batch once it had woken up."""
    points = [at.point for at in trace_of(worker.order)]
    woken = points[points.index(point) + 1 :]
    commits = ("start_attempt", "reach_stage", "complete", "fail", "release", "close_batch")
    assert not {f"after:{commit}" for commit in commits} & set(woken)
