"""Media files made by script, for the tests of this folder."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream
from PIL import Image

# Red, green, blue and white corners: whoever turns the picture the wrong way gets them wrong.
CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))


def corner_image(width: int = 80, height: int = 40) -> Image.Image:
    """Four flat quarters: top left, top right, bottom left, bottom right as in CORNERS."""
    image = Image.new("RGB", (width, height))
    for index, colour in enumerate(CORNERS):
        box = (index % 2 * width // 2, index // 2 * height // 2)
        image.paste(colour, (*box, box[0] + width // 2, box[1] + height // 2))
    return image


def corners(image: Image.Image) -> tuple[tuple[int, ...], ...]:
    """The colours in the middles of the four quarters, rounded to 0 or 255."""
    points = [(x * image.width // 4, y * image.height // 4) for y in (1, 3) for x in (1, 3)]
    found = []
    for point in points:
        pixel = image.getpixel(point)
        assert isinstance(pixel, tuple)
        found.append(tuple(255 if value > 127 else 0 for value in pixel))
    return tuple(found)


def write_video(
    path: Path,
    *,
    frames: int = 24,
    rate: int = 12,
    codec: str = "libx264",
    container: str | None = None,
    size: tuple[int, int] = (64, 48),
    rotation: int = 0,
    key_frame_every: int = 12,
) -> Path:
    """A video whose brightness rises evenly from black (first frame) to white (last frame)."""
    with av.open(str(path), "w", format=container) as output:
        stream = output.add_stream(codec, rate=Fraction(rate))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.gop_size = key_frame_every
        stream.codec_context.time_base = Fraction(1, rate)
        if rotation:
            stream.set_display_rotation(rotation)
        for index in range(frames):
            grey = round(255 * index / max(1, frames - 1))
            pixels = np.full((size[1], size[0], 3), grey, dtype=np.uint8)
            if rotation:
                pixels = np.asarray(corner_image(*size))
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = index
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    return path


def brightness(image: Image.Image) -> float:
    """Mean luma, 0-255."""
    return float(np.asarray(image.convert("L")).mean())
