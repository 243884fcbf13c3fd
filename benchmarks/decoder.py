"""What decoding in a child process costs: medians in milliseconds, in-process beside the child.

    python benchmarks/decoder.py [FILE ...]

Without files: the sample photos and the sample video.
"""

import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import vuemantics_pipeline
from vuemantics_pipeline.media.decode import decode
from vuemantics_pipeline.media.decoder import Decoder

SAMPLES = Path(vuemantics_pipeline.__file__).parent / "home" / "samples"
MAX_PIXELS = 250_000_000
MAX_SIDE = 1568
ROUNDS = 15
COLD_STARTS = 5


def decode_here(path: Path) -> None:
    decode(path, max_pixels=MAX_PIXELS, max_side=MAX_SIDE)


def milliseconds(call: Callable[[Path], object], path: Path) -> float:
    started = time.perf_counter()
    call(path)
    return 1000 * (time.perf_counter() - started)


def main() -> None:
    files = [Path(name) for name in sys.argv[1:]] or sorted(
        path for path in SAMPLES.iterdir() if path.suffix != ".md"
    )
    here, there = [], []
    with Decoder(seconds=600, memory_bytes=3 << 30) as decoder:

        def decode_there(path: Path) -> None:
            decoder.decode(path, max_pixels=MAX_PIXELS, max_side=MAX_SIDE)

        print(f"{'in-process':>10} {'child':>8}  file ({ROUNDS} rounds)")
        for path in files:
            decode_here(path)
            decode_there(path)
            # Turn about, so that whatever else the machine does meets both.
            pairs = [
                (milliseconds(decode_here, path), milliseconds(decode_there, path))
                for _ in range(ROUNDS)
            ]
            here.append(statistics.median(pair[0] for pair in pairs))
            there.append(statistics.median(pair[1] for pair in pairs))
            print(f"{here[-1]:>10.1f} {there[-1]:>8.1f}  {path.name}")
        print(f"{statistics.median(here):>10.1f} {statistics.median(there):>8.1f}  median of files")

        cold = []
        for _ in range(COLD_STARTS):
            decoder.close()
            cold.append(milliseconds(decode_there, files[0]))
        print(f"{'':>10} {statistics.median(cold):>8.1f}  {files[0].name} with a cold start")


if __name__ == "__main__":
    main()
