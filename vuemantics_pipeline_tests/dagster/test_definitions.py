"""The shape of what Dagster loads, so that no part of it changes unnoticed."""

from uuid import UUID

import dagster as dg

from vuemantics_pipeline.ledger.records import UploadKey
from vuemantics_pipeline.orchestration.build import build_definitions
from vuemantics_pipeline.orchestration.ops import mapping_key


def test_the_definitions_are_what_they_are() -> None:
    definitions = build_definitions()
    repository = definitions.get_repository_def()

    assert sorted(job.name for job in repository.get_all_jobs()) == [
        "__ASSET_JOB",
        "audit_ledger",
        "cancel_batch",
        "process_batch",
        "prune_history",
        "reanalyze",
        "report_day",
        "retry_batch",
    ]
    assert {sensor.name for sensor in repository.sensor_defs} == {
        "pending_upload_batches",
        "batch_after_success",
        "batch_after_failure",
        "batch_after_cancellation",
        "failure_alerts",
    }
    assert {sensor.default_status for sensor in repository.sensor_defs} == {
        dg.DefaultSensorStatus.RUNNING
    }
    (schedule,) = repository.schedule_defs
    assert (schedule.cron_schedule, schedule.execution_timezone) == ("5 0 * * *", "UTC")
    assert schedule.default_status == dg.DefaultScheduleStatus.RUNNING
    job = definitions.resolve_job_def("process_batch")
    assert job.executor_def.name == "in_process"
    assert job.partitions_def == dg.DynamicPartitionsDefinition(name="upload_batch")
    nodes = {node.name: node for node in job.all_node_defs}
    assert set(nodes) == {
        "upload_batch",
        "open_batch",
        "process_upload",
        "close_batch",
        "upload_batch_no_failed_uploads",
        "upload_batch_counters_match_rows",
        "upload_batch_duration_within_expectation",
        "upload_batch_descriptions_pass_audit",
    }
    upload = nodes["process_upload"]
    assert isinstance(upload, dg.OpDefinition)
    assert upload.retry_policy == dg.RetryPolicy(max_retries=1)


def test_a_step_name_holds_the_file_name_and_the_id() -> None:
    upload_id = UUID("0123456789abcdef0123456789abcdef")

    def name(filename: str) -> str:
        return mapping_key(UploadKey(upload_id, filename, "a/b/original.jpg"))

    assert name("Beach at dusk.jpg") == "Beach_at_dusk_jpg_0123456789ab"
    assert name("../../etc/passwd") == "etc_passwd_0123456789ab"
    assert name("写真.jpg") == "jpg_0123456789ab"
    assert name("…") == "file_0123456789ab"
    assert len(name("x" * 500)) == 53
