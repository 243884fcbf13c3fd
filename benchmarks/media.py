"""What decoding costs: seconds (median) and peak memory of the decoding child and of its parent.

    python benchmarks/media.py [--quick]

Photos of 12, 48 and 200 megapixels, a video of 1 GB, and 1,000 small files; all are made first, in
a temporary folder. --quick leaves out what takes longest to make: 200 megapixels and the video.
"""

import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import psutil
from av.video.stream import VideoStream
from PIL import Image

import vuemantics_pipeline
from vuemantics_pipeline.media.content import HEIF  # registers the HEIF plugin as well
from vuemantics_pipeline.media.decoder import Decoder

SAMPLES = Path(vuemantics_pipeline.__file__).parent / "home" / "samples"
PHOTO = SAMPLES / "pagoda_by_the_lake.jpg"
SIZES = {12: (4000, 3000), 48: (8000, 6000), 200: (16320, 12240)}
HEIF_TILE = 512  # as phones write it
VIDEO_BYTES = 1 << 30
CLIP_FRAMES, CLIP_RATE, CLIP_BITS = 150, 30, 40_000_000
SMALL_FILES = 1000
MAX_PIXELS = 250_000_000
MAX_SIDE = 1568
ROUNDS = 5


def make_files(folder: Path, megapixels: Sequence[int], with_video: bool) -> None:
    """Write all files; in a process of its own, since encoding takes more memory than decoding."""
    with Image.open(PHOTO) as opened:
        photo = opened.convert("RGB")
    for size in megapixels:
        large = photo.resize(SIZES[size], Image.Resampling.BICUBIC)
        large.save(folder / f"{size}_megapixels.jpg", quality=90)
        large.save(
            folder / f"{size}_megapixels.heic",
            HEIF.decoder,
            quality=60,
            tile_size=HEIF_TILE,
            enc_params={"preset": "ultrafast"},
        )
        if size == min(megapixels):
            large.save(folder / f"{size}_megapixels.png", compress_level=1)
    (folder / "small").mkdir()
    small = photo.resize((640, 480))
    for number in range(SMALL_FILES):
        small.save(folder / "small" / f"{number}.jpg", quality=85)
    if with_video:
        make_clip(photo, folder / "clip.mp4")
        repeat(folder / "clip.mp4", folder / "video_1_gb.mp4")
        (folder / "clip.mp4").unlink()


def make_clip(photo: Image.Image, path: Path) -> None:
    """Five seconds of 1080p, a window that moves over a grainy picture."""
    picture = np.asarray(photo.resize((2400, 1400)))
    grain = np.random.default_rng(1).integers(-16, 17, picture.shape)
    picture = np.clip(picture + grain, 0, 255).astype(np.uint8)
    with av.open(str(path), "w") as output:
        stream = output.add_stream(
            "libx264", rate=Fraction(CLIP_RATE), options={"preset": "ultrafast", "b": "40M"}
        )
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 1920, 1080, "yuv420p"
        stream.bit_rate, stream.gop_size = CLIP_BITS, CLIP_RATE
        for index in range(CLIP_FRAMES):
            left, top = 3 * index, 2 * index
            window = np.ascontiguousarray(picture[top : top + 1080, left : left + 1920])
            output.mux(stream.encode(av.VideoFrame.from_ndarray(window, format="rgb24")))
        output.mux(stream.encode(None))


def repeat(clip: Path, path: Path) -> None:
    """Write the packets of `clip` again and again, until there are VIDEO_BYTES of them."""
    with av.open(str(clip)) as source:
        stream = source.streams.video[0]
        packets = [(packet, packet.pts, packet.dts) for packet in source.demux(stream)]
        packets = [entry for entry in packets if entry[0].size]
        assert stream.time_base is not None
        length = round(CLIP_FRAMES / CLIP_RATE / stream.time_base)
        with av.open(str(path), "w") as output:
            copy = output.add_stream_from_template(stream)
            written = turn = 0
            while written < VIDEO_BYTES:
                for packet, pts, dts in packets:
                    assert pts is not None
                    assert dts is not None
                    packet.pts, packet.dts = pts + turn * length, dts + turn * length
                    packet.time_base, packet.stream = stream.time_base, copy
                    written += packet.size
                    output.mux(packet)
                turn += 1


def peak_mebibytes(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    (line,) = (line for line in status.splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) / 1024


def measure(name: str, files: Sequence[Path], rounds: int) -> None:
    """Print what decoding `files`, one after the other, costs a warm child."""
    Path("/proc/self/clear_refs").write_text("5")  # our own peak counts from here
    seconds, others = [], set(psutil.Process().children())
    with Decoder(seconds=600, memory_bytes=3 << 30) as decoder:
        decoder.probe(PHOTO, max_pixels=MAX_PIXELS)
        (child,) = set(psutil.Process().children()) - others
        for _ in range(rounds):
            started = time.perf_counter()
            for path in files:
                decoder.decode(path, max_pixels=MAX_PIXELS, max_side=MAX_SIDE)
            seconds.append(time.perf_counter() - started)
        child_peak, parent_peak = peak_mebibytes(child.pid), peak_mebibytes(os.getpid())
    megabytes = sum(path.stat().st_size for path in files) / 1e6
    print(
        f"{name:24} {megabytes:9.1f} {statistics.median(seconds):9.2f}"
        f" {child_peak:10.0f} {parent_peak:10.0f}",
        flush=True,
    )


def main() -> None:
    is_quick = "--quick" in sys.argv[1:]
    megapixels = (12, 48) if is_quick else (12, 48, 200)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        maker = multiprocessing.get_context("spawn").Process(
            target=make_files, args=(folder, megapixels, not is_quick)
        )
        maker.start()
        maker.join()
        if maker.exitcode:
            sys.exit("the files could not be made")
        print(f"{'':24} {'MB':>9} {'seconds':>9} {'child MiB':>10} {'parent MiB':>10}")
        for path in sorted(folder.glob("*.*"), key=lambda path: (path.suffix, path.stat().st_size)):
            measure(path.name, [path], ROUNDS)
        measure(f"{SMALL_FILES} small files", sorted((folder / "small").iterdir()), 3)


if __name__ == "__main__":
    main()
