"""What a run of a batch does."""

import re
from typing import Any

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.ledger import leases
from vuemantics_pipeline.ledger.batches import cancel
from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline_tests.dagster.conftest import World


def test_one_bad_upload_fails_after_two_attempts_and_the_batch_completes(world: World) -> None:
    batch_id = world.add_batch("a.jpg", "bad.jpg", "c.jpg")

    result = world.run_as_sensor(batch_id)

    assert world.status_of(result) is dg.DagsterRunStatus.SUCCESS
    batch = world.batch(batch_id)
    assert (batch.status, batch.total_uploads) == ("completed", 3)
    assert (batch.processed_uploads, batch.successful_uploads, batch.failed_uploads) == (3, 2, 1)
    assert batch.error_message == "1 of 3 uploads failed."
    assert batch.started_at is not None
    assert batch.completed_at is not None
    assert batch.started_at <= batch.completed_at
    assert world.attempts() == [
        (1, "completed"),
        (1, "failed"),
        (1, "completed"),
        (2, "failed"),
    ]


def test_a_failed_upload_shows_in_its_step_and_in_the_asset_check(world: World) -> None:
    batch_id = world.add_batch("a.jpg", "bad.jpg")

    result = world.run_as_sensor(batch_id)

    retried = [event for event in result.all_events if event.is_step_up_for_retry]
    assert [event.step_key for event in retried] == [_step(result, "bad_jpg")]
    assert "bad.jpg" in str(retried[0].event_specific_data)
    metadata = _output_metadata(result, _step(result, "bad_jpg"))
    assert metadata["outcome"].value == "failed"
    assert metadata["reason"].value
    assert metadata["remedy"].value

    evaluation = _check(result, "no_failed_uploads")
    assert not evaluation.passed
    assert evaluation.severity is dg.AssetCheckSeverity.WARN
    table = evaluation.metadata["failures"]
    assert isinstance(table, dg.TableMetadataValue)
    (record,) = table.records
    assert record.data["file"] == "bad.jpg"
    assert record.data["reason"]
    assert record.data["remedy"]


def test_a_batch_without_failures_passes_its_check_and_is_materialized_once(world: World) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg")

    result = world.run_as_sensor(batch_id)

    assert _check(result, "no_failed_uploads").passed
    assert _check(result, "counters_match_rows").passed
    (event,) = result.get_asset_materialization_events()
    assert event.materialization.partition == str(batch_id)
    assert event.materialization.metadata["uploads_succeeded"].value == 2
    assert event.materialization.metadata["uploads_failed"].value == 0


def test_a_batch_without_uploads_completes_and_says_so(world: World) -> None:
    batch_id = world.add_batch()

    result = world.run_as_sensor(batch_id)

    assert world.status_of(result) is dg.DagsterRunStatus.SUCCESS
    batch = world.batch(batch_id)
    assert batch.status == "completed"
    assert "None of the files offered was accepted" in (batch.error_message or "")


def test_materializing_a_finished_batch_changes_nothing(world: World) -> None:
    batch_id = world.add_batch("a.jpg", "bad.jpg")
    world.run_as_sensor(batch_id)
    before, calls = world.batch(batch_id), world.analyzer.calls

    result = world.run(batch_id)

    assert world.status_of(result) is dg.DagsterRunStatus.SUCCESS
    assert world.batch(batch_id) == before
    assert world.analyzer.calls == calls


def test_materialize_in_the_ui_runs_a_batch_without_the_sensor(world: World) -> None:
    batch_id = world.add_batch("a.jpg")
    world.instance.add_dynamic_partitions("upload_batch", [str(batch_id)])

    # What the button launches is the implicit job of all assets, but for the others.
    everything = world.definitions.resolve_implicit_global_asset_job_def()
    job = everything.get_subset(asset_selection={dg.AssetKey("upload_batch")})
    result = job.execute_in_process(partition_key=str(batch_id), instance=world.instance)

    assert result.success
    assert world.batch(batch_id).status == "completed"


