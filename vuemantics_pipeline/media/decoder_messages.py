"""What is asked of the decoder's child, and what of its answers is believed.

`decoder_child` describes the messages. A child that a file has taken over may answer anything:
what no honest child answers is a ValueError.
"""

import dataclasses
import json
import math
import os
import re
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydantic import TypeAdapter

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UploadError
from vuemantics_pipeline.media import content
from vuemantics_pipeline.media.decode import Decoded
from vuemantics_pipeline.media.decoder_child import LENGTH, READY
from vuemantics_pipeline.media.decoder_process import Process
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.media.thumbnail import MAX_SIDE as THUMBNAIL_SIDE
from vuemantics_pipeline.media.videos import VIDEO_FRAMES
from vuemantics_pipeline.printable import printable

_MAX_HEADER_BYTES = 65_536
_MAX_TEXT_LENGTH = 8_192
_MAX_NAME_LENGTH = 80

_FORMATS = {
    (known.file_type, known.name, known.mime_type, known.extension)
    for known in vars(content).values()
    if isinstance(known, content.Format)
}


@dataclass(frozen=True)
class Request:
    """A file to decode or, without `max_side`, to probe."""

    path: Path
    max_pixels: int
    max_side: int | None = None

    def encode(self) -> bytes:
        """The message as it is sent."""
        fields = {
            "path": os.fsencode(self.path).hex(),
            "max_pixels": self.max_pixels,
            "max_side": self.max_side,
        }
        message = json.dumps(fields).encode()
        return LENGTH.pack(len(message)) + message


def receive_greeting(process: Process, deadline: float) -> None:
    """Take the child's word that it is ready. Raises ValueError, Died, TimeoutError."""
    if _receive_header(process, deadline) != READY:
        raise ValueError("it does not speak the decoder's protocol")


def receive_info(process: Process, request: Request, deadline: float) -> MediaInfo | PipelineError:
    """Return the answer to a request to probe. Raises ValueError, Died, TimeoutError."""
    answer = _PROBED.validate_json(_receive_header(process, deadline), strict=True)
    if isinstance(answer, _Refusal):
        return answer.as_error()
    _check_info(answer.info, request)
    return answer.info


def receive_decoded(process: Process, request: Request, deadline: float) -> Decoded | PipelineError:
    """Return the answer to a request to decode. Raises ValueError, Died, TimeoutError."""
    answer = _DECODED.validate_json(_receive_header(process, deadline), strict=True)
    if isinstance(answer, _Refusal):
        return answer.as_error()
    answer.check(request)
    thumbnail, *frames = (
        Image.frombytes("RGB", size, process.receive(3 * size[0] * size[1], deadline))
        for size in (answer.thumbnail, *answer.frames)
    )
    return Decoded(answer.info, frames, thumbnail, answer.sha256)


def _receive_header(process: Process, deadline: float) -> bytes:
    (length,) = LENGTH.unpack(process.receive(LENGTH.size, deadline))
    _check(length <= _MAX_HEADER_BYTES, f"header of {length} bytes")
    return bytes(process.receive(length, deadline))


@dataclass(frozen=True)
class _Probed:
    """The answer for a file that was probed."""

    info: MediaInfo


@dataclass(frozen=True)
class _Decoded:
    """The header for a file that was decoded; the RGB bytes of all pictures follow."""

    info: MediaInfo
    sha256: str
    thumbnail: tuple[int, int]
    frames: list[tuple[int, int]]

    def check(self, request: Request) -> None:
        assert request.max_side is not None
        _check_info(self.info, request)
        _check(re.fullmatch("[0-9a-f]{64}", self.sha256) is not None, "hash")
        most = VIDEO_FRAMES if self.info.file_type == "video" else 1
        _check(1 <= len(self.frames) <= most, "number of frames")
        for size in self.frames:
            _check(min(size) >= 1 and max(size) <= request.max_side, "frame size")
        _check(min(self.thumbnail) >= 1 and max(self.thumbnail) <= THUMBNAIL_SIDE, "thumbnail size")


@dataclass(frozen=True)
class _Refusal:
    """The answer for a file that cannot be read."""

    is_backend: bool
    code: str
    message: str
    remedy: str

    def as_error(self) -> PipelineError:
        _check(self.code.isascii() and self.code.isidentifier(), "code")
        _check(len(self.code) <= _MAX_NAME_LENGTH, "code")
        for text in (self.message, self.remedy):
            _check(len(text) <= _MAX_TEXT_LENGTH and printable(text) == text, "text")
        # The one backend a child has. It stops the run, so nothing else may come from there.
        _check(not self.is_backend or self.code == "storage_unavailable", "code")
        kind = BackendUnavailable if self.is_backend else UploadError
        return kind(self.code, self.message, self.remedy)


_PROBED: TypeAdapter[_Probed | _Refusal] = TypeAdapter(_Probed | _Refusal)
_DECODED: TypeAdapter[_Decoded | _Refusal] = TypeAdapter(_Decoded | _Refusal)


def _check_info(info: MediaInfo, request: Request) -> None:
    _check((info.file_type, info.format, info.mime_type, info.extension) in _FORMATS, "format")
    _check(min(info.width, info.height) >= 1, "size")
    _check(info.width * info.height <= request.max_pixels, "size")
    _check(info.taken_at is None or info.taken_at.tzinfo is None, "date")
    _check(info.rotation in {None, 0, 90, 180, 270}, "rotation")
    for value in dataclasses.astuple(info):
        if isinstance(value, str):
            _check(len(value) <= _MAX_NAME_LENGTH and printable(value) == value, "text")
        elif isinstance(value, float):
            _check(math.isfinite(value) and value > 0, "number")


def _check(is_so: bool, what: str) -> None:
    if not is_so:
        raise ValueError(f"an impossible {what}")
