"""The gateway as one ASGI application: page, API, thumbnails, WebSocket, health and metrics."""

import json
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import cache
from http import HTTPStatus
from importlib import resources
from ipaddress import ip_address
from urllib.parse import urlsplit

import yaml
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from vuemantics_pipeline.gateway import problems
from vuemantics_pipeline.gateway.api import Api
from vuemantics_pipeline.gateway.guards import FailureLimit
from vuemantics_pipeline.gateway.live import Live
from vuemantics_pipeline.gateway.metrics import Metrics
from vuemantics_pipeline.gateway.problems import Problem
from vuemantics_pipeline.gateway.sessions import Door, Sessions
from vuemantics_pipeline.gateway.thumbnails import Thumbnails
from vuemantics_pipeline.ledger.pool import Pool
from vuemantics_pipeline.settings import Settings

_CONNECTIONS = 8
_CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "base-uri 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": _CONTENT_SECURITY_POLICY,
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def build_app(
    settings: Settings, database_url: str, secret: str, *, host: str | None = None
) -> Starlette:
    """Put the gateway together. It needs the database only once it runs, and outlives its restarts.

    Args:
        secret: that the application signs access tokens with.
        host: the name it is reached by, besides those of this machine and of the origins that
            are allowed.
    """
    pool = Pool(database_url, size=_CONNECTIONS)
    failures = FailureLimit()
    live = Live(settings, database_url, secret, failures=failures)
    door = Door(pool, secret, settings.gateway_origins, failures)
    sessions = Sessions(door)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        async with live.running():
            yield
        pool.close()

    app = Starlette(
        routes=[
            *Page(sessions).routes(),
            *sessions.routes(),
            *Api(door).routes(),
            *Thumbnails(door, settings.uploads).routes(),
            *Metrics(pool, live).routes(),
            Route("/openapi.json", _openapi),
            WebSocketRoute("/ws/uploads", live.endpoint),
        ],
        middleware=[
            Middleware(SafeHeaders),
            Middleware(KnownHosts, names=_names(settings.gateway_origins, host)),
        ],
        exception_handlers=problems.HANDLERS,
        lifespan=lifespan,
    )
    app.router.redirect_slashes = False
    return app


@dataclass(frozen=True)
class Page:
    """The page at /, and the files it is made of below /static."""

    sessions: Sessions
    files: "PageFiles" = field(default_factory=lambda: PageFiles(packages=[(__package__, "page")]))

    def routes(self) -> list[BaseRoute]:
        """All of them."""
        return [Route("/", self.index), Mount("/static", self.files)]

    async def index(self, request: Request) -> Response:
        """The page, or a way to it for whoever brings a token along."""
        if "token" in request.query_params:
            return await run_in_threadpool(self.sessions.by_link, request)
        return await self.files.get_response("index.html", request.scope)


class PageFiles(StaticFiles):
    """Files that a browser keeps, and asks each time whether they are still the same."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        """A file, or 304 where the browser has it."""
        response = await super().get_response(path, scope)
        response.headers["Cache-Control"] = "no-cache"
        if path.endswith(".js") and "Content-Type" in response.headers:
            # By RFC 9239. Which type Python gives depends on its version and on the system's list.
            response.headers["Content-Type"] = "text/javascript; charset=utf-8"
        return response


class SafeHeaders:
    """Tells browsers to be strict, and everybody to keep no answer that does not allow it."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""

        async def send_safely(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        await self._app(scope, receive, send_safely)


class KnownHosts:
    """Refuses requests for hosts that are not this one.

    A page elsewhere can have its own name lead to this address (DNS rebinding), and would then
    count as ours. It cannot have an IP address as its name, so those are all welcome.
    """

    def __init__(self, app: ASGIApp, names: Collection[str]) -> None:
        self._app = app
        self._names = names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request."""
        if scope["type"] == "lifespan" or self._is_known(Headers(scope=scope).get("host", "")):
            await self._app(scope, receive, send)
        elif scope["type"] == "websocket":
            await send({"type": "websocket.close"})
        else:
            problem = Problem(
                HTTPStatus.MISDIRECTED_REQUEST,
                "unknown_host",
                "The gateway does not go by the name that the request gives in Host.",
                "Name it in VUEMANTICS_GATEWAY_ORIGINS.",
            )
            await problems.response(problem)(scope, receive, send)

    def _is_known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in self._names or _is_address(name)


def _names(origins: Sequence[str], host: str | None) -> frozenset[str]:
    own = {"localhost"} | ({host.lower()} if host else set())
    return frozenset(own | {urlsplit(origin).hostname or "" for origin in origins} - {""})


def _is_address(name: str) -> bool:
    try:
        ip_address(name)
    except ValueError:
        return False
    return True


@cache
def _document() -> bytes:
    """openapi.yaml as JSON."""
    text = (resources.files(__package__) / "openapi.yaml").read_text()
    return json.dumps(yaml.safe_load(text)).encode()


async def _openapi(_: Request) -> Response:
    """What this gateway takes and answers."""
    return Response(
        _document(), headers={"Cache-Control": "no-cache"}, media_type="application/json"
    )
