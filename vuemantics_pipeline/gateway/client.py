"""What a client that has signed in may ask: uploads to follow, and what it missed of a batch."""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar
from uuid import UUID

from vuemantics_pipeline.gateway.hub import Hub
from vuemantics_pipeline.gateway.socket import Closing, Code, Socket
from vuemantics_pipeline.gateway.tokens import Session
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.progress.feed import Feed
from vuemantics_pipeline.progress.messages import Message, upload_channel
from vuemantics_pipeline.progress.replay import From, Page, read_page, read_upload

MAX_SUBSCRIPTIONS = 1000
"""Uploads that one connection may follow at a time."""

_LONGEST_PAUSE_SECONDS = 0.1
_T = TypeVar("_T")


class Ask(Protocol):
    """Has the feed read something, and gives the answer to `take` in order with what it tells."""

    async def __call__(
        self, question: Callable[[Feed, Connection], _T], take: Callable[[_T], None]
    ) -> _T:
        """Return the answer."""


class Client:
    """One connection's wishes. It gets answers about its own user's batches and uploads only.

    Args:
        paging: held while a page is read, so that those who ask for much wait for each other.
        alone: nobody else hears of this user's batches.
    """

    def __init__(
        self,
        socket: Socket,
        session: Session,
        hub: Hub,
        ask: Ask,
        paging: asyncio.Lock,
        *,
        alone: bool,
    ) -> None:
        self._socket = socket
        self._user_id = session.user_id
        self._hub = hub
        self._ask = ask
        self._paging = paging
        self._alone = alone
        self._uploads: set[UUID] = set()

    async def listen(self) -> None:
        """Tell how the user's running batches stand, then do what the client asks.

        Raises:
            Closing: the client says what cannot be understood, or the database does not answer.
            WebSocketDisconnect: it has gone.
        """
        await self._ask(
            lambda feed, connection: feed.snapshot(connection, self._user_id, alone=self._alone),
            self._begin,
        )
        while True:
            await self._handle(await self._socket.receive())

    def leave(self) -> None:
        """Follow nothing any more."""
        for upload_id in self._uploads:
            self._hub.leave(upload_channel(upload_id), self._socket.outbox)
        self._uploads.clear()

    def _begin(self, snapshot: Sequence[Message]) -> None:
        self._put(snapshot)
        self._socket.outbox.has_begun = True

    async def _handle(self, message: dict[str, Any]) -> None:
        """Do what a message asks. Whatever else clients may say is no mistake: a pong, say."""
        match message.get("action"):
            case "subscribe_upload":
                await self._subscribe_upload(_id(message, "upload_id"))
            case "unsubscribe_upload":
                self._unsubscribe_upload(_id(message, "upload_id"))
            case "subscribe_batch":
                await self._subscribe_batch(_id(message, "batch_id"), _number(message, "after"))

    async def _subscribe_upload(self, upload_id: UUID) -> None:
        if len(self._uploads) >= MAX_SUBSCRIPTIONS and upload_id not in self._uploads:
            self._socket.say("too_many_subscriptions", upload_id=str(upload_id))
            return

        def follow(message: Message | None) -> None:
            if message is None:
                self._socket.say("no_such_upload", upload_id=str(upload_id))
                return
            self._uploads.add(upload_id)
            self._hub.join(upload_channel(upload_id), self._socket.outbox)
            self._put([message])

        await self._ask(
            lambda _, connection: read_upload(connection, self._user_id, upload_id), follow
        )

    def _unsubscribe_upload(self, upload_id: UUID) -> None:
        self._uploads.discard(upload_id)
        self._hub.leave(upload_channel(upload_id), self._socket.outbox)

    async def _subscribe_batch(self, batch_id: UUID, after: int | None) -> None:
        """Tell what the client missed of a batch; what moves from now on it hears anyway."""
        page = await self._tell_page(batch_id, after)
        if page is None:
            self._socket.say("no_such_batch", batch_id=str(batch_id))
        while page is not None and page.more is not None:
            await self._socket.outbox.emptied.wait()
            page = await self._tell_page(batch_id, page.more)

    async def _tell_page(self, batch_id: UUID, begin: From) -> Page | None:
        async with self._paging:
            began = time.monotonic()
            page = await self._ask(
                lambda _, connection: read_page(connection, self._user_id, batch_id, begin),
                lambda page: self._put(page.messages if page else ()),
            )
            # At least half of the time is left to those who only listen.
            await asyncio.sleep(min(time.monotonic() - began, _LONGEST_PAUSE_SECONDS))
        return page

    def _put(self, messages: Sequence[Message]) -> None:
        for message in messages:
            self._socket.outbox.put(message)


def _id(message: dict[str, Any], name: str) -> UUID:
    try:
        return UUID(message[name])
    except (KeyError, ValueError, TypeError, AttributeError):
        raise Closing(Code.INVALID_MESSAGE, f"{name} is not an id.") from None


def _number(message: dict[str, Any], name: str) -> int | None:
    number = message.get(name)
    if number is not None and (type(number) is not int or number < 0):
        raise Closing(Code.INVALID_MESSAGE, f"{name} is not a number of a change.")
    return number
