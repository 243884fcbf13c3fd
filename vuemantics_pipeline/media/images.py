"""An opened image -> upright sRGB pixels, small enough to look at."""

import io
from contextlib import suppress

import numpy as np
from PIL import Image, ImageCms
from PIL.Image import Transpose

from vuemantics_pipeline.media.content import orientation

# EXIF orientation -> what turns the stored pixels upright (TIFF 6.0, tag 274).
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}

# JPEG is decoded at 1/2, 1/4 or 1/8; HEIF offers the preview it carries, if it is large enough.
_DECODED_SMALL = {"JPEG", "MPO", "HEIF"}

# Modes that resize well as they are; the others are converted first.
_RESIZABLE = {"L", "LA", "RGB", "RGBA", "CMYK"}
_TRANSPARENT = {"LA", "La", "PA", "RGBA", "RGBa"}


def load_image(opened: Image.Image, max_side: int) -> Image.Image:
    """Decode what a person would see: the first frame of an animation, alpha laid on white.

    Args:
        opened: as `open_image` yields it.
        max_side: longest side in pixels; smaller pictures are not enlarged.

    Returns:
        An upright sRGB image without metadata.
    """
    turn = _UPRIGHT.get(orientation(opened))
    if opened.format in _DECODED_SMALL:
        opened.draft(None, fit(opened.size, max_side))
    opened.load()
    image = opened
    if image.mode in _RESIZABLE and not _is_keyed(image):
        image = shrink(image, max_side)
    image = shrink(_to_srgb(image), max_side)
    if turn is not None:
        image = image.transpose(turn)
    image.info = {}
    return image


def fit(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    """Width and height at which the longest side is `max_side` or, if it is shorter, as it is."""
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def shrink(image: Image.Image, max_side: int) -> Image.Image:
    """Resize to `fit`."""
    size = fit(image.size, max_side)
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _is_keyed(image: Image.Image) -> bool:
    """Whether one colour stands for transparent: resampling would mix it into its neighbours."""
    return "transparency" in image.info


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _to_eight_bits(image)
    if image.mode in _TRANSPARENT or _is_keyed(image):
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer.getchannel("A"))
    elif image.mode == "P":
        image = image.convert("RGB")
    if profile and image.mode in {"L", "RGB", "CMYK"}:
        # A damaged profile, or one of another colour space, is as good as none.
        with suppress(ImageCms.PyCMSError, OSError, ValueError):
            return _apply_profile(image, profile)
    return image.convert("RGB")


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None
    return converted


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, or of no defined range (32-bit integers, floats), as 8-bit RGB."""
    values = np.asarray(image, dtype=np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = 0.0, 65535.0
    if image.mode in {"I", "F"} and (values.min() < low or not 255 < values.max() <= high):
        low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")
