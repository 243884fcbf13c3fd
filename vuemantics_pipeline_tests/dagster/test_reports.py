"""The daily report: what it counts, what it writes, what it shows, and a month of it at once."""

import base64
import io
import logging
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import pandas as pd
import pyarrow.parquet as pq
import pytest
from dagster._core.execution.backfill import BulkActionStatus, PartitionBackfill
from dagster._core.instance_for_test import instance_for_test
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.backfill import execute_backfill_iteration
from dagster._daemon.run_coordinator.queued_run_coordinator_daemon import QueuedRunCoordinatorDaemon
from PIL import Image

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.orchestration.run_coordinator import (
    Queue,
    SortingRunCoordinator,
    queue_of,
)
from vuemantics_pipeline.status.report_page import as_markdown
from vuemantics_pipeline.status.reports import SCHEMA, daily_report, write_report
from vuemantics_pipeline_tests.dagster.conftest import World

DAY = date(2026, 3, 14)
REPORT = dg.AssetKey("daily_batch_report")


@pytest.fixture
def reports(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the reports; it is not there yet."""
    folder = tmp_path / "reports"
    monkeypatch.setenv("VUEMANTICS_REPORTS_PATH", str(folder))
    return folder


def ended(world: World, moment: datetime, *names: str, analyzer: str = "none") -> UUID:
    """A batch that was processed and ended at a moment, after it had waited for 30 s."""
    batch_id = world.add_batch(*names)
    world.run_as_sensor(batch_id)
    key = {"batch_id": batch_id, "moment": moment, "analyzer": analyzer}
    for statement in (
        "UPDATE upload_batches SET completed_at = %(moment)s,"
        " started_at = %(moment)s - interval '60 seconds' WHERE id = %(batch_id)s",
        "UPDATE uploads SET created_at = %(moment)s - interval '90 seconds'"
        " WHERE batch_id = %(batch_id)s",
        "UPDATE vuemantics_pipeline.attempts SET analyzer = %(analyzer)s,"
        " started_at = %(moment)s - interval '30 seconds', ended_at = %(moment)s"
        " WHERE batch_id = %(batch_id)s",
    ):
        world.connection.execute(statement, key)
    return batch_id


def at(hour: int, minute: int = 0, *, day: date = DAY) -> datetime:
    return datetime(day.year, day.month, day.day, hour, minute, tzinfo=UTC)


def make(world: World, day: date = DAY, **tags: str) -> dg.ExecuteInProcessResult:
    return world.definitions.resolve_job_def("report_day").execute_in_process(
        partition_key=None if tags else str(day), instance=world.instance, tags=tags
    )


def told(world: World, day: date = DAY) -> dict[str, Any]:
    """The metadata on the page of a day."""
    records = world.instance.fetch_materializations(
        dg.AssetRecordsFilter(REPORT, asset_partitions=[str(day)]), limit=1
    ).records
    (record,) = records
    assert record.asset_materialization
    return {name: value.value for name, value in record.asset_materialization.metadata.items()}


def test_a_day(world: World, reports: Path) -> None:
    ended(world, at(0), "a.jpg", "b.jpg", "bad.jpg")
    ended(world, at(23, 59), "c.jpg", analyzer="ollama")
    cancelled = world.add_batch("d.jpg")
    world.connection.execute(
        "UPDATE upload_batches SET status = 'cancelled', updated_at = %s WHERE id = %s",
        (at(12), cancelled),
    )
    ended(world, at(0, day=DAY + timedelta(days=1)), "tomorrow.jpg")
    ended(world, at(23, 59, day=DAY - timedelta(days=1)), "yesterday.jpg")
    world.add_batch("pending.jpg")

    assert make(world).success

    shown = told(world)
    assert (shown["batches"], shown["batches_completed"], shown["batches_cancelled"]) == (3, 2, 1)
    assert (shown["uploads_total"], shown["uploads_succeeded"], shown["uploads_failed"]) == (
        5,
        3,
        1,
    )
    assert shown["success_rate"] == 0.75
    sizes = world.connection.execute(
        "SELECT sum(file_size) FROM uploads WHERE filename IN"
        " ('a.jpg', 'b.jpg', 'bad.jpg', 'c.jpg', 'd.jpg')"
    ).fetchone()
    assert sizes is not None
    assert shown["bytes_total"] == sizes[0]
    assert shown["duration_seconds"] == 60
    assert shown["uploads_per_minute"] == 4
    assert shown["seconds_waiting_in_queue_p50"] == shown["seconds_waiting_in_queue_p95"] == 30
    assert shown["top_failure"] == "unsupported_type"
    assert shown["file"] == str(reports / "2026-03-14.parquet")

    frame = pd.read_parquet(shown["file"])
    assert pq.read_schema(shown["file"]).names == SCHEMA.names
    by_analyzer = frame.set_index(frame.analyzer.fillna("never begun"))
    assert sorted(by_analyzer.index) == ["never begun", "none", "ollama"]
    assert by_analyzer.uploads_total.to_dict() == {"none": 3, "ollama": 1, "never begun": 1}
    assert by_analyzer.success_rate["ollama"] == 1
    assert pd.isna(by_analyzer.success_rate["never begun"])
    assert list(by_analyzer.failures["none"]) == [{"error_code": "unsupported_type", "uploads": 1}]
    assert set(frame.day) == {DAY}


def test_what_the_page_shows(world: World, reports: Path) -> None:
    ended(world, at(9), "a.jpg", "bad.jpg")
    ended(world, at(15), "b.jpg", analyzer="ollama")
    make(world)

    page = told(world)["report"]

    assert "| Batches ended | 1 | 1 | 2 |" in page
    assert "| Success rate | 50.0% | 100.0% | 66.7% |" in page
    assert "| `unsupported_type` | 1 |" in page
    (encoded,) = re.findall(r"!\[.+\]\(data:image/png;base64,([^)]+)\)", page)
    png = base64.b64decode(encoded)
    assert len(png) <= 200_000
    image = Image.open(io.BytesIO(png))
    assert image.format == "PNG"
    assert len(image.convert("RGB").getcolors(1 << 20) or []) > 10, "something is drawn"


def test_a_day_without_batches(world: World, reports: Path) -> None:
    assert make(world).success

    shown = told(world)
    assert shown["batches"] == shown["uploads_total"] == 0
    assert shown["success_rate"] is shown["top_failure"] is None
    assert shown["report"] == "No batch ended on 2026-03-14 (UTC)."
    assert pd.read_parquet(shown["file"]).empty
    assert pq.read_schema(shown["file"]).names == SCHEMA.names


def test_a_report_made_again_replaces_the_old_one(world: World, reports: Path) -> None:
    make(world)
    ended(world, at(9), "a.jpg")
    make(world)
    make(world, DAY + timedelta(days=1))

    assert sorted(path.name for path in reports.iterdir()) == [
        "2026-03-14.parquet",
        "2026-03-15.parquet",
    ]
    assert told(world)["batches"] == 1
    assert pd.read_parquet(reports).batches.tolist() == [1]


def test_a_folder_that_cannot_be_written(world: World, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(BackendUnavailable, match="cannot be written") as refused:
        write_report(daily_report(world.connection, DAY), tmp_path / "file" / "reports")
    assert refused.value.code == "reports_unwritable"
    assert "VUEMANTICS_REPORTS_PATH" in refused.value.remedy


def test_only_the_most_frequent_codes_are_shown(world: World) -> None:
    ended(world, at(9), "a.jpg")
    report = daily_report(world.connection, DAY)
    batch_id = report.batches.batch_id[0]
    codes = [(batch_id, f"code_{number:02}", 20 - number) for number in range(12)]
    failures = pd.DataFrame(codes, columns=["batch_id", "error_code", "uploads"])

    page = as_markdown(type(report)(report.day, report.batches, failures))

    assert "| `code_00` | 20 |" in page
    assert "| `code_10` |" not in page
    assert "| others | 19 |" in page


def test_workers_of_batches_load_neither_pandas_nor_matplotlib() -> None:
    loads = (
        "import sys, vuemantics_pipeline.definitions;"
        "print([name for name in ('pandas', 'matplotlib', 'pyarrow', 'httpx')"
        " if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", loads], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.fixture
def lasting(world: World) -> Iterator[World]:
    """The world with an instance that workers of runs could find, as a backfill wants it."""
    coordinator = {"module": SortingRunCoordinator.__module__, "class": "SortingRunCoordinator"}
    with instance_for_test({"run_coordinator": coordinator}, synchronous_run_launcher=True) as (
        instance
    ):
        yield replace(world, instance=instance)


# Dagster's own daemon uses what Dagster has deprecated.
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_month_is_backfilled(lasting: World, reports: Path) -> None:
    ended(lasting, at(9), "a.jpg")
    days = [str(date(2026, 3, 1) + timedelta(days=number)) for number in range(31)]
    instance = lasting.instance
    origin = InProcessCodeLocationOrigin(
        LoadableTargetOrigin(
            executable_path=sys.executable, module_name="vuemantics_pipeline.definitions"
        )
    )
    with WorkspaceProcessContext(instance, InProcessWorkspaceLoadTarget(origin)) as workspace:
        march = PartitionBackfill.from_asset_partitions(
            backfill_id="march",
            asset_graph=workspace.create_request_context().asset_graph,
            partition_names=days,
            asset_selection=[REPORT],
            backfill_timestamp=datetime.now(UTC).timestamp(),
            tags={},
            dynamic_partitions_store=instance,
            all_partitions=False,
            title=None,
            description=None,
            run_config=None,
        )
        instance.add_backfill(march)
        queue = QueuedRunCoordinatorDaemon(interval_seconds=1)
        for _ in range(3):
            errors = list(execute_backfill_iteration(workspace, logging.getLogger("backfill")))
            assert not any(errors), errors
            list(queue.run_iteration(workspace))

    backfill = instance.get_backfill("march")
    assert backfill is not None
    assert backfill.status == BulkActionStatus.COMPLETED_SUCCESS
    (run,) = instance.get_runs(dg.RunsFilter(tags={"dagster/backfill": "march"}))
    assert (run.status, queue_of(run)) == (dg.DagsterRunStatus.SUCCESS, Queue.REPORTS)
    assert instance.get_materialized_partitions(REPORT) == set(days)
    materialized = [
        record.asset_materialization
        for record in instance.fetch_materializations(REPORT, limit=100).records
        if record.asset_materialization
    ]
    batches = {one.partition: one.metadata["batches"].value for one in materialized}
    assert batches == {day: int(day == str(DAY)) for day in days}
    assert len(list(reports.glob("*.parquet"))) == 31
