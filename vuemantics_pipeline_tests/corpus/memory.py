"""The most memory that run workers and their decoders ever had, as the kernel counts it."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

_WATCH_SECONDS = 0.1
_LOOK_ROUND_SECONDS = 0.5
_DECODER = "vuemantics_pipeline.media.decoder_child"
_WORKER = "multiprocessing.spawn"


@dataclass
class Peaks:
    """The highest resident memory of each kind of process, in bytes, since `start`.

    What a process took in its last tenth of a second is not seen.
    """

    worker: int = 0
    decoder: int = 0
    seen: dict[int, str] = field(default_factory=dict)

    def start(self) -> None:
        """Begin to count for the next batch."""
        self.worker = self.decoder = 0


@contextmanager
def watched() -> Iterator[Peaks]:
    """Watch the workers below this process while the block runs."""
    peaks, ended = Peaks(), threading.Event()
    thread = threading.Thread(target=_watch, args=(peaks, ended), name="memory")
    thread.start()
    try:
        yield peaks
    finally:
        ended.set()
        thread.join()


def _watch(peaks: Peaks, ended: threading.Event) -> None:
    rounds = round(_LOOK_ROUND_SECONDS / _WATCH_SECONDS)
    turn = 0
    while not ended.wait(_WATCH_SECONDS):
        if turn % rounds == 0:
            peaks.seen = dict(_processes())
        turn += 1
        for pid, kind in list(peaks.seen.items()):
            with suppress(OSError, ValueError, IndexError):
                high = _high_water_mark(pid)
                if kind == "worker":
                    peaks.worker = max(peaks.worker, high)
                else:
                    peaks.decoder = max(peaks.decoder, high)


def _processes() -> Iterator[tuple[int, str]]:
    """Run workers, spawned by a code server, and decoders below them."""
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            words = " ".join(process.cmdline())
            if _DECODER in words:
                yield process.pid, "decoder"
            elif _WORKER in words and "spawn_main" in words:
                yield process.pid, "worker"


def _high_water_mark(pid: int) -> int:
    """Bytes of VmHWM in proc(5)."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) << 10
    raise ValueError("it has no memory any more")
