"""The transaction committed, and its worker was told that it failed: nothing is counted twice."""

import pytest

from vuemantics_pipeline_tests.faults.conftest import Ground
from vuemantics_pipeline_tests.faults.worker import (
    FAILED,
    Action,
    Fault,
    calls_in,
    trace_of,
)
from vuemantics_pipeline_tests.support import BatchRow, attempts, batch_row, photo

FILES = {"a.jpg": photo(64, 48), "bad.jpg": b"no photo", "c.jpg": photo(80, 60)}

COMMITS = ("open_batch", "start_attempt", "reach_stage", "complete", "fail", "close_batch")


@pytest.mark.parametrize("action", [Action.LOSE_ANSWER, Action.LOSE_CONNECTION])
@pytest.mark.parametrize("commit", COMMITS)
def test_a_commit_whose_answer_is_lost_counts_once(
    ground: Ground, commit: str, action: Action
) -> None:
    batch = ground.add_batch(FILES)
    worker = ground.launch(Fault(f"after:{commit}", 1, action))

    assert worker.wait() == FAILED

    reached = [at.point for at in trace_of(worker.order)]
    assert reached.count(f"after:{commit}") == 1, "the worker went on"
    is_over = commit == "close_batch"
    row = batch_row(ground.connection, batch.batch_id)
    assert row.status == ("completed" if is_over else "pending")
    assert row.successful == {"complete": 1, "fail": 1, "close_batch": 2}.get(commit, 0)
    assert ground.open_attempts(batch.batch_id) == set()
    ground.settle(worker, FAILED)
    ground.finish(batch.batch_id)
    row = batch_row(ground.connection, batch.batch_id)
    assert row == BatchRow(
        "completed", 3, 3, 2, 1, "1 of 3 uploads failed.", started=True, ended=True
    )
    ground.assert_sound(batch.batch_id)
    used = {
        name: [
            (number, outcome)
            for number, outcome, _ in attempts(ground.connection, upload_id)
            if outcome != "released"
        ]
        for name, upload_id in batch.uploads.items()
    }
    assert used == {
        "a.jpg": [(1, "completed")],
        "bad.jpg": [(1, "failed"), (2, "failed")],
        "c.jpg": [(1, "completed")],
    }
    assert len(calls_in(worker.order.calls)) == 4, "a model was called again"


def test_giving_a_batch_back_twice_gives_it_back_once(ground: Ground) -> None:
    batch = ground.add_batch(FILES)
    worker = ground.launch(
        Fault("before:describe", 1, Action.BACKEND_DOWN),
        Fault("after:requeue", 1, Action.LOSE_CONNECTION),
    )

    assert worker.wait() == FAILED

    row = ground.connection.execute(
        "SELECT try_number, outages FROM vuemantics_pipeline.batch_states"
    ).fetchone()
    assert row == (2, 1)
    assert attempts(ground.connection, batch.uploads["a.jpg"]) == [(1, "released", "model_down")]
    ground.settle(worker, FAILED)
    ground.finish(batch.batch_id)
    assert batch_row(ground.connection, batch.batch_id).successful == 2
    ground.assert_sound(batch.batch_id)
