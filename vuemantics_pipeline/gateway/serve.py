"""The gateway as a server of its own."""

import socket
from errno import EADDRINUSE

import uvicorn
from starlette.applications import Starlette

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.gateway.app import build_app
from vuemantics_pipeline.settings import Settings

_GRACE_SECONDS = 3
_LONGEST_MESSAGE = 4096


def serve(settings: Settings, database_url: str, secret: str, *, host: str, port: int) -> None:
    """Serve until SIGINT or SIGTERM, whose handler is called at the end.

    Raises:
        UsageError: code 'port_in_use', 'port_unusable' or 'wrong_database_url'.
    """
    app = build_app(settings, database_url, secret, host=host)
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
            ws_max_size=_LONGEST_MESSAGE,
            ws_per_message_deflate=False,  # it takes more memory than all else of a socket
            # A client that keeps a socket open does not hold up the end.
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    )


def _listening(host: str, port: int) -> socket.socket:
    """A socket that listens, made here because uvicorn would only log that it cannot."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    remedy = "Choose others with --host and --port."
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:  # socket.gaierror, for names nobody knows, is one
        if error.errno == EADDRINUSE:
            raise UsageError("port_in_use", f"Port {port} is in use.", remedy) from None
        raise UsageError(
            "port_unusable", f"{host}, port {port}: {error.strerror}.", remedy
        ) from None
