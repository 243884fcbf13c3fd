"""Standard input and output, for a client that starts the server itself."""

import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from vuemantics_pipeline.mcp_server.library import Library
from vuemantics_pipeline.mcp_server.server import build_server

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CHUNK_BYTES = 65536


def serve_stdio(library: Library, *, allow_changes: bool) -> None:
    """Serve until standard input ends, or SIGINT or SIGTERM arrives."""
    server = build_server(library, allow_changes=allow_changes)
    with _input_ended_by_signals():
        server.run("stdio")


@contextmanager
def _input_ended_by_signals() -> Iterator[None]:
    """Let standard input end when SIGINT or SIGTERM arrives.

    The SDK reads it in a thread that nothing can wake but input or its end, so a thread of ours
    reads it instead, one that waits for signals as well, and hands it on through a pipe.
    """
    given = os.dup(0)
    reading, writing = os.pipe()
    os.dup2(reading, 0)
    os.close(reading)
    stopped, stop = os.pipe()

    def hand_on() -> None:
        with suppress(OSError):
            while stopped not in select.select([given, stopped], [], [])[0]:
                chunk = os.read(given, _CHUNK_BYTES)
                if not chunk:
                    break
                while chunk:
                    chunk = chunk[os.write(writing, chunk) :]
        os.close(writing)

    def end_input(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        os.write(stop, b"!")

    handlers = {number: signal.signal(number, end_input) for number in _SIGNALS}
    threading.Thread(target=hand_on, daemon=True).start()
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        os.dup2(given, 0)
