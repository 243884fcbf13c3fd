"""The whole gateway on a port of its own, and clients with tokens."""

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from uuid import UUID

import httpx
from starlette.applications import Starlette

from vuemantics_pipeline.gateway.app import build_app
from vuemantics_pipeline.gateway.serve import server
from vuemantics_pipeline.gateway.tokens import issue_token
from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline.ledger.migrate import migrate
from vuemantics_pipeline.settings import Settings
from vuemantics_pipeline_tests import support

SECRET = "a secret of at least thirty-two bytes"
_WAIT_SECONDS = 30


@contextmanager
def new_database(server_url: str) -> Iterator[str]:
    """The URL of a database with all tables, gone afterwards."""
    with support.empty_database(server_url) as url:
        with connect(url) as new:
            migrate(new, dimension=support.DIMENSION)
        yield url


@contextmanager
def served(settings: Settings, database_url: str, *, health: int = 200) -> Iterator[str]:
    """The URL of a gateway, without a slash at its end.

    Args:
        health: what /healthz has to say first.
    """
    with on_a_port(build_app(settings, database_url, SECRET)) as port:
        url = f"http://127.0.0.1:{port}"
        wait_for_health(url, health)
        yield url


@contextmanager
def on_a_port(app: Starlette, *, send_buffer_bytes: int | None = None) -> Iterator[int]:
    """The port on which the gateway's own server serves an application.

    Args:
        send_buffer_bytes: of each connection; a small one soon shows who does not read.
    """
    running = server(app)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        if send_buffer_bytes is not None:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer_bytes)
        thread = threading.Thread(target=running.run, args=([listener],))
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            running.should_exit = True
            thread.join()


def wait_for_health(url: str, status: int) -> None:
    """Wait until /healthz answers with a status."""
    deadline = time.monotonic() + _WAIT_SECONDS
    while httpx.get(f"{url}/healthz", timeout=_WAIT_SECONDS).status_code != status:
        assert time.monotonic() < deadline
        time.sleep(0.05)


def token(user_id: UUID, *, seconds: float = 600, token_version: int = 0) -> str:
    return issue_token(
        SECRET, user_id, token_version=token_version, lifetime=timedelta(seconds=seconds)
    )


def bearer(user_id: UUID, **claims: int) -> dict[str, str]:
    return {"Authorization": f"Bearer {token(user_id, **claims)}"}
