"""A frame -> the small JPEG that lists and search results show."""

import errno
import io
from pathlib import Path

from PIL import Image

from vuemantics_pipeline.errors import UploadError
from vuemantics_pipeline.media.content import storage_unavailable

MAX_SIDE = 256
_QUALITY = 85


def write_thumbnail(frame: Image.Image, path: Path) -> None:
    """Write `frame` to `path` as a JPEG of at most 256 px a side, all of it or nothing.

    Args:
        frame: upright sRGB image, as `load_frames` returns it. Nothing but its pixels is written:
            no EXIF, no position, no comment.

    Raises:
        UploadError: 'file_missing', the upload's folder is gone.
        BackendUnavailable: 'storage_unavailable', the disk is full or the folder read-only.
    """
    small = frame.convert("RGB")
    small.thumbnail((MAX_SIDE, MAX_SIDE), Image.Resampling.LANCZOS)
    small.info = {}
    encoded = io.BytesIO()
    small.save(encoded, "JPEG", quality=_QUALITY, optimize=True)

    # Always the same name: what a killed worker leaves behind is overwritten by the next attempt.
    unfinished = path.with_name(f".{path.name}.part")
    try:
        try:
            unfinished.write_bytes(encoded.getvalue())
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
        raise storage_unavailable(path.parent, "write", error) from error
