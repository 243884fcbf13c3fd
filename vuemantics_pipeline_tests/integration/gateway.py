"""The WebSocket as clients meet it: uvicorn on a port of its own, and clients that wait."""

import json
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from starlette.applications import Starlette
from starlette.routing import WebSocketRoute
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from vuemantics_pipeline.gateway.guards import FailureLimit
from vuemantics_pipeline.gateway.live import Live
from vuemantics_pipeline.gateway.socket import Patience
from vuemantics_pipeline.settings import load_settings
from vuemantics_pipeline_tests.integration.served import SECRET, on_a_port, token

WAIT_SECONDS = 30


@dataclass
class Client:
    """A client that waits for what it is told, and keeps it."""

    connection: ClientConnection
    heard: list[dict[str, Any]] = field(default_factory=list)

    def say(self, **message: Any) -> None:
        self.connection.send(json.dumps(message))

    def hear(self) -> dict[str, Any]:
        """The next message."""
        message: dict[str, Any] = json.loads(self.connection.recv(WAIT_SECONDS))
        self.heard.append(message)
        return message

    def hear_until(self, action: str, **payload: Any) -> list[dict[str, Any]]:
        """Messages up to the first with this action and, among others, these values."""
        heard = [self.hear()]
        while not says(heard[-1], action, payload):
            heard.append(self.hear())
        return heard

    def has_heard(self, action: str, **payload: Any) -> bool:
        """Whether a message with this action and, among others, these values has come."""
        return any(says(message, action, payload) for message in self.heard)

    def hear_the_end(self) -> ConnectionClosed:
        """Hear everything until the gateway ends the connection, and how it does."""
        try:
            while True:
                self.hear()
        except ConnectionClosed as closed:
            return closed

    def hear_nothing(self, seconds: float = 0.5) -> None:
        """Nothing is said for a while."""
        try:
            message = self.connection.recv(seconds)
        except TimeoutError:
            return
        raise AssertionError(f"Nothing was to be said, yet: {message!r}")


@dataclass(frozen=True)
class Gateway:
    """A running gateway; `live` belongs to its thread."""

    port: int
    live: Live

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/ws/uploads"

    @contextmanager
    def opened(
        self, headers: Mapping[str, str] | None = None, *, sock: socket.socket | None = None
    ) -> Iterator[Client]:
        """A client that has not said anything yet.

        Args:
            sock: connected to the gateway already.
        """
        with connect(
            self.url,
            sock=sock,
            additional_headers=headers,
            compression=None,
            ping_interval=None,
            open_timeout=WAIT_SECONDS,
            close_timeout=1,
            max_queue=1,
        ) as connection:
            yield Client(connection)

    @contextmanager
    def signed_in(
        self, user_id: UUID, *, sock: socket.socket | None = None, seconds: float = 600
    ) -> Iterator[Client]:
        """A client that has been let in, and not heard anything yet."""
        with self.opened(sock=sock) as client:
            client.say(type="auth", token=token(user_id, seconds=seconds))
            assert client.hear()["action"] == "auth_success"
            yield client

    def wait_for(self, *, listening: bool) -> None:
        deadline = time.monotonic() + WAIT_SECONDS
        while self.live.is_listening is not listening:
            assert time.monotonic() < deadline
            time.sleep(0.01)


@contextmanager
def running_gateway(
    database_url: str,
    *,
    patience: Patience | None = None,
    failures: FailureLimit | None = None,
    **settings: Any,
) -> Iterator[Gateway]:
    """A gateway that hears the database.

    Args:
        settings: by field name.
    """
    live = Live(
        load_settings(**settings), database_url, SECRET, failures=failures, patience=patience
    )

    @asynccontextmanager
    async def lifespan(_: Starlette) -> Any:
        async with live.running():
            yield

    app = Starlette(routes=[WebSocketRoute("/ws/uploads", live.endpoint)], lifespan=lifespan)
    with on_a_port(app, send_buffer_bytes=16384) as port:
        gateway = Gateway(port, live)
        gateway.wait_for(listening=True)
        yield gateway


def of(heard: Sequence[dict[str, Any]], action: str) -> list[dict[str, Any]]:
    """The payloads of one kind of message."""
    return [message["payload"] for message in heard if message["action"] == action]


def says(message: dict[str, Any], action: str, payload: dict[str, Any]) -> bool:
    """Whether a message has this action and, among others, these values."""
    body = message | message.get("payload", {})
    return bool(body["action"] == action and payload.items() <= body.items())
