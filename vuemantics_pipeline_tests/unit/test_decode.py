"""load_frames: what a person would see, upright, in sRGB, and no larger than asked for."""

import errno
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pillow_heif
import pytest
from PIL import Image, ImageCms, ImageFile

from vuemantics_pipeline.errors import BackendUnavailable, UploadError
from vuemantics_pipeline.media import images
from vuemantics_pipeline.media.decode import load_frames
from vuemantics_pipeline.media.probe import MediaInfo, probe
from vuemantics_pipeline_tests.unit.media_files import (
    CORNERS,
    brightness,
    corner_image,
    corners,
    write_video,
)

MAX_PIXELS = 10_000_000

pillow_heif.register_heif_opener()


def load(path: Path, max_side: int = 1568) -> list[Image.Image]:
    frames = load_frames(path, probe(path, max_pixels=MAX_PIXELS), max_side=max_side)
    for frame in frames:
        assert frame.mode == "RGB"
        assert not frame.info
        assert max(frame.size) <= max_side
    return frames


def load_image(path: Path, max_side: int = 1568) -> Image.Image:
    (frame,) = load(path, max_side)
    return frame


STORED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "TIFF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation_comes_out_upright(
    tmp_path: Path, format_: str, orientation: int
) -> None:
    stored, turn = corner_image(), STORED[orientation]
    if turn is not None:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo", format_, exif=exif)

    frame = load_image(tmp_path / "photo")

    assert frame.size == (80, 40)
    assert corners(frame) == CORNERS


@pytest.mark.parametrize("format_", ["HEIF", "AVIF"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_orientation_of_heic_and_avif(tmp_path: Path, format_: str, orientation: int) -> None:
    stored, turn = corner_image(), STORED[orientation]
    if turn is not None:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "photo", format_, exif=exif.tobytes())

    frame = load_image(tmp_path / "photo")

    assert frame.size == (80, 40)
    assert corners(frame) == CORNERS


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


def test_jpeg_is_decoded_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    corner_image(4000, 3000).save(tmp_path / "photo.jpg")
    sizes = []
    shrink = images.shrink

    def watch(image: Image.Image, max_side: int) -> Image.Image:
        sizes.append(image.size)
        return shrink(image, max_side)

    monkeypatch.setattr(images, "shrink", watch)
    load_frames(
        tmp_path / "photo.jpg",
        probe(tmp_path / "photo.jpg", max_pixels=12_000_000),
        max_side=400,
    )

    assert sizes[0] == (500, 375)


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


def test_transparency_is_laid_on_white(tmp_path: Path) -> None:
    image = Image.new("RGBA", (80, 40), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 40, 40))
    image.save(tmp_path / "photo.png")
    image.convert("P").save(
        tmp_path / "photo.gif", transparency=image.convert("P").getpixel((79, 0))
    )

    for name in ("photo.png", "photo.gif"):
        frame = load_image(tmp_path / name)
        assert frame.getpixel((70, 20)) == (255, 255, 255)
        assert frame.getpixel((10, 20)) == (0, 0, 255)


def test_a_cmyk_jpeg(tmp_path: Path) -> None:
    corner_image().convert("CMYK").save(tmp_path / "photo.jpg")

    assert corners(load_image(tmp_path / "photo.jpg")) == CORNERS


