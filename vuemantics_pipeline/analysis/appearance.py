"""What pixels measurably look like, in everyday words. Nothing in here guesses at objects."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from PIL import Image

_COLOUR_SIDE = 96
_SHARPNESS_SIDE = 512

# Share of the picture from which a colour is worth a word.
_MAIN_SHARE, _ACCENT_SHARE = 0.15, 0.05

# Greys: saturation below 0.12. (brightness below, name)
_GREYS = (
    (0.18, "black"),
    (0.40, "dark grey"),
    (0.65, "grey"),
    (0.88, "light grey"),
    (2.0, "white"),
)

# Hues in degrees. (hue below, name when dark, in between, and pale)
_HUES = (
    (14, "dark red", "red", "pink"),
    (42, "brown", "orange", "beige"),
    (68, "olive green", "yellow", "cream"),
    (160, "dark green", "green", "light green"),
    (192, "teal", "turquoise", "pale turquoise"),
    (255, "dark blue", "blue", "light blue"),
    (290, "dark purple", "purple", "lilac"),
    (345, "dark magenta", "magenta", "pink"),
    (361, "dark red", "red", "pink"),
)
_GREY_SATURATION = 0.12
_BLACK_BRIGHTNESS = 0.18
_PALE_SATURATION, _PALE_BRIGHTNESS = 0.40, 0.60
_DARK_BRIGHTNESS = 0.45
# Orange looks brown well before other hues look dark.
_BROWN_BRIGHTNESS, _BROWN_HUES = 0.70, (14, 42)

# (value below, words); the thresholds were set by eye on the sample photos.
_BRIGHTNESS = (
    (45, "very dark"),
    (85, "dark"),
    (170, "of medium brightness"),
    (210, "bright"),
    (256, "very bright"),
)
_CONTRAST = ((25, "low contrast"), (65, "moderate contrast"), (256, "strong contrast"))
_SATURATION = ((0.12, "almost colourless"), (0.30, "muted"), (0.55, "natural"), (2, "vivid"))
_SHARPNESS = (
    (40, "soft, without fine detail"),
    (400, "fairly sharp"),
    (float("inf"), "sharp and full of fine detail"),
)
_MOVEMENT = ((2, "hardly moves"), (10, "moves gently"), (256, "moves or changes a lot"))
_WARMTH = 12


def describe_colours(image: Image.Image) -> str:
    """One or two sentences on the main colours and where they are."""
    names = _name_pixels(image)
    main, accents = _shares(names)
    text = f"The main {'colour is' if len(main) == 1 else 'colours are'} {_listed(main)}"
    text += f", with some {_listed(accents)}." if accents else "."
    third = max(1, names.shape[0] // 3)
    upper, lower = (_shares(part)[0][0] for part in (names[:third], names[-third:]))
    if upper != lower:
        text += f" The upper part is mostly {upper}, the lower part mostly {lower}."
    return text


def describe_light(image: Image.Image) -> str:
    """One sentence on brightness, contrast, colour temperature, saturation and sharpness.

    Brightness is Rec. 601 luma, 0-255. Sharpness is the variance of the Laplacian (Pech-Pacheco
    et al., "Diatom autofocusing in brightfield microscopy", ICPR 2000) at a fixed size.
    """
    small = _resized(image, _COLOUR_SIDE)
    luma = np.asarray(small.convert("L"), dtype=np.float32)
    red, _, blue = np.asarray(small, dtype=np.float32).mean(axis=(0, 1))
    saturation = float(np.asarray(small.convert("HSV"), dtype=np.float32)[..., 1].mean()) / 255
    warmth = "neutral"
    if red - blue > _WARMTH:
        warmth = "warm"
    elif blue - red > _WARMTH:
        warmth = "cool"
    colours = _pick(_SATURATION, saturation)
    tones = (
        "almost colourless" if colours == "almost colourless" else f"{colours}, {warmth} colours"
    )
    return (
        f"The picture is {_pick(_BRIGHTNESS, float(luma.mean()))}, with "
        f"{_pick(_CONTRAST, float(luma.std()))} and {tones}; "
        f"it is {_pick(_SHARPNESS, _sharpness(image))}."
    ).replace("and almost colourless", "and almost no colour")


def describe_movement(frames: Sequence[Image.Image]) -> str:
    """One sentence on how much the frames differ: mean difference of luma (0-255) in pairs."""
    lumas = [
        np.asarray(frame.convert("L").resize((64, 64), Image.Resampling.BOX), dtype=np.float32)
        for frame in frames
    ]
    steps = [float(np.abs(after - before).mean()) for before, after in pairwise(lumas)]
    text = f"Between the frames the picture {_pick(_MOVEMENT, float(np.mean(steps)))}"
    change = float(lumas[-1].mean() - lumas[0].mean())
    if abs(change) > 20:
        text += f" and it gets {'brighter' if change > 0 else 'darker'} towards the end"
    return f"{text}."


def _resized(image: Image.Image, side: int) -> Image.Image:
    scale = min(1.0, side / max(image.size))
    size = max(3, round(image.width * scale)), max(3, round(image.height * scale))
    return image.resize(size, Image.Resampling.BOX)


def _name_pixels(image: Image.Image) -> NDArray[np.str_]:
    hsv = np.asarray(_resized(image, _COLOUR_SIDE).convert("HSV"), dtype=np.float32)
    hue, saturation, value = hsv[..., 0] * (360 / 256), hsv[..., 1] / 255, hsv[..., 2] / 255
    names = np.empty(hue.shape, dtype="<U16")
    floor = 0.0
    for ceiling, dark, plain, pale in _HUES:
        here = (hue >= floor) & (hue < ceiling)
        darkness = _BROWN_BRIGHTNESS if (floor, ceiling) == _BROWN_HUES else _DARK_BRIGHTNESS
        names[here] = plain
        names[here & (saturation < _PALE_SATURATION) & (value >= _PALE_BRIGHTNESS)] = pale
        names[here & (value < darkness)] = dark
        floor = ceiling
    for brightness, grey in reversed(_GREYS):
        names[(saturation < _GREY_SATURATION) & (value < brightness)] = grey
    names[value < _BLACK_BRIGHTNESS] = "black"
    return names


def _shares(names: NDArray[np.str_]) -> tuple[list[str], list[str]]:
    """Main colours, at least one and at most three, and up to two accents; most common first."""
    found, counts = np.unique(names, return_counts=True)
    ranked = sorted(zip(counts / names.size, map(str, found), strict=True), reverse=True)
    main = [name for share, name in ranked if share >= _MAIN_SHARE][:3] or [ranked[0][1]]
    accents = [name for share, name in ranked if share >= _ACCENT_SHARE and name not in main]
    return main, accents[:2]


def _sharpness(image: Image.Image) -> float:
    luma = np.asarray(_resized(image, _SHARPNESS_SIDE).convert("L"), dtype=np.float32)
    laplacian: NDArray[np.float32] = (
        luma[:-2, 1:-1] + luma[2:, 1:-1] + luma[1:-1, :-2] + luma[1:-1, 2:] - 4 * luma[1:-1, 1:-1]
    )
    return float(laplacian.var())


def _pick(table: Sequence[tuple[float, str]], value: float) -> str:
    return next((words for below, words in table if value < below), table[-1][1])


def _listed(words: Sequence[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
