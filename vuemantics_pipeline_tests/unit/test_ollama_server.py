"""OllamaServer: one connection for many calls, whatever becomes of the server meanwhile."""

import socket
from collections.abc import Callable, Iterator

import pytest

from vuemantics_pipeline.analysis import ollama_server
from vuemantics_pipeline.analysis.ollama_server import OllamaServer
from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline_tests.standins.ollama import DESCRIPTION, OllamaStandIn

VISION, EMBEDDING = "qwen2.5vl:3b", "bge-m3"
CALLS: dict[str, Callable[[OllamaServer], object]] = {
    "chat": lambda client: client.chat(VISION, "What?", [], {}),
    "embed": lambda client: client.embed(EMBEDDING, "a dog"),
    "digests": OllamaServer.digests,
}

each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS.keys())


@pytest.fixture
def server() -> Iterator[OllamaStandIn]:
    with OllamaStandIn() as standin:
        yield standin


@pytest.fixture
def client(server: OllamaStandIn) -> OllamaServer:
    return OllamaServer(server.url, timeout_seconds=30)


def failure(call: Callable[[OllamaServer], object], client: OllamaServer) -> BackendUnavailable:
    with pytest.raises(BackendUnavailable) as caught:
        call(client)
    return caught.value


# --- connections ---


def test_many_calls_take_one_connection(server: OllamaStandIn, client: OllamaServer) -> None:
    for _ in range(10):
        for call in CALLS.values():
            call(client)

    assert len(server.requests) == 30
    assert server.connections == 1


@each_call
def test_a_server_that_restarted_between_two_calls(
    server: OllamaStandIn, client: OllamaServer, call: Callable[[OllamaServer], object]
) -> None:
    before = call(client)
    server.down()
    server.up()

    assert call(client) == before
    assert server.connections == 2


@each_call
def test_a_server_that_goes_just_when_a_request_comes(
    server: OllamaStandIn, client: OllamaServer, call: Callable[[OllamaServer], object]
) -> None:
    """The request is read, and the connection ends without a word."""
    before = call(client)
    server.hang_ups = 1

    assert call(client) == before
    assert server.connections == 2
    assert len(server.requests) == 3


@pytest.mark.parametrize("calls_before", [0, 1])
def test_a_request_is_sent_twice_at_most(
    server: OllamaStandIn, client: OllamaServer, calls_before: int
) -> None:
    """On a new connection, a server that hangs up has said what it has to say."""
    for _ in range(calls_before):
        client.digests()
    server.hang_ups = 10

    assert failure(CALLS["chat"], client).code == "ollama_unreachable"

    asked = [request.path for request in server.requests]
    assert asked.count("/api/chat") == 1 + calls_before


@each_call
def test_a_server_that_is_down_and_comes_back(
    server: OllamaStandIn, client: OllamaServer, call: Callable[[OllamaServer], object]
) -> None:
    before = call(client)
    server.down()
    for _ in range(2):
        error = failure(call, client)
        assert error.code == "ollama_unreachable"
        assert server.url in error.message
        assert "ollama serve" in error.remedy

    server.up()
    assert call(client) == before


def test_a_proxy_for_the_internet_is_not_asked(
    server: OllamaStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)

    assert OllamaServer(server.url, 30).chat(VISION, "What?", [], {}) == DESCRIPTION


# --- time ---


def test_a_server_that_is_slow(server: OllamaStandIn) -> None:
    server.delay_seconds = 1

    error = failure(CALLS["chat"], OllamaServer(server.url, timeout_seconds=0.1))

    assert error.code == "ollama_timeout"
    assert "0.1 s" in error.message
    assert "VUEMANTICS_OLLAMA_TIMEOUT_SECONDS" in error.remedy


def test_a_server_that_drips(server: OllamaStandIn, client: OllamaServer) -> None:
    """No byte is late, and the answer never ends."""
    server.drips = True
    impatient = OllamaServer(server.url, timeout_seconds=0.3)

    assert failure(CALLS["digests"], impatient).code == "ollama_timeout"

    server.drips = False
    assert impatient.digests() == client.digests(), "the broken connection is not used again"


def test_a_slow_answer_is_not_asked_for_again(server: OllamaStandIn) -> None:
    impatient = OllamaServer(server.url, timeout_seconds=0.3)
    impatient.digests()
    server.delay_seconds = 1

    assert failure(CALLS["chat"], impatient).code == "ollama_timeout"
    assert [request.path for request in server.requests] == ["/api/tags", "/api/chat"]


def test_a_host_that_does_not_take_connections(monkeypatch: pytest.MonkeyPatch) -> None:
    """As one behind a firewall that drops packets: the queue of connections is full."""
    monkeypatch.setattr(ollama_server, "CONNECT_SECONDS", 0.2)
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        waiting = [socket.socket() for _ in range(8)]
        for some in waiting:
            some.setblocking(False)
            some.connect_ex(address)
        try:
            client = OllamaServer(f"http://127.0.0.1:{address[1]}", timeout_seconds=60)

            assert failure(CALLS["chat"], client).code == "ollama_unreachable"
        finally:
            for some in waiting:
                some.close()


# --- who answers ---


def test_a_server_of_another_kind(
    server: OllamaStandIn, client: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "answer", lambda path, body: (200, {"hello": "world"}))

    for call in CALLS.values():
        error = failure(call, client)
        assert error.code == "ollama_error"
        assert "OLLAMA_HOST" in error.remedy


def test_a_server_without_the_page_lacks_no_model(
    server: OllamaStandIn, client: OllamaServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "answer", lambda path, body: (404, {"error": "not here"}))

    assert failure(CALLS["digests"], client).code == "ollama_error"
    assert failure(CALLS["embed"], client).code == "model_missing"
