"""Running a batch again, in every way there is: nothing dropped, nothing repeated unasked."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from vuemantics_pipeline_tests.faults.stack import FaultStack, fault_stack
from vuemantics_pipeline_tests.support import NewBatch, everything, photo

ALL = (100, 101, 102)
BAD = 101

_SCHEMA = """query($selector: PipelineSelector!) { runConfigSchemaOrError(selector: $selector) {
  ... on RunConfigSchema { allConfigTypes { ... on EnumConfigType { values { value } } } }
} }"""

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def running() -> Iterator[FaultStack]:
    with fault_stack() as stack:
        yield stack


@pytest.fixture
def stack(running: FaultStack) -> Iterator[FaultStack]:
    """The stack with nothing held and nothing to do."""
    yield running
    running.settle()


@pytest.fixture
def with_failure(stack: FaultStack) -> NewBatch:
    """A completed batch, one upload of which failed; its file has been mended since."""
    batch = stack.add_batch(*ALL, bad=BAD)
    stack.assert_ended(batch, failed=1)
    assert stack.calls() == {100: 1, 102: 1}
    name = f"{batch.user_id}/{batch.uploads[f'{BAD}.jpg']}/original.jpg"
    (stack.uploads_root / name).write_bytes(photo(BAD))
    return batch


def scope_config(scope: str) -> dict[str, object]:
    """What an operator writes in the launchpad."""
    return {"ops": {"upload_batch": {"ops": {"open_batch": {"config": {"scope": scope}}}}}}


def test_retry_on_the_command_line(stack: FaultStack, with_failure: NewBatch) -> None:
    batch_id = str(with_failure.batch_id)

    def retry(scope: str, *options: str, expect: int = 0) -> int:
        answer = stack.app.json("retry", batch_id, "--scope", scope, *options, expect=expect)
        return int(answer["uploads"])

    assert retry("unfinished", expect=1) == 0
    assert retry("failed", "--dry-run") == 1
    assert retry("all", "--dry-run") == 3
    assert stack.status(with_failure) == "completed", "a preview changed something"

    assert retry("failed") == 1
    stack.assert_ended(with_failure)
    assert stack.calls() == {100: 1, 101: 1, 102: 1}

    assert retry("all") == 3
    stack.assert_ended(with_failure)
    assert stack.calls() == {100: 2, 101: 2, 102: 2}

    stack.hold(101)
    assert retry("all") == 3
    stack.await_look(101, 3)
    stack.app.vuemantics("retry", batch_id, expect=2)  # it is being processed
    stack.app.vuemantics("cancel", batch_id)
    stack.hold()
    stack.assert_ended(with_failure, "cancelled")
    # The upload in hand was brought to its end.
    assert retry("unfinished", "--dry-run") == 1
    assert retry("unfinished") == 1
    stack.assert_ended(with_failure)
    assert stack.calls()[100] == 3
    assert stack.calls()[102] == 3


def test_the_launchpad_offers_and_takes_a_scope(stack: FaultStack, with_failure: NewBatch) -> None:
    selector = {
        "repositoryLocationName": "vuemantics_pipeline",
        "repositoryName": "__repository__",
        "pipelineName": "process_batch",
    }
    types = stack.ask(_SCHEMA, selector=selector)["runConfigSchemaOrError"]["allConfigTypes"]
    offered = [{value["value"] for value in each["values"]} for each in types if each]
    assert {"UNFINISHED", "FAILED", "ALL"} in offered

    run_id = stack.materialize(with_failure)
    assert stack.await_run(run_id) == "SUCCESS"
    assert stack.calls() == {100: 1, 102: 1}, "nothing was unfinished"

    run_id = stack.materialize(with_failure, scope_config("FAILED"))
    assert stack.await_run(run_id) == "SUCCESS"
    stack.assert_ended(with_failure)
    assert stack.calls() == {100: 1, 101: 1, 102: 1}

    again = stack.materialize(with_failure, scope_config("ALL"))
    assert stack.await_run(again) == "SUCCESS"
    stack.assert_ended(with_failure)
    assert stack.calls() == {100: 2, 101: 2, 102: 2}


@pytest.mark.parametrize("strategy", ["FROM_FAILURE", "ALL_STEPS"])
def test_reexecution_of_a_run_whose_worker_died(stack: FaultStack, strategy: str) -> None:
    stack.hold(101)
    batch = stack.add_batch(*ALL)
    stack.await_look(101)
    (dead,) = stack.runs(batch)
    stack.worker().kill()
    with stack.connect() as connection:  # so that no other run goes on with it
        connection.execute(
            "UPDATE upload_batches SET status = 'cancelled' WHERE id = %s", (batch.batch_id,)
        )
    assert stack.await_run(dead.run_id) == "FAILURE"
    stack.hold()

    run_id = stack.reexecute(dead.run_id, strategy)
    status = stack.await_run(run_id)
    if strategy == "FROM_FAILURE":
        # Dagster drops what the dead run had not begun; the closing op does not stand for it.
        assert status == "FAILURE"
        assert "1 uploads are not finished. Another run takes them up." in stack.log(run_id)
    else:
        assert status == "SUCCESS", stack.log(run_id)
    stack.assert_ended(batch)
    assert stack.calls() == {100: 1, 101: 2, 102: 1}
    assert stack.attempts(batch.uploads["101.jpg"]) == [(1, "died"), (2, "completed")]

    run_id = stack.reexecute(dead.run_id, strategy)
    assert stack.await_run(run_id) == "SUCCESS", stack.log(run_id)
    stack.assert_ended(batch)
    assert stack.calls() == {100: 1, 101: 2, 102: 1}, "a finished batch was done again"


def test_a_second_run_of_a_batch_in_work_ends_at_once(stack: FaultStack) -> None:
    stack.hold(101)
    batch = stack.add_batch(*ALL)
    stack.await_look(101)
    (first,) = stack.runs(batch)
    with stack.connect() as connection:
        before = everything(connection, batch.batch_id)
        # Past the queue, which would keep it waiting.
        second = subprocess.run(
            [
                *(sys.executable, "-m", "dagster", "job", "execute", "--job", "process_batch"),
                *("--module-name", "vuemantics_pipeline.definitions"),
                *("--tags", json.dumps({"dagster/partition": str(batch.batch_id)})),
            ],
            env=stack.code_server.environ(),
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert second.returncode != 0
        assert f"is being processed by run {first.run_id}" in second.stdout + second.stderr
        assert everything(connection, batch.batch_id) == before
    stack.hold()
    stack.assert_ended(batch)
    assert stack.calls() == dict.fromkeys(ALL, 1)
    assert sorted(run.status for run in stack.runs(batch)) == ["FAILURE", "SUCCESS"]
