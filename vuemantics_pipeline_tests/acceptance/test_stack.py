"""Real photographs through the real webserver, daemon, sensor and worker, seen in a browser."""

import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from playwright.sync_api import Browser

from vuemantics_pipeline_tests.acceptance.conftest import SAMPLES, App, eventually, keep, stop

MATERIALIZE = """mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""
RUN = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
FIVE_QUESTIONS = Path(__file__).parents[2] / "docs/five_questions.py"
CHECKS = (
    "no_failed_uploads",
    "counters_match_rows",
    "duration_within_expectation",
    "descriptions_pass_audit",
)
ALL_RUNS = "{ runsOrError { ... on Runs { results { runId } } } }"
DELETE = "mutation($id: String!) { deleteRun(runId: $id) { __typename } }"
ASSET = """query { assetNodeOrError(assetKey: {path: ["upload_batch"]}) { ... on AssetNode {
  assetMaterializations { partition }
  assetChecksOrError { ... on AssetChecks { checks { name executionForLatestMaterialization {
    evaluation { success severity }
  } } } }
} } }"""


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sample photographs, and one that was cut off on its way."""
    folder = tmp_path_factory.mktemp("photos") / "album"
    shutil.copytree(SAMPLES, folder)
    whole = (SAMPLES / "dahlia.jpg").read_bytes()
    (folder / "cut_off.jpg").write_bytes(whole[: len(whole) // 2])
    return folder


@pytest.fixture(scope="module")
def batch(running: App, photos: Path) -> Any:
    """A batch that the sensor started and that has ended."""
    ingested = running.json("ingest", str(photos), "--wait")
    assert ingested["accepted"] == 15
    assert [refused["file"] for refused in ingested["refused"]] == [str(photos / "ATTRIBUTION.md")]
    return running.json("status", ingested["batch_id"], "--uploads")


def test_a_folder_of_photographs_becomes_a_completed_batch(running: App, batch: Any) -> None:
    assert batch["status"] == "completed"
    assert batch["total_uploads"] == batch["processed_uploads"] == 15
    assert (batch["successful_uploads"], batch["failed_uploads"]) == (14, 1)
    assert batch["progress_percentage"] == 100
    assert batch["started_at"] <= batch["completed_at"]
    by_name = {upload["filename"]: upload for upload in batch["uploads"]}
    cut_off = by_name.pop("cut_off.jpg")
    assert (cut_off["processing_status"], cut_off["attempts"]) == ("failed", 2)
    assert cut_off["error_message"]
    assert {upload["processing_status"] for upload in by_name.values()} == {"completed"}
    assert {upload["attempts"] for upload in by_name.values()} == {1}
    assert all(upload["description_audit_score"] >= 60 for upload in by_name.values())
    thumbnails = list((running.home / "uploads").glob("*/*/thumb_256.jpg"))
    assert len(thumbnails) == 14


def test_search_finds_by_meaning(running: App, batch: Any) -> None:
    hits = running.json("search", "something red", "--limit", "5")

    assert len(hits) == 5
    assert hits == sorted(hits, key=lambda hit: -hit["score"])
    assert {hit["batch_id"] for hit in hits} == {batch["batch_id"]}
    assert any("red" in hit["description"] for hit in hits[:2])


def test_doctor_finds_nothing_to_mend(running: App, batch: Any) -> None:
    document = running.json("doctor")

    assert document["ok"], document


def test_materialize_on_a_partition_runs_the_batch_again(running: App, batch: Any) -> None:
    selector = {
        "repositoryLocationName": "vuemantics_pipeline",
        "repositoryName": "__repository__",
        "pipelineName": "__ASSET_JOB",
        "assetSelection": [{"path": ["upload_batch"]}],
        "assetCheckSelection": [
            {"assetKey": {"path": ["upload_batch"]}, "name": name} for name in CHECKS
        ],
    }
    tags = [{"key": "dagster/partition", "value": batch["batch_id"]}]
    launched = running.graphql(
        MATERIALIZE,
        params={
            "selector": selector,
            "mode": "default",
            "executionMetadata": {"tags": tags},
        },
    )["launchPipelineExecution"]
    assert launched["__typename"] == "LaunchRunSuccess", launched

    run_id = launched["run"]["runId"]
    status = eventually(
        "the run's end",
        lambda: _ended(running.graphql(RUN, id=run_id)["runOrError"]["status"]),
    )
    assert status == "SUCCESS"
    again = running.json("status", batch["batch_id"], "--uploads")
    assert again == batch, "a finished batch was changed by running it again"


def test_the_analysts_ui_shows_everything_and_changes_nothing(running: App, batch: Any) -> None:
    assert running.analyst_port is not None
    analysts = replace(running, port=running.analyst_port)
    asset = analysts.graphql(ASSET)["assetNodeOrError"]
    assert {event["partition"] for event in asset["assetMaterializations"]} == {batch["batch_id"]}

    runs = running.graphql(ALL_RUNS)["runsOrError"]["results"]
    refused = analysts.graphql(DELETE, id=runs[0]["runId"])
    assert refused["deleteRun"]["__typename"] == "UnauthorizedError"
    assert running.graphql(ALL_RUNS)["runsOrError"]["results"] == runs


def test_the_dagster_ui_shows_the_batch(running: App, batch: Any, browser: Browser) -> None:
    asset = running.graphql(ASSET)["assetNodeOrError"]
    assert {event["partition"] for event in asset["assetMaterializations"]} == {batch["batch_id"]}
    evaluations = {
        check["name"]: check["executionForLatestMaterialization"]["evaluation"]
        for check in asset["assetChecksOrError"]["checks"]
    }
    assert evaluations["no_failed_uploads"] == {"success": False, "severity": "WARN"}
    assert evaluations["counters_match_rows"]["success"]

    page = browser.new_page(viewport={"width": 1440, "height": 1000})
    page.goto(f"{running.url}/assets/upload_batch?view=partitions&partition={batch['batch_id']}")
    page.get_by_text("uploads_succeeded").first.wait_for(timeout=60_000)
    assert page.get_by_text(batch["batch_id"]).count() > 0
    keep(page, "batch.png")

    page.goto(f"{running.url}/assets/upload_batch?view=checks")
    page.get_by_text("no_failed_uploads").first.wait_for(timeout=60_000)
    keep(page, "check.png")

    run_id = running.graphql(
        'query { runsOrError(filter: {pipelineName: "process_batch"}) '
        "{ ... on Runs { results { runId } } } }"
    )["runsOrError"]["results"][-1]["runId"]
    page.goto(f"{running.url}/runs/{run_id}")
    page.get_by_text("close_batch").first.wait_for(timeout=60_000)
    keep(page, "run.png")
    page.close()


def test_the_five_questions_are_answered_of_it(running: App, batch: Any, tmp_path: Path) -> None:
    url = f"postgresql://postgres@/vuemantics?host={running.home / 'postgres'}"
    answered = subprocess.run(
        [sys.executable, "-W", "error", FIVE_QUESTIONS, tmp_path],
        env={**running.environment, "DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert answered.returncode == 0, answered.stderr
    assert "15 uploads in 1 batches" in answered.stdout
    assert "1. 1 of 15 uploads failed." in answered.stdout
    assert "cut_off.jpg" in answered.stdout
    assert len(list(tmp_path.glob("*.png"))) == 5


def test_up_stops_everything_and_finds_its_batches_again(running: App, batch: Any) -> None:
    # Last in this file: it ends the stack that the others look at.
    ours = [process for process in psutil.process_iter(["cmdline"]) if _is_of(process, running)]
    up = min(ours, key=lambda process: process.create_time())
    assert len(ours) > 3

    up.send_signal(signal.SIGINT)
    up.wait(timeout=60)

    assert [process for process in ours if _lives(process)] == []
    second = running.up()
    try:
        (found,) = running.json("batches")
        assert found["batch_id"] == batch["batch_id"]
        assert found["status"] == "completed"
    finally:
        assert stop(second) == 0


def _ended(status: str) -> str | None:
    return status if status in ("SUCCESS", "FAILURE", "CANCELED") else None


def _lives(process: psutil.Process) -> bool:
    try:
        return process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _is_of(process: psutil.Process, app: App) -> bool:
    return str(app.home) in " ".join(process.info["cmdline"] or [])
