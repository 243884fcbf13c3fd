"""Probing and decoding in a child process, where a file can be stopped and can break nothing.

A malicious file may take over the process that decodes it. So the child has no secrets, and what
it answers is checked like anything else from outside. It stays warm from file to file: share a
`Decoder` only among files of one user.
"""

import dataclasses
import fcntl
import json
import math
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image
from pydantic import TypeAdapter

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UploadError
from vuemantics_pipeline.media import content
from vuemantics_pipeline.media.decode import VIDEO_FRAMES
from vuemantics_pipeline.media.decoder_child import LENGTH, READY, TOO_MUCH_MEMORY
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.printable import printable

COMMAND = (sys.executable, "-B", "-P", "-m", "vuemantics_pipeline.media.decoder_child")

_START_SECONDS = 60.0
_DEATH_SECONDS = 5.0
_LAST_WORDS_SECONDS = 1.0
_MAX_HEADER_BYTES = 65_536
_MAX_TEXT_LENGTH = 8_192
_MAX_NAME_LENGTH = 80
_PIPE_BYTES = 1 << 20  # what Linux lets anyone ask for; the usual 64 KiB take twice the time
_KEPT_BYTES = 64 << 20

_FORMATS = {
    (known.file_type, known.name, known.mime_type, known.extension)
    for known in vars(content).values()
    if isinstance(known, content.Format)
}


