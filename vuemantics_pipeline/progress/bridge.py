"""The bridge to the application: what is told here is published on Redis for its own backend."""

import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.progress.backlog import Backlog
from vuemantics_pipeline.progress.messages import Message

if TYPE_CHECKING:
    from redis import Redis

_logger = logging.getLogger(__name__)

# While Redis is away, only the newest states are kept, and of the uploads moved last.
_MAX_WAITING = 10_000
_AT_ONCE = 200
_TIMEOUT_SECONDS = 5.0
_RECONNECT_SECONDS = (0.2, 10.0)


class Bridge:
    """Publishes all messages on the channels `user:<id>` and `upload:<id>`; a sink of the feed.

    Use it once, as `with bridge.running()`.

    Raises:
        UsageError: code 'redis_missing' or 'wrong_redis_url'.
    """

    def __init__(self, redis_url: str) -> None:
        self._redis = _client(redis_url)
        self._backlog = Backlog(_MAX_WAITING)
        self._changed = threading.Condition()
        self._stopping = threading.Event()

    def follows(self, channel: str) -> bool:  # noqa: ARG002
        """Nobody here knows who listens behind Redis."""
        return True

    def tell(self, messages: Sequence[Message]) -> None:
        """Take messages, to be published soon."""
        with self._changed:
            for message in messages:
                if not self._backlog.put(message):
                    self._backlog.take()
                    self._backlog.put(message)
            self._changed.notify()

    @contextmanager
    def running(self) -> Iterator[None]:
        """Publish while the block runs, however often Redis goes away meanwhile."""
        thread = threading.Thread(target=self._run, name="progress-bridge", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            with self._changed:
                self._changed.notify()
            thread.join()
            self._redis.close()

    def _run(self) -> None:
        from redis import RedisError

        shortest, longest = _RECONNECT_SECONDS
        wait = shortest
        taken: list[Message] = []
        while not self._stopping.is_set():
            taken = taken or self._take()
            try:
                self._publish(taken)
            except RedisError as error:
                _logger.warning("Redis does not take messages (%s). Trying again.", error)
                self._stopping.wait(wait)
                wait = min(2 * wait, longest)
            else:
                taken = []
                wait = shortest

    def _take(self) -> list[Message]:
        """Wait for messages, and return some."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._backlog) or self._stopping.is_set())
            taken = (self._backlog.take() for _ in range(_AT_ONCE))
            return [message for message in taken if message is not None]

    def _publish(self, messages: Sequence[Message]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for message in messages:
            for text in message.texts:
                pipeline.publish(message.channel, text)
        pipeline.execute()


def _client(redis_url: str) -> "Redis":
    try:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ModuleNotFoundError:
        raise UsageError(
            "redis_missing",
            "REDIS_URL is set, but the Redis client is not installed.",
            "Install it: pip install 'vuemantics-pipeline[redis]', or unset REDIS_URL.",
        ) from None
    try:
        return Redis.from_url(
            redis_url,
            socket_timeout=_TIMEOUT_SECONDS,
            socket_connect_timeout=_TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),  # the bridge itself tries again
        )
    except ValueError:  # which may quote a part of the password
        raise UsageError(
            "wrong_redis_url",
            "REDIS_URL cannot be read.",
            "Give it as redis://user:password@host:6379/0, or unset it.",
        ) from None
