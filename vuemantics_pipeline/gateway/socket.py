"""One client's WebSocket: what is received, what is sent, and when it is over."""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import IntEnum
from typing import Any

from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.frames import CloseCode

from vuemantics_pipeline.gateway.guards import Bucket
from vuemantics_pipeline.gateway.hub import Outbox
from vuemantics_pipeline.gateway.tokens import Session
from vuemantics_pipeline.progress.messages import Message, text

MAX_MESSAGE = 4096
"""Characters of a message from a client; a token is the longest thing that they have to say."""

_MESSAGES = 100
_MESSAGES_PER_SECOND = 50
# Sending does not wait while the client keeps up, and others want their turn.
_SENT_IN_A_ROW = 20
_CLOSE_SECONDS = 2


class Code(IntEnum):
    """Why a connection is closed: from 4000 the application's own codes, else RFC 6455's."""

    TOO_BIG = 1009
    TRY_AGAIN_LATER = 1013
    NO_AUTH_IN_TIME = 4001
    AUTH_REQUIRED = 4002
    INVALID_TOKEN = 4003
    INVALID_MESSAGE = 4004


class Closing(Exception):
    """The connection is to be closed; the reason goes to the client."""

    def __init__(self, code: Code, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


@dataclass(frozen=True)
class Patience:
    """How long a client is waited for, in seconds.

    Attributes:
        sign_in: for its first message.
        heartbeat: between two pings.
        silence: for any message at all, a pong or another.
        stall: for it to read what is sent.
        recheck: between two looks whether its user is still active.
    """

    sign_in: float = 5
    heartbeat: float = 30
    silence: float = 100
    stall: float = 10
    recheck: float = 60


class Socket:
    """A connection that was accepted.

    Attributes:
        outbox: what is to be sent.
        session: who has signed in; None before.
    """

    __slots__ = (
        "_beat",
        "_bucket",
        "_end",
        "_heard_at",
        "_patience",
        "_websocket",
        "outbox",
        "session",
    )

    def __init__(self, websocket: WebSocket, patience: Patience) -> None:
        self.outbox = Outbox()
        self.session: Session | None = None
        self._websocket = websocket
        self._patience = patience
        self._bucket = Bucket(_MESSAGES, _MESSAGES_PER_SECOND)
        self._heard_at = time.monotonic()
        self._end: Exception | None = None
        self._beat: asyncio.TimerHandle | None = None

    def say(self, action: str, **top_level: Any) -> None:
        """Send something of this connection's own."""
        self.outbox.put(Message("", action, (text(action, **top_level),)))

    def end(self, reason: Exception) -> None:
        """Let `converse` end by raising a reason; the first one counts."""
        self._end = self._end or reason
        self.outbox.filled.set()

    async def receive(self) -> dict[str, Any]:
        """Return the client's next message. One who says too much is heard later.

        Raises:
            Closing: it is too long, or no JSON object.
            WebSocketDisconnect: the client has gone.
        """
        received = await self._websocket.receive()
        if received["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(received["code"])
        self._heard_at = time.monotonic()
        content = received.get("text")
        if content is None:
            raise Closing(Code.INVALID_MESSAGE, "Messages are JSON texts.")
        if len(content) > MAX_MESSAGE:
            raise Closing(Code.TOO_BIG, f"Messages have at most {MAX_MESSAGE} characters.")
        try:
            message = json.loads(content)
        except (ValueError, RecursionError):
            raise Closing(Code.INVALID_MESSAGE, "Messages are JSON texts.") from None
        if not isinstance(message, dict):
            raise Closing(Code.INVALID_MESSAGE, "Messages are JSON objects.")
        wait = self._bucket.take()
        if wait:
            await asyncio.sleep(wait)
        return message

    async def converse(self, listen: Callable[[], Awaitable[None]]) -> None:
        """Send what is put into the outbox while `listen` receives, until either ends.

        Raises:
            Closing: the client is too slow or silent, its session is over, or as `listen` says.
            WebSocketDisconnect: it has gone.
        """
        receiving = asyncio.create_task(self._listen(listen))
        self._schedule_beat()
        try:
            await self._send_all()
        finally:
            receiving.cancel()
            if self._beat is not None:
                self._beat.cancel()

    async def close(self, closing: Closing) -> None:
        """Close the connection, as far as the client lets one."""
        try:
            async with asyncio.timeout(_CLOSE_SECONDS):
                await self._websocket.close(closing.code, closing.reason)
        except (TimeoutError, RuntimeError, WebSocketDisconnect):
            pass  # it does not read, or has gone

    async def _listen(self, listen: Callable[[], Awaitable[None]]) -> None:
        try:
            await listen()
        except Exception as reason:
            self.end(reason)

    async def _send_all(self) -> None:
        sent = 0
        while True:
            message = self.outbox.take()
            if self.outbox.has_overflowed:
                raise Closing(Code.TRY_AGAIN_LATER, "The client reads too slowly.")
            if self._end is not None:
                raise self._end
            if message is None:
                await self.outbox.filled.wait()
                continue
            for line in message.texts:
                await self._send(line)
            sent += 1
            if sent % _SENT_IN_A_ROW == 0:
                await asyncio.sleep(0)

    async def _send(self, line: str) -> None:
        try:
            async with asyncio.timeout(self._patience.stall):
                await self._websocket.send_text(line)
        except TimeoutError:
            raise Closing(Code.TRY_AGAIN_LATER, "The client does not read.") from None
        except RuntimeError:  # the server has closed it by itself
            raise WebSocketDisconnect(CloseCode.ABNORMAL_CLOSURE) from None

    def _schedule_beat(self) -> None:
        assert self.session is not None
        left = (self.session.expires_at - datetime.now(UTC)).total_seconds()
        delay = max(0, min(self._patience.heartbeat, left))
        self._beat = asyncio.get_running_loop().call_later(delay, self._on_beat)

    def _on_beat(self) -> None:
        assert self.session is not None
        if datetime.now(UTC) >= self.session.expires_at:
            self.end(Closing(Code.INVALID_TOKEN, "The token has expired."))
        elif time.monotonic() > self._heard_at + self._patience.silence:
            self.end(Closing(Code.TRY_AGAIN_LATER, "The client does not answer."))
        else:
            self.say("ping")
            self._schedule_beat()
