"""decode: what a person would see, no larger than asked for; what is wrong with the rest."""

import errno
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageFile

from vuemantics_pipeline.errors import BackendUnavailable, UploadError
from vuemantics_pipeline.media.decode import decode
from vuemantics_pipeline_tests.unit.media_files import (
    CORNERS,
    brightness,
    corner_image,
    corners,
)

MAX_PIXELS = 10_000_000

pillow_heif.register_heif_opener()


def load(path: Path, max_side: int = 1568) -> list[Image.Image]:
    frames = decode(path, max_pixels=MAX_PIXELS, max_side=max_side).frames
    for frame in frames:
        assert frame.mode == "RGB"
        assert not frame.info
        assert max(frame.size) <= max_side
    return frames


def load_image(path: Path, max_side: int = 1568) -> Image.Image:
    (frame,) = load(path, max_side)
    return frame


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_an_orientation_that_does_not_exist_is_upright(tmp_path: Path, value: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = value
    corner_image().save(tmp_path / "photo.jpg", exif=exif)

    assert corners(load_image(tmp_path / "photo.jpg")) == CORNERS


@pytest.mark.parametrize("name", ["photo.jpg", "photo.png", "photo.webp", "photo.heic"])
def test_large_images_shrink_and_small_ones_stay(tmp_path: Path, name: str) -> None:
    corner_image(1200, 800).save(tmp_path / name)

    assert load_image(tmp_path / name, max_side=300).size == (300, 200)
    assert load_image(tmp_path / name, max_side=5000).size == (1200, 800)
    assert corners(load_image(tmp_path / name, max_side=300)) == CORNERS


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "I;16", "CMYK", "F"])
def test_every_mode_becomes_rgb(tmp_path: Path, mode: str) -> None:
    if mode == "I;16":
        image = Image.fromarray(np.full((40, 80), 51400, dtype=np.uint16))
    elif mode == "F":
        ramp = np.linspace(-1.0, 3.0, 40 * 80, dtype=np.float32).reshape(40, 80)
        image = Image.fromarray(ramp)
    else:
        image = Image.new("L", (80, 40), 255 if mode == "1" else 200).convert(mode)
    format_ = "TIFF" if mode in {"CMYK", "F", "I;16", "PA"} else "PNG"
    image.save(tmp_path / "photo", "TIFF" if mode == "PA" else format_)

    expected = {"1": 255, "F": 127.5}.get(mode, 200)
    assert brightness(load_image(tmp_path / "photo")) == pytest.approx(expected, abs=3)


def test_sixteen_bit_png_keeps_its_brightness(tmp_path: Path) -> None:
    Image.fromarray(np.full((40, 80), 32768, dtype=np.uint16)).save(tmp_path / "photo.png")

    assert brightness(load_image(tmp_path / "photo.png")) == pytest.approx(127.5, abs=1)


def test_a_cmyk_jpeg(tmp_path: Path) -> None:
    corner_image().convert("CMYK").save(tmp_path / "photo.jpg")

    assert corners(load_image(tmp_path / "photo.jpg")) == CORNERS


@pytest.mark.parametrize(
    "name", ["photo.jpg", "photo.png", "photo.webp", "photo.heic", "photo.avif"]
)
def test_a_file_cut_off_in_the_middle(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    path = tmp_path / name
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])

    with pytest.raises(UploadError) as caught:
        decode(path, max_pixels=MAX_PIXELS, max_side=500)

    assert caught.value.code == "unreadable_media"
    assert caught.value.remedy
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


@pytest.mark.parametrize(
    "raised",
    [
        OSError("odd"),
        ValueError(),
        SyntaxError("x"),
        MemoryError(),
        IndexError("y"),
        RuntimeError(),
    ],
)
def test_whatever_a_decoder_raises_is_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, raised: Exception
) -> None:
    path = tmp_path / "photo.jpg"
    corner_image().save(path)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise raised

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(UploadError) as caught:
        decode(path, max_pixels=MAX_PIXELS, max_side=500)

    assert caught.value.code == "unreadable_media"


def test_a_failing_disk_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.jpg"
    corner_image().save(path)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(BackendUnavailable) as caught:
        decode(path, max_pixels=MAX_PIXELS, max_side=500)

    assert caught.value.code == "storage_unavailable"
