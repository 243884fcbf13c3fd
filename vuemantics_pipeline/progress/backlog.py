"""What waits to be told to somebody who may be slow: of each key the newest message, no more."""

from vuemantics_pipeline.progress.messages import Message


class Backlog:
    """Messages in the order they were put, at most so many."""

    __slots__ = ("_limit", "_waiting")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._waiting: dict[str, Message] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def put(self, message: Message) -> bool:
        """Add a message, or put it in the place of an older one with its key.

        Returns:
            False where there is no room for it.
        """
        key = message.key
        if message.is_summary and key in self._waiting:
            # In that place it would overtake what was put since, so it goes to the end. The older
            # one stays: whoever is slow still hears of the batch now and then.
            key = f"{key} again"
            self._waiting.pop(key, None)
        if len(self._waiting) >= self._limit and key not in self._waiting:
            return False
        self._waiting[key] = message
        return True

    def take(self) -> Message | None:
        """Remove and return what has waited longest; None if nothing waits."""
        if not self._waiting:
            return None
        return self._waiting.pop(next(iter(self._waiting)))
