"""Who hears what: channels, and for each client a queue that never holds up anybody else."""

import asyncio
from collections.abc import Sequence

from vuemantics_pipeline.progress.backlog import Backlog
from vuemantics_pipeline.progress.messages import Message

_MAX_WAITING = 10_000
# What the loop takes at a time, so that a large batch does not hold up everything else.
_SLICE = 200


class Outbox:
    """What waits to be sent to one client.

    Attributes:
        filled: set while something waits.
        emptied: set while nothing does.
        has_begun: the client knows how everything stands, and hears what moves from now on.
        has_overflowed: something was lost, so the client has to begin anew.
    """

    __slots__ = ("_backlog", "emptied", "filled", "has_begun", "has_overflowed")

    def __init__(self) -> None:
        self._backlog = Backlog(_MAX_WAITING)
        self.filled = asyncio.Event()
        self.emptied = asyncio.Event()
        self.has_begun = False
        self.has_overflowed = False

    def put(self, message: Message) -> None:
        """Add a message, to be sent soon."""
        if not self._backlog.put(message):
            self.has_overflowed = True
        self.emptied.clear()
        self.filled.set()

    def take(self) -> Message | None:
        """Remove and return what has waited longest; None if nothing waits."""
        message = self._backlog.take()
        if message is None:
            self.filled.clear()
            self.emptied.set()
        return message


class Hub:
    """The channels of all clients. Only `follows` may be called from another thread."""

    def __init__(self) -> None:
        self._channels: dict[str, set[Outbox]] = {}

    def follows(self, channel: str) -> bool:
        """Whether any client hears a channel."""
        return channel in self._channels

    def count(self, channel: str) -> int:
        """How many clients hear a channel."""
        return len(self._channels.get(channel, ()))

    def join(self, channel: str, outbox: Outbox) -> None:
        """Let a client hear a channel."""
        self._channels.setdefault(channel, set()).add(outbox)

    def leave(self, channel: str, outbox: Outbox) -> None:
        """Let a client hear a channel no more; nothing, if it did not."""
        outboxes = self._channels.get(channel, set())
        outboxes.discard(outbox)
        if not outboxes:
            self._channels.pop(channel, None)

    def tell(self, messages: Sequence[Message]) -> None:
        """Put messages into the queues of those who hear their channels."""
        for message in messages:
            for outbox in self._channels.get(message.channel, ()):
                if outbox.has_begun:
                    outbox.put(message)


class HubSink:
    """A hub as the feed's thread sees it."""

    def __init__(self, hub: Hub, loop: asyncio.AbstractEventLoop) -> None:
        self._hub = hub
        self._loop = loop

    def follows(self, channel: str) -> bool:
        return self._hub.follows(channel)

    def tell(self, messages: Sequence[Message]) -> None:
        for start in range(0, len(messages), _SLICE):
            self._loop.call_soon_threadsafe(self._hub.tell, messages[start : start + _SLICE])
