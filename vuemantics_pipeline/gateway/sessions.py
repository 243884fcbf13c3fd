"""Who is asking: a program with a bearer token, or the page with a cookie that holds one."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http import HTTPStatus

from pydantic import Field, ValidationError
from starlette.concurrency import run_in_threadpool
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, RedirectResponse, Response
from starlette.routing import Route

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.gateway.guards import FailureLimit, origin_allowed
from vuemantics_pipeline.gateway.inputs import Input, body
from vuemantics_pipeline.gateway.problems import Problem
from vuemantics_pipeline.gateway.tokens import Session, TokenRefused, read_token, require_active
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.pool import Pool

COOKIE = "vuemantics_session"
"""Holds the access token itself, out of reach of scripts; it ends when the token does."""

_logger = logging.getLogger(__name__)

_SAFE_METHODS = ("GET", "HEAD")
_CHALLENGE = 'Bearer realm="vuemantics"'
_RETRY_SECONDS = 5


def token_of(connection: HTTPConnection) -> str | None:
    """Return the token a request or a WebSocket came with: as bearer, else in the cookie."""
    return _bearer(connection) or connection.cookies.get(COOKIE)


class SignIn(Input):
    """A token to sign in with: of the characters that tokens have, short enough for a cookie."""

    token: str = Field(pattern=r"^[A-Za-z0-9_.-]{1,4000}$")


@dataclass(frozen=True)
class Door:
    """Lets in whoever has a token that holds.

    Attributes:
        secret: that tokens are signed with.
        origins: of pages, besides the gateway's own, that may act in a user's name.
        failures: which addresses have come with too many tokens that did not hold.
    """

    pool: Pool
    secret: str = field(repr=False)
    origins: tuple[str, ...]
    failures: FailureLimit

    def session(self, request: Request) -> Session:
        """Read the token of a request, without looking whether it has been revoked.

        Raises:
            Problem: 401, there is none that could hold; 403, it is the page's cookie, and another
                site's page may have sent the request; 429.
        """
        token = token_of(request)
        if token is None:
            raise _unauthorized("no_token", "There is no access token.", _CHALLENGE)
        if request.method not in _SAFE_METHODS and not _bearer(request):
            self.require_own_page(request)
        with self._counted(request):
            return read_token(token, self.secret)

    @contextmanager
    def opened(self, request: Request) -> Iterator[tuple[Connection, Session]]:
        """Lend a connection to whoever has sent a request, and tell who that is.

        Raises:
            Problem: as `session`, and 401 where the token has been revoked.
            BackendUnavailable: the database does not answer.
        """
        session = self.session(request)
        with self.pool.connection() as connection:
            with self._counted(request):
                require_active(connection, session)
            yield connection, session

    def signed_in(self, request: Request, token: str) -> Session:
        """Check a token that the page is to have.

        Raises:
            Problem: 401 or 429.
            BackendUnavailable: the database does not answer.
        """
        with self._counted(request):
            session = read_token(token, self.secret)
            with self.pool.connection() as connection:
                require_active(connection, session)
        return session

    def require_own_page(self, request: Request) -> None:
        """Make sure by its Origin that no other site's page has sent a request.

        Raises:
            Problem: 403.
        """
        if "origin" not in request.headers or not origin_allowed(request, self.origins):
            raise Problem(
                HTTPStatus.FORBIDDEN,
                "foreign_origin",
                "The request does not come from a page that may send it.",
                "Programs send the token as `Authorization: Bearer`, without a cookie.",
            )

    @contextmanager
    def _counted(self, request: Request) -> Iterator[None]:
        """Count a token that is refused, against those who try many."""
        if self.failures.is_exhausted(request):
            raise Problem(
                HTTPStatus.TOO_MANY_REQUESTS,
                "too_many_failures",
                "Too many access tokens from this address were refused.",
                "Wait a little, and use one that holds.",
                {"Retry-After": str(_RETRY_SECONDS)},
            )
        try:
            yield
        except TokenRefused as refusal:
            self.failures.record(request)
            raise _unauthorized(
                "token_refused", str(refusal), f'{_CHALLENGE}, error="invalid_token"'
            ) from None


@dataclass(frozen=True)
class Sessions:
    """The page's session: a cookie in exchange for a token."""

    door: Door

    def routes(self) -> list[Route]:
        """All of them but the link, whose address is the page's."""
        return [Route("/session", self.session, methods=["GET", "POST", "DELETE"])]

    async def session(self, request: Request) -> Response:
        """Sign in, say who is signed in, or sign out."""
        match request.method:
            case "POST":
                return await self._sign_in(request)
            case "DELETE":
                self.door.require_own_page(request)
                answer = Response(status_code=HTTPStatus.NO_CONTENT)
                answer.delete_cookie(
                    COOKIE, secure=_is_https(request), httponly=True, samesite="strict"
                )
                return answer
            case _:
                return await run_in_threadpool(self._who, request)

    def by_link(self, request: Request) -> Response:
        """Sign in by `/?token=...`, and lead on to an address that does not have the token.

        Where that fails, what stands behind the # tells the page why: `refused` or `unavailable`.
        """
        try:
            token = SignIn(token=request.query_params["token"]).token
            session = self.door.signed_in(request, token)
        except (ValidationError, Problem):
            return RedirectResponse("/#refused", HTTPStatus.SEE_OTHER)
        except BackendUnavailable as error:
            _logger.warning("%s", error)
            return RedirectResponse("/#unavailable", HTTPStatus.SEE_OTHER)
        return _with_cookie(RedirectResponse("/", HTTPStatus.SEE_OTHER), request, session, token)

    async def _sign_in(self, request: Request) -> Response:
        if "origin" in request.headers:
            self.door.require_own_page(request)
        token = (await body(request, SignIn)).token
        session = await run_in_threadpool(self.door.signed_in, request, token)
        return _with_cookie(_told(session), request, session, token)

    def _who(self, request: Request) -> Response:
        with self.door.opened(request) as (_, session):
            return _told(session)


def _bearer(connection: HTTPConnection) -> str | None:
    scheme, _, token = connection.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else None


def _unauthorized(code: str, message: str, challenge: str) -> Problem:
    return Problem(
        HTTPStatus.UNAUTHORIZED,
        code,
        message,
        "Sign in, or send one that the application has issued as `Authorization: Bearer`.",
        {"WWW-Authenticate": challenge},
    )


def _told(session: Session) -> Response:
    return JSONResponse(
        {"user_id": str(session.user_id), "expires_at": session.expires_at.isoformat()}
    )


def _with_cookie(answer: Response, request: Request, session: Session, token: str) -> Response:
    seconds = (session.expires_at - datetime.now(UTC)).total_seconds()
    answer.set_cookie(
        COOKIE,
        token,
        max_age=max(0, int(seconds)),
        secure=_is_https(request),
        httponly=True,
        samesite="strict",
    )
    return answer


def _is_https(request: Request) -> bool:
    return request.url.scheme == "https"
