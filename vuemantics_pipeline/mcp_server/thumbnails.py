"""Thumbnails as image content."""

import base64
from pathlib import Path
from uuid import UUID

from mcp_types import ImageContent

from vuemantics_pipeline.media.thumbnail import read_thumbnail


def thumbnail(
    root: Path, thumbnail_path: str | None, *, user_id: UUID | None
) -> ImageContent | None:
    """Return a thumbnail as an image, None where there is none; see `read_thumbnail`."""
    content = read_thumbnail(root, thumbnail_path, user_id=user_id)
    if content is None:
        return None
    return ImageContent(
        type="image", data=base64.b64encode(content).decode(), mime_type="image/jpeg"
    )
