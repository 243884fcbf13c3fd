"""The read API, and the two changes a person may ask for: cancel a batch, and run it again.

Everybody sees what is theirs. Another user's batch is answered as one that does not exist.
"""

from dataclasses import dataclass
from http import HTTPStatus
from uuid import UUID

from pydantic import Field
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vuemantics_pipeline.gateway.inputs import Input, body, query
from vuemantics_pipeline.gateway.problems import Problem
from vuemantics_pipeline.gateway.sessions import Door
from vuemantics_pipeline.gateway.thumbnails import thumbnail_url
from vuemantics_pipeline.ledger import batches, reruns
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.leases import no_such_batch
from vuemantics_pipeline.ledger.records import BatchStatus, Scope
from vuemantics_pipeline.status.batches import Outcome, get_batch, list_batches
from vuemantics_pipeline.status.documents import (
    Document,
    batch_progress_document,
    upload_progress_document,
)
from vuemantics_pipeline.status.paging import Position, page_of, parse_cursor
from vuemantics_pipeline.status.progress import UploadProgress, batch_progress, uploads_page


class PageQuery(Input):
    """Which part of a list is wanted: at most `limit` rows after a cursor."""

    limit: int = Field(50, ge=1, le=200)
    after: str | None = Field(None, max_length=200)

    @property
    def position(self) -> Position | None:
        """Where the page begins.

        Raises:
            UsageError: code 'bad_cursor'.
        """
        return None if self.after is None else parse_cursor(self.after)


class BatchesQuery(PageQuery):
    """Which batches are wanted."""

    status: BatchStatus | None = None


class UploadsQuery(PageQuery):
    """Which uploads of a batch are wanted."""

    outcome: Outcome | None = None


class RetryRequest(Input):
    """Which uploads a re-run takes up."""

    scope: Scope = Scope.UNFINISHED


@dataclass(frozen=True)
class Api:
    """The addresses below /batches."""

    door: Door

    def routes(self) -> list[Route]:
        """All of them."""
        batch = "/batches/{batch_id:uuid}"
        return [
            Route("/batches", self.list_batches),
            Route(batch, self.get_batch),
            Route(f"{batch}/uploads", self.list_uploads),
            Route(f"{batch}/cancel", self.cancel, methods=["POST"]),
            Route(f"{batch}/retry", self.retry, methods=["POST"]),
        ]

    def list_batches(self, request: Request) -> Response:
        """The newest first: {batches, next}."""
        with self.door.opened(request) as (connection, session):
            asked = query(request, BatchesQuery)
            rows = list_batches(
                connection,
                status=asked.status,
                user_id=session.user_id,
                position=asked.position,
                limit=asked.limit + 1,
            )
            page, cursor = page_of(
                rows, asked.limit, lambda batch: Position(batch.created_at, batch.batch_id)
            )
            progress = {
                one.batch.batch_id: one
                for one in batch_progress(connection, [batch.batch_id for batch in page])
            }
        documents = [
            batch_progress_document(progress[batch.batch_id])
            for batch in page
            if batch.batch_id in progress  # else it was deleted between the two queries
        ]
        return JSONResponse({"batches": documents, "next": cursor})

    def get_batch(self, request: Request) -> Response:
        """One batch."""
        with self.door.opened(request) as (connection, session):
            return JSONResponse(
                _batch(connection, request.path_params["batch_id"], session.user_id)
            )

    def list_uploads(self, request: Request) -> Response:
        """A batch's uploads in the order they were added: {uploads, next}."""
        with self.door.opened(request) as (connection, session):
            batch = get_batch(connection, request.path_params["batch_id"], user_id=session.user_id)
            asked = query(request, UploadsQuery)
            rows = uploads_page(
                connection,
                batch.batch_id,
                outcome=asked.outcome,
                position=asked.position,
                limit=asked.limit + 1,
            )
        page, cursor = page_of(rows, asked.limit, lambda upload: upload.position)
        return JSONResponse({"uploads": [_upload(upload) for upload in page], "next": cursor})

    def cancel(self, request: Request) -> Response:
        """Stop a batch after the upload in hand; answers with the batch as it is then.

        Asked twice it is as if asked once, since the answer to the first may have been lost.
        """
        with self.door.opened(request) as (connection, session):
            batch = get_batch(connection, request.path_params["batch_id"], user_id=session.user_id)
            if not batches.cancel(connection, batch.batch_id, message="Cancelled by its owner."):
                now = get_batch(connection, batch.batch_id, user_id=session.user_id)
                if now.status is not BatchStatus.CANCELLED:
                    raise Problem(
                        HTTPStatus.CONFLICT,
                        "batch_has_ended",
                        f"Batch {now.batch_id} is {now.status} already.",
                    )
            return JSONResponse(_batch(connection, batch.batch_id, session.user_id))

    async def retry(self, request: Request) -> Response:
        """Give a batch to the pipeline again: {batch_id, scope, uploads}, how many it takes up."""
        self.door.session(request)  # nothing is read from strangers
        asked = await body(request, RetryRequest)
        return await run_in_threadpool(self._retry, request, asked.scope)

    def _retry(self, request: Request, scope: Scope) -> Response:
        with self.door.opened(request) as (connection, session):
            batch = get_batch(connection, request.path_params["batch_id"], user_id=session.user_id)
            count = reruns.retry(connection, batch.batch_id, scope)
        return JSONResponse({"batch_id": str(batch.batch_id), "scope": scope, "uploads": count})


def _batch(connection: Connection, batch_id: UUID, user_id: UUID) -> Document:
    for progress in batch_progress(connection, [batch_id]):
        if progress.batch.user_id == user_id:
            return batch_progress_document(progress)
    raise no_such_batch(batch_id)


def _upload(upload: UploadProgress) -> Document:
    url = None if upload.thumbnail_path is None else thumbnail_url(upload.upload_id)
    return upload_progress_document(upload, url)
