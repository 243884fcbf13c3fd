"""Probing and decoding in a child process, where a file can be stopped and can break nothing.

A malicious file may take over the process that decodes it. So the child has no secrets, and what
it answers is checked like anything else from outside. It stays warm from file to file: share a
`Decoder` only among files of one user.
"""

import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self, TypeVar

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UploadError
from vuemantics_pipeline.media.decode import Decoded
from vuemantics_pipeline.media.decoder_child import TOO_MUCH_MEMORY
from vuemantics_pipeline.media.decoder_messages import (
    Request,
    receive_decoded,
    receive_greeting,
    receive_info,
)
from vuemantics_pipeline.media.decoder_process import Died, Process
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.printable import printable

COMMAND = (sys.executable, "-B", "-P", "-m", "vuemantics_pipeline.media.decoder_child")

_START_SECONDS = 60.0

_Answer = TypeVar("_Answer", MediaInfo, Decoded)


@dataclass
class _Child:
    """The child in hand. Times are values of `time.monotonic`.

    Attributes:
        started_at: when it was started.
        ready_at: when it was seen ready; None: not yet.
        request: what it works on; None: nothing.
        asked_at: when it was asked for that.
        has_answered: whether it has lived through a file.
    """

    process: Process
    started_at: float
    ready_at: float | None = None
    request: Request | None = None
    asked_at: float = 0.0
    has_answered: bool = False

    def is_idle(self) -> bool:
        """Whether it is there for another request: between files it has nothing to say."""
        return self.request is None and not self.process.has_output()


class Decoder:
    """One warm child process that decodes; started when first used, replaced when it is lost.

    For one thread at a time. The child dies with the *thread* that started it (that is how Linux
    tells a child of its parent's death), so use it from one that lives as long as the decoder.
    """

    def __init__(
        self, *, seconds: float, memory_bytes: int, command: Sequence[str] = COMMAND
    ) -> None:
        """Nothing is started yet.

        Args:
            seconds: time limit for one file.
            memory_bytes: address space the child may have, all its libraries included.
            command: what to start; it gets our process id and `memory_bytes` as arguments.
        """
        self._seconds = seconds
        self._memory_bytes = memory_bytes
        self._command = command
        self._child: _Child | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the child, if there is one. The next file starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.process.kill()

    def probe(self, path: Path, *, max_pixels: int) -> MediaInfo:
        """Identify a media file, as `media.probe.probe` does, under the limits of `decode`."""
        return self._fetch(Request(path.absolute(), max_pixels), receive_info)

    def begin(self, path: Path, *, max_pixels: int, max_side: int) -> None:
        """Let the child decode a file ahead of its turn, and return at once.

        The `decode` of the same file collects the answer, or finds out what went wrong. At most
        one file is ahead; a call for any other gives it up.
        """
        request = Request(path.absolute(), max_pixels, max_side)
        try:
            self._ask(request)
        except BaseException as reason:
            self.close()
            # `decode` starts another child, or says why it cannot.
            if not isinstance(reason, BackendUnavailable | TimeoutError):
                raise

    def decode(self, path: Path, *, max_pixels: int, max_side: int) -> Decoded:
        """Identify a media file and decode what a person would see, as `media.decode.decode` does.

        Args:
            max_pixels: of the picture or of one frame of the video.
            max_side: longest side of the frames in pixels; smaller media are not enlarged.

        Raises:
            UploadError: as `media.decode.decode` does, and 'decode_timeout', 'too_much_memory',
                'decoder_died' or 'internal_error'.
            BackendUnavailable: 'storage_unavailable', or 'decoder_unavailable' when no child can
                be started.
        """
        return self._fetch(Request(path.absolute(), max_pixels, max_side), receive_decoded)

    def _fetch(
        self,
        request: Request,
        receive: Callable[[Process, Request, float], _Answer | PipelineError],
    ) -> _Answer:
        try:
            child = self._ask(request)
            self._await_ready(child)
            # Counted from when it could begin. A child that was done in time and had to wait for
            # us is not late, so what it has to say gets a time of its own.
            begun_at = max(child.asked_at, child.ready_at or 0.0)
            child.process.await_output(begun_at + self._seconds)
            answer = receive(child.process, request, time.monotonic() + self._seconds)
        except BaseException as reason:
            # It may be in the middle of anything. On an interrupt nothing else may keep us here.
            has_answered = self._child is not None and self._child.has_answered
            self.close()
            if isinstance(reason, TimeoutError):
                raise self._timeout() from None
            if not isinstance(reason, Died | ValueError):
                raise
            if has_answered:
                # An earlier file may have broken it: this one gets a child of its own.
                return self._fetch(request, receive)
            raise _died(reason) from reason
        child.request = None
        child.has_answered = True
        if isinstance(answer, PipelineError):
            if answer.code == TOO_MUCH_MEMORY:
                # What is left of its memory may be in pieces.
                self.close()
            raise answer
        return answer

    def _ask(self, request: Request) -> _Child:
        """Return the child that works on `request`, from now on or already."""
        child = self._child
        if child is not None and child.request == request:
            return child
        if child is not None and not child.is_idle():
            self.close()
        child = self._child = self._child or self._start()
        child.process.send(request.encode(), time.monotonic() + self._seconds)
        child.request, child.asked_at = request, time.monotonic()
        return child

    def _start(self) -> _Child:
        command = [*self._command, str(os.getpid()), str(self._memory_bytes)]
        try:
            return _Child(Process(command), time.monotonic())
        except OSError as reason:
            raise _unavailable(reason) from reason

    def _await_ready(self, child: _Child) -> None:
        if child.ready_at is not None:
            return
        try:
            child.process.await_output(child.started_at + _START_SECONDS)
            receive_greeting(child.process, time.monotonic() + _START_SECONDS)
        except (ValueError, Died, TimeoutError) as reason:
            raise _unavailable(reason) from reason
        child.ready_at = time.monotonic()

    def _timeout(self) -> UploadError:
        return UploadError(
            "decode_timeout",
            f"Reading the file took longer than {self._seconds:g} s and was stopped.",
            "Convert it to JPEG or MP4 and upload that, or raise VUEMANTICS_DECODE_SECONDS.",
        )


def _died(reason: Exception) -> UploadError:
    how = str(reason) if isinstance(reason, Died) else "its answer made no sense"
    return UploadError(
        "decoder_died",
        f"Reading the file broke the decoder ({how}).",
        "Convert it to JPEG or MP4, or export it again, and upload that.",
    )


def _unavailable(reason: Exception) -> BackendUnavailable:
    if isinstance(reason, TimeoutError):
        problem = f"it was not ready within {_START_SECONDS:g} s"
    else:
        problem = printable(str(reason))
    return BackendUnavailable(
        "decoder_unavailable",
        f"The process that decodes media cannot be started: {problem}.",
        "Check the machine's free memory and limits, and that the pipeline's own "
        "`python -m vuemantics_pipeline.media.decoder_child` tells its usage.",
    )
