"""What is killed comes back by itself, and no upload is lost, repeated or counted twice.

On the real processes of `vuemantics up`. Every test prints the seconds from its fault until the
next upload began.
"""

import os
import random
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise

import psutil
import psycopg
import pytest

from vuemantics_pipeline.ledger.batches import DIED_TWICE
from vuemantics_pipeline_tests.faults.definitions import RESOURCES
from vuemantics_pipeline_tests.faults.stack import FaultStack, eventually, fault_stack, show
from vuemantics_pipeline_tests.support import NewBatch, upload_state

IDLE_CONNECTIONS = 300
STORM_SECONDS = float(os.environ.get("VUEMANTICS_STORM_SECONDS", "60"))
KILLS = 5

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def running() -> Iterator[FaultStack]:
    with fault_stack() as stack:
        yield stack


@pytest.fixture
def stack(running: FaultStack) -> Iterator[FaultStack]:
    """The stack with nothing held and nothing to do."""
    yield running
    running.settle()


def outcomes(stack: FaultStack, batch: NewBatch, width: int) -> list[str | None]:
    return [outcome for _, outcome in stack.attempts(batch.uploads[f"{width}.jpg"])]


def assert_no_attempt_used_up(stack: FaultStack, batch: NewBatch) -> None:
    """Every upload has one attempt that counts, the one that completed it."""
    for name, upload_id in batch.uploads.items():
        ended = [outcome for _, outcome in stack.attempts(upload_id) if outcome != "released"]
        assert ended == ["completed"], (name, stack.attempts(upload_id))


def assert_taken_over(stack: FaultStack, batch: NewBatch) -> None:
    """All runs but the last ended FAILURE, and each names the one that went on."""
    runs = stack.runs(batch)
    assert [run.status for run in runs] == ["FAILURE"] * (len(runs) - 1) + ["SUCCESS"]
    for dead, successor in pairwise(runs):
        assert f"Run {successor.run_id} took the batch over." in stack.log(dead.run_id)


def test_a_killed_worker_is_replaced(stack: FaultStack) -> None:
    widths = range(100, 100 + KILLS)
    stack.hold("*")
    batch = stack.add_batch(*widths)
    seconds = []
    for width in widths:
        stack.await_look(width)
        killed_at = time.time()
        stack.worker().kill()
        seconds.append(stack.started_after(batch, killed_at))
        stack.hold(*(other for other in widths if other > width))
    show("worker killed -> next upload begins", seconds)
    stack.assert_ended(batch)

    assert stack.calls() == dict.fromkeys(widths, 2)
    for width in widths:
        assert outcomes(stack, batch, width) == ["died", "completed"]
    assert len(stack.runs(batch)) == KILLS + 1
    assert_taken_over(stack, batch)


def test_worker_and_code_server_killed_together(stack: FaultStack) -> None:
    stack.hold(100)
    batch = stack.add_batch(100, 101)
    stack.await_look(100)
    worker = stack.worker()
    killed_at = time.time()
    stack.code_server.kill()
    worker.kill()
    show("worker and code server killed", [stack.started_after(batch, killed_at)])
    stack.hold()
    stack.assert_ended(batch)

    assert outcomes(stack, batch, 100) == ["died", "completed"]
    assert outcomes(stack, batch, 101) == ["completed"]
    assert_taken_over(stack, batch)


def test_killed_with_the_code_server_before_it_took_the_lease(stack: FaultStack) -> None:
    stack.hold(RESOURCES)
    batch = stack.add_batch(100)
    (run,) = eventually(
        "a run", lambda: [run for run in stack.runs(batch) if run.status == "STARTED"]
    )
    worker = stack.worker()
    killed_at = time.time()
    stack.code_server.kill()
    worker.kill()
    stack.hold()
    show("killed together before the lease", [stack.started_after(batch, killed_at)])
    stack.assert_ended(batch)

    assert stack.run_status(run.run_id) == "FAILURE"
    assert "Detected run worker status NOT_FOUND" in stack.log(run.run_id)
    assert_no_attempt_used_up(stack, batch)


def test_a_worker_outlives_its_code_server(stack: FaultStack) -> None:
    stack.hold(100)
    batch = stack.add_batch(100, 101)
    stack.await_look(100)
    stack.code_server.kill()
    eventually("another code server", lambda: stack.service("dagster", "api", "grpc"))
    time.sleep(6)  # time for run monitoring to think wrong of it
    stack.hold()
    stack.assert_ended(batch)

    assert stack.calls() == {100: 1, 101: 1}
    assert [run.status for run in stack.runs(batch)] == ["SUCCESS"]


