"""The gateway against its own OpenAPI document: schemathesis makes up requests, right and wrong."""

from collections.abc import Iterator
from datetime import UTC
from importlib import resources
from itertools import count
from typing import Any
from uuid import UUID

import pytest
import schemathesis
import yaml
from hypothesis import settings as bounds
from hypothesis import strategies as st
from schemathesis import Case

from vuemantics_pipeline import gateway
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.settings import load_settings
from vuemantics_pipeline.status.paging import Position
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.integration.served import bearer, new_database, served

OWN = {status: UUID(int=number) for number, status in enumerate(("pending", "completed", "failed"))}
THEIRS = UUID(int=7)
SECRETS = ("not-yours.jpg", "Not your description.")
"""What no answer may say: another user's file."""

# Ids that are there, since those that are made up only ever come to 404.
schemathesis.openapi.format(
    "uuid", st.sampled_from([*OWN.values(), THEIRS]).map(str) | st.uuids().map(str)
)
schemathesis.openapi.format(
    "cursor",
    st.builds(Position, st.datetimes(timezones=st.just(UTC)), st.uuids()).map(lambda p: p.cursor),
)

schema = schemathesis.openapi.from_dict(
    yaml.safe_load((resources.files(gateway) / "openapi.yaml").read_text())
)
# Refused tokens count against their address, so every request comes from one of its own.
addresses = (f"127.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in count(2))


@pytest.fixture(scope="module")
def url(postgres_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A gateway of two users."""
    settings = load_settings(
        home=tmp_path_factory.mktemp("home"), upload_path=tmp_path_factory.mktemp("uploads")
    )
    with new_database(postgres_server) as database_url:
        with connect(database_url) as connection:
            for status, batch_id in OWN.items():
                _add(connection, UUID(int=0), batch_id, status, "mine.jpg", "Mine.")
            _add(connection, UUID(int=1), THEIRS, "completed", *SECRETS)
        thumbnail = settings.uploads / str(UUID(int=0)) / "thumb_256.jpg"
        thumbnail.parent.mkdir(parents=True)
        thumbnail.write_bytes(support.photo())
        with served(settings, database_url) as url:
            yield url


def _add(
    connection: Connection,
    user_id: UUID,
    batch_id: UUID,
    status: str,
    filename: str,
    description: str,
) -> None:
    """Add a batch of one upload with the same id."""
    connection.execute(
        "INSERT INTO users (id, email, password_hash) VALUES (%s, %s, '!') ON CONFLICT DO NOTHING",
        (user_id, f"{user_id}@example.com"),
    )
    connection.execute(
        "INSERT INTO upload_batches (id, user_id, status, total_uploads) VALUES (%s, %s, %s, 1)",
        (batch_id, user_id, status),
    )
    connection.execute(
        "INSERT INTO uploads (id, user_id, batch_id, filename, file_path, file_type, file_size,"
        " mime_type, processing_status, description, thumbnail_path)"
        " VALUES (%s, %s, %s, %s, 'x', 'image', 1, 'image/jpeg', %s, %s, %s)",
        (
            batch_id,
            user_id,
            batch_id,
            filename,
            status,
            description,
            f"{user_id}/thumb_256.jpg",
        ),
    )


@schema.parametrize()
@bounds(max_examples=20, deadline=None)
def test_every_answer_is_as_the_document_says(case: Case[Any], url: str) -> None:
    headers = bearer(UUID(int=0)) | {"Origin": url, "X-Forwarded-For": next(addresses)}
    answer = case.call_and_validate(base_url=url, headers=headers)
    assert not any(secret.encode() in answer.content for secret in SECRETS)
