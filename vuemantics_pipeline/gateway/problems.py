"""Errors as programs read them over HTTP: problem details, RFC 9457."""

import json
import logging
from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ExceptionHandler

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError

_logger = logging.getLogger(__name__)

MEDIA_TYPE = "application/problem+json"

_RETRY_SECONDS = 5
_STATUSES = {
    "no_such_batch": HTTPStatus.NOT_FOUND,
    "no_such_upload": HTTPStatus.NOT_FOUND,
    "batch_is_processed": HTTPStatus.CONFLICT,
}
# Where the command line would name a command, a client is told the request.
_REMEDIES = {
    "no_such_batch": "GET /batches lists those there are.",
    "no_such_upload": "GET /batches/{batch_id}/uploads lists those of a batch.",
    "bad_cursor": "Give `next` of the page before unchanged, or nothing for the first page.",
}


class Problem(PipelineError):
    """A request that is refused.

    Attributes:
        status: of HTTP.
        headers: that the answer has besides.
    """

    def __init__(
        self,
        status: HTTPStatus,
        code: str,
        message: str,
        remedy: str = "",
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(code, message, remedy)
        self.status = status
        self.headers = headers or {}


def response(problem: Problem) -> Response:
    """The answer to a request that is refused.

    `type` is about:blank, for which `title` is the status in words; what tells two problems of
    one status apart is `code`.
    """
    document = {
        "type": "about:blank",
        "title": problem.status.phrase,
        "status": problem.status,
        "detail": problem.message,
        "code": problem.code,
        "remedy": problem.remedy,
    }
    return Response(
        json.dumps(document),
        problem.status,
        headers=dict(problem.headers),
        media_type=MEDIA_TYPE,
    )


def of(error: PipelineError) -> Problem:
    """What an error of the rooms below is to whoever sent the request."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, BackendUnavailable):
        _logger.warning("%s", error)  # it names host and role, which are not the client's business
        return Problem(
            HTTPStatus.SERVICE_UNAVAILABLE,
            error.code,
            "The database does not answer.",
            "Try again in some seconds.",
            {"Retry-After": str(_RETRY_SECONDS)},
        )
    return Problem(
        _STATUSES.get(error.code, HTTPStatus.UNPROCESSABLE_ENTITY),
        error.code,
        error.message,
        _REMEDIES.get(error.code, error.remedy),
    )


def _refused(_: Request, error: Exception) -> Response:
    assert isinstance(error, PipelineError)
    return response(of(error))


def _unroutable(_: Request, error: Exception) -> Response:
    """No such address, or not with this method."""
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    words = {
        HTTPStatus.NOT_FOUND: "There is nothing at this address.",
        HTTPStatus.METHOD_NOT_ALLOWED: "This address does not take that method.",
    }
    remedy = "GET /openapi.json tells every address."
    return response(
        Problem(
            status,
            status.phrase.lower().replace(" ", "_"),
            words.get(status, f"{status.phrase}."),
            remedy,
            error.headers,
        )
    )


def _unexpected(_: Request, error: Exception) -> Response:  # noqa: ARG001
    """A fault of the gateway's own. Its log has the traceback; the answer tells nothing of it."""
    return response(
        Problem(
            HTTPStatus.INTERNAL_SERVER_ERROR,
            "internal_error",
            "The gateway failed for a reason that is not in the request.",
            "Its log says why.",
        )
    )


HANDLERS: Mapping[Any, ExceptionHandler] = {
    PipelineError: _refused,
    HTTPException: _unroutable,
    Exception: _unexpected,
}
"""What Starlette is to make of exceptions."""