@dataclass(frozen=True)
class Decoded:
    """What a file says about itself, and its frames as `load_frames` returns them."""

    info: MediaInfo
    frames: list[Image.Image]


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
        """End the child, if there is one. The next `decode` starts another."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()

    def decode(self, path: Path, *, max_pixels: int, max_side: int) -> Decoded:
        """Identify a media file and decode what a person would see: `probe` and `load_frames`.

        Args:
            max_pixels: of the picture or of one frame of the video.
            max_side: longest side of the frames in pixels; smaller media are not enlarged.

        Raises:
            UploadError: as `probe` and `load_frames` do, and 'decode_timeout', 'too_much_memory',
                'decoder_died' or 'internal_error'.
            BackendUnavailable: 'storage_unavailable', or 'decoder_unavailable' when no child can
                be started.
        """
        child = self._ready_child()
        try:
            decoded = child.decode(path, max_pixels, max_side, time.monotonic() + self._seconds)
        except PipelineError as error:
            child.has_answered = True
            if error.code == TOO_MUCH_MEMORY:
                # What is left of its memory may be in pieces.
                self.close()
            raise
        except BaseException as reason:
            # It may be in the middle of anything. On an interrupt nothing else may keep us here.
            self.close()
            if isinstance(reason, TimeoutError):
                raise self._timeout() from None
            if not isinstance(reason, _Died | ValueError):
                raise
            if child.has_answered:
                # An earlier file may have broken it: this one gets a child of its own.
                return self.decode(path, max_pixels=max_pixels, max_side=max_side)
            raise _died(reason) from reason
        child.has_answered = True
        return decoded

    def _ready_child(self) -> "_Child":
        if self._child is not None and not self._child.is_ready():
            self.close()
        if self._child is None:
            try:
                self._child = _Child([*self._command, str(os.getpid()), str(self._memory_bytes)])
                self._child.greet(time.monotonic() + _START_SECONDS)
            except (OSError, ValueError, _Died) as reason:
                self.close()
                raise _unavailable(reason) from reason
            except BaseException:
                self.close()
                raise
        return self._child

    def _timeout(self) -> UploadError:
        return UploadError(
            "decode_timeout",
            f"Reading the file took longer than {self._seconds:g} s and was stopped.",
            "Convert it to JPEG or MP4 and upload that, or raise VUEMANTICS_DECODE_SECONDS.",
        )


def _died(reason: Exception) -> UploadError:
    how = str(reason) if isinstance(reason, _Died) else "its answer made no sense"
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


class _Died(Exception):
    """The child ended; the text says how."""


class _Child:
    """A child process and its pipes. Deadlines are values of `time.monotonic`.

    Methods that wait raise TimeoutError at their deadline, and `_Died` when the child ends.

    Attributes:
        has_answered: whether it has lived through a file.
    """

    has_answered = False

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

    def greet(self, deadline: float) -> None:
        """Wait until it is ready. Raises ValueError if it says anything else."""
        if self.receive_header(deadline) != READY:
            raise ValueError("it does not speak the decoder's protocol")

    def is_ready(self) -> bool:
        """Whether it lives and has nothing to say: between files there is nothing to be said."""
        return not _poll(self._from, select.POLLIN, 0)

    def decode(self, path: Path, max_pixels: int, max_side: int, deadline: float) -> Decoded:
        """Have a file decoded.

        Raises:
            PipelineError: it cannot be; the child is ready for the next one.
            ValueError: the answer makes no sense.
        """
        request = {
            "path": os.fsencode(path.absolute()).hex(),
            "max_pixels": max_pixels,
            "max_side": max_side,
        }
        self.send(json.dumps(request).encode(), deadline)
        answer = _ANSWER.validate_json(self.receive_header(deadline), strict=True)
        if isinstance(answer, _Refusal):
            raise answer.as_error()
        answer.check(max_pixels, max_side)
        frames = [
            Image.frombytes("RGB", size, self.receive(3 * size[0] * size[1], deadline))
            for size in answer.frames
        ]
        return Decoded(answer.info, frames)

    def send(self, message: bytes, deadline: float) -> None:
        data = memoryview(LENGTH.pack(len(message)) + message)
        while data:
            _wait(self._to, select.POLLOUT, deadline)
            try:
                data = data[os.write(self._to, data) :]
            except BrokenPipeError:
                raise _Died(self._how_it_ended()) from None

    def receive_header(self, deadline: float) -> bytes:
        """Return the JSON of one message. Raises ValueError if it is too long."""
        (length,) = LENGTH.unpack(self.receive(LENGTH.size, deadline))
        if length > _MAX_HEADER_BYTES:
            raise ValueError(f"a header of {length} bytes")
        return bytes(self.receive(length, deadline))

    def receive(self, size: int, deadline: float) -> bytearray:
        """Return exactly `size` bytes."""
        data = bytearray(size)
        view = memoryview(data)
        while view:
            _wait(self._from, select.POLLIN, deadline)
            count = os.readv(self._from, [view])
            if count == 0:
                raise _Died(self._how_it_ended())
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


@dataclass(frozen=True)
class _Media:
    """The header of a good answer; the frames' RGB bytes follow."""

    info: MediaInfo
    frames: list[tuple[int, int]]

    def check(self, max_pixels: int, max_side: int) -> None:
        """Raise ValueError for what an honest child does not answer."""
        info = self.info
        _check((info.file_type, info.format, info.mime_type, info.extension) in _FORMATS, "format")
        _check(min(info.width, info.height) >= 1, "size")
        _check(info.width * info.height <= max_pixels, "size")
        _check(info.taken_at is None or info.taken_at.tzinfo is None, "date")
        for value in dataclasses.astuple(info):
            if isinstance(value, str):
                _check(len(value) <= _MAX_NAME_LENGTH and printable(value) == value, "text")
            elif isinstance(value, float):
                _check(math.isfinite(value) and value > 0, "number")
        most = VIDEO_FRAMES if info.file_type == "video" else 1
        _check(1 <= len(self.frames) <= most, "number of frames")
        for size in self.frames:
            _check(min(size) >= 1 and max(size) <= max_side, "frame size")


@dataclass(frozen=True)
class _Refusal:
    """The answer for a file that cannot be read."""

    is_backend: bool
    code: str
    message: str
    remedy: str

    def as_error(self) -> PipelineError:
        """Raise ValueError for what an honest child does not answer."""
        _check(self.code.isascii() and self.code.isidentifier(), "code")
        _check(len(self.code) <= _MAX_NAME_LENGTH, "code")
        for text in (self.message, self.remedy):
            _check(len(text) <= _MAX_TEXT_LENGTH and printable(text) == text, "text")
        # The one backend a child has. It stops the run, so nothing else may come from there.
        _check(not self.is_backend or self.code == "storage_unavailable", "code")
        kind = BackendUnavailable if self.is_backend else UploadError
        return kind(self.code, self.message, self.remedy)


_ANSWER: TypeAdapter[_Media | _Refusal] = TypeAdapter(_Media | _Refusal)


def _check(is_so: bool, what: str) -> None:
    if not is_so:
        raise ValueError(f"an impossible {what}")
