"""The saved GraphQL queries, and the frame made of one, against Dagster's own webserver."""

import json
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from importlib import resources
from pathlib import Path
from typing import Any
from uuid import uuid4

import dagster as dg
import httpx
import pandas as pd
import pytest
import uvicorn
from dagster._core.workspace.context import WorkspaceProcessContext
from dagster._core.workspace.load_target import EmptyWorkspaceTarget
from dagster_webserver.webserver import DagsterWebserver

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError
from vuemantics_pipeline.status import analytics
from vuemantics_pipeline.status.analytics import webserver as webserver_module
from vuemantics_pipeline.status.analytics.columns import MATERIALIZATIONS
from vuemantics_pipeline.status.analytics.webserver import saved_query

from .conftest import World


@pytest.fixture
def webserver(world: World, tmp_path: Path) -> Iterator[str]:
    """The URL of the webserver over the world's instance, served by a thread of this process."""
    # It takes only an instance that other processes could use as well.
    quiet = {"telemetry": {"enabled": False}}
    with (
        dg.DagsterInstance.local_temp(str(tmp_path), overrides=quiet) as world.instance,
        WorkspaceProcessContext(world.instance, EmptyWorkspaceTarget(), version="test") as context,
    ):
        app = DagsterWebserver(context).create_asgi_app()
        server = uvicorn.Server(uvicorn.Config(app, port=0, ws="none", log_level="warning"))
        thread = threading.Thread(target=server.run)
        thread.start()
        try:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.01)
            port = server.servers[0].sockets[0].getsockname()[1]
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.fixture
def asked(webserver: str) -> Any:
    """Asks a saved query as the documentation says, and returns what it tells of the asset."""

    def ask(name: str, **variables: object) -> Any:
        request = {"query": saved_query(name), "variables": variables}
        answer = httpx.post(f"{webserver}/graphql", json=request, timeout=60).json()
        assert "errors" not in answer, answer
        assert answer["data"]["assetOrError"]["__typename"] == "Asset"
        return answer["data"]["assetOrError"]

    return ask


def numbers(event: dict[str, Any]) -> dict[str, int]:
    return {
        entry["label"]: int(entry["intRepr"])
        for entry in event["metadataEntries"]
        if "intRepr" in entry
    }


def dtypes(found: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in found.dtypes.items()}


def test_every_saved_query_is_tested() -> None:
    folder = resources.files("vuemantics_pipeline.status") / "graphql"
    assert {file.name.removesuffix(".graphql") for file in folder.iterdir()} == {
        "latest_materializations",
        "batch_failures",
        "success_rate",
    }


def test_the_latest_materializations(world: World, asked: Any) -> None:
    first, second = world.add_batch("a.jpg"), world.add_batch("b.jpg", "bad.jpg")
    runs = [world.run(batch).run_id for batch in (first, second)]

    page = asked("latest_materializations", limit=1)["assetEventHistory"]
    [newest] = page["results"]
    [older] = asked("latest_materializations", limit=1, cursor=page["cursor"])["assetEventHistory"][
        "results"
    ]

    assert [(event["partition"], event["runId"]) for event in (newest, older)] == [
        (str(second), runs[1]),
        (str(first), runs[0]),
    ]
    assert numbers(newest) | {"uploads_total": 2, "uploads_failed": 1} == numbers(newest)
    texts = {entry["label"]: entry.get("text") for entry in newest["metadataEntries"]}
    assert texts["user"] == str(world.user_id)
    assert datetime.fromtimestamp(int(newest["timestamp"]) / 1000, UTC) <= datetime.now(UTC)

    [of_first] = asked("latest_materializations", limit=9, batches=[str(first)])[
        "assetEventHistory"
    ]["results"]
    assert of_first == older
    later = str(int(newest["timestamp"]) + 1)
    assert (
        asked("latest_materializations", limit=9, after=later)["assetEventHistory"]["results"] == []
    )