def test_a_colour_profile_is_applied(tmp_path: Path) -> None:
    """A profile in which red and blue have changed places shows stored red as blue."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = srgb.replace(b"rXYZ", b"temp").replace(b"bXYZ", b"rXYZ").replace(b"temp", b"bXYZ")
    red = Image.new("RGB", (64, 64), (255, 0, 0))
    red.save(tmp_path / "exchanged.jpg", icc_profile=exchanged)
    red.save(tmp_path / "broken.jpg", icc_profile=b"no profile at all")

    assert corners(load_image(tmp_path / "exchanged.jpg")) == ((0, 0, 255),) * 4
    assert corners(load_image(tmp_path / "broken.jpg")) == ((255, 0, 0),) * 4


@pytest.mark.parametrize("format_", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_frame_of_an_animation(tmp_path: Path, format_: str) -> None:
    others = [Image.new("RGB", (80, 40), "black") for _ in range(3)]
    corner_image().save(tmp_path / "photo", format_, save_all=True, append_images=others)

    assert corners(load_image(tmp_path / "photo")) == CORNERS


@pytest.mark.parametrize(
    "name", ["photo.jpg", "photo.png", "photo.webp", "photo.heic", "photo.avif"]
)
def test_a_file_cut_off_in_the_middle(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(1).integers(0, 255, (200, 300, 3), dtype=np.uint8)
    path = tmp_path / name
    Image.fromarray(noise).save(path)
    info = probe(path, max_pixels=MAX_PIXELS)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])

    with pytest.raises(UploadError) as caught:
        load_frames(path, info, max_side=500)

    assert caught.value.code == "unreadable_media"
    assert caught.value.remedy
    assert not ImageFile.LOAD_TRUNCATED_IMAGES


def test_a_file_deleted_after_it_was_probed(tmp_path: Path) -> None:
    for path in (tmp_path / "photo.jpg", tmp_path / "clip.mp4"):
        if path.suffix == ".mp4":
            write_video(path)
        else:
            corner_image().save(path)
        info = probe(path, max_pixels=MAX_PIXELS)
        path.unlink()

        with pytest.raises(UploadError) as caught:
            load_frames(path, info, max_side=500)

        assert caught.value.code == "file_missing"


def test_a_file_exchanged_for_a_larger_one(tmp_path: Path) -> None:
    path = tmp_path / "photo.png"
    corner_image().save(path)
    info = probe(path, max_pixels=MAX_PIXELS)
    corner_image(1000, 1000).save(path)

    with pytest.raises(UploadError) as caught:
        load_frames(path, info, max_side=500)

    assert caught.value.code == "too_many_pixels"


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
    info = probe(path, max_pixels=MAX_PIXELS)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise raised

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(UploadError) as caught:
        load_frames(path, info, max_side=500)

    assert caught.value.code == "unreadable_media"


def test_a_failing_disk_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.jpg"
    corner_image().save(path)
    info = probe(path, max_pixels=MAX_PIXELS)

    def fail(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(BackendUnavailable) as caught:
        load_frames(path, info, max_side=500)

    assert caught.value.code == "storage_unavailable"


@pytest.mark.parametrize(
    ("container", "codec"),
    [
        ("mp4", "libx264"),
        ("mov", "libx265"),
        ("avi", "mpeg4"),
        ("webm", "libvpx-vp9"),
        ("flv", "flv"),
        ("mpeg", "mpeg2video"),
    ],
)
def test_ten_frames_spread_evenly_over_a_video(tmp_path: Path, container: str, codec: str) -> None:
    path = write_video(tmp_path / "clip", codec=codec, container=container, frames=100, rate=25)

    found = [brightness(frame) for frame in load(path)]

    # Brightness rises from 0 to 255, so the middles of ten equal parts are known.
    expected = [25.5 * (part + 0.5) for part in range(10)]
    assert found == pytest.approx(expected, abs=12)


@pytest.mark.parametrize("key_frame_every", [5, 300])
def test_a_long_video_is_searched(tmp_path: Path, key_frame_every: int) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=300, rate=5, key_frame_every=key_frame_every)

    found = [brightness(frame) for frame in load(path)]

    assert len(found) == 10
    assert all(before < after for before, after in pairwise(found))
    assert found == pytest.approx([25.5 * (part + 0.5) for part in range(10)], abs=20)


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_clips_under_a_second(tmp_path: Path, frames: int) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=frames, rate=25)

    found = load(path)

    assert 1 <= len(found) <= frames
    assert found[0].size == (64, 48)


@pytest.mark.parametrize("claimed", [None, 3600.0])
def test_a_duration_that_is_missing_or_wrong(tmp_path: Path, claimed: float | None) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=100, rate=25)
    info = probe(path, max_pixels=MAX_PIXELS)
    info = MediaInfo(**{**vars(info), "duration_seconds": claimed})

    found = [brightness(frame) for frame in load_frames(path, info, max_side=500)]

    assert found == pytest.approx([25.5 * (part + 0.5) for part in range(10)], abs=12)


def test_an_elementary_stream_that_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "clip", codec="mpeg1video", container="mpeg1video", frames=100, rate=25
    )

    found = [brightness(frame) for frame in load(path)]

    assert len(found) == 10
    assert all(before < after for before, after in pairwise(found))


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_a_rotated_video_comes_out_upright(tmp_path: Path, rotation: int) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=4, rotation=rotation)

    frame = load(path)[0]

    assert frame.size == ((64, 48) if rotation == 180 else (48, 64))
    assert corners(frame) == corners(corner_image(64, 48).rotate(rotation, expand=True))


def test_frames_of_a_video_shrink(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=4, size=(320, 240))

    assert load(path, max_side=160)[0].size == (160, 120)


def test_damage_in_the_middle_does_not_cost_the_video(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "clip.mpg", codec="mpeg1video", container="mpeg", frames=100, rate=25
    )
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)

    assert len(load(path)) >= 5


def test_a_video_without_a_readable_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=20)
    info = probe(path, max_pixels=MAX_PIXELS)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start : content.index(b"moov") - 4] = bytes(content.index(b"moov") - 4 - start)
    path.write_bytes(content)

    with pytest.raises(UploadError) as caught:
        load_frames(path, info, max_side=500)

    assert caught.value.code == "unreadable_media"
