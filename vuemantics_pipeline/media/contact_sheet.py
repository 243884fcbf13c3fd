"""Thumbnails -> pictures small enough to go into an event: one of each, or one of many."""

import io
import warnings
from collections.abc import Iterator, Sequence

from PIL import Image, ImageOps

MINIATURE_SIDE = 64

_GAP = 4
_BACKGROUND = "#20242b"
# Ours are JPEGs of 256 px, but the folder is shared: what says it is larger is not decoded.
_MOST_PIXELS = 1024 * 1024
_MINIATURE_QUALITY = 40
# Side of a cell in pixels and colours in the palette: what is tried in turn until it fits.
_SIZES = ((96, 64), (80, 64), (64, 64), (64, 32), (48, 32), (32, 16), (16, 16))


def contact_sheet(thumbnails: Sequence[bytes], *, columns: int, most_bytes: int) -> bytes | None:
    """Lay thumbnails out in rows, each cut to a square.

    Args:
        thumbnails: JPEGs; those that cannot be decoded are left out.
        most_bytes: the sheet gets smaller, and poorer in colours, until it is no larger.

    Returns:
        A PNG, or None if no thumbnail could be decoded or even the smallest is too large.
    """
    pictures = list(_decoded(thumbnails))
    for side, colours in _SIZES if pictures else ():
        sheet = _lay_out(pictures, columns, side).quantize(colours)
        encoded = io.BytesIO()
        sheet.save(encoded, "PNG", optimize=True)
        if encoded.tell() <= most_bytes:
            return encoded.getvalue()
    return None


def miniature(thumbnail: bytes) -> bytes | None:
    """Shrink a JPEG to one of at most 64 px and about 1 kB; None if it cannot be decoded."""
    for picture in _decoded([thumbnail]):
        picture.thumbnail((MINIATURE_SIDE, MINIATURE_SIDE))
        encoded = io.BytesIO()
        picture.save(encoded, "JPEG", quality=_MINIATURE_QUALITY, optimize=True)
        return encoded.getvalue()
    return None


def _decoded(thumbnails: Sequence[bytes]) -> Iterator[Image.Image]:
    for content in thumbnails:
        picture = _decode(content)
        if picture is not None:
            yield picture


def _decode(content: bytes) -> Image.Image | None:
    # Pillow warns of large pictures and of odd metadata before their size can be looked at.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            with Image.open(io.BytesIO(content), formats=["JPEG"]) as opened:
                if opened.width * opened.height > _MOST_PIXELS:
                    return None
                picture = opened.convert("RGB")
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            return None
    picture.info = {}
    return picture


def _lay_out(pictures: Sequence[Image.Image], columns: int, side: int) -> Image.Image:
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    step = side + _GAP
    sheet = Image.new("RGB", (columns * step + _GAP, rows * step + _GAP), _BACKGROUND)
    for place, picture in enumerate(pictures):
        row, column = divmod(place, columns)
        cell = ImageOps.fit(picture, (side, side))
        sheet.paste(cell, (column * step + _GAP, row * step + _GAP))
    return sheet