def test_the_daemon_comes_back(stack: FaultStack) -> None:
    stack.hold(100)
    first = stack.add_batch(100)
    stack.await_look(100)
    killed_at = time.time()
    stack.daemon.kill()
    second = stack.add_batch(101)
    stack.hold()
    show("daemon killed -> next batch begins", [stack.started_after(second, killed_at)])
    for batch in (first, second):
        stack.assert_ended(batch)
        assert [run.status for run in stack.runs(batch)] == ["SUCCESS"]
    assert stack.calls() == {100: 1, 101: 1}


@pytest.mark.parametrize(
    "fault",
    [
        pytest.param(lambda stack: stack.restart_postgres(), id="restarted"),
        pytest.param(lambda stack: stack.postmaster.kill(), id="killed"),
    ],
)
def test_postgres_goes_down_in_mid_upload(
    stack: FaultStack, fault: Callable[[FaultStack], None]
) -> None:
    stack.hold("*")
    batch = stack.add_batch(100, 101, 102)
    stack.await_look(100)
    stack.hold(101)
    stack.await_look(101)
    failed_at = time.time()
    fault(stack)
    stack.hold()
    show("Postgres down -> next upload begins", [stack.started_after(batch, failed_at)])
    stack.assert_ended(batch)

    assert_no_attempt_used_up(stack, batch)
    assert stack.calls()[100] == stack.calls()[102] == 1


def test_every_connection_is_terminated(stack: FaultStack) -> None:
    stack.hold(100)
    batch = stack.add_batch(100, 101)
    stack.await_look(100)
    terminated_at = time.time()
    terminate_backends(stack)
    # The model goes on without a word to the database: the worker cannot know.
    show("connections terminated", [stack.started_after(batch, terminated_at)])
    stack.hold()
    stack.assert_ended(batch)

    assert_no_attempt_used_up(stack, batch)
    assert stack.calls()[101] == 1


def test_connections_are_terminated_all_the_time(stack: FaultStack) -> None:
    with stack.connect() as connection:
        connection.execute("ALTER SYSTEM SET max_connections = 400")
    stack.restart_postgres()
    eventually("Postgres", lambda: can_connect(stack))
    chance = random.Random(7)
    widths = range(100, 120)
    with ExitStack() as idle:
        for _ in range(IDLE_CONNECTIONS):
            idle.enter_context(
                psycopg.connect(stack.database_url, application_name="idle", autocommit=True)
            )
        batch = stack.add_batch(*widths)
        ends_at = time.monotonic() + STORM_SECONDS
        while time.monotonic() < ends_at:
            terminate_backends(stack)
            time.sleep(chance.uniform(0.4, 0.6))
        calm_at = time.time()
        if stack.status(batch) != "completed":
            show("calm again -> next upload begins", [stack.started_after(batch, calm_at)])
        stack.assert_ended(batch)
    assert_no_attempt_used_up(stack, batch)


def test_a_poison_file_fails_alone(stack: FaultStack) -> None:
    batch = stack.add_batch(100, 101, 102, poison=101)
    stack.assert_ended(batch, failed=1)

    poison = batch.uploads["101.jpg"]
    with stack.connect() as connection:
        assert upload_state(connection, poison) == ("failed", DIED_TWICE)
    assert DIED_TWICE == "The worker died twice while processing this file."
    assert stack.attempts(poison) == [(1, "died"), (2, "died")]
    assert stack.calls() == {100: 1, 101: 2, 102: 1}
    assert_taken_over(stack, batch)


def test_everything_is_killed(stack: FaultStack) -> None:
    # Last in this file: another `vuemantics up` goes on.
    stack.hold(100)
    batch = stack.add_batch(100, 101)
    stack.await_look(100)
    (run,) = stack.runs(batch)
    stack.kill_everything()
    stack.assert_nothing_left()

    started_at = time.time()
    stack.start()
    show("up again -> next upload begins", [stack.started_after(batch, started_at)])
    stack.hold()
    stack.assert_ended(batch)

    assert stack.run_status(run.run_id) == "FAILURE"
    assert_taken_over(stack, batch)
    # Postgres went down as well, so it is not known whether the file had to do with it.
    assert_no_attempt_used_up(stack, batch)


def terminate_backends(stack: FaultStack) -> None:
    """End the sessions of everybody but this one and the idle."""
    with psycopg.connect(stack.database_url, autocommit=True) as connection:
        connection.execute(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid()"
            " AND backend_type = 'client backend' AND application_name <> 'idle'"
        )


def can_connect(stack: FaultStack) -> bool:
    try:
        psycopg.connect(stack.database_url).close()
    except (psycopg.OperationalError, OSError, IndexError, psutil.NoSuchProcess):
        return False
    return True
