"""`vuemantics mcp` as clients start it: a real process, on standard input and output or HTTP."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import psutil
import pytest
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client
from mcp.shared._httpx_utils import create_mcp_http_client
from mcp_types import CallToolResult

from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.settings import Settings
from vuemantics_pipeline_tests import support

COMMAND = (sys.executable, "-m", "vuemantics_pipeline", "mcp")
TOKEN = "a token that the operator chose"
NOWHERE = "postgresql://ada:s3cret@127.0.0.1:1/vuemantics"
SIGNALS = [signal.SIGINT, signal.SIGTERM]
INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


@pytest.fixture
def environment(settings: Settings, database_url: str, connection: Connection) -> dict[str, str]:
    """What a client gives the server: the test's own database, home and upload folder."""
    inherited = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return inherited | {
        "DATABASE_URL": database_url,
        "VUEMANTICS_HOME": str(settings.home),
        "UPLOAD_PATH": str(settings.uploads),
        "VUEMANTICS_ANALYZER": "none",
        "LOCAL_EMBEDDING_DIMENSIONS": str(support.DIMENSION),
        "VUEMANTICS_MCP_TOKEN": TOKEN,
    }


def stdio(environment: dict[str, str], *arguments: str) -> StdioServerParameters:
    return StdioServerParameters(
        command=COMMAND[0], args=[*COMMAND[1:], *arguments], env=environment
    )


def first_text(result: CallToolResult) -> str:
    return str(getattr(result.content[0], "text", ""))


def batches_of(result: CallToolResult) -> list[str]:
    assert not result.is_error, first_text(result)
    assert result.structured_content is not None
    return [batch["batch_id"] for batch in result.structured_content["batches"]]


# --- standard input and output ---


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_client_that_starts_the_server(
    connection: Connection, environment: dict[str, str], mode: str
) -> None:
    new = support.add_batch(connection, support.add_user(connection))

    async def ask() -> None:
        async with Client(stdio(environment), mode=mode) as client:
            assert client.server_info is not None
            assert client.server_info.name == "vuemantics"
            names = [tool.name for tool in (await client.list_tools()).tools]
            assert "get_batch" in names
            assert "cancel_batch" not in names
            assert batches_of(await client.call_tool("list_batches")) == [str(new.batch_id)]
            wrong = await client.call_tool("get_batch", {"batch_id": "x"})
            assert wrong.is_error
            [content] = (
                await client.read_resource(f"vuemantics://batches/{new.batch_id}/report")
            ).contents
            assert content.mime_type == "text/markdown"

    anyio.run(ask)


def test_a_server_for_one_user_that_may_change_things(
    connection: Connection, environment: dict[str, str]
) -> None:
    mine, theirs = (support.add_batch(connection, support.add_user(connection)) for _ in range(2))

    async def ask() -> None:
        address = f"{mine.user_id}@example.com"
        async with Client(stdio(environment, "--user", address, "--allow-changes")) as client:
            assert batches_of(await client.call_tool("list_batches")) == [str(mine.batch_id)]
            for new, changed in ((mine, True), (theirs, False)):
                result = await client.call_tool("cancel_batch", {"batch_id": str(new.batch_id)})
                assert result.is_error is not changed

    anyio.run(ask)
    assert support.batch_row(connection, mine.batch_id).status == "cancelled"
    assert support.batch_row(connection, theirs.batch_id).status == "pending"


def test_the_server_outlives_a_database_that_is_down(environment: dict[str, str]) -> None:
    async def ask() -> None:
        async with Client(stdio(environment | {"DATABASE_URL": NOWHERE})) as client:
            for _ in range(2):
                result = await client.call_tool("list_batches")
                assert result.is_error
                assert "Postgres does not answer" in first_text(result)
                assert "s3cret" not in first_text(result)

    anyio.run(ask)


