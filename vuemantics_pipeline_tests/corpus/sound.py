"""A small sound file of every accepted format: what the generators damage."""

import io
from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import cache, partial

import av
import numpy as np
import pillow_heif
from av.video.stream import VideoStream
from PIL import Image

pillow_heif.register_heif_opener()


def picture(width: int = 96, height: int = 64) -> Image.Image:
    """A colour picture with some structure in it."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    bands = (x * 7 + y * 3, x * y // 5, 255 - x * 2 + y)
    return Image.fromarray(np.stack([band % 256 for band in bands], axis=-1).astype(np.uint8))


def encoded(image: Image.Image, format_: str, **options: object) -> bytes:
    """An image as the bytes of a file; `options` are Pillow's."""
    output = io.BytesIO()
    image.save(output, format_, **options)
    return output.getvalue()


def film(
    container: str,
    codec: str,
    *,
    frames: int = 12,
    rate: int = 12,
    size: tuple[int, int] = (64, 48),
    times: Sequence[int] | None = None,
    options: Mapping[str, str] | None = None,
    tags: Mapping[str, str] | None = None,
) -> bytes:
    """A video of moving stripes.

    Args:
        times: the frames' presentation times in units of 1/rate s, instead of 0, 1, 2 ...
        options: FFmpeg's, for the container.
        tags: metadata of the container.
    """
    output = io.BytesIO()
    settings = {"fflags": "+bitexact", **(options or {})}
    with av.open(output, "w", format=container, options=settings) as file:
        file.metadata.update(tags or {})
        stream = file.add_stream(codec, rate=Fraction(rate))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, rate)
        stream.codec_context.thread_count = 1
        stream.codec_context.flags |= av.codec.context.Flags.bitexact
        base = np.asarray(picture(*size))
        for index in range(frames):
            frame = av.VideoFrame.from_ndarray(np.roll(base, index, axis=1), format="rgb24")
            frame.pts = index if times is None else times[index]
            file.mux(stream.encode(frame))
        file.mux(stream.encode(None))
    return output.getvalue()


MAKERS: Mapping[str, Callable[[], bytes]] = {
    "jpg": lambda: encoded(picture(), "JPEG"),
    "png": lambda: encoded(picture(), "PNG"),
    "webp": lambda: encoded(picture(), "WEBP"),
    "gif": lambda: encoded(picture(), "GIF"),
    "tif": lambda: encoded(picture(), "TIFF", compression="tiff_lzw"),
    "bmp": lambda: encoded(picture(), "BMP"),
    "heic": lambda: encoded(picture(), "HEIF"),
    "avif": lambda: encoded(picture(), "AVIF", max_threads=1),
    "mp4": partial(film, "mp4", "libx264"),
    "mov": partial(film, "mov", "mpeg4"),
    "avi": partial(film, "avi", "mpeg4"),
    "webm": partial(film, "webm", "libvpx"),
    "flv": partial(film, "flv", "flv", rate=25),
    "mpg": partial(film, "mpeg", "mpeg1video", rate=25),
}
"""By the extension of the format."""


@cache
def sound(extension: str) -> bytes:
    """A small sound file of a format, encoded once; the same at every call."""
    return MAKERS[extension]()
