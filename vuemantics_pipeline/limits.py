"""Time limits for work in this process."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_AT_ONCE = 1e-3


class TimeLimitExceeded(Exception):
    """The block took too long. Not a `TimeoutError`, which sockets and disks raise as well."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Interrupt the block when it takes longer than `seconds`.

    Works wherever a signal does: between two bytecodes and in system calls, not inside a library
    that computes without end; such work belongs in a process of its own. In threads other than
    the main one, where Python runs no signal handlers, there is no limit. A timer that ran before
    goes on afterwards, and expires then if its time has come meanwhile.

    Raises:
        TimeLimitExceeded: the time is up.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def expire(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        raise TimeLimitExceeded(f"longer than {seconds:g} s")

    before = signal.signal(signal.SIGALRM, expire)
    started = time.monotonic()
    left, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
    finally:  # even if the time is up between the end of the block and the line above
        signal.signal(signal.SIGALRM, before)
        if left:
            left_now = max(left - (time.monotonic() - started), _AT_ONCE)
            signal.setitimer(signal.ITIMER_REAL, left_now, interval)