def test_the_embedded_database_is_brought_back(
    environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Without DATABASE_URL the server brings its database along, and after a crash once more."""
    home = tmp_path_factory.mktemp("embedded")
    del environment["DATABASE_URL"]

    async def ask() -> None:
        async with Client(stdio(environment, "--home", str(home))) as client:
            assert batches_of(await client.call_tool("list_batches")) == []
            number = (home / "postgres" / "data" / "postmaster.pid").read_text().split()[0]
            psutil.Process(int(number)).kill()
            assert batches_of(await client.call_tool("list_batches")) == []

    anyio.run(ask)
    assert not (home / "postgres" / "data" / "postmaster.pid").exists()


def talk(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Say hello the way a client does, and return the answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(json.dumps(INITIALIZE) + "\n")
    process.stdin.flush()
    answer: dict[str, Any] = json.loads(process.stdout.readline())
    return answer


@contextmanager
def started(
    environment: dict[str, str], *arguments: str, stdin: int = subprocess.PIPE
) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, *arguments],
        env=environment,
        stdin=stdin,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def test_nothing_but_the_protocol_is_on_standard_output(environment: dict[str, str]) -> None:
    requests: list[object] = [
        INITIALIZE,
        {"jsonrpc": "2.0", "method": "notifications/initialized"},
        {"jsonrpc": "2.0", "id": 2, "method": "tools/list"},
        {
            "jsonrpc": "2.0",
            "id": 3,
            "method": "tools/call",
            "params": {"name": "get_pipeline_health", "arguments": {}},
        },
        {"jsonrpc": "2.0", "id": 4, "method": "no/such/method"},
    ]
    with started(environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        answers = {}
        for request in requests:
            process.stdin.write(json.dumps(request) + "\n")
            process.stdin.flush()
            if isinstance(request, dict) and "id" in request:
                answer = json.loads(process.stdout.readline())
                answers[answer["id"]] = answer
        rest, said = process.communicate(timeout=20)

    assert process.returncode == 0
    assert rest == ""
    assert said == ""
    assert set(answers) == {1, 2, 3, 4}
    assert not answers[3]["result"]["isError"]
    assert "error" in answers[4]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_ends_the_server_in_order(environment: dict[str, str], number: int) -> None:
    with started(environment) as process:
        assert talk(process)["result"]["serverInfo"]["name"] == "vuemantics"
        process.send_signal(number)
        rest, said = process.communicate(timeout=20)
    assert (process.returncode, rest) == (0, "")
    assert "Traceback" not in said


@pytest.mark.parametrize("line", ["no json", "{}", '{"jsonrpc": "2.0", "id": 9}', "[" * 5000])
def test_a_line_that_is_no_message_does_not_end_the_server(
    environment: dict[str, str], line: str
) -> None:
    with started(environment) as process:
        assert process.stdin is not None
        process.stdin.write(line + "\n")
        answer = talk(process)
        if "result" not in answer:  # to the line before
            assert process.stdout is not None
            answer = json.loads(process.stdout.readline())
        assert answer["result"]["serverInfo"]["name"] == "vuemantics"


@pytest.mark.parametrize(
    ("arguments", "url", "code", "says"),
    [
        (["--user", "nobody@example.com"], None, 2, "There is no user"),
        (["--user", "nobody@example.com"], NOWHERE, 3, "Postgres does not answer"),
        (["--http", "0"], None, 2, "--http"),
        (["--http", "65536"], None, 2, "--http"),
    ],
)
def test_a_start_that_cannot_be(
    environment: dict[str, str], arguments: list[str], url: str | None, code: int, says: str
) -> None:
    given = environment | ({"DATABASE_URL": url} if url else {})
    done = subprocess.run(
        [*COMMAND, *arguments], env=given, input="", capture_output=True, text=True, timeout=30
    )
    assert (done.returncode, done.stdout) == (code, "")
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert "s3cret" not in done.stderr


# --- HTTP ---


@contextmanager
def serving(environment: dict[str, str], *arguments: str) -> Iterator[tuple[str, Any]]:
    """The URL of a server, and its process."""
    port = free_port()
    with started(environment, "--http", str(port), *arguments, stdin=subprocess.DEVNULL) as process:
        give_up_at = time.monotonic() + 30
        while time.monotonic() < give_up_at and process.poll() is None:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp", process


def post(url: str, **headers: str) -> httpx.Response:
    accept = {"accept": "application/json, text/event-stream", "authorization": f"Bearer {TOKEN}"}
    given = {name: value for name, value in (accept | headers).items() if value}
    return httpx.post(url, json=INITIALIZE, headers=given, timeout=20)


@pytest.mark.parametrize("mode", ["legacy", "auto"])
def test_a_client_over_http(connection: Connection, environment: dict[str, str], mode: str) -> None:
    new = support.add_batch(connection, support.add_user(connection))

    async def ask(url: str) -> None:
        with_token = {"Authorization": f"Bearer {TOKEN}"}
        async with create_mcp_http_client(headers=with_token) as http:
            transport = streamable_http_client(url, http_client=http)
            async with Client(transport, mode=mode) as client:
                assert len((await client.list_tools()).tools) == 7
                assert batches_of(await client.call_tool("list_batches")) == [str(new.batch_id)]
                assert (await client.call_tool("get_batch", {"batch_id": "x"})).is_error

    with serving(environment) as (url, process):
        anyio.run(ask, url)
        process.send_signal(signal.SIGINT)
        out, said = process.communicate(timeout=20)
    assert (process.returncode, out) == (0, "")
    assert url in said
    assert "Traceback" not in said
    assert TOKEN not in said


def test_who_is_let_in(environment: dict[str, str]) -> None:
    with serving(environment) as (url, process):
        assert post(url).status_code == 200
        for wrong in ("", "Bearer wrong", f"Bearer {TOKEN}x", f"Basic {TOKEN}", TOKEN):
            answer = post(url, authorization=wrong)
            assert answer.status_code == 401, wrong
            assert answer.headers["www-authenticate"].startswith("Bearer")
            assert "vuemantics" not in answer.text
        assert httpx.get(url).status_code == 401
        assert post(url, host="evil.example").status_code == 421
        assert post(url, host="127.0.0.1.evil.example:80").status_code == 421
        assert post(url, origin="http://evil.example").status_code == 403
        assert post(url, origin=url.removesuffix("/mcp")).status_code == 200
        [listening] = [
            one
            for one in psutil.Process(process.pid).net_connections("tcp")
            if one.status == psutil.CONN_LISTEN
        ]
        assert listening.laddr.ip == "127.0.0.1"
        process.send_signal(signal.SIGTERM)
        _, said = process.communicate(timeout=20)
    assert process.returncode == 0
    assert TOKEN not in said


def test_a_token_is_made_up_for_each_start(environment: dict[str, str]) -> None:
    environment["VUEMANTICS_MCP_TOKEN"] = ""
    tokens = []
    for _ in range(2):
        with serving(environment) as (_, process):
            process.send_signal(signal.SIGINT)
            _, said = process.communicate(timeout=20)
        [token] = [
            line.rpartition(" ")[2] for line in said.splitlines() if line.startswith("Token")
        ]
        assert len(token) >= 40
        assert said.count(token) == 1
        tokens.append(token)
    assert tokens[0] != tokens[1]


def test_an_open_stream_does_not_hold_up_the_end(environment: dict[str, str]) -> None:
    with serving(environment) as (url, process):
        session = post(url).headers["mcp-session-id"]
        headers = {
            "authorization": f"Bearer {TOKEN}",
            "accept": "text/event-stream",
            "mcp-session-id": session,
        }
        with httpx.stream("GET", url, headers=headers, timeout=20) as stream:
            assert stream.status_code == 200
            process.send_signal(signal.SIGINT)
            process.wait(timeout=20)
    assert process.returncode == 0


def test_a_port_that_is_taken(environment: dict[str, str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        done = subprocess.run(
            [*COMMAND, "--http", str(taken.getsockname()[1])],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=30,
        )
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
