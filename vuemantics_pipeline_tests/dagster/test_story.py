"""What the Dagster UI tells of a batch, of its uploads and of its runs."""

import base64
import io
import re
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import dagster as dg
import pytest
from dagster._core.errors import DagsterExecutionInterruptedError
from PIL import Image

from vuemantics_pipeline.analysis.analyzer import Description
from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.ledger import leases
from vuemantics_pipeline.ledger.batches import cancel
from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline.orchestration.hooks import batch_after_cancellation
from vuemantics_pipeline.orchestration.story import ROWS_SHOWN
from vuemantics_pipeline_tests.dagster.conftest import World
from vuemantics_pipeline_tests.support import photo

STAGES = ("extracting_frames", "vision_analysis", "description_audit", "embedding_generation")
NUMBERS = {
    "uploads_total",
    "uploads_succeeded",
    "uploads_failed",
    "uploads_reused",
    "bytes_total",
    "duration_seconds",
    "seconds_waiting_in_queue",
    "uploads_per_minute",
    "audit_score_mean",
    "attempts_total",
    "takeovers",
    *(f"{stage}_seconds_{part}" for stage in STAGES for part in ("p50", "p95")),
}
OTHERS = {
    "user",
    "analyzer",
    "vision_model",
    "embedding_model",
    "prompt_version",
    "run",
    "failures",
    "contact_sheet",
}


def materialization(result: dg.ExecuteInProcessResult) -> Mapping[str, Any]:
    """The metadata of the one materialization of a run."""
    (event,) = result.get_asset_materialization_events()
    return event.materialization.metadata


def step(result: dg.ExecuteInProcessResult, prefix: str) -> str:
    pattern = re.compile(rf"upload_batch\.process_upload\[{prefix}_[0-9a-f]{{12}}\]")
    (key,) = {event.step_key for event in result.all_events if pattern.match(event.step_key or "")}
    assert key is not None
    return key


def step_output(result: dg.ExecuteInProcessResult, key: str) -> dg.DagsterEvent:
    (event,) = [
        event for event in result.all_events if event.step_key == key and event.is_successful_output
    ]
    return event


def step_metadata(result: dg.ExecuteInProcessResult, prefix: str) -> Mapping[str, Any]:
    return step_output(result, step(result, prefix)).step_output_data.metadata


def check(result: dg.ExecuteInProcessResult, name: str) -> dg.AssetCheckEvaluation:
    (found,) = [
        evaluation
        for evaluation in result.get_asset_check_evaluations()
        if evaluation.check_name == name
    ]
    return found


def rows(value: Any) -> list[Mapping[str, Any]]:
    assert isinstance(value, dg.TableMetadataValue)
    return [record.data for record in value.records]


def picture(value: Any) -> tuple[bytes, str]:
    """A picture out of its markdown, and what stands below it."""
    assert isinstance(value, dg.MarkdownMetadataValue)
    found = re.fullmatch(
        r"!\[[a-z ]+\]\(data:image/(?:png|jpeg);base64,([A-Za-z0-9+/=]+)\)\s*(.*)",
        value.value,
    )
    assert found, value.value[:100]
    return base64.b64decode(found[1]), found[2]


def tags(world: World, run_id: str) -> dict[str, str]:
    """What the run says of itself that the pipeline has put there."""
    run = world.instance.get_run_by_id(run_id)
    assert run is not None
    return {name: text for name, text in run.tags.items() if name.startswith("vuemantics/")}


def events(world: World, run_id: str) -> list[str]:
    """What the engine has to say about a run, in order."""
    entries = world.instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    return [entry.dagster_event.message or "" for entry in entries if entry.dagster_event]


# The batch


