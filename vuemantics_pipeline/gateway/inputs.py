"""What a request says, checked before anything is done with it."""

import asyncio
from http import HTTPStatus
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import ClientDisconnect, Request

from vuemantics_pipeline.gateway.problems import Problem
from vuemantics_pipeline.printable import printable

BODY_BYTES = 8192
"""Larger bodies are refused: an access token is the longest thing there is to say."""

_BODY_SECONDS = 10


class Input(BaseModel):
    """What a client may say. A misspelt name is refused: left out, it could mean another thing."""

    model_config = ConfigDict(extra="forbid", frozen=True)


_Input = TypeVar("_Input", bound=Input)


def query(request: Request, model: type[_Input]) -> _Input:
    """Read the query string.

    Raises:
        Problem: 422, a parameter is unknown or has a value that cannot be.
    """
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise _refused(error) from None


async def body(request: Request, model: type[_Input]) -> _Input:
    """Read the body, a JSON object; no body is an empty one.

    Raises:
        Problem: 400, 408, 413, 415 or 422.
    """
    content = await _content(request)
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if content and media_type != "application/json":
        raise Problem(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
            "not_json",
            "The body is not said to be JSON.",
            "Send it with Content-Type: application/json.",
        )
    try:
        return model.model_validate_json(content or b"{}")
    except ValidationError as error:
        raise _refused(error) from None


async def _content(request: Request) -> bytes:
    content = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for chunk in request.stream():
                content += chunk
                if len(content) > BODY_BYTES:
                    raise Problem(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                        "body_too_large",
                        f"The body is larger than {BODY_BYTES} bytes.",
                        headers={"Connection": "close"},
                    )
    except (TimeoutError, ClientDisconnect):
        raise Problem(
            HTTPStatus.REQUEST_TIMEOUT,
            "body_incomplete",
            f"The body did not arrive within {_BODY_SECONDS} s.",
            "Send it again.",
            headers={"Connection": "close"},
        ) from None
    return bytes(content)


def _refused(error: ValidationError) -> Problem:
    """Every value that does not fit, without repeating what it was."""
    problems = error.errors(include_input=False, include_url=False, include_context=False)
    if any(problem["type"] == "json_invalid" for problem in problems):
        return Problem(HTTPStatus.BAD_REQUEST, "bad_json", "The body is not valid JSON.")
    names = [".".join(str(part) for part in problem["loc"]) for problem in problems]
    return Problem(
        HTTPStatus.UNPROCESSABLE_ENTITY,
        "bad_request",
        " ".join(
            f"{printable(name[:50])}: {problem['msg']}." if name else f"{problem['msg']}."
            for name, problem in zip(names, problems, strict=True)
        ),
        "GET /openapi.json tells what each address takes.",
    )
