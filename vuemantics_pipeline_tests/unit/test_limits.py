"""The time limit: it ends what takes too long, and leaves the process as it found it."""

import signal
import threading
import time
from collections.abc import Iterator
from types import FrameType

import pytest

from vuemantics_pipeline.limits import TimeLimitExceeded, time_limit

LONG = 60.0
SHORT = 0.05


class Rang(Exception):
    """The timer that ran before has expired."""


def ring(number: int, frame: FrameType | None) -> None:
    raise Rang


@pytest.fixture(autouse=True)
def alarm() -> Iterator[None]:
    """An alarm of the test's own, and afterwards again that of whoever runs the tests."""
    left, interval = signal.setitimer(signal.ITIMER_REAL, 0)
    handler = signal.signal(signal.SIGALRM, ring)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, left, interval)


def spin() -> None:
    while True:
        pass


@pytest.mark.parametrize("work", [lambda: time.sleep(LONG), spin], ids=["sleeping", "computing"])
def test_what_takes_too_long_is_interrupted(work: object) -> None:
    assert callable(work)
    with pytest.raises(TimeLimitExceeded, match=r"longer than 0\.05 s"), time_limit(SHORT):
        work()

    assert signal.getsignal(signal.SIGALRM) is ring
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_a_block_that_ends_in_time_is_left_alone() -> None:
    with time_limit(LONG):
        assert signal.getitimer(signal.ITIMER_REAL)[0] > 0

    assert signal.getsignal(signal.SIGALRM) is ring
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_an_error_in_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(KeyError), time_limit(LONG):
        raise KeyError

    assert signal.getsignal(signal.SIGALRM) is ring
    assert signal.getitimer(signal.ITIMER_REAL) == (0, 0)


def test_it_can_be_used_again() -> None:
    for _ in range(2):
        with pytest.raises(TimeLimitExceeded), time_limit(SHORT):
            spin()
    with time_limit(LONG):
        pass


def test_a_timer_that_ran_before_goes_on() -> None:
    signal.setitimer(signal.ITIMER_REAL, LONG, 7)

    with time_limit(SHORT * 2), pytest.raises(TimeLimitExceeded):
        spin()

    left, interval = signal.getitimer(signal.ITIMER_REAL)
    assert 0 < left < LONG
    assert interval == 7


def test_a_timer_whose_time_has_come_meanwhile_expires_afterwards() -> None:
    signal.setitimer(signal.ITIMER_REAL, SHORT)
    ended = []

    def work() -> None:
        with time_limit(LONG):
            time.sleep(SHORT * 2)
            ended.append(True)
        spin()

    with pytest.raises(Rang):
        work()

    assert ended, "the earlier timer interrupted the block"


def test_in_another_thread_there_is_no_limit() -> None:
    ended = []

    def work() -> None:
        with time_limit(SHORT):
            time.sleep(SHORT * 2)
        ended.append(signal.getsignal(signal.SIGALRM))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    assert ended == [ring]


def test_it_is_not_what_sockets_and_disks_raise() -> None:
    assert not issubclass(TimeLimitExceeded, OSError)