def test_a_batch_tells_all_its_numbers(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VUEMANTICS_UI_URL", "https://dagster.example/")
    batch_id = world.add_batch("a.jpg", "bad.jpg", "c.jpg")

    result = world.run_as_sensor(batch_id)

    told = materialization(result)
    assert set(told) == NUMBERS | OTHERS
    values = {name: told[name].value for name in NUMBERS}
    assert all(isinstance(value, int | float) for value in values.values()), values
    assert values["uploads_total"] == 3
    assert (values["uploads_succeeded"], values["uploads_failed"]) == (2, 1)
    assert values["attempts_total"] == 4
    assert values["takeovers"] == values["uploads_reused"] == 0
    assert values["bytes_total"] == 2 * len(photo()) + len(b"no photo")
    assert values["audit_score_mean"] == 100
    assert values["uploads_per_minute"] == pytest.approx(
        60 * 3 / values["duration_seconds"], rel=0.01
    )
    for stage in STAGES:
        assert 0 <= values[f"{stage}_seconds_p50"] <= values[f"{stage}_seconds_p95"]
    assert values["extracting_frames_seconds_p95"] > 0
    assert told["user"].value == str(world.user_id)
    identity = world.analyzer.identity
    assert (told["analyzer"].value, told["vision_model"].value) == (
        identity.analyzer,
        identity.vision_model,
    )
    assert (told["embedding_model"].value, told["prompt_version"].value) == (
        identity.embedding_model,
        identity.prompt_version,
    )
    assert told["run"] == dg.MetadataValue.url(f"https://dagster.example/runs/{result.run_id}")


def test_a_batch_lists_its_failures(world: World) -> None:
    batch_id = world.add_batch("a.jpg", "bad 1.jpg", "bad 2.jpg")

    told = materialization(world.run_as_sensor(batch_id))

    failures = rows(told["failures"])
    assert [row["file"] for row in failures] == ["bad 1.jpg", "bad 2.jpg"]
    for row in failures:
        assert set(row) == {"file", "code", "reason", "remedy", "attempts"}
        assert all(row.values())
        assert row["attempts"] == 2


def test_many_failures_are_counted(world: World) -> None:
    batch_id = world.add_batch("bad.jpg")
    world.connection.execute(
        "INSERT INTO uploads (id, user_id, batch_id, filename, file_path, file_type, file_size,"
        " mime_type, processing_status, error_message)"
        " SELECT gen_random_uuid(), user_id, batch_id, n || '.jpg', 'gone', 'image', 1,"
        " 'image/jpeg', 'failed', 'Gone.' FROM uploads, generate_series(1, %s) AS n",
        (ROWS_SHOWN,),
    )

    result = world.run(batch_id)

    found = check(result, "no_failed_uploads")
    assert found.metadata["failed_uploads"].value == ROWS_SHOWN + 1
    for table in (materialization(result)["failures"], found.metadata["failures"]):
        *shown, last = rows(table)
        assert len(shown) == ROWS_SHOWN
        assert last["file"] == "and 1 more"


def test_a_batch_without_uploads_has_the_same_names(world: World) -> None:
    told = materialization(world.run_as_sensor(world.add_batch()))

    assert set(told) == NUMBERS | OTHERS
    assert told["uploads_total"].value == 0
    for name in ("duration_seconds", "vision_analysis_seconds_p50", "audit_score_mean", "analyzer"):
        assert told[name] == dg.MetadataValue.null()
    assert told["contact_sheet"] == dg.MetadataValue.null()


def test_the_contact_sheet_shows_the_photos(world: World) -> None:
    batch_id = world.add_batch(*(f"{number}.jpg" for number in range(26)))

    sheet, caption = picture(materialization(world.run_as_sensor(batch_id))["contact_sheet"])

    assert len(sheet) <= 200_000
    opened = Image.open(io.BytesIO(sheet))
    assert (opened.format, opened.size) == ("PNG", (8 * 100 + 4, 3 * 100 + 4))
    assert caption == "and 2 more"


def test_a_thumbnail_that_is_no_more_is_left_out(world: World) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg")
    world.run_as_sensor(batch_id)
    gone, foreign = sorted(world.uploads_root.glob("*/*/thumb_256.jpg"))
    gone.unlink()
    foreign.write_bytes(b"\xff\xd8\xff no picture")

    told = materialization(world.run(batch_id))

    assert told["contact_sheet"] == dg.MetadataValue.null()
    assert told["uploads_succeeded"].value == 2


def test_what_is_large_is_stored_once(world: World) -> None:
    result = world.run_as_sensor(world.add_batch("a.jpg"))

    assert step_output(result, "upload_batch.close_batch").step_output_data.metadata == {}


def test_the_asset_says_whose_it_is() -> None:
    from vuemantics_pipeline.orchestration.assets import upload_batch

    spec = upload_batch.get_asset_spec()
    assert spec.description
    assert spec.owners == ["team:vuemantics"]
    assert spec.kinds == {"postgres", "pgvector", "ollama"}
    assert spec.group_name == "uploads"
    assert spec.tags["application"] == "vuemantics"
    assert spec.freshness_policy is not None


# Its uploads


def test_an_upload_costs_eight_event_rows(world: World) -> None:
    result = world.run_as_sensor(world.add_batch("a.jpg"))

    key = step(result, "a_jpg")
    entries = [entry for entry in world.instance.all_logs(result.run_id) if entry.step_key == key]
    told = [
        entry.dagster_event.event_type_value if entry.dagster_event else entry.user_message
        for entry in entries
    ]
    assert [re.sub(r"\d+\.\d\d s$", "0.00 s", line) for line in told] == [
        "STEP_START",
        *(f"a.jpg: {stage} 0.00 s" for stage in STAGES),
        "STEP_OUTPUT",
        "STEP_SUCCESS",
        "HOOK_SKIPPED",
    ]


def test_nothing_but_stages_and_failures_is_logged(world: World) -> None:
    result = world.run_as_sensor(world.add_batch("a.jpg", "bad.jpg"))

    logged = [
        entry.user_message
        for entry in world.instance.all_logs(result.run_id)
        if entry.dagster_event is None
    ]
    *stages, last = logged
    assert len(stages) == 4 + 2, "four stages of the good one, two tries at the bad one"
    assert all(re.fullmatch(r"(a|bad)\.jpg: [a-z_]+ \d+\.\d\d s", line) for line in stages)
    assert last.startswith("bad.jpg failed for good: ")


def test_a_file_name_stays_in_its_line(world: World) -> None:
    result = world.run_as_sensor(world.add_batch("two\nlines.jpg"))

    entries = world.instance.all_logs(result.run_id)
    logged = [entry.user_message for entry in entries if entry.dagster_event is None]
    assert len(logged) == 4
    assert all(line.startswith(r"two\nlines.jpg: ") for line in logged)


def test_a_log_that_cannot_be_written_fails_no_upload(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(self: object, message: str) -> None:
        raise OSError("The storage of events is gone.")

    batch_id = world.add_batch("a.jpg")
    monkeypatch.setattr(dg.DagsterLogManager, "info", broken)

    world.run_as_sensor(batch_id)

    assert world.batch(batch_id).successful_uploads == 1
    assert world.attempts() == [(1, "completed")]


def test_a_step_tells_what_became_of_its_upload(world: World) -> None:
    result = world.run_as_sensor(world.add_batch("a.jpg"))

    told = step_metadata(result, "a_jpg")
    assert (told["outcome"].value, told["file"].value, told["attempt"].value) == (
        "completed",
        "a.jpg",
        1,
    )
    assert told["audit_score"].value == 100
    assert {f"{stage}_seconds" for stage in STAGES} <= set(told)
    small, _ = picture(told["thumbnail"])
    opened = Image.open(io.BytesIO(small))
    assert (opened.format, max(opened.size)) == ("JPEG", 64)
    assert "first_error" not in told


def test_a_step_stays_small(world: World) -> None:
    result = world.run_as_sensor(world.add_batch("a.jpg"))

    event = step_output(result, step(result, "a_jpg"))
    assert len(dg.serialize_value(event)) < 6_000


def test_a_retry_shows_the_first_error(world: World) -> None:
    errors = iter(["It broke once.", "It broke again."])

    def fail(call: int) -> None:
        message = next(errors, None)
        if message:
            raise ValueError(message)

    world.analyzer.before = fail
    result = world.run_as_sensor(world.add_batch("a.jpg"))

    told = step_metadata(result, "a_jpg")
    assert (told["outcome"].value, told["attempt"].value) == ("failed", 2)
    assert "It broke once." in told["first_error"].value
    assert "It broke again." in told["reason"].value
    assert told["code"].value == "internal_error"
    assert told["remedy"].value


def test_a_retry_that_succeeds_shows_the_first_error_too(world: World) -> None:
    def fail_once(call: int) -> None:
        if call == 1:
            raise ValueError("It broke once.")

    world.analyzer.before = fail_once
    result = world.run_as_sensor(world.add_batch("a.jpg"))

    told = step_metadata(result, "a_jpg")
    assert (told["outcome"].value, told["attempt"].value) == ("completed", 2)
    assert "It broke once." in told["first_error"].value
    assert "reason" not in told


# Its runs


def cancel_at(world: World, call: int, batch_id: UUID, how: str) -> None:
    """Let the batch be cancelled while the model looks at its upload number `call`."""

    def before(now: int) -> None:
        if now != call:
            return
        if how == "sql":
            world.connection.execute("UPDATE upload_batches SET status = 'cancelled'")
        elif how == "command":
            cancel(world.connection, batch_id, message="Cancelled from the command line.")
        else:
            (run,) = world.instance.get_runs()
            world.instance.report_run_canceling(run)
            raise DagsterExecutionInterruptedError

    world.analyzer.before = before


def fire_cancellation(world: World, run_id: str) -> None:
    """What the daemon does once a run has ended canceled."""
    run = world.instance.get_run_by_id(run_id)
    assert run is not None
    assert run.status is dg.DagsterRunStatus.CANCELED
    event = dg.DagsterEvent(
        event_type_value=dg.DagsterEventType.RUN_CANCELED.value, job_name=run.job_name
    )
    batch_after_cancellation(
        dg.build_run_status_sensor_context(
            sensor_name="batch_after_cancellation",
            dagster_event=event,
            dagster_instance=world.instance,
            dagster_run=run,
        )
    )


@pytest.mark.parametrize(
    ("how", "told"),
    [
        ("sql", "2 of 3 uploads are done. Cancelled in the application."),
        ("command", "2 of 3 uploads are done. Cancelled from the command line."),
        (
            "terminate",
            "1 of 3 uploads are done."
            " Run {run_id} was terminated in Dagster; what was done is kept.",
        ),
    ],
)
def test_a_canceled_run_says_why(world: World, how: str, told: str) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg", "c.jpg")
    cancel_at(world, 2, batch_id, how)

    result = world.run_as_sensor(batch_id)
    for _ in range(2):
        fire_cancellation(world, result.run_id)

    told = told.format(run_id=result.run_id)
    assert tags(world, result.run_id)["vuemantics/cancelled"] == told
    assert events(world, result.run_id).count(told) == 1
    assert events(world, result.run_id)[-1] == told


def test_a_run_canceled_while_another_has_its_batch(world: World, database_url: str) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg")
    with connect(database_url) as other:
        leases.acquire(other, batch_id, "the-first-run")
        world.instance.add_dynamic_partitions("upload_batch", [str(batch_id)])
        other_run = world.instance.create_run_for_job(
            world.definitions.resolve_job_def("process_batch"),
            tags={"dagster/partition": str(batch_id)},
            status=dg.DagsterRunStatus.STARTED,
        )
        world.instance.report_run_canceled(other_run)

        fire_cancellation(world, other_run.run_id)

    told = tags(world, other_run.run_id)["vuemantics/cancelled"]
    assert told == "0 of 2 uploads are done. Terminated in Dagster."
    assert world.batch(batch_id).status == "pending"


def test_a_canceled_run_of_a_batch_that_was_deleted(world: World) -> None:
    batch_id = world.add_batch("a.jpg")
    cancel(world.connection, batch_id, message="Enough.")
    result = world.run_as_sensor(batch_id)
    world.connection.execute("DELETE FROM upload_batches")

    fire_cancellation(world, result.run_id)

    assert "There is no batch" in tags(world, result.run_id)["vuemantics/cancelled"]


def outage_at(world: World, *calls: int) -> None:
    def before(call: int) -> None:
        if call in calls:
            raise BackendUnavailable("ollama_down", "Ollama does not answer.", "Start it.")

    world.analyzer.before = before


def test_runs_say_who_goes_on_with_whose_batch(world: World) -> None:
    outage_at(world, 2, 3)
    batch_id = world.add_batch("a.jpg", "b.jpg", "c.jpg")

    first, second, third = (
        world.run_as_sensor(batch_id, try_number).run_id for try_number in (1, 2, 3)
    )

    assert world.batch(batch_id).status == "completed"
    assert tags(world, first)["vuemantics/taken_over_by"] == second
    assert "vuemantics/takes_over_from" not in tags(world, first)
    assert tags(world, second)["vuemantics/takes_over_from"] == first
    assert tags(world, second)["vuemantics/taken_over_by"] == third
    assert tags(world, third)["vuemantics/takes_over_from"] == second
    assert "vuemantics/taken_over_by" not in tags(world, third)
    assert events(world, first)[-1] == f"Run {second} took the batch over."
    assert f"Goes on with the batch of run {second}." in events(world, third)
    assert materialization_numbers(world, batch_id)["takeovers"] == 2


def materialization_numbers(world: World, batch_id: UUID) -> dict[str, Any]:
    event = world.instance.get_latest_materialization_event(dg.AssetKey("upload_batch"))
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.partition == str(batch_id)
    return {name: value.value for name, value in event.asset_materialization.metadata.items()}


def test_a_run_again_takes_over_from_none(world: World) -> None:
    batch_id = world.add_batch("a.jpg", "bad.jpg")
    first = world.run_as_sensor(batch_id).run_id

    second = world.run(batch_id).run_id

    assert "vuemantics/taken_over_by" not in tags(world, first)
    assert "vuemantics/takes_over_from" not in tags(world, second)


def test_a_run_that_found_the_batch_held_is_no_predecessor(world: World, database_url: str) -> None:
    outage_at(world, 1)
    batch_id = world.add_batch("a.jpg")
    failed = world.run_as_sensor(batch_id).run_id
    with connect(database_url) as other:
        leases.acquire(other, batch_id, "the-first-run")
        refused = world.run(batch_id).run_id

    successor = world.run_as_sensor(batch_id, 2).run_id

    assert "the-first-run" in tags(world, refused)["vuemantics/refused"]
    assert "vuemantics/taken_over_by" not in tags(world, refused)
    assert tags(world, failed)["vuemantics/taken_over_by"] == successor
    assert tags(world, successor)["vuemantics/takes_over_from"] == failed


# Its checks


def execute_check(world: World, name: str) -> dg.ExecuteInProcessResult:
    """What "Execute" on the page of the checks starts: a run without a partition."""
    job = world.definitions.get_repository_def().get_job("__ASSET_JOB")
    key = dg.AssetCheckKey(dg.AssetKey("upload_batch"), name)
    return job.get_subset(asset_selection=set(), asset_check_selection={key}).execute_in_process(
        instance=world.instance, raise_on_error=False
    )


def test_a_check_by_itself_looks_at_the_last_batch(world: World) -> None:
    world.run_as_sensor(world.add_batch("bad.jpg"))
    last = world.add_batch("a.jpg")
    world.run_as_sensor(last)
    world.connection.execute(
        "UPDATE upload_batches SET successful_uploads = 0 WHERE id = %s", (last,)
    )

    fine = check(execute_check(world, "no_failed_uploads"), "no_failed_uploads")
    wrong = check(execute_check(world, "counters_match_rows"), "counters_match_rows")

    assert (fine.passed, fine.metadata["batch"].value) == (True, str(last))
    assert (wrong.passed, wrong.metadata["batch"].value) == (False, str(last))


def test_a_check_without_any_batch_says_so(world: World) -> None:
    (failed,) = execute_check(world, "no_failed_uploads").get_step_failure_events()
    failure = failed.step_failure_data.user_failure_data
    assert failure is not None
    assert failure.description is not None
    assert "nothing to check" in failure.description


def test_every_check_names_its_batch(world: World) -> None:
    batch_id = world.add_batch("a.jpg")

    evaluations = world.run_as_sensor(batch_id).get_asset_check_evaluations()

    assert {evaluation.check_name for evaluation in evaluations} == {
        "no_failed_uploads",
        "counters_match_rows",
        "duration_within_expectation",
        "descriptions_pass_audit",
    }
    assert {evaluation.metadata["batch"].value for evaluation in evaluations} == {str(batch_id)}


def test_counters_are_shown_beside_the_rules_they_keep(world: World) -> None:
    batch_id = world.add_batch("a.jpg", "bad.jpg")

    found = check(world.run_as_sensor(batch_id), "counters_match_rows")

    assert found.passed
    assert {
        name: value.value for name, value in found.metadata.items() if name != "violations"
    } == {
        "batch": str(batch_id),
        "broken_rules": 0,
        "total_uploads": 2,
        "processed_uploads": 2,
        "successful_uploads": 1,
        "failed_uploads": 1,
    }


def test_a_broken_rule_is_found(world: World) -> None:
    batch_id = world.add_batch("a.jpg")
    world.run_as_sensor(batch_id)
    world.connection.execute("UPDATE uploads SET description = NULL")

    found = check(world.run(batch_id), "counters_match_rows")

    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.ERROR
    (row,) = rows(found.metadata["violations"])
    assert row["rule"] == "completed_without_result"
    assert row["detail"]


def past_batches(world: World, count: int, *, seconds_per_upload: float) -> None:
    """Completed batches of one upload each, by the analyzer of this test."""
    for number in range(count):
        batch_id = world.add_batch(f"{number}.jpg")
        world.run_as_sensor(batch_id)
        took(world, batch_id, seconds_per_upload)


def took(world: World, batch_id: UUID, seconds: float) -> None:
    world.connection.execute(
        "UPDATE vuemantics_pipeline.attempts"
        " SET started_at = ended_at - make_interval(secs => %s) WHERE batch_id = %s",
        (seconds, batch_id),
    )


@pytest.mark.parametrize(("seconds", "passes"), [(89, True), (91, False)])
def test_a_batch_that_took_too_long(world: World, seconds: float, passes: bool) -> None:
    past_batches(world, 5, seconds_per_upload=10)
    batch_id = world.add_batch("a.jpg", "b.jpg")
    world.run_as_sensor(batch_id)
    world.connection.execute(
        "UPDATE vuemantics_pipeline.attempts SET started_at = now(), ended_at = now()"
        " + make_interval(secs => %s) WHERE batch_id = %s",
        (seconds, batch_id),
    )

    found = check(world.run(batch_id), "duration_within_expectation")

    assert found.passed == passes
    assert found.severity is dg.AssetCheckSeverity.WARN
    told = {name: value.value for name, value in found.metadata.items() if name != "stages"}
    assert told == {
        "batch": str(batch_id),
        "duration_seconds": seconds,
        "limit_seconds": 3 * 10 * 2 + 30,
        "seconds_per_upload": seconds / 2,
        "usual_seconds_per_upload": 10,
        "batches_compared": 5,
    }
    assert [row["stage"] for row in rows(found.metadata["stages"])] == list(STAGES)


def test_too_few_batches_to_compare_with(world: World) -> None:
    past_batches(world, 4, seconds_per_upload=0.001)
    batch_id = world.add_batch("a.jpg")
    world.run_as_sensor(batch_id)
    took(world, batch_id, 3600)

    found = check(world.run(batch_id), "duration_within_expectation")

    assert found.passed
    assert "too few" in (found.description or "")
    assert found.metadata["batches_compared"].value == 4
    assert "limit_seconds" not in found.metadata


def test_nothing_to_process_takes_no_time(world: World) -> None:
    found = check(world.run_as_sensor(world.add_batch()), "duration_within_expectation")

    assert found.passed
    assert found.description == "There was nothing to process."


def test_descriptions_that_do_not_pass(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = {1: "No.", 2: "No.", 3: "I'm sorry, but I cannot see any image here at all, sadly."}

    def describe(*args: Any, **kwargs: Any) -> Description:
        world.analyzer.calls += 1
        good = "A quiet lake under a grey sky, with pine trees along its far shore."
        return Description(answers.get(world.analyzer.calls, good))

    monkeypatch.setattr(world.analyzer, "describe", describe)
    batch_id = world.add_batch("poor.jpg", "poorer.jpg", "good.jpg")
    # The first is asked about twice and answers the same, the second better the second time.
    result = world.run_as_sensor(batch_id)

    found = check(result, "descriptions_pass_audit")

    assert not found.passed
    assert found.severity is dg.AssetCheckSeverity.WARN
    assert found.description == "Descriptions below 60: 1 of 3."
    assert found.metadata["poor_descriptions"].value == 1
    assert found.metadata["pass_mark"].value == 60
    (row,) = rows(found.metadata["worst"])
    assert row == {"file": "poor.jpg", "score": 50, "faults": "too short", "description": "No."}


def test_descriptions_that_pass(world: World) -> None:
    found = check(world.run_as_sensor(world.add_batch("a.jpg")), "descriptions_pass_audit")

    assert found.passed
    assert found.metadata["audit_score_mean"].value == 100
    assert rows(found.metadata["worst"]) == []
