"""A decoder's child that misbehaves as its first argument says: a script, run as `COMMAND`.

The arguments behind it are those of the real child: the parent's process id and a memory limit.
"""

import ctypes
import json
import os
import resource
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

LENGTH = struct.Struct(">I")
READY = b'"ready"'

INFO: dict[str, object] = {
    "file_type": "image",
    "format": "JPEG",
    "mime_type": "image/jpeg",
    "extension": "jpg",
    "width": 4,
    "height": 2,
}
VIDEO_INFO = {
    **INFO,
    "file_type": "video",
    "format": "MP4",
    "mime_type": "video/mp4",
    "extension": "mp4",
}
GOOD: dict[str, object] = {
    "info": INFO,
    "sha256": "0123456789abcdef" * 4,
    "thumbnail": [2, 1],
    "frames": [[4, 2]],
}
PIXELS = bytes(3 * (2 * 1 + 4 * 2))
REFUSAL: dict[str, object] = {
    "is_backend": False,
    "code": "empty_file",
    "message": "It is empty.",
    "remedy": "",
}

SIGNAL = signal.SIGUSR1


def write(data: bytes) -> None:
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def write_header(header: bytes) -> None:
    write(LENGTH.pack(len(header)) + header)


def answer(header: object, pixels: bytes = b"") -> None:
    write_header(json.dumps(header).encode())
    write(pixels)


def read_request() -> None:
    (length,) = LENGTH.unpack(sys.stdin.buffer.read(LENGTH.size))
    sys.stdin.buffer.read(length)


def hang() -> NoReturn:
    while True:
        signal.pause()


def trickle() -> NoReturn:
    answer(GOOD)
    while True:
        write(b"\0")
        time.sleep(0.05)


def segfault() -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.kill(os.getpid(), signal.SIGSEGV)


def close_pipes() -> NoReturn:
    os.close(1)
    hang()


def interrupt_parent() -> NoReturn:
    os.kill(int(sys.argv[-2]), SIGNAL)
    hang()


def say_more() -> None:
    answer(GOOD, PIXELS + b"and another thing")


def end_after_answer() -> NoReturn:
    answer(GOOD, PIXELS)
    os._exit(0)


def end_at_second() -> NoReturn:
    answer(GOOD, PIXELS)
    read_request()
    os._exit(3)


def hang_at_second() -> NoReturn:
    answer(GOOD, PIXELS)
    read_request()
    hang()


def cut_short() -> NoReturn:
    answer(GOOD, PIXELS[:-1])
    os._exit(0)


def end_in_header() -> NoReturn:
    write(LENGTH.pack(100) + b"{")
    os._exit(0)


# What it does instead of answering a request. Those that return serve the next one.
CONDUCT: dict[str, Callable[[], object]] = {
    "good": lambda: answer(GOOD, PIXELS),
    "hang": hang,
    "trickle": trickle,
    "exit": lambda: os._exit(3),
    "segfault": segfault,
    "close_pipes": close_pipes,
    "interrupt_parent": interrupt_parent,
    "say_more": say_more,
    "end_after_answer": end_after_answer,
    "end_at_second": end_at_second,
    "hang_at_second": hang_at_second,
    "garbage": lambda: write(b"\0\0\0\x10 this is no JSON "),
    "not_utf8": lambda: write_header(b'{"info": "\xff"}'),
    "deep": lambda: write_header(b"[" * 60_000),
    "huge_number": lambda: write_header(b'{"frames": [[' + b"9" * 50_000 + b", 1]]}"),
    "huge_header": lambda: write(LENGTH.pack(2**32 - 1)),
    "cut_short": cut_short,
    "end_in_header": end_in_header,
}

# Headers that no honest child sends.
LIES: dict[str, object] = {
    "no_fields": {},
    "a_list": [],
    "not_a_format": {**GOOD, "info": {**INFO, "extension": "../../x"}},
    "mixed_formats": {**GOOD, "info": {**INFO, "format": "PNG"}},
    "text_as_number": {**GOOD, "info": {**INFO, "width": "4"}},
    "too_many_pixels": {**GOOD, "info": {**INFO, "width": 10**6, "height": 10**6}},
    "no_pixels": {**GOOD, "info": {**INFO, "width": 0}},
    "control_characters": {**GOOD, "info": {**INFO, "camera": "Canon\0"}},
    "long_text": {**GOOD, "info": {**INFO, "camera": "x" * 1000}},
    "not_a_number": {**GOOD, "info": {**INFO, "duration_seconds": float("nan")}},
    "zoned_date": {**GOOD, "info": {**INFO, "taken_at": "2020-01-01T00:00:00+02:00"}},
    "huge_frame": {**GOOD, "frames": [[10**5, 10**5]]},
    "empty_frame": {**GOOD, "frames": [[0, 2]]},
    "negative_frame": {**GOOD, "frames": [[-4, -2]]},
    "no_hash": {**GOOD, "sha256": ""},
    "odd_hash": {**GOOD, "sha256": "0123456789ABCDEF" * 4},
    "odd_rotation": {**GOOD, "info": {**INFO, "rotation": 45}},
    "no_frame_rate": {**GOOD, "info": {**INFO, "frame_rate": -25.0}},
    "huge_thumbnail": {**GOOD, "thumbnail": [257, 1]},
    "empty_thumbnail": {**GOOD, "thumbnail": [0, 1]},
    "only_probed": {"info": INFO},
    "no_frame": {**GOOD, "frames": []},
    "many_frames_of_a_photo": {**GOOD, "frames": [[4, 2]] * 2},
    "eleven_frames": {**GOOD, "info": VIDEO_INFO, "frames": [[4, 2]] * 11},
    "odd_code": {**REFUSAL, "code": "no code"},
    "message_with_nul": {**REFUSAL, "message": "\0"},
    "long_message": {**REFUSAL, "message": "x" * 10_000},
    "other_backend": {**REFUSAL, "is_backend": True, "code": "database_unavailable"},
}


def real_child_with_a_decode_that(conduct: str) -> None:
    # Imported late: codecs take long to load, and most stand-ins need none.
    from vuemantics_pipeline.errors import BackendUnavailable
    from vuemantics_pipeline.media import decoder_child
    from vuemantics_pipeline.media.decode import Decoded, decode

    def conducted(path: Path, *, max_pixels: int, max_side: int) -> Decoded:
        match conduct:
            case "storage_gone":
                raise BackendUnavailable("storage_unavailable", "Cannot\nread it.", "Mount it.")
            case "bug":
                raise TypeError("a bug")
            case "eat_memory":
                eaten = []
                while True:
                    eaten.append(bytearray(1 << 22))
            case "chatter":
                print("a remark of a codec", flush=True)
                os.write(1, b"and one of a library")
                os.write(2, b"and an error")
        return decode(path, max_pixels=max_pixels, max_side=max_side)

    setattr(decoder_child, "decode", conducted)  # noqa: B010 - it is not exported there
    del sys.argv[1]
    decoder_child.main()


def main() -> None:
    conduct = sys.argv[1]
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG: nothing outlives a test
    match conduct:
        case "end_at_start":
            sys.exit(7)
        case "other_program":
            write_header(b'"hello"')
            hang()
        case "storage_gone" | "bug" | "eat_memory" | "chatter":
            real_child_with_a_decode_that(conduct)
        case _:
            write_header(READY)
            while True:
                read_request()
                if conduct in LIES:
                    answer(LIES[conduct], PIXELS)
                else:
                    CONDUCT[conduct]()


if __name__ == "__main__":
    main()
