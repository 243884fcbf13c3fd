"""The decoder's child as a process: its pipes, its environment and its end."""

import fcntl
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress

_DEATH_SECONDS = 5.0
_LAST_WORDS_SECONDS = 1.0
_PIPE_BYTES = 1 << 20  # what Linux lets anyone ask for; the usual 64 KiB take twice the time
_KEPT_BYTES = 64 << 20


class Died(Exception):
    """The child ended; the text says how."""


class Process:
    """A child process and its pipes. Deadlines are values of `time.monotonic`.

    Methods that wait raise TimeoutError at their deadline.
    """

    def __init__(self, command: Sequence[str]) -> None:
        """Start it. Raises OSError."""
        self._process = subprocess.Popen(
            command,
            bufsize=0,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Its own session: Ctrl-C in the terminal is for us.
            start_new_session=True,
            env=_environment(),
            cwd="/",
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._to = self._process.stdin.fileno()
        self._from = self._process.stdout.fileno()
        os.set_blocking(self._to, False)
        with suppress(OSError):  # A user may have only so much memory in pipes.
            fcntl.fcntl(self._from, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)

    def has_output(self) -> bool:
        """Whether it said something, or ended."""
        return _poll(self._from, select.POLLIN, 0)

    def await_output(self, deadline: float) -> None:
        """Wait until it says something, or ends; late is what is not there after the deadline."""
        if not _poll(self._from, select.POLLIN, max(0.0, deadline - time.monotonic())):
            raise TimeoutError

    def send(self, data: bytes, deadline: float) -> None:
        """Write all of `data`. That the child has ended is found out when its answer is read."""
        left = memoryview(data)
        while left:
            _wait(self._to, select.POLLOUT, deadline)
            try:
                left = left[os.write(self._to, left) :]
            except BrokenPipeError:
                return

    def receive(self, size: int, deadline: float) -> bytearray:
        """Return exactly `size` bytes. Raises `Died` when it ends before."""
        data = bytearray(size)
        view = memoryview(data)
        while view:
            _wait(self._from, select.POLLIN, deadline)
            count = os.readv(self._from, [view])
            if count == 0:
                raise Died(self._how_it_ended())
            view = view[count:]
        return data

    def kill(self) -> None:
        """End it, with whatever it may have started, and take its remains away."""
        if self._process.returncode is None:
            # Not reaped yet, so the number of its group cannot belong to anyone else.
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        # A process that hangs in a dead network mount cannot even be killed: it is left behind.
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_DEATH_SECONDS)

    def _how_it_ended(self) -> str:
        try:
            status = self._process.wait(_LAST_WORDS_SECONDS)
        except subprocess.TimeoutExpired:
            return "it closed its pipes"
        if status >= 0:
            return f"exit status {status}"
        with suppress(ValueError):
            return signal.Signals(-status).name
        return f"signal {-status}"


def _wait(descriptor: int, events: int, deadline: float) -> None:
    left = deadline - time.monotonic()
    if left <= 0 or not _poll(descriptor, events, left):
        raise TimeoutError


def _poll(descriptor: int, events: int, seconds: float) -> bool:
    # Not select(): the worker may have more descriptors open than that can count.
    poll = select.poll()
    poll.register(descriptor, events)
    return bool(poll.poll(math.ceil(seconds * 1000)))


def _environment() -> dict[str, str]:
    """No secrets: only what it takes to find the same modules and libraries as we do."""
    environment = {
        "LC_ALL": "C.UTF-8",
        "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
        # Each thread's arena would take 64 MiB of the address space, and each core a BLAS buffer.
        "MALLOC_ARENA_MAX": "2",
        "OPENBLAS_NUM_THREADS": "1",
        # What a photo took is kept for the next one: new pages from the kernel cost as much time
        # as the decoding itself.
        "MALLOC_MMAP_THRESHOLD_": str(_KEPT_BYTES // 2),
        "MALLOC_TRIM_THRESHOLD_": str(_KEPT_BYTES),
    }
    if libraries := os.environ.get("LD_LIBRARY_PATH"):
        environment["LD_LIBRARY_PATH"] = libraries
    return environment
