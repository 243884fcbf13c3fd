"""Thumbnails as image content: small JPEGs from UPLOAD_PATH, and nothing else from there."""

import base64
from pathlib import Path
from uuid import UUID

from mcp_types import ImageContent

from vuemantics_pipeline.errors import UploadError
from vuemantics_pipeline.media.paths import resolve_upload

_LARGEST_BYTES = 256 * 1024
_JPEG = b"\xff\xd8\xff"


def thumbnail(
    root: Path, thumbnail_path: str | None, *, user_id: UUID | None
) -> ImageContent | None:
    """Read the thumbnail that `uploads.thumbnail_path` names.

    Args:
        root: UPLOAD_PATH.
        user_id: it must lie in this user's own folder; None: in anybody's.

    Returns:
        The image; None if there is none, or what is there is no thumbnail.
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
    if len(content) > _LARGEST_BYTES or not content.startswith(_JPEG):
        return None
    return ImageContent(
        type="image", data=base64.b64encode(content).decode(), mime_type="image/jpeg"
    )
