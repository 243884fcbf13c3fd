"""What operators launch from the UI: each job does what the ledger does, and says so."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import dagster as dg
import pytest

from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline.ledger.leases import acquire
from vuemantics_pipeline.orchestration.hooks import (
    batch_after_cancellation,
    batch_after_failure,
    batch_after_success,
)
from vuemantics_pipeline_tests.dagster.conftest import World
from vuemantics_pipeline_tests.support import everything

OPS = {
    "retry_batch": "retry",
    "cancel_batch": "cancel",
    "reanalyze": "reanalyze_uploads",
    "audit_ledger": "audit_rows",
    "prune_history": "prune",
}
LONG_AGO = datetime.now(UTC) - timedelta(days=100)


def launch(world: World, job: str, **config: object) -> dg.ExecuteInProcessResult:
    return world.definitions.resolve_job_def(job).execute_in_process(
        run_config={"ops": {OPS[job]: {"config": config}}} if config else None,
        instance=world.instance,
        raise_on_error=False,
    )


def metadata(result: dg.ExecuteInProcessResult) -> dict[str, Any]:
    """What a job said it did."""
    assert result.success
    (event,) = [e for e in result.all_node_events if e.event_type_value == "STEP_OUTPUT"]
    given: Mapping[str, dg.MetadataValue] = event.step_output_data.metadata
    return {name: value.value for name, value in given.items()}


def failure(result: dg.ExecuteInProcessResult) -> tuple[str, dict[str, Any]]:
    """Why a job failed, in the words and metadata that the UI shows."""
    assert not result.success
    (event,) = result.all_node_events and [
        e for e in result.all_node_events if e.event_type_value == "STEP_FAILURE"
    ]
    data = event.step_failure_data.user_failure_data
    assert data is not None
    return data.description or "", {name: value.value for name, value in data.metadata.items()}


def log(world: World, result: dg.ExecuteInProcessResult) -> list[str]:
    """The lines that people read."""
    return [
        entry.user_message
        for entry in world.instance.all_logs(result.run_id)
        if entry.dagster_event is None
    ]


def test_retry_takes_failed_uploads_up_again(world: World) -> None:
    batch_id = world.add_batch("a.jpg", "bad.jpg")
    world.run_as_sensor(batch_id)

    result = launch(world, "retry_batch", batch_id=str(batch_id), scope="FAILED")

    told = metadata(result)
    assert (told["uploads"], told["scope"]) == (1, "failed")
    assert str(batch_id) in told["batch"]
    assert log(world, result) == [f"Batch {batch_id}: the next run takes up 1 of its uploads."]
    batch = world.batch(batch_id)
    assert (batch.status, batch.successful_uploads, batch.failed_uploads) == ("pending", 1, 0)
    world.run_as_sensor(batch_id, try_number=2)
    assert world.batch(batch_id).status == "completed"


def test_retry_with_nothing_to_do_changes_nothing(world: World) -> None:
    batch_id = world.add_batch("a.jpg")
    world.run_as_sensor(batch_id)
    before = everything(world.connection, batch_id)

    assert metadata(launch(world, "retry_batch", batch_id=str(batch_id)))["uploads"] == 0
    assert everything(world.connection, batch_id) == before


def test_a_batch_that_is_processed_cannot_be_retried(world: World, database_url: str) -> None:
    batch_id = world.add_batch("a.jpg")
    with connect(database_url) as worker:
        acquire(worker, batch_id, "a-run")
        told, details = failure(launch(world, "retry_batch", batch_id=str(batch_id)))
    assert told.startswith(f"A run is processing batch {batch_id}.")
    assert details["code"] == "batch_is_processed"


@pytest.mark.parametrize("job", ["retry_batch", "cancel_batch", "audit_ledger"])
def test_what_is_no_batch_is_refused(world: World, job: str) -> None:
    told, details = failure(launch(world, job, batch_id="'; DROP TABLE uploads"))
    assert details["code"] == "not_a_batch_id"
    assert details["remedy"]
    assert details["remedy"] in told
    _, details = failure(launch(world, job, batch_id=str(uuid4())))
    assert details["code"] == "no_such_batch"


def test_cancel(world: World) -> None:
    batch_id = world.add_batch("a.jpg")

    told = metadata(launch(world, "cancel_batch", batch_id=str(batch_id)))

    assert (told["cancelled"], told["status"], told["uploads_total"]) == (True, "cancelled", 1)
    assert world.batch(batch_id).error_message == "Cancelled from the Dagster UI."
    told = metadata(launch(world, "cancel_batch", batch_id=str(batch_id)))
    assert (told["cancelled"], told["status"]) == (False, "cancelled")


def test_reanalyze_asks_first(world: World) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg")
    world.run_as_sensor(batch_id)
    world.connection.execute(
        "UPDATE vuemantics_pipeline.attempts SET prompt_version = 'an older one'"
    )

    told = metadata(launch(world, "reanalyze"))
    assert (told["dry_run"], told["uploads"], told["batches"]) == (True, 2, 1)
    assert world.batch(batch_id).status == "completed"

    told = metadata(launch(world, "reanalyze", dry_run=False))
    assert (told["dry_run"], told["uploads"]) == (False, 2)
    assert told["vectors_cleared_of"] == "none"
    assert world.batch(batch_id).status == "pending"

    _, details = failure(launch(world, "reanalyze", user="nobody@example.com"))
    assert details["code"] == "no_such_user"


def test_audit(world: World) -> None:
    sound, broken = world.add_batch("a.jpg"), world.add_batch("b.jpg")
    for batch_id in (sound, broken):
        world.run_as_sensor(batch_id)
    assert metadata(launch(world, "audit_ledger"))["batches"] == 2
    world.connection.execute(
        "UPDATE upload_batches SET successful_uploads = 0 WHERE id = %s", (broken,)
    )

    told, details = failure(launch(world, "audit_ledger"))

    assert told == f"Batches checked: 2. Violations: {details['violations']}."
    rules = {record.data["rule"] for record in details["broken_rules"].records}
    assert "counters_differ_from_rows" in rules
    assert {r.data["batch"] for r in details["broken_rules"].records} == {str(broken)}
    assert metadata(launch(world, "audit_ledger", batch_id=str(sound)))["violations"] == 0


def age(world: World, batch_id: UUID, run_id: str | None = None) -> None:
    """Let a batch, and a run, have ended long ago."""
    world.connection.execute(
        "UPDATE upload_batches SET completed_at = %s WHERE id = %s", (LONG_AGO, batch_id)
    )
    if run_id:
        age_run(world, run_id)


def age_run(world: World, run_id: str) -> None:
    from dagster._core.storage.runs.schema import RunsTable
    from dagster._core.storage.runs.sql_run_storage import SqlRunStorage

    storage = world.instance.run_storage
    assert isinstance(storage, SqlRunStorage)
    with storage.connect() as connection:
        connection.execute(
            RunsTable.update()
            .where(RunsTable.c.run_id == run_id)
            .values(update_timestamp=LONG_AGO.replace(tzinfo=None))
        )


def partitions(world: World) -> set[str]:
    return set(world.instance.get_dynamic_partitions("upload_batch"))


def test_prune_deletes_what_is_old_and_nothing_else(world: World, tmp_path: Any) -> None:
    old, young, pending = (world.add_batch(f"{name}.jpg") for name in "abc")
    old_run, young_run = world.run_as_sensor(old).run_id, world.run_as_sensor(young).run_id
    age(world, old, old_run)
    # Pending for a hundred days, after a run that failed then.
    world.instance.add_dynamic_partitions("upload_batch", [str(pending), "no batch's"])
    failed = world.instance.create_run_for_job(
        world.definitions.resolve_job_def("process_batch"),
        tags={"dagster/partition": str(pending)},
        status=dg.DagsterRunStatus.FAILURE,
    ).run_id
    age_run(world, failed)
    # Begun a hundred days ago and still at work.
    at_work = world.instance.create_run_for_job(
        world.definitions.resolve_job_def("process_batch"), status=dg.DagsterRunStatus.STARTED
    ).run_id
    age_run(world, at_work)
    report = world.definitions.resolve_job_def("report_day").execute_in_process(
        partition_key="2026-02-01", instance=world.instance
    )
    age_run(world, report.run_id)
    rows = {batch_id: everything(world.connection, batch_id) for batch_id in (old, young, pending)}

    would = metadata(launch(world, "prune_history", older_than_days=90))
    assert (would["dry_run"], would["runs"], would["partitions"]) == (True, 1, 1)
    assert world.instance.get_run_by_id(old_run)

    result = launch(world, "prune_history", older_than_days=90, dry_run=False)
    told = metadata(result)
    assert (told["runs"], told["partitions"], told["media_facts"]) == (1, 1, 0)
    assert log(world, result)[:2] == ["Runs deleted: 1 of 1.", "Partitions deleted: 1 of 1."]
    assert world.instance.get_run_by_id(old_run) is None
    assert world.instance.all_logs(old_run) == []
    for kept in (young_run, failed, at_work, report.run_id):
        assert world.instance.get_run_by_id(kept), kept
    assert partitions(world) == {str(young), str(pending), "no batch's"}
    for batch_id, before in rows.items():
        assert everything(world.connection, batch_id) == before

    assert metadata(launch(world, "prune_history", dry_run=False))["runs"] == 0


def test_prune_leaves_a_batch_that_a_run_holds(world: World, database_url: str) -> None:
    batch_id = world.add_batch("a.jpg")
    world.run_as_sensor(batch_id)
    age(world, batch_id)
    with connect(database_url) as worker:
        acquire(worker, batch_id, "a-run")
        assert metadata(launch(world, "prune_history"))["partitions"] == 0
    assert metadata(launch(world, "prune_history"))["partitions"] == 1


def test_prune_forgets_media_whose_uploads_were_deleted(world: World) -> None:
    gone, kept = world.add_batch("a.jpg", "b.jpg"), world.add_batch("c.jpg")
    for batch_id in (gone, kept):
        world.run_as_sensor(batch_id)
    world.connection.execute("DELETE FROM uploads WHERE batch_id = %s", (gone,))
    world.connection.execute("DELETE FROM upload_batches WHERE id = %s", (gone,))
    attempts = world.attempts()

    told = metadata(launch(world, "prune_history", dry_run=False))

    assert (told["media_facts"], told["partitions"]) == (2, 1)
    left = world.connection.execute("SELECT upload_id FROM vuemantics_pipeline.media_facts")
    assert left.rowcount == 1
    assert partitions(world) == {str(kept)}
    assert world.attempts() == attempts, "our own facts stay"


def test_a_database_that_is_down_is_told_of(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nothing")
    told, details = failure(launch(world, "audit_ledger"))
    assert details["code"] == "database_unavailable"
    assert told.startswith("Postgres does not answer")


@pytest.mark.parametrize(
    ("job", "tags"), [("audit_ledger", {}), ("report_day", {"dagster/partition": "2026-03-14"})]
)
def test_the_hooks_of_batches_pass_other_runs_by(
    world: World, job: str, tags: dict[str, str]
) -> None:
    run = world.instance.create_run_for_job(
        world.definitions.resolve_job_def(job), tags=tags, status=dg.DagsterRunStatus.STARTED
    )
    event = world.instance.report_run_failed(run, "It broke.")
    for hook in (batch_after_failure, batch_after_cancellation, batch_after_success):
        context = dg.build_run_status_sensor_context(
            sensor_name=hook.name,
            dagster_event=event,
            dagster_instance=world.instance,
            dagster_run=run,
        )
        skipped = hook(context.for_run_failure() if hook is batch_after_failure else context)
        assert isinstance(skipped, dg.SkipReason)
        assert skipped.skip_message == f"Run {run.run_id} is not a run of a batch."
