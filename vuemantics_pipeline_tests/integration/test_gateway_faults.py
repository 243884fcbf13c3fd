"""What watches over the gateway, and what it does when something it needs is gone."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families
from psycopg import sql

from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.settings import Settings
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.integration.served import bearer, served, token, wait_for_health

NOWHERE = "postgresql://ada:s3cret@127.0.0.1:1/vuemantics"
RunBatch = Callable[..., None]


@pytest.fixture
def url(settings: Settings, database_url: str, connection: Connection) -> Iterator[str]:
    with served(settings, database_url) as url:
        yield url


@pytest.fixture
def owner(connection: Connection) -> UUID:
    return support.add_user(connection)


@pytest.fixture
def server(postgres_server: str) -> Iterator[Connection]:
    """A session on another database of the server."""
    with connect(postgres_server) as opened:
        yield opened


def metrics(url: str) -> dict[tuple[str, ...], float]:
    """(name, label) -> value."""
    answer = httpx.get(f"{url}/metrics")
    assert answer.headers["content-type"].startswith("text/plain")
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


def test_metrics(
    url: str,
    connection: Connection,
    worker: Connection,
    owner: UUID,
    root: Path,
    run_batch: RunBatch,
) -> None:
    files = {"good.jpg": support.photo(), "bad.jpg": b"no"}
    done = support.add_batch(connection, owner, files=files, uploads_root=root)
    run_batch(done.batch_id)
    support.add_batch(connection, owner, files=["a.jpg", "b.jpg", "c.jpg"])
    running = support.add_batch(connection, owner)
    support.begin(worker, running.batch_id)

    samples = metrics(url)

    assert samples["vuemantics_database_up",] == 1
    assert samples["vuemantics_batches", "completed"] == 1
    assert samples["vuemantics_batches", "failed"] == 0
    assert samples["vuemantics_batches", "pending"] == 1
    assert samples["vuemantics_batches", "processing"] == 1
    assert samples["vuemantics_uploads", "completed"] == 1
    assert samples["vuemantics_uploads", "failed"] == 1
    assert samples["vuemantics_uploads", "unfinished"] == 4
    assert samples["vuemantics_queue_uploads",] == 4
    assert samples["vuemantics_queue_oldest_seconds",] > 0
    assert samples["vuemantics_stage_seconds_count", "vision_analysis"] == 1
    # The stand-in's answer can take less than the 0.1 ms that is recorded; a decode cannot.
    assert samples["vuemantics_stage_seconds_sum", "extracting_frames"] > 0
    assert samples["vuemantics_gateway_sockets",] == 0
    assert samples["process_resident_memory_bytes",] > 0


def test_metrics_are_for_this_machine(url: str) -> None:
    """Whoever came through a proxy on this machine is elsewhere."""
    for address in ("203.0.113.9", "2001:db8::1", "nonsense"):
        answer = httpx.get(f"{url}/metrics", headers={"X-Forwarded-For": address})
        assert (answer.status_code, answer.json()["code"]) == (403, "not_from_here")
    assert httpx.get(f"{url}/healthz", headers={"X-Forwarded-For": "203.0.113.9"}).is_success


def test_health_tells_no_more_than_it_has_to(url: str) -> None:
    expected = {"status": "ok", "database": True, "listening": True}
    assert httpx.get(f"{url}/healthz").json() == expected


def test_a_fault_of_the_gateway_tells_nothing_of_itself(
    url: str, connection: Connection, owner: UUID, caplog: pytest.LogCaptureFixture
) -> None:
    new = support.add_batch(connection, owner)
    connection.execute("ALTER TABLE uploads RENAME COLUMN filename TO renamed")

    answer = httpx.get(f"{url}/batches/{new.batch_id}/uploads", headers=bearer(owner))

    assert (answer.status_code, answer.json()["code"]) == (500, "internal_error")
    assert answer.headers["content-type"] == "application/problem+json"
    assert "filename" not in answer.text
    assert httpx.get(f"{url}/batches", headers=bearer(owner)).is_success


def test_connections_that_are_cut_off_are_made_anew(
    url: str, connection: Connection, owner: UUID
) -> None:
    support.add_batch(connection, owner)
    for _ in range(3):
        answer = httpx.get(f"{url}/batches", headers=bearer(owner))
        assert len(answer.json()["batches"]) == 1
        cut_off(connection)


def test_a_database_that_goes_away_and_comes_back(
    url: str, connection: Connection, server: Connection, owner: UUID
) -> None:
    headers = bearer(owner)
    name = sql.Identifier(connection.info.dbname)
    allow = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
    server.execute(allow.format(name, sql.SQL("false")))
    cut_off(connection)
    wait_for_health(url, 503)

    for path in ("/batches", "/session"):
        answer = httpx.get(f"{url}{path}", headers=headers, timeout=30)
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
        assert int(answer.headers["retry-after"]) > 0
        assert connection.info.dbname not in answer.text
    assert metrics(url)["vuemantics_database_up",] == 0

    server.execute(allow.format(name, sql.SQL("true")))
    wait_for_health(url, 200)
    assert httpx.get(f"{url}/batches", headers=headers).is_success
    assert metrics(url)["vuemantics_database_up",] == 1


def test_a_database_that_is_not_there_yet(settings: Settings) -> None:
    owner = UUID(int=7)
    with served(settings, NOWHERE, health=503) as url:
        link = httpx.get(url, params={"token": token(owner)}, timeout=30)
        assert (link.status_code, link.headers["location"]) == (303, "/#unavailable")
        assert "set-cookie" not in link.headers
        answer = httpx.get(f"{url}/batches", headers=bearer(owner), timeout=30)
        assert answer.status_code == 503
        assert "s3cret" not in answer.text
        assert httpx.get(f"{url}/healthz").json()["database"] is False
        assert httpx.get(url).is_success  # the page itself needs none


def cut_off(connection: Connection) -> None:
    """End all other sessions on the database."""
    connection.execute(
        "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()"
    )
