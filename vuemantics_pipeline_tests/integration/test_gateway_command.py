"""`vuemantics gateway` as a person starts it: a real process."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

import httpx
import psutil
import pytest
from typer.testing import CliRunner
from websockets.sync.client import connect

from vuemantics_pipeline.cli import app
from vuemantics_pipeline.gateway.tokens import issue_token
from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.settings import Settings
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.integration.served import SECRET, bearer, wait_for_health

COMMAND = (sys.executable, "-m", "vuemantics_pipeline", "gateway")
NOWHERE = "postgresql://ada:s3cret@127.0.0.1:1/vuemantics"


@pytest.fixture
def environment(settings: Settings, database_url: str) -> dict[str, str]:
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return inherited | {
        "DATABASE_URL": database_url,
        "SECRET_KEY": SECRET,
        "VUEMANTICS_HOME": str(settings.home),
        "UPLOAD_PATH": str(settings.uploads),
        "VUEMANTICS_ANALYZER": "none",
        "LOCAL_EMBEDDING_DIMENSIONS": str(support.DIMENSION),
    }


@contextmanager
def started(
    environment: dict[str, str], *arguments: str
) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The URL of a gateway that is well, and its process."""
    port = free_port()
    with subprocess.Popen(
        [*COMMAND, "--port", str(port), *arguments],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            wait_until_it_listens(port, process)
            wait_for_health(url, 200)
            yield url, process
        finally:
            process.kill()


def wait_until_it_listens(port: int, process: subprocess.Popen[str]) -> None:
    while process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
    raise AssertionError(process.communicate()[1])


def test_from_start_to_end(environment: dict[str, str], connection: Connection) -> None:
    """Neither an open socket nor a connection that is kept holds up the end."""
    owner = support.add_user(connection)
    support.add_batch(connection, owner)
    headers = bearer(owner)
    with started(environment) as (url, process), httpx.Client(headers=headers) as client:
        assert len(client.get(f"{url}/batches").json()["batches"]) == 1
        assert client.get(url, params={"token": "a-token-in-the-address"}).status_code == 303
        with connect(url.replace("http", "ws") + "/ws/uploads"):
            [listening] = [
                one
                for one in psutil.Process(process.pid).net_connections("tcp")
                if one.status == psutil.CONN_LISTEN
            ]
            assert listening.laddr.ip == "127.0.0.1"
            process.send_signal(signal.SIGTERM)
            out, said = process.communicate(timeout=30)
    assert (process.returncode, out) == (0, "")
    assert f"The gateway is at {url}" in said
    assert "Warning" not in said
    assert "Traceback" not in said
    for private in (SECRET, "a-token-in-the-address", headers["Authorization"]):
        assert private not in said


def test_what_it_warns_of(environment: dict[str, str], connection: Connection) -> None:
    """A secret that is short works all the same, as the application's may be."""
    owner = support.add_user(connection)
    with pytest.warns(UserWarning, match="key"):
        token = issue_token("short", owner, token_version=0, lifetime=timedelta(minutes=1))
    changed = environment | {"SECRET_KEY": "short"}
    with started(changed, "--host", "0.0.0.0") as (url, process):
        for _ in range(3):
            headers = {"Authorization": f"Bearer {token}"}
            assert httpx.get(f"{url}/batches", headers=headers).is_success
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    assert process.returncode == 0
    assert said.count("32 bytes") == 1
    assert said.count("plain HTTP") == 1
    assert said.count("Warning") == 2


def test_with_an_embedded_database_it_needs_no_secret(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    home = tmp_path_factory.mktemp("embedded")
    del environment["DATABASE_URL"], environment["SECRET_KEY"]
    with started(environment, "--home", str(home)) as (url, process):
        assert httpx.get(f"{url}/batches").status_code == 401
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 0
    assert (home / "secret_key").exists()
    assert not (home / "postgres" / "data" / "postmaster.pid").exists()


@pytest.mark.parametrize(
    ("changed", "arguments", "code", "says"),
    [
        ({"SECRET_KEY": ""}, [], 2, "SECRET_KEY is not set"),
        ({"DATABASE_URL": NOWHERE}, [], 3, "Postgres does not answer"),
        ({}, ["--port", "0"], 2, "--port"),
        ({}, ["--host", "203.0.113.1"], 2, "--host"),
    ],
)
def test_a_start_that_cannot_be(
    environment: dict[str, str],
    connection: Connection,
    changed: dict[str, str],
    arguments: list[str],
    code: int,
    says: str,
) -> None:
    assert says in failed(environment | changed, *arguments, code=code)


def test_a_database_that_was_not_prepared(environment: dict[str, str]) -> None:
    assert "vuemantics migrate" in failed(environment, code=2)


def test_a_port_that_is_taken(environment: dict[str, str], connection: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        assert f"Port {port} is in use" in failed(environment, "--port", port, code=2)


def failed(environment: dict[str, str], *arguments: str, code: int) -> str:
    """What a start that fails says on standard error."""
    result = CliRunner().invoke(app, ["gateway", *arguments], env=environment)
    assert (result.exit_code, result.stdout) == (code, "")
    assert "Traceback" not in result.stderr
    assert "s3cret" not in result.stderr
    return result.stderr