def test_a_batch_that_is_still_being_filled_is_not_run(world: World) -> None:
    batch_id = world.add_batch("a.jpg", offered=2)
    before = world.batch(batch_id)

    result = world.run(batch_id)

    assert world.status_of(result) is dg.DagsterRunStatus.FAILURE
    assert "Only 1 of the 2 uploads" in _first_failure(result)
    assert world.batch(batch_id) == before
    assert world.analyzer.calls == 0


def test_a_backend_that_is_down_stops_the_run_and_gives_the_batch_back(world: World) -> None:
    def fail_on_second(call: int) -> None:
        if call == 2:
            raise BackendUnavailable("ollama_down", "Ollama does not answer.", "Start it.")

    world.analyzer.before = fail_on_second
    batch_id = world.add_batch("a.jpg", "b.jpg", "c.jpg", "d.jpg")

    result = world.run_as_sensor(batch_id)

    assert world.status_of(result) is dg.DagsterRunStatus.FAILURE
    batch = world.batch(batch_id)
    assert (batch.status, batch.successful_uploads, batch.failed_uploads) == ("pending", 1, 0)
    assert batch.error_message == "Ollama does not answer. Start it."
    assert world.attempts() == [(1, "completed"), (1, "released")]
    assert world.analyzer.calls == 2, "the run went on after the backend was found down"

    world.analyzer.before = lambda call: None
    resumed = world.run_as_sensor(batch_id, try_number=2)
    assert world.status_of(resumed) is dg.DagsterRunStatus.SUCCESS
    assert world.batch(batch_id).successful_uploads == 4
    assert world.analyzer.calls == 5, "a finished upload was described again"


def test_terminate_ends_the_run_canceled_and_the_batch_cancelled(world: World) -> None:
    def terminate(call: int) -> None:
        if call == 2:
            (run,) = world.instance.get_runs()
            world.instance.report_run_canceling(run)
            raise DagsterExecutionInterruptedError

    world.analyzer.before = terminate
    batch_id = world.add_batch("a.jpg", "b.jpg", "c.jpg")

    result = world.run_as_sensor(batch_id)

    assert world.status_of(result) is dg.DagsterRunStatus.CANCELED
    batch = world.batch(batch_id)
    assert (batch.status, batch.successful_uploads) == ("cancelled", 1)
    assert batch.completed_at is not None
    assert world.attempts() == [(1, "completed"), (1, "released")]


def test_a_worker_told_to_stop_leaves_the_batch_to_be_resumed(world: World) -> None:
    def interrupt(call: int) -> None:
        if call == 2:
            raise DagsterExecutionInterruptedError

    world.analyzer.before = interrupt
    batch_id = world.add_batch("a.jpg", "b.jpg")

    result = world.run_as_sensor(batch_id)

    assert world.status_of(result) is dg.DagsterRunStatus.FAILURE
    assert world.batch(batch_id).status == "pending"
    assert world.attempts() == [(1, "completed"), (1, "released")]


def test_a_batch_cancelled_by_the_application_stops_its_run(world: World) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg", "c.jpg")

    def cancel_in_second(call: int) -> None:
        if call == 2:
            cancel(world.connection, batch_id, message="Cancelled by its owner.")

    world.analyzer.before = cancel_in_second

    result = world.run_as_sensor(batch_id)

    assert world.status_of(result) is dg.DagsterRunStatus.CANCELED
    batch = world.batch(batch_id)
    assert batch.status == "cancelled"
    assert batch.error_message == "Cancelled by its owner."
    assert batch.successful_uploads == 2, "the upload in hand was not brought to its end"
    assert world.analyzer.calls == 2


def test_a_batch_cancelled_in_its_last_upload_stays_cancelled(world: World) -> None:
    batch_id = world.add_batch("a.jpg")

    def cancel_it(call: int) -> None:
        cancel(world.connection, batch_id, message="Enough.")

    world.analyzer.before = cancel_it

    result = world.run_as_sensor(batch_id)

    assert world.status_of(result) is dg.DagsterRunStatus.CANCELED
    batch = world.batch(batch_id)
    assert (batch.status, batch.successful_uploads) == ("cancelled", 1)


