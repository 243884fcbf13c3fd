"""Cancelling, in every way there is: both sides agree, and Ctrl-C is not one of them."""

import time
from collections.abc import Callable, Iterator
from uuid import uuid4

import pytest

from vuemantics_pipeline_tests.faults.stack import FaultStack, Run, eventually, fault_stack, show
from vuemantics_pipeline_tests.support import NewBatch

CANCEL_SECONDS = 5

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def running() -> Iterator[FaultStack]:
    with fault_stack(VUEMANTICS_CANCEL_SECONDS=str(CANCEL_SECONDS)) as stack:
        yield stack


@pytest.fixture
def stack(running: FaultStack) -> Iterator[FaultStack]:
    """The stack with nothing held and nothing to do."""
    yield running
    running.settle()


def in_sql(stack: FaultStack, batch: NewBatch) -> None:
    """As the application does it."""
    with stack.connect() as connection:
        connection.execute(
            "UPDATE upload_batches SET status = 'cancelled', updated_at = now() WHERE id = %s",
            (batch.batch_id,),
        )


def on_the_command_line(stack: FaultStack, batch: NewBatch) -> None:
    assert stack.app.json("cancel", str(batch.batch_id))["cancelled"]


def in_dagster(stack: FaultStack, batch: NewBatch) -> None:
    stack.terminate(stack.runs(batch)[-1].run_id)


def by_a_job(stack: FaultStack, batch: NewBatch) -> None:
    """As an operator does it in the UI, without waiting for the batch at work."""
    config = {"ops": {"cancel": {"config": {"batch_id": str(batch.batch_id)}}}}
    assert stack.await_run(stack.launch("cancel_batch", config)) == "SUCCESS"


Cancel = Callable[[FaultStack, NewBatch], None]
WAYS = pytest.mark.parametrize("cancel", [in_sql, on_the_command_line, in_dagster, by_a_job])


def begin(stack: FaultStack) -> tuple[NewBatch, Run]:
    """A batch whose second upload is held in the model."""
    stack.hold(101)
    batch = stack.add_batch(100, 101, 102)
    stack.await_look(101)
    (run,) = stack.runs(batch)
    return batch, run


def assert_cancelled(stack: FaultStack, batch: NewBatch, run: Run, *, in_hand: str) -> None:
    assert stack.await_run(run.run_id) == "CANCELED"
    stack.assert_ended(batch, "cancelled")
    assert stack.calls() == {100: 1, 101: 1}, "what was not begun must not begin"
    outcomes = [[o for _, o in stack.attempts(upload)] for upload in batch.uploads.values()]
    assert outcomes == [["completed"], [in_hand], []]
    assert [run.status for run in stack.runs(batch)] == ["CANCELED"]


@WAYS
def test_cancelled_in_mid_upload(stack: FaultStack, cancel: Cancel) -> None:
    batch, run = begin(stack)
    cancel(stack, batch)
    cancelled_at = time.monotonic()
    if cancel is not in_dagster:
        stack.hold()
    stack.await_run(run.run_id)
    show(f"cancelled {cancel.__name__} -> run ended", [time.monotonic() - cancelled_at])
    in_hand = "released" if cancel is in_dagster else "completed"
    assert_cancelled(stack, batch, run, in_hand=in_hand)


@pytest.mark.parametrize("cancel", [in_sql, on_the_command_line])
def test_an_upload_that_hangs_is_interrupted(stack: FaultStack, cancel: Cancel) -> None:
    batch, run = begin(stack)
    cancel(stack, batch)
    cancelled_at = time.monotonic()
    stack.await_run(run.run_id)
    seconds = time.monotonic() - cancelled_at
    show(f"cancelled {cancel.__name__} while hanging -> run ended", [seconds])
    assert seconds > CANCEL_SECONDS - 1
    assert_cancelled(stack, batch, run, in_hand="released")


@WAYS
def test_a_run_still_queued(stack: FaultStack, cancel: Cancel) -> None:
    first, _ = begin(stack)
    second = stack.add_batch(200)
    (queued,) = eventually(
        "a queued run", lambda: [run for run in stack.runs(second) if run.status == "QUEUED"]
    )
    cancel(stack, second)
    if cancel is in_dagster:
        assert stack.await_run(queued.run_id) == "CANCELED"
    stack.hold()
    stack.assert_ended(first)
    stack.assert_ended(second, "cancelled")
    assert stack.await_run(queued.run_id) == "CANCELED"
    assert stack.calls()[200] == 0
    assert len(stack.runs(second)) == 1


def test_terminated_after_its_code_server_was_replaced(stack: FaultStack) -> None:
    batch, run = begin(stack)
    stack.code_server.kill()
    eventually("another code server", lambda: stack.service("dagster", "api", "grpc"))
    time.sleep(4)
    in_dagster(stack, batch)
    assert_cancelled(stack, batch, run, in_hand="released")


def test_a_batch_that_is_not_there_is_not_cancelled(stack: FaultStack) -> None:
    stack.app.vuemantics("cancel", str(uuid4()), expect=2)


def test_ctrl_c_does_not_cancel(stack: FaultStack) -> None:
    # Last in this file: another `vuemantics up` goes on.
    batch, run = begin(stack)
    interrupted_at = time.monotonic()
    assert stack.stop() == 0
    show("Ctrl-C -> everything stopped", [time.monotonic() - interrupted_at])
    stack.assert_nothing_left()

    document = stack.app.json("status", str(batch.batch_id), "--uploads")
    assert document["status"] in ("pending", "processing")
    assert document["successful_uploads"] == 1

    started_at = time.time()
    stack.start()
    show("up again -> next upload begins", [stack.started_after(batch, started_at)])
    stack.hold()
    stack.assert_ended(batch)
    assert stack.run_status(run.run_id) == "FAILURE"
    for upload_id in batch.uploads.values():
        ended = [outcome for _, outcome in stack.attempts(upload_id) if outcome != "released"]
        assert ended == ["completed"]
