"""One transaction of the ledger: whole or not at all, and never cut off halfway by a signal."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from vuemantics_pipeline.ledger.connection import Connection, database_errors

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)


@contextmanager
def transaction(connection: Connection) -> Iterator[None]:
    """Run the block as one transaction.

    A request to stop, or the end of a time limit, that arrives meanwhile takes effect at the end of
    the block: an exception raised inside the driver would leave the connection unusable for giving
    the upload back.

    Raises:
        BackendUnavailable: the connection is lost; whether the transaction committed is unknown.
    """
    with signals_deferred(), database_errors(connection), connection.transaction():
        yield


@contextmanager
def signals_deferred() -> Iterator[None]:
    """Let requests to stop and time limits that arrive meanwhile take effect after the block."""
    if threading.current_thread() is not threading.main_thread():
        yield  # Python runs signal handlers in the main thread only
        return
    received: list[int] = []

    def remember(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        received.append(number)

    handlers = {number: signal.signal(number, remember) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        if received:
            # One is all that can be raised; a request to stop matters more than a limit.
            signal.raise_signal(min(received, key=_SIGNALS.index))