def test_a_batch_cancelled_before_its_run_began_is_not_run(world: World) -> None:
    batch_id = world.add_batch("a.jpg")
    cancel(world.connection, batch_id, message="Changed my mind.")

    result = world.run_as_sensor(batch_id)

    assert world.status_of(result) is dg.DagsterRunStatus.CANCELED
    assert world.analyzer.calls == 0
    assert world.batch(batch_id).status == "cancelled"


def test_a_second_run_of_a_held_batch_ends_and_names_the_holder(
    world: World, database_url: str
) -> None:
    batch_id = world.add_batch("a.jpg")
    with connect(database_url) as other:
        leases.acquire(other, batch_id, "the-first-run")
        before = world.batch(batch_id)

        result = world.run(batch_id)

        assert world.status_of(result) is dg.DagsterRunStatus.FAILURE
        assert "the-first-run" in _first_failure(result)
        assert world.batch(batch_id) == before
    assert world.analyzer.calls == 0


@pytest.mark.parametrize("partition", ["7d444840-9dc0-11d1-b245-5ffdce74fad2", "not-a-uuid"])
def test_a_partition_that_is_no_batch_is_a_clear_failure(world: World, partition: str) -> None:
    result = world.run(partition)

    assert world.status_of(result) is dg.DagsterRunStatus.FAILURE
    assert partition in _any_error(result)
    assert "vuemantics batches" in _any_error(result)


def test_re_execution_from_failure_repeats_and_drops_nothing(world: World) -> None:
    def die(call: int) -> None:
        if call == 2:
            raise DagsterExecutionInterruptedError

    world.analyzer.before = die
    batch_id = world.add_batch("a.jpg", "b.jpg", "c.jpg")
    first = world.run(batch_id)
    world.analyzer.before = lambda call: None

    options = dg.ReexecutionOptions.from_failure(first.run_id, world.instance)
    job = dg.reconstructable(_job)
    partition = {"dagster/partition": str(batch_id)}
    with dg.execute_job(
        job, instance=world.instance, reexecution_options=options, tags=partition
    ) as second:
        assert second.run_id != first.run_id

    # Steps that never began are not part of such a run: the batch is then given back, not closed.
    batch = world.batch(batch_id)
    assert batch.status in ("pending", "completed")
    world.run(batch_id)
    assert world.batch(batch_id).successful_uploads == 3
    counted = [outcome for _, outcome in world.attempts() if outcome == "completed"]
    assert len(counted) == 3


def test_the_io_manager_stores_nothing_and_loads_the_partition_key(world: World) -> None:
    batch_id = world.add_batch("a.jpg")
    world.run_as_sensor(batch_id)

    loaded = world.definitions.load_asset_value(
        "upload_batch", partition_key=str(batch_id), instance=world.instance
    )

    assert loaded == str(batch_id)


def _job() -> dg.JobDefinition:
    from vuemantics_pipeline.orchestration.build import build_definitions

    return build_definitions().resolve_job_def("process_batch")


def _check(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    (found,) = [
        evaluation
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name == name
    ]
    return found


def _step(result: dg.ExecuteInProcessResult, prefix: str) -> str:
    pattern = re.compile(rf"upload_batch\.process_upload\[{prefix}_[0-9a-f]{{12}}\]")
    (key,) = {event.step_key for event in result.all_events if pattern.match(event.step_key or "")}
    assert key is not None
    return key


def _output_metadata(result: dg.ExecuteInProcessResult, step: str) -> dict[str, Any]:
    (event,) = [
        event
        for event in result.all_events
        if event.step_key == step and event.is_successful_output
    ]
    return dict(event.step_output_data.metadata)


def _first_failure(result: dg.ExecuteInProcessResult) -> str:
    event = next(event for event in result.all_events if event.is_step_failure)
    return str(event.step_failure_data.error_display_string)


def _any_error(result: dg.ExecuteInProcessResult) -> str:
    return " ".join(str(event.event_specific_data) for event in result.all_events)
