"""ollama_images: every picture is shown in whole patches, within what the runners survive."""

import io

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from vuemantics_pipeline.analysis.ollama_images import (
    MAX_SIDE,
    MIN_SIDE,
    PATCH,
    fitted_size,
    jpeg,
)

sides = st.integers(1, 70_000)


def decoded(image: Image.Image) -> Image.Image:
    return Image.open(io.BytesIO(jpeg(image)))


@given(sides, sides)
@example(1, 70_000)
@example(20_000, 1)
@example(70_000, 70_000)
@example(1568, 1568)
@example(1, 1)
def test_any_size_fits(width: int, height: int) -> None:
    fitted = fitted_size(width, height)

    assert all(side % PATCH == 0 for side in fitted)
    assert all(MIN_SIDE <= side <= MAX_SIDE for side in fitted)
    assert max(fitted) <= 200 * min(fitted)
    assert fitted == fitted_size(height, width)[::-1]


@given(sides, sides)
def test_no_side_grows_by_a_patch_unless_it_is_padded(width: int, height: int) -> None:
    for side, fitted in zip((width, height), fitted_size(width, height), strict=True):
        assert fitted < max(side + PATCH, MIN_SIDE + 1)


@given(st.integers(56, 1568), st.integers(56, 1568))
def test_a_picture_within_bounds_goes_to_the_nearest_multiples(width: int, height: int) -> None:
    for side, fitted in zip((width, height), fitted_size(width, height), strict=True):
        assert abs(side - fitted) <= PATCH / 2


@given(st.integers(500, 70_000), st.integers(500, 70_000))
def test_the_shape_is_kept(width: int, height: int) -> None:
    """But for half a patch a side."""
    fitted_width, fitted_height = fitted_size(width, height)
    scale = min(1.0, MAX_SIDE / max(width, height))

    assert abs(fitted_width - max(width * scale, MIN_SIDE)) <= PATCH / 2
    assert abs(fitted_height - max(height * scale, MIN_SIDE)) <= PATCH / 2


@pytest.mark.parametrize(
    ("size", "fitted"),
    [
        ((4000, 3000), (1568, 1176)),
        ((3000, 4000), (1176, 1568)),
        ((1568, 1568), (1568, 1568)),
        ((1080, 1920), (896, 1568)),  # 882 is half-way between 868 and 896
        ((640, 480), (644, 476)),
        ((57, 83), (56, 84)),
        ((30, 30), (56, 56)),
        ((12_000, 1), (1568, 56)),
    ],
)
def test_a_picture_is_sent_at_its_fitted_size(
    size: tuple[int, int], fitted: tuple[int, int]
) -> None:
    picture = decoded(Image.new("RGB", size, "teal"))

    assert fitted_size(*size) == fitted
    assert (picture.format, picture.mode, picture.size) == ("JPEG", "RGB", fitted)


def test_a_side_that_is_too_small_gets_edges_and_is_not_stretched() -> None:
    picture = decoded(Image.new("RGB", (560, 20), "black")).convert("L")

    assert picture.size == (560, 56)
    dark_rows = [row for row in range(56) if picture.getpixel((280, row)) < 64]  # type: ignore[operator]
    assert dark_rows == list(range(18, 38)), "20 rows of it, in the middle"


def test_a_side_above_the_least_has_no_edges() -> None:
    picture = decoded(Image.new("RGB", (100, 60), "black")).convert("L")

    assert picture.getextrema()[1] < 16  # type: ignore[operator]
