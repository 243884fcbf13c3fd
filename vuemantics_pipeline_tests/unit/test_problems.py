"""Errors as problem details."""

import json
import logging
from http import HTTPStatus

import pytest

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UsageError
from vuemantics_pipeline.gateway import problems
from vuemantics_pipeline.gateway.problems import Problem


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError("no_such_batch", "There is no batch."), 404),
        (UsageError("no_such_upload", "There is no upload."), 404),
        (UsageError("batch_is_processed", "A run is at it."), 409),
        (UsageError("bad_cursor", "That is no cursor."), 422),
        (UsageError("something_else", "That cannot be."), 422),
        (BackendUnavailable("database_unavailable", "Postgres does not answer."), 503),
        (Problem(HTTPStatus.FORBIDDEN, "foreign_origin", "No."), 403),
    ],
)
def test_the_status_follows_from_the_kind_of_error(error: PipelineError, status: int) -> None:
    problem = problems.of(error)
    assert (problem.status, problem.code) == (status, error.code)


def test_the_document() -> None:
    headers = {"Retry-After": "5"}
    answer = problems.response(
        Problem(HTTPStatus.CONFLICT, "a_code", "What happened.", "What to do.", headers)
    )
    assert answer.status_code == 409
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["retry-after"] == "5"
    assert json.loads(bytes(answer.body)) == {
        "type": "about:blank",
        "title": "Conflict",
        "status": 409,
        "detail": "What happened.",
        "code": "a_code",
        "remedy": "What to do.",
    }


def test_remedies_name_requests_and_no_commands() -> None:
    error = UsageError("no_such_batch", "There is no batch.", "`vuemantics batches` lists them.")
    assert problems.of(error).remedy.startswith("GET /batches")


def test_where_the_database_is_stays_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    error = BackendUnavailable(
        "database_unavailable", "Postgres does not answer (photos on db.internal).", "Start it."
    )
    with caplog.at_level(logging.WARNING):
        problem = problems.of(error)
    assert "db.internal" not in f"{problem.message} {problem.remedy}"
    assert int(problem.headers["Retry-After"]) > 0
    assert "db.internal" in caplog.text
