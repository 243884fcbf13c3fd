"""An opened image -> upright sRGB pixels, small enough to look at."""

import io
from collections.abc import Mapping
from contextlib import suppress

import numpy as np
from PIL import ExifTags, Image, ImageCms
from PIL.Image import Transpose

from vuemantics_pipeline.media.content import orientation
from vuemantics_pipeline.media.hdr import HDR_TRANSFERS, to_sdr

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
_TRANSPARENT = {"PA", "RGBA", "RGBa"}
_WHITE_16 = 65535.0


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
    transfer = image.info.get("nclx_profile", {}).get("transfer_characteristics")
    image, alpha = _split(image)
    image = _apply_profile(image, profile) if profile else image.convert("RGB")
    if transfer in HDR_TRANSFERS:
        image = to_sdr(image, transfer)
    if alpha is None:
        return image
    white = Image.new("RGB", image.size, "white")
    white.paste(image, mask=alpha)
    return white


def _split(image: Image.Image) -> tuple[Image.Image, Image.Image | None]:
    """Colours of 8 bits that a profile may apply to, and how opaque each pixel is."""
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _to_eight_bits(image), None
    if image.mode in {"LA", "La"}:
        grey, alpha = image.convert("LA").split()
        return grey, alpha
    if image.mode in _TRANSPARENT or _is_keyed(image):
        layer = image.convert("RGBA")
        return layer.convert("RGB"), layer.getchannel("A")
    return image if image.mode in {"L", "CMYK"} else image.convert("RGB"), None


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    # A damaged profile, or one of another colour space, is as good as none.
    with suppress(ImageCms.PyCMSError, OSError, ValueError):
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(
            image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
        )
        assert converted is not None
        return converted
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, or of no defined range (32-bit integers, floats), as 8-bit grey."""
    if image.mode.startswith("I;16"):
        grey = (np.asarray(image) >> 8).astype(np.uint8)
        return Image.fromarray(255 - grey if _is_negative(image) else grey)
    values = np.nan_to_num(np.asarray(image, dtype=np.float32), nan=0.0, posinf=0.0, neginf=0.0)
    low, high = 0.0, _WHITE_16
    if values.min() < low or not 255 < values.max() <= high:
        low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(scaled.round().astype(np.uint8))


def _is_negative(image: Image.Image) -> bool:
    """Whether 0 is white: Pillow sees to that for 8 bits, but not for 16."""
    tags: Mapping[int, object] = getattr(image, "tag_v2", {})
    return tags.get(ExifTags.Base.PhotometricInterpretation) == 0
