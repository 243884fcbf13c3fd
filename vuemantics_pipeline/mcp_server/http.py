"""Streamable HTTP on loopback, for whoever has the token."""

import secrets
from dataclasses import dataclass, field

import uvicorn
from mcp.server.auth.provider import AccessToken
from mcp.server.auth.settings import AuthSettings
from pydantic import AnyHttpUrl

from vuemantics_pipeline.home.processes import LOOPBACK, require_free_port
from vuemantics_pipeline.mcp_server.library import Library
from vuemantics_pipeline.mcp_server.server import build_server

_GRACE_SECONDS = 3


@dataclass(frozen=True)
class OneToken:
    """Lets in whoever has the token that the operator chose. A `TokenVerifier` of the SDK."""

    token: str = field(repr=False)

    async def verify_token(self, token: str) -> AccessToken | None:
        """Compare in constant time."""
        given, expected = (text.encode(errors="surrogatepass") for text in (token, self.token))
        if secrets.compare_digest(given, expected):
            return AccessToken(token=token, client_id="operator", scopes=[])
        return None


def url(port: int) -> str:
    """Where clients find the server."""
    return f"http://{LOOPBACK}:{port}/mcp"


def serve_http(library: Library, *, port: int, token: str, allow_changes: bool) -> None:
    """Serve until SIGINT or SIGTERM, whose handler is called at the end.

    Requests whose Host or Origin is not this machine are refused, whatever token they have: a
    web page could have sent them.

    Raises:
        UsageError: code 'port_in_use'.
    """
    require_free_port(port)
    server = build_server(
        library,
        allow_changes=allow_changes,
        # There is no authorization server; the SDK wants the name of one all the same.
        auth=AuthSettings(
            issuer_url=AnyHttpUrl(f"http://{LOOPBACK}:{port}"), resource_server_url=None
        ),
        token_verifier=OneToken(token),
    )
    app = server.streamable_http_app(host=LOOPBACK, json_response=True)
    uvicorn.Server(
        uvicorn.Config(
            app,
            host=LOOPBACK,
            port=port,
            log_level="warning",
            access_log=False,
            # A client that keeps a stream open does not hold up the end.
            timeout_graceful_shutdown=_GRACE_SECONDS,
        )
    ).run()
