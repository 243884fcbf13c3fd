"""Thumbnails: small, of something to see, clean, and all or nothing."""

import errno
import os
from pathlib import Path

import pytest
from PIL import Image

from vuemantics_pipeline.errors import BackendUnavailable, UploadError
from vuemantics_pipeline.media.thumbnail import choose_thumbnail, write_thumbnail
from vuemantics_pipeline_tests.unit.media_files import corner_image, corners


@pytest.mark.parametrize(
    ("size", "expected"),
    [
        ((1000, 500), (256, 128)),
        ((300, 900), (85, 256)),
        ((40, 30), (40, 30)),
        ((3000, 1), (256, 1)),
    ],
)
def test_its_longest_side_is_256_pixels(
    tmp_path: Path, size: tuple[int, int], expected: tuple[int, int]
) -> None:
    thumbnail = choose_thumbnail([Image.new("RGB", size, "teal")])
    write_thumbnail(thumbnail, tmp_path / "thumb_256.jpg")

    with Image.open(tmp_path / "thumb_256.jpg") as written:
        assert (written.format, written.mode) == ("JPEG", "RGB")
        assert written.size == thumbnail.size == expected


def _blurred(spread: int) -> Image.Image:
    """A frame with as much to see as `spread` says."""
    return corner_image().point(lambda value: 100 + value * spread // 255)


def test_it_shows_the_first_frame_that_shows_something() -> None:
    black, fade, faint, clear = (
        Image.new("RGB", (80, 40)),
        _blurred(4),
        _blurred(12),
        _blurred(150),
    )

    assert choose_thumbnail([black, fade, clear, corner_image()]) == clear
    assert choose_thumbnail([clear, corner_image()]) == clear
    assert choose_thumbnail([black, fade, faint, black]) == faint
    assert choose_thumbnail([black]) == black


def test_nothing_but_pixels_is_written(tmp_path: Path) -> None:
    frame = corner_image()
    exif = Image.Exif()
    exif[0x8825] = {1: "N", 2: (48.0, 51.0, 30.0)}
    frame.info.update(exif=exif.tobytes(), comment=b"at home", icc_profile=b"profile")

    write_thumbnail(frame, tmp_path / "thumb_256.jpg")

    content = (tmp_path / "thumb_256.jpg").read_bytes()
    assert b"Exif" not in content
    assert b"at home" not in content
    with Image.open(tmp_path / "thumb_256.jpg") as thumbnail:
        assert not thumbnail.getexif()
        assert corners(thumbnail) == corners(frame)
    assert frame.info["comment"] == b"at home"


def test_a_thumbnail_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "thumb_256.jpg"
    path.write_bytes(b"old")
    (tmp_path / ".thumb_256.jpg.part").write_bytes(b"left by a killed worker")

    write_thumbnail(corner_image(), path)

    assert path.read_bytes().startswith(b"\xff\xd8")
    assert os.listdir(tmp_path) == ["thumb_256.jpg"]  # noqa: PTH208


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES])
def test_a_full_or_read_only_disk_is_nobodys_failed_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(path: Path, target: Path) -> Path:
        assert path.exists()
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(BackendUnavailable) as caught:
        write_thumbnail(corner_image(), tmp_path / "thumb_256.jpg")

    assert caught.value.code == "storage_unavailable"
    assert str(tmp_path) in caught.value.message
    assert caught.value.remedy
    assert list(tmp_path.iterdir()) == []


def test_a_folder_deleted_meanwhile(tmp_path: Path) -> None:
    with pytest.raises(UploadError) as caught:
        write_thumbnail(corner_image(), tmp_path / "gone" / "thumb_256.jpg")

    assert caught.value.code == "file_missing"
