"""The WebSocket that people follow their batches on: who may come in, and what they may ask."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import asynccontextmanager, nullcontext, suppress
from http import HTTPStatus
from typing import TypeVar

from starlette.responses import PlainTextResponse
from starlette.websockets import WebSocket, WebSocketDisconnect

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.gateway.client import Client
from vuemantics_pipeline.gateway.guards import FailureLimit, origin_allowed
from vuemantics_pipeline.gateway.hub import Hub, HubSink
from vuemantics_pipeline.gateway.sessions import token_of
from vuemantics_pipeline.gateway.socket import Closing, Code, Patience, Socket
from vuemantics_pipeline.gateway.tokens import (
    Session,
    TokenRefused,
    read_token,
    require_active,
    token_versions,
)
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.progress.bridge import Bridge
from vuemantics_pipeline.progress.feed import Feed
from vuemantics_pipeline.progress.messages import user_channel
from vuemantics_pipeline.settings import Settings

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

_SIGN_IN_ANSWER_SECONDS = 10
# Whoever is in need not come again because Postgres is restarted.
_ANSWER_SECONDS = 60
_TRIES = 3


class Live:
    """All WebSockets, and the feed that they hear.

    Raises:
        UsageError: REDIS_URL is set and cannot be used.
    """

    def __init__(
        self,
        settings: Settings,
        database_url: str,
        secret: str,
        *,
        failures: FailureLimit | None = None,
        patience: Patience | None = None,
    ) -> None:
        self._settings = settings
        self._database_url = database_url
        self._secret = secret
        self._failures = failures or FailureLimit()
        self._patience = patience or Patience()
        self._hub = Hub()
        self._paging = asyncio.Lock()
        redis_url = settings.redis_url
        self._bridge = None if redis_url is None else Bridge(redis_url.get_secret_value())
        self._feed: Feed | None = None
        self._accepted = 0
        self._signed_in: dict[Socket, Session] = {}

    @property
    def sockets(self) -> int:
        """How many connections there are, those that have not signed in yet included."""
        return self._accepted

    @property
    def is_listening(self) -> bool:
        """Whether the feed hears the database."""
        return self._feed is not None and self._feed.is_listening

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Follow the database while the block runs."""
        hub = HubSink(self._hub, asyncio.get_running_loop())
        feed = Feed(self._database_url, [hub] if self._bridge is None else [hub, self._bridge])
        with self._bridge.running() if self._bridge else nullcontext(), feed.running():
            self._feed = feed
            rechecking = asyncio.create_task(self._recheck())
            try:
                yield
            finally:
                rechecking.cancel()
                self._feed = None

    async def endpoint(self, websocket: WebSocket) -> None:
        """Serve one WebSocket from its first byte to its last."""
        refusal = self._refusal(websocket)
        if refusal is not None:
            _logger.info("A WebSocket was refused: %s.", refusal.phrase)
            await websocket.send_denial_response(PlainTextResponse(f"{refusal.phrase}.\n", refusal))
            return
        socket = Socket(websocket, self._patience)
        self._accepted += 1
        try:
            await websocket.accept()
            socket.session = await self._sign_in(websocket, socket)
            await self._serve(socket, socket.session)
        except Closing as closing:
            await socket.close(closing)
        except WebSocketDisconnect:
            pass
        finally:
            self._accepted -= 1

    def _refusal(self, websocket: WebSocket) -> HTTPStatus | None:
        if not origin_allowed(websocket, self._settings.gateway_origins):
            return HTTPStatus.FORBIDDEN
        if self._failures.is_exhausted(websocket):
            return HTTPStatus.TOO_MANY_REQUESTS
        if self._accepted >= self._settings.gateway_sockets:
            return HTTPStatus.SERVICE_UNAVAILABLE
        return None

    async def _sign_in(self, websocket: WebSocket, socket: Socket) -> Session:
        """Return whom the client's first message speaks for."""
        try:
            session = await self._read_sign_in(websocket, socket)
            await self._ask(
                lambda _, connection: require_active(connection, session),
                seconds=_SIGN_IN_ANSWER_SECONDS,
            )
        except TimeoutError:
            self._failures.record(websocket)
            raise Closing(Code.NO_AUTH_IN_TIME, "Nobody has signed in.") from None
        except TokenRefused as refused:
            self._failures.record(websocket)
            raise Closing(Code.INVALID_TOKEN, str(refused)) from None
        except Closing as closing:
            if closing.code is not Code.TRY_AGAIN_LATER:
                self._failures.record(websocket)
            raise
        return session

    async def _read_sign_in(self, websocket: WebSocket, socket: Socket) -> Session:
        async with asyncio.timeout(self._patience.sign_in):
            message = await socket.receive()
        if message.get("type") != "auth":
            raise Closing(Code.AUTH_REQUIRED, "The first message has to sign in.")
        # The page's token is in a cookie, out of its reach.
        token = message.get("token") or token_of(websocket)
        if not token:
            raise Closing(Code.AUTH_REQUIRED, "The first message has to bring a token.")
        if not isinstance(token, str):
            raise Closing(Code.INVALID_MESSAGE, "The token is not a text.")
        return read_token(token, self._secret)

    async def _serve(self, socket: Socket, session: Session) -> None:
        channel = user_channel(session.user_id)
        others = self._hub.count(channel)
        if others >= self._settings.gateway_sockets_per_user:
            raise Closing(Code.TRY_AGAIN_LATER, "This user has too many connections.")
        alone = others == 0 and self._bridge is None
        client = Client(socket, session, self._hub, self._ask, self._paging, alone=alone)
        socket.say("auth_success", user_id=str(session.user_id))
        self._hub.join(channel, socket.outbox)
        self._signed_in[socket] = session
        try:
            await socket.converse(client.listen)
        finally:
            del self._signed_in[socket]
            self._hub.leave(channel, socket.outbox)
            client.leave()

    async def _ask(
        self,
        question: Callable[[Feed, Connection], _T],
        take: Callable[[_T], None] = lambda _: None,
        *,
        seconds: float = _ANSWER_SECONDS,
    ) -> _T:
        """Have the feed read something.

        Args:
            take: is given the answer in order with what the feed tells.
            seconds: how long the answer may take; it takes long while the database is away.

        Raises:
            Closing: there is no answer.
            TokenRefused: as the question says.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                for _ in range(_TRIES):
                    with suppress(BackendUnavailable):
                        return await self._ask_once(question, take)
        raise Closing(Code.TRY_AGAIN_LATER, "The database does not answer.")

    async def _ask_once(
        self, question: Callable[[Feed, Connection], _T], take: Callable[[_T], None]
    ) -> _T:
        feed = self._feed
        if feed is None:
            raise Closing(Code.TRY_AGAIN_LATER, "The gateway is stopping.")
        loop = asyncio.get_running_loop()
        taken: asyncio.Future[_T] = loop.create_future()

        def settle(answer: Future[_T]) -> None:
            if taken.done():
                return
            if (error := answer.exception()) is not None:
                taken.set_exception(error)
            else:
                take(answer.result())
                taken.set_result(answer.result())

        def answered(answer: Future[_T]) -> None:
            if not answer.cancelled():
                loop.call_soon_threadsafe(settle, answer)

        asked = feed.ask(lambda connection: question(feed, connection), answered)
        try:
            return await taken
        finally:
            asked.cancel()

    async def _recheck(self) -> None:
        """Close the connections of users who may not be in any more."""
        while True:
            await asyncio.sleep(self._patience.recheck)
            with suppress(Closing):
                await self._end_revoked()

    async def _end_revoked(self) -> None:
        # Those who sign in meanwhile are not asked for.
        sessions = dict(self._signed_in)
        users = {session.user_id for session in sessions.values()}
        if not users:
            return
        versions = await self._ask(lambda _, connection: token_versions(connection, users))
        for socket, session in sessions.items():
            if versions.get(session.user_id) != session.token_version:
                socket.end(Closing(Code.INVALID_TOKEN, "The token has been revoked."))
