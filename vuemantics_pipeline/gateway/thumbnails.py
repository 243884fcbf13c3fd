"""Thumbnails for the users whose uploads they show."""

import hashlib
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path
from uuid import UUID

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from vuemantics_pipeline.gateway.problems import Problem
from vuemantics_pipeline.gateway.sessions import Door
from vuemantics_pipeline.media.thumbnail import read_thumbnail
from vuemantics_pipeline.status.explain import get_upload


def thumbnail_url(upload_id: UUID) -> str:
    """Where the gateway serves the thumbnail of an upload, from its root."""
    return f"/uploads/{upload_id}/thumbnail"


@dataclass(frozen=True)
class Thumbnails:
    """The addresses below /uploads.

    Attributes:
        root: UPLOAD_PATH.
    """

    door: Door
    root: Path

    def routes(self) -> list[Route]:
        """All of them."""
        return [Route("/uploads/{upload_id:uuid}/thumbnail", self.get_thumbnail)]

    def get_thumbnail(self, request: Request) -> Response:
        """A JPEG of at most 256 KiB, asked for again each time: it may no longer be theirs."""
        upload_id: UUID = request.path_params["upload_id"]
        with self.door.opened(request) as (connection, session):
            upload = get_upload(connection, upload_id, user_id=session.user_id)
        content = read_thumbnail(self.root, upload.thumbnail_path, user_id=session.user_id)
        if content is None:
            raise Problem(
                HTTPStatus.NOT_FOUND, "no_thumbnail", f"Upload {upload_id} has no thumbnail."
            )
        etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
        headers = {"ETag": etag, "Cache-Control": "private, no-cache"}
        if etag in request.headers.get("if-none-match", ""):
            return Response(status_code=HTTPStatus.NOT_MODIFIED, headers=headers)
        return Response(content, headers=headers, media_type="image/jpeg")
