"""Frames -> the small JPEG that lists and search results show, and that JPEG for who may see it."""

import errno
import io
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID

from PIL import Image, ImageStat

from vuemantics_pipeline.errors import UploadError
from vuemantics_pipeline.media.content import storage_unavailable
from vuemantics_pipeline.media.images import shrink
from vuemantics_pipeline.media.paths import resolve_upload

MAX_SIDE = 256
_QUALITY = 85
_LARGEST_BYTES = 256 * 1024
_JPEG = b"\xff\xd8\xff"
# Standard deviation of luma, 0-255: below it a frame is black, blank or a fade.
_ENOUGH_SPREAD = 12.0


def choose_thumbnail(frames: Sequence[Image.Image]) -> Image.Image:
    """Shrink the first frame that shows something, or the one that shows most, to 256 px."""
    best, most = None, -1.0
    for frame in frames:
        small = shrink(frame, MAX_SIDE)
        spread = ImageStat.Stat(small.convert("L")).stddev[0]
        if spread > most:
            best, most = small, spread
        if spread >= _ENOUGH_SPREAD:
            break
    assert best is not None
    return best


def write_thumbnail(thumbnail: Image.Image, path: Path) -> None:
    """Write an RGB image to `path` as a JPEG, all of it or nothing.

    Nothing but its pixels is written: no EXIF, no position, no comment.

    Raises:
        UploadError: 'file_missing', the upload's folder is gone; 'folder_unusable', something else
            is in the thumbnail's place.
        BackendUnavailable: 'storage_unavailable', the disk is full or the folder read-only.
    """
    bare = thumbnail.copy()
    bare.info = {}
    encoded = io.BytesIO()
    bare.save(encoded, "JPEG", quality=_QUALITY, optimize=True)

    # Always the same name: what a killed worker leaves behind is overwritten by the next attempt.
    unfinished = path.with_name(f".{path.name}.part")
    try:
        try:
            # Made anew: a link of that name would lead out of UPLOAD_PATH.
            unfinished.unlink(missing_ok=True)
            with unfinished.open("xb") as file:
                file.write(encoded.getvalue())
            unfinished.replace(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
    except OSError as error:
        if error.errno in {errno.ENOENT, errno.ENOTDIR}:
            raise UploadError(
                "file_missing",
                "The upload's folder was deleted before its turn.",
                "Upload it again.",
            ) from error
        if error.errno in {errno.EISDIR, errno.ENOTEMPTY, errno.EEXIST}:
            raise UploadError(
                "folder_unusable",
                "The upload's folder holds something else in the thumbnail's place.",
                "Upload the file again.",
            ) from error
        raise storage_unavailable(path.parent, "write", error) from error


def read_thumbnail(root: Path, thumbnail_path: str | None, *, user_id: UUID | None) -> bytes | None:
    """Return the JPEG that `uploads.thumbnail_path` names.

    Args:
        root: UPLOAD_PATH.
        user_id: it must lie in this user's own folder; None: in anybody's.

    Returns:
        At most 256 KiB; None if there is none, or what is there is no thumbnail.
    """
    if thumbnail_path is None:
        return None
    try:
        path = resolve_upload(root, thumbnail_path)
        if user_id is not None and not path.is_relative_to((root / str(user_id)).resolve()):
            return None
        if not path.is_file():  # a pipe would keep whoever opens it waiting
            return None
        with path.open("rb") as file:
            content = file.read(_LARGEST_BYTES + 1)
    except (OSError, UploadError):
        return None
    is_thumbnail = len(content) <= _LARGEST_BYTES and content.startswith(_JPEG)
    return content if is_thumbnail else None
