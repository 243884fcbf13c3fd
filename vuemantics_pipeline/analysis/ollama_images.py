"""A picture -> the JPEG that a vision model on Ollama is shown: whole patches, within bounds."""

import io
import math

from PIL import Image

MAX_SIDE = 1568
"""Longest side in pixels: 56 patches."""

# Qwen2.5-VL sees patches of 14 px, two by two (arXiv:2502.13923). A side of anything else would be
# rounded to them by the server, after the picture has lost detail to JPEG.
PATCH = 28

# One patch is the least Qwen2.5-VL's runner takes without a crash (ollama/ollama#11297), but
# Qwen3-VL's wants 32 px (#13113), and Ollama enlarges whatever has fewer than 56 x 56 px. It also
# keeps the sides within 28 to 1: beyond 200 to 1 both runners crash.
MIN_SIDE = 2 * PATCH

_JPEG_QUALITY = 90


def fitted_size(width: int, height: int) -> tuple[int, int]:
    """The size in pixels at which a picture of `width` x `height` is shown.

    Returns:
        Two multiples of PATCH from MIN_SIDE to MAX_SIDE. The picture is scaled down to MAX_SIDE,
        never up; then each side is rounded to the nearest multiple, so that it grows by half a
        patch at most, or is padded to MIN_SIDE.
    """
    return _rounded(_scaled(width, height)), _rounded(_scaled(height, width))


def jpeg(image: Image.Image) -> bytes:
    """Encode an upright RGB picture at its fitted size. A side below MIN_SIDE gets white edges."""
    canvas_size = fitted_size(*image.size)
    size = (
        _within(_scaled(image.width, image.height), canvas_size[0]),
        _within(_scaled(image.height, image.width), canvas_size[1]),
    )
    picture = image.convert("RGB").resize(size, Image.Resampling.LANCZOS)
    if size != canvas_size:
        canvas = Image.new("RGB", canvas_size, "white")
        canvas.paste(picture, ((canvas_size[0] - size[0]) // 2, (canvas_size[1] - size[1]) // 2))
        picture = canvas
    encoded = io.BytesIO()
    picture.save(encoded, "JPEG", quality=_JPEG_QUALITY)
    return encoded.getvalue()


def _scaled(side: int, other: int) -> float:
    return side * min(1.0, MAX_SIDE / max(side, other))


def _rounded(side: float) -> int:
    return max(MIN_SIDE, PATCH * math.floor(side / PATCH + 0.5))


def _within(side: float, canvas_side: int) -> int:
    """What the picture itself takes of a side: all of it, unless that would enlarge it by much."""
    return canvas_side if side >= MIN_SIDE else max(1, round(side))
