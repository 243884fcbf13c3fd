"""Media files made by script, for the tests of this folder."""

import itertools
import struct
import zlib
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.video.stream import VideoStream
from numpy.typing import NDArray
from PIL import Image
from PIL.Image import Transpose

# Red, green, blue and white corners: whoever turns the picture the wrong way gets them wrong.
CORNERS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255))

# EXIF orientation -> what a camera does to the upright picture before it stores it.
STORED = {
    1: None,
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_90,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_270,
}


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
    matrix: Sequence[int] | None = None,
    key_frame_every: int = 12,
    pixel_format: str = "yuv420p",
    aspect: Fraction | None = None,
    milliseconds: Sequence[int] | None = None,
    picture: Callable[[int], Image.Image] | None = None,
    streamed: bool = False,
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
) -> Path:
    """A video whose brightness rises evenly from black (first frame) to white (last frame).

    Args:
        rotation: degrees a player turns it counterclockwise; it then shows `corner_image`.
        matrix: the same as a display matrix.
        milliseconds: when each frame is shown, if not at an even rate.
        picture: frame number -> what it shows instead.
        streamed: written to something that cannot be rewound, so that no header is filled in later.
        options, metadata: of the container.
    """
    sink: Any = _Stream() if streamed else str(path)
    with av.open(sink, "w", format=container, options=options or {}) as output:
        output.metadata.update(metadata or {})
        stream = output.add_stream(codec, rate=Fraction(rate))
        assert isinstance(stream, VideoStream)
        stream.width, stream.height = size
        stream.pix_fmt = pixel_format
        stream.gop_size = key_frame_every
        stream.codec_context.time_base = Fraction(1, 1000 if milliseconds else rate)
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        if rotation:
            stream.set_display_rotation(rotation)
        if matrix is not None:
            stream.set_display_matrix(matrix)
        for index in range(frames):
            grey = round(255 * index / max(1, frames - 1))
            if picture is not None:
                image = picture(index)
            elif rotation:
                image = corner_image(*size)
            else:
                image = Image.new("RGB", size, (grey,) * 3)
            frame = av.VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
            frame.pts = milliseconds[index] if milliseconds else index
            frame.time_base = stream.codec_context.time_base
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
    if streamed:
        path.write_bytes(sink.content)
    return path


class _Stream:
    """Takes what is written to it, in order."""

    def __init__(self) -> None:
        self.content = bytearray()

    def write(self, data: bytes) -> int:
        self.content += data
        return len(data)


def write_png(
    path: Path,
    rows: NDArray[Any],
    *,
    bit_depth: int,
    colour_type: int,
    width: int | None = None,
) -> None:
    """A PNG of any kind, also of those Pillow does not write.

    Args:
        rows: samples of each row as they are stored, big-endian.
        bit_depth, colour_type: of the PNG's header.
        width: in pixels, if several share a byte.
    """
    header = struct.pack(
        ">IIBBBBB", width or rows.shape[1], len(rows), bit_depth, colour_type, 0, 0, 0
    )
    data = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    chunks = ((b"IHDR", header), (b"IDAT", data), (b"IEND", b""))
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*chunk) for chunk in chunks))


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def grey_profile(gamma: float) -> bytes:
    """A monochrome ICC profile (ICC.1:2001): light is the value to the power of `gamma`."""
    curve = struct.pack(">4s4xIH2x", b"curv", 1, round(256 * gamma))
    return _profile(b"mntr", b"GRAY", b"XYZ ", {b"kTRC": curve})


def cyan_is_red_profile() -> bytes:
    """An ICC profile (ICC.1:2001) of a press: cyan ink is red, magenta and yellow are white."""
    identity = struct.pack(
        ">9i", *(65536 * (row == column) for row in range(3) for column in range(3))
    )
    # Lab, 8 bits.
    red, white, black = bytes((136, 208, 195)), bytes((255, 128, 128)), bytes((0, 128, 128))
    ramp = bytes(range(256))
    inks = [
        black if key else red if cyan else white
        for cyan, _magenta, _yellow, key in itertools.product(range(2), repeat=4)
    ]
    table = struct.pack(">4s4x4B", b"mft1", 4, 3, 2, 0) + identity + ramp * 4
    table += b"".join(inks) + ramp * 3
    return _profile(b"prtr", b"CMYK", b"Lab ", {b"A2B0": table})


def _profile(kind: bytes, colours: bytes, connection: bytes, tags: dict[bytes, bytes]) -> bytes:
    white = (63190, 65536, 54061)  # D50 as s15Fixed16
    text = b"test\0"
    tags |= {
        b"wtpt": struct.pack(">4s4x3i", b"XYZ ", *white),
        b"desc": struct.pack(">4s4xI", b"desc", len(text)) + text + bytes(81),
        b"cprt": b"text" + bytes(4) + text,
    }
    at, directory, data = 128 + 4 + 12 * len(tags), b"", b""
    for name, content in tags.items():
        directory += struct.pack(">4sII", name, at + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    header = struct.pack(
        ">I4xI4s4s4s12x4s28x3i48x",
        *(at + len(data), 0x02100000, kind, colours, connection, b"acsp", *white),
    )
    return header + struct.pack(">I", len(tags)) + directory + data


def brightness(image: Image.Image) -> float:
    """Mean luma, 0-255."""
    return float(np.asarray(image.convert("L")).mean())
