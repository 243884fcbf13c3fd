"""Paths from the database lead nowhere but into the upload folder."""

from pathlib import Path
from uuid import UUID

import pytest

from vuemantics_pipeline.errors import BackendUnavailable, UploadError
from vuemantics_pipeline.media.paths import require_folder, resolve_upload, thumbnail_path

USER, UPLOAD = UUID(int=1), UUID(int=2)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """An upload folder with one file, beside a secret."""
    root = tmp_path / "uploads"
    (root / "user" / "upload").mkdir(parents=True)
    (root / "user" / "upload" / "original.jpg").write_bytes(b"photo")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return root


def refuse(root: Path, file_path: str) -> None:
    with pytest.raises(UploadError) as refused:
        resolve_upload(root, file_path)
    assert refused.value.code == "path_outside_uploads"
    assert "secret" not in refused.value.message
    assert refused.value.remedy


@pytest.mark.parametrize(
    "file_path",
    [
        "user/upload/original.jpg",
        "./user/upload/original.jpg",
        "user//upload/original.jpg",
        "user/upload/not there.jpg",
        "user/upload/..jpg",
        "user/upload/...",
    ],
)
def test_inside(root: Path, file_path: str) -> None:
    path = resolve_upload(root, file_path)
    assert path == root.resolve() / file_path
    assert path.is_relative_to(root.resolve())


@pytest.mark.parametrize(
    "file_path",
    [
        "/etc/passwd",
        "//etc/passwd",
        "..",
        "../secret.jpg",
        "user/../../secret.jpg",
        "user/../user/upload/original.jpg",
        "user/upload/..",
        "../uploads/user/upload/original.jpg",
        "../uploads2/x.jpg",
        "",
        ".",
        "user/upload/original.jpg\0.png",
        "\0",
    ],
)
def test_outside(root: Path, file_path: str) -> None:
    refuse(root, file_path)


def test_an_absolute_path_is_refused_even_inside(root: Path) -> None:
    refuse(root, str(root / "user" / "upload" / "original.jpg"))


def test_a_folder_whose_name_begins_alike_is_outside(root: Path) -> None:
    beside = root.with_name("uploads-of-another")
    beside.mkdir()
    (root / "link").symlink_to(beside)
    refuse(root, "link/x.jpg")


def test_symlinks(root: Path) -> None:
    (root / "out.jpg").symlink_to(root.parent / "secret.jpg")
    (root / "folder").symlink_to(root.parent)
    (root / "in.jpg").symlink_to(root / "user" / "upload" / "original.jpg")
    (root / "chain.jpg").symlink_to(root / "out.jpg")
    for file_path in ("out.jpg", "folder/secret.jpg", "chain.jpg"):
        refuse(root, file_path)
    assert resolve_upload(root, "in.jpg").read_bytes() == b"photo"


def test_an_upload_folder_that_is_a_symlink_itself(root: Path) -> None:
    link = root.with_name("link")
    link.symlink_to(root)
    assert resolve_upload(link, "user/upload/original.jpg").read_bytes() == b"photo"
    refuse(link, "../secret.jpg")


def test_a_loop_of_symlinks_ends(root: Path) -> None:
    (root / "loop").symlink_to(root / "loop")
    with pytest.raises((UploadError, OSError)):
        resolve_upload(root, "loop/x.jpg").read_bytes()


def test_the_thumbnail_lies_beside_the_original(root: Path) -> None:
    stored = thumbnail_path(USER, UPLOAD)
    assert stored == f"{USER}/{UPLOAD}/thumb_256.jpg"
    assert (
        resolve_upload(root, stored).parent
        == resolve_upload(root, f"{USER}/{UPLOAD}/original.jpg").parent
    )


def test_an_upload_folder_that_is_not_there(root: Path) -> None:
    require_folder(root)
    for missing in (root / "nowhere", root / "user" / "upload" / "original.jpg"):
        with pytest.raises(BackendUnavailable, match="UPLOAD_PATH") as down:
            require_folder(missing)
        assert down.value.code == "storage_unavailable"
        assert str(missing) in down.value.message
