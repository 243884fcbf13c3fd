"""The gateway as a server of its own."""

import resource
import socket
from contextlib import suppress
from errno import EADDRINUSE

import uvicorn
from starlette.applications import Starlette

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.gateway.app import build_app
from vuemantics_pipeline.gateway.socket import MAX_MESSAGE
from vuemantics_pipeline.settings import Settings

_GRACE_SECONDS = 3
# What the kernel holds for a client that does not read, and for how long.
_SEND_BUFFER_BYTES = 64 * 1024
_UNREAD_MILLISECONDS = 30_000


def serve(settings: Settings, database_url: str, secret: str, *, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM, whose handler is called at the end.

    Raises:
        UsageError: code 'port_in_use', 'port_unusable' or 'wrong_database_url'.
    """
    app = build_app(settings, database_url, secret, host=host)
    _allow_many_files()
    with _listening(host, port) as listening:
        server(app).run([listening])


def server(app: Starlette) -> uvicorn.Server:
    """The server of a gateway, to be run on sockets that listen."""
    return uvicorn.Server(
        uvicorn.Config(
            app,
            lifespan="on",
            log_level="warning",
            access_log=False,  # addresses may hold tokens
            server_header=False,
            ws="websockets-sansio",
            ws_max_size=MAX_MESSAGE,
            ws_per_message_deflate=False,  # it takes more memory than all else of a socket
            ws_ping_interval=None,  # the application's protocol has a heartbeat of its own
            # A client that keeps a socket open does not hold up the end.
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens, made here because uvicorn would only log that it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    remedy = "Choose others with --host and --port."
    try:
        listening = socket.create_server((host, port), family=family)
    except OSError as error:  # socket.gaierror, for names nobody knows, is one
        if error.errno == EADDRINUSE:
            raise UsageError("port_in_use", f"Port {port} is in use.", remedy) from None
        raise UsageError(
            "port_unusable", f"{host}, port {port}: {error.strerror}.", remedy
        ) from None
    # Every connection inherits these.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
    if hasattr(socket, "TCP_USER_TIMEOUT"):
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, _UNREAD_MILLISECONDS)
    return listening


def _allow_many_files() -> None:
    """Let the process have as many connections as the system allows it, not the usual 1,024."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
