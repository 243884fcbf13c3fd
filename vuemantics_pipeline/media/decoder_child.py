"""The child of `decoder`: reads one media file after another where it can do no harm.

    python -m vuemantics_pipeline.media.decoder_child PARENT_PID MEMORY_BYTES

Every message, both ways, is a length (`LENGTH`) and as many bytes of JSON. After its limits are
set the child sends `READY`. A request names a file:

    {"path": <bytes in hexadecimal>, "max_pixels": ..., "max_side": <null: only probe it>}

The answer is one of

    {"info": {...}, "sha256": ..., "thumbnail": [width, height], "frames": [[width, height], ...]},
        followed by the RGB bytes of the thumbnail and of each frame,
    {"info": {...}}, of a file that was only probed,
    {"is_backend": false, "code": ..., "message": ..., "remedy": ...}.

The end of standard input ends the child.
"""

import ctypes
import dataclasses
import json
import os
import resource
import signal
import struct
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UploadError
from vuemantics_pipeline.media.decode import Decoded, decode
from vuemantics_pipeline.media.probe import MediaInfo, probe
from vuemantics_pipeline.printable import printable

LENGTH = struct.Struct(">I")
READY = b'"ready"'
TOO_MUCH_MEMORY = "too_much_memory"

_OPEN_FILES = 32
_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_OOM_FIRST = "1000"  # the highest that /proc/PID/oom_score_adj takes
_NO_MEMORY = ("out of memory", "memory allocation")  # as Pillow's codecs and libheif put it
# What libheif says as well when it cannot have memory, but not only then.
_PERHAPS_NO_MEMORY = "unexpected c++ exception"


def main() -> None:
    """Serve requests until standard input ends.

    Raises:
        SystemExit: the arguments are wrong, or the parent is gone already.
    """
    if len(sys.argv) != 3:
        sys.exit("usage: decoder_child PARENT_PID MEMORY_BYTES (the pipeline starts it by itself)")
    parent_pid, memory_bytes = int(sys.argv[1]), int(sys.argv[2])
    _die_with(parent_pid)
    requests, answers = _take_protocol()
    _set_limits(memory_bytes)
    _send(answers, [READY])
    while length := requests.read(LENGTH.size):
        request = json.loads(requests.read(LENGTH.unpack(length)[0]))
        _send(answers, _answer(request, memory_bytes))


def _die_with(parent_pid: int) -> None:
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    # A parent that died before this call sends no signal any more.
    if os.getppid() != parent_pid:
        sys.exit("the parent process is gone")
    # Whoever stops the whole service stops the worker, and that ends this process: were it to end
    # first, the file in hand would get the blame.
    for request_to_stop in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(request_to_stop, signal.SIG_IGN)


def _take_protocol() -> tuple[BinaryIO, BinaryIO]:
    """Move the two pipes away from 0 and 1, where codecs print their remarks."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nowhere = os.open(os.devnull, os.O_RDWR)
    os.dup2(nowhere, 0)
    os.dup2(nowhere, 1)
    os.close(nowhere)
    return requests, answers


def _set_limits(memory_bytes: int) -> None:
    # If the machine itself runs out of memory, the kernel takes this process, not the worker.
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(_OOM_FIRST)
    for limit, value in (
        (resource.RLIMIT_AS, memory_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, _OPEN_FILES),
    ):
        _, hard = resource.getrlimit(limit)
        if hard != resource.RLIM_INFINITY:
            value = min(value, hard)
        resource.setrlimit(limit, (value, value))


def _answer(request: dict[str, str | int | None], memory_bytes: int) -> list[bytes]:
    """Return the JSON of the answer, and behind it the pixels, if there are any."""
    try:
        path = Path(os.fsdecode(bytes.fromhex(str(request["path"]))))
        max_pixels, max_side = int(request["max_pixels"] or 0), request["max_side"]
        if max_side is None:
            return [json.dumps({"info": _fields(probe(path, max_pixels=max_pixels))}).encode()]
        return _parts(decode(path, max_pixels=max_pixels, max_side=int(max_side)))
    except Exception as error:
        if _ran_out(error, memory_bytes):
            error = _too_much_memory(memory_bytes)
        return [_refusal(error)]


def _parts(decoded: Decoded) -> list[bytes]:
    header = {
        "info": _fields(decoded.info),
        "sha256": decoded.sha256,
        "thumbnail": decoded.thumbnail.size,
        "frames": [frame.size for frame in decoded.frames],
    }
    pictures = (decoded.thumbnail, *decoded.frames)
    return [json.dumps(header).encode(), *(picture.tobytes() for picture in pictures)]


def _fields(info: MediaInfo) -> dict[str, object]:
    fields = dataclasses.asdict(info)
    if info.taken_at is not None:
        fields["taken_at"] = info.taken_at.isoformat()
    return fields


def _ran_out(error: BaseException | None, memory_bytes: int) -> bool:
    """Whether memory was short: libraries that have no MemoryError say so in words."""
    was_near = _most_memory_bytes() > memory_bytes // 2
    while error is not None:
        if isinstance(error, MemoryError):
            return True
        text = str(error).lower()
        if any(words in text for words in _NO_MEMORY) or (was_near and _PERHAPS_NO_MEMORY in text):
            return True
        error = error.__cause__
    return False


def _most_memory_bytes() -> int:
    """The largest address space this process ever had."""
    status = Path("/proc/self/status").read_text()
    return next(
        int(line.split()[1]) << 10 for line in status.splitlines() if line.startswith("VmPeak:")
    )


def _too_much_memory(memory_bytes: int) -> UploadError:
    return UploadError(
        TOO_MUCH_MEMORY,
        f"Reading the file takes more memory than allowed ({memory_bytes // 2**20} MiB).",
        "Upload a smaller version, or raise VUEMANTICS_DECODE_MEMORY_MIB.",
    )


def _refusal(error: Exception) -> bytes:
    if not isinstance(error, PipelineError):
        error = UploadError(
            "internal_error",
            f"Reading broke on this file: {type(error).__name__}: {error}.",
            "Report it together with the file; this is a fault of the pipeline.",
        )
    fields = {
        "is_backend": isinstance(error, BackendUnavailable),
        "code": error.code,
        "message": printable(error.message),
        "remedy": printable(error.remedy),
    }
    return json.dumps(fields).encode()


def _send(answers: BinaryIO, parts: list[bytes]) -> None:
    # In one piece: each write wakes the parent up.
    answers.write(b"".join([LENGTH.pack(len(parts[0])), *parts]))
    answers.flush()


if __name__ == "__main__":
    main()
