"""Contact sheets and miniatures: small, of every picture that can be read, and of no other."""

import io

import numpy as np
import pytest
from PIL import Image

from vuemantics_pipeline.media.contact_sheet import MINIATURE_SIDE, contact_sheet, miniature
from vuemantics_pipeline_tests.support import photo

COLOURS = ("red", "lime", "blue", "yellow", "magenta")


def jpeg(image: Image.Image) -> bytes:
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", quality=90)
    return encoded.getvalue()


def plain(colour: str) -> bytes:
    return jpeg(Image.new("RGB", (256, 144), colour))


def noise(seed: int) -> bytes:
    """A picture that no PNG makes smaller."""
    pixels = np.random.default_rng(seed).integers(0, 256, (256, 256, 3), dtype=np.uint8)
    return jpeg(Image.fromarray(pixels))


def opened(content: bytes | None) -> Image.Image:
    assert content is not None
    return Image.open(io.BytesIO(content))


def test_pictures_stand_in_rows_in_their_order() -> None:
    sheet = opened(
        contact_sheet([plain(colour) for colour in COLOURS], columns=3, most_bytes=200_000)
    )

    assert sheet.format == "PNG"
    assert sheet.size == (3 * 100 + 4, 2 * 100 + 4)
    pixels = sheet.convert("RGB")
    centres = [(54, 54), (154, 54), (254, 54), (54, 154), (154, 154)]
    for (x, y), colour in zip(centres, COLOURS, strict=True):
        expected = Image.new("RGB", (1, 1), colour).getpixel((0, 0))
        found = pixels.getpixel((x, y))
        assert isinstance(expected, tuple)
        assert isinstance(found, tuple)
        assert max(abs(a - b) for a, b in zip(found, expected, strict=True)) < 12, colour
    assert pixels.getpixel((254, 154)) == pixels.getpixel((1, 1)), "the last cell is not empty"


@pytest.mark.parametrize("most_bytes", [200_000, 60_000, 20_000])
def test_it_gets_smaller_until_it_fits(most_bytes: int) -> None:
    sheet = contact_sheet([noise(seed) for seed in range(24)], columns=8, most_bytes=most_bytes)

    assert sheet is not None
    assert len(sheet) <= most_bytes
    assert opened(sheet).size[0] >= 8 * 16


def test_what_fits_in_no_size_is_left_out() -> None:
    assert contact_sheet([noise(1)], columns=8, most_bytes=100) is None


def bomb(width: int, height: int) -> bytes:
    """A small JPEG that says it is a large one."""
    content = bytearray(photo())
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = height.to_bytes(2, "big") + width.to_bytes(2, "big")
    return bytes(content)


UNREADABLE = {
    "cut off": photo(200, 150)[:600],
    "not a picture": b"\xff\xd8\xff and then nothing",
    "empty": b"",
    "another format": b"\x89PNG\r\n\x1a\n" + photo(),
    "too large": bomb(2000, 1000),
    "far too large": bomb(12_000, 10_000),
    "a bomb": bomb(65_000, 65_000),
}


@pytest.mark.parametrize("content", UNREADABLE.values(), ids=UNREADABLE.keys())
def test_what_cannot_be_read_is_skipped(content: bytes) -> None:
    assert miniature(content) is None
    assert contact_sheet([content], columns=8, most_bytes=200_000) is None

    sheet = contact_sheet([content, plain("red")], columns=8, most_bytes=200_000)
    assert opened(sheet).size == (104, 104), "it has a cell of its own"


@pytest.mark.parametrize(
    ("size", "expected"), [((256, 128), (64, 32)), ((30, 40), (30, 40)), ((256, 1), (64, 1))]
)
def test_a_miniature_has_at_most_64_pixels(
    size: tuple[int, int], expected: tuple[int, int]
) -> None:
    small = opened(miniature(jpeg(Image.new("RGB", size, "teal"))))

    assert small.format == "JPEG"
    assert small.size == expected
    assert max(small.size) <= MINIATURE_SIDE


def test_a_miniature_is_small_and_tells_nothing_but_its_pixels() -> None:
    image = Image.open(io.BytesIO(photo(256, 192)))
    exif = image.getexif()
    exif[0x010E] = "Taken at home"
    encoded = io.BytesIO()
    image.save(encoded, "JPEG", exif=exif, comment=b"private")

    small = miniature(encoded.getvalue())

    assert small is not None
    assert len(small) < 2_000
    assert b"Taken at home" not in small
    assert b"private" not in small
    # The worst there is: noise, which no camera takes.
    assert len(miniature(noise(7)) or b"") < 4_000


def test_grey_and_cmyk_thumbnails_are_shown_too() -> None:
    for mode in ("L", "CMYK"):
        assert miniature(jpeg(Image.new(mode, (256, 256)))) is not None