def test_the_failures_of_a_batch(world: World, asked: Any) -> None:
    good, mixed = world.add_batch("a.jpg"), world.add_batch("b.jpg", "bad.jpg", "bad too.jpg")
    for batch in (mixed, good):
        world.run(batch)

    [event] = asked("batch_failures", batch=str(mixed))["assetMaterializations"]

    entries = {entry["label"]: entry for entry in event["metadataEntries"]}
    failures = [json.loads(record) for record in entries["failures"]["table"]["records"]]
    assert {failure["file"] for failure in failures} == {"bad.jpg", "bad too.jpg"}
    for failure in failures:
        assert set(failure) == {"file", "code", "reason", "remedy", "attempts"}
        assert (failure["attempts"], bool(failure["code"]), bool(failure["reason"])) == (
            2,
            True,
            True,
        )
    assert numbers(event)["uploads_failed"] == len(failures)
    [of_good] = asked("batch_failures", batch=str(good))["assetMaterializations"]
    [none] = [e for e in of_good["metadataEntries"] if e["label"] == "failures"]
    assert none["table"]["records"] == []
    assert asked("batch_failures", batch=str(uuid4()))["assetMaterializations"] == []


def test_the_success_rate_over_time(world: World, asked: Any) -> None:
    for names in (("a.jpg",), ("b.jpg", "c.jpg", "d.jpg", "bad.jpg")):
        world.run(world.add_batch(*names))

    history = asked("success_rate", limit=100)["assetEventHistory"]

    rates = [
        numbers(event)["uploads_succeeded"] / numbers(event)["uploads_total"]
        for event in history["results"]
    ]
    assert rates == [0.75, 1.0]


def test_materializations_as_a_frame(
    world: World, webserver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(webserver_module, "PAGE_EVENTS", 2)
    batches = [world.add_batch("a.jpg", "bad.jpg"), world.add_batch()]
    runs = [world.run(batch).run_id for batch in (*batches, batches[0])]

    found = analytics.materializations(webserver)

    assert dtypes(found) == {name: kind.dtype for name, kind in MATERIALIZATIONS.items()}
    assert found["run_id"].tolist() == runs[::-1]
    assert found["batch_id"].tolist() == [str(batches[n]) for n in (0, 1, 0)]
    assert found["uploads_total"].tolist() == [2, 0, 2]
    assert found["uploads_failed"].tolist() == [1, 0, 1]
    assert set(found["user_id"]) == {str(world.user_id)}
    in_database = analytics.batches(world.connection, batch=batches[0]).iloc[0]
    of_dagster = found.iloc[0]
    for name in ("bytes_total", "attempts_total", "analyzer", "prompt_version", "user_id"):
        assert of_dagster[name] == in_database[name], name
    assert of_dagster["duration_seconds"] == pytest.approx(
        in_database["duration_seconds"], abs=1e-3
    )
    assert of_dagster["vision_analysis_seconds_p50"] >= 0
    assert pd.isna(found["duration_seconds"].iloc[1])


def test_filters_of_materializations(world: World, webserver: str) -> None:
    batches = [world.add_batch("a.jpg"), world.add_batch("b.jpg")]
    for batch in batches:
        world.run(batch)
    newest, oldest = analytics.materializations(webserver)["materialized_at"]

    def found(**conditions: object) -> list[str]:
        return analytics.materializations(webserver, **conditions)["batch_id"].tolist()  # type: ignore[arg-type]

    assert found(batch=batches[0]) == [str(batches[0])]
    assert found(since=newest) == [str(batches[1])]
    assert found(until=newest) == [str(batches[0])]
    assert found(since=newest + timedelta(milliseconds=1)) == found(until=oldest) == []
    assert found(user=world.user_id) == [str(batch) for batch in batches[::-1]]
    assert found(user=uuid4()) == found(analyzer="another") == []


def test_before_any_batch(webserver: str) -> None:
    found = analytics.materializations(webserver)
    assert found.empty
    assert dtypes(found) == {name: kind.dtype for name, kind in MATERIALIZATIONS.items()}


def test_a_dagster_that_does_not_understand(
    webserver: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        webserver_module, "saved_query", lambda name: "{ assetOrError { nothing } }"
    )
    with pytest.raises(PipelineError) as refused:
        analytics.materializations(webserver)
    assert refused.value.code == "dagster_refused"
    assert "nothing" in refused.value.message


def test_nobody_is_there() -> None:
    with pytest.raises(BackendUnavailable) as refused:
        analytics.materializations("http://127.0.0.1:1")
    assert refused.value.code == "dagster_unavailable"
    assert "VUEMANTICS_UI_URL" in refused.value.remedy
