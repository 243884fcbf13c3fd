"""DATABASE_URL in all its forms, and what messages say of it: never the password."""

import socket
from collections.abc import Iterator

import pytest

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UsageError
from vuemantics_pipeline.ledger.connection import connect, libpq_url, without_password

SECRET = "hunter2"


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port of this machine that nobody listens on: it is bound, and never listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.mark.parametrize(
    "scheme",
    [
        "postgresql",
        "postgres",
        "postgresql+asyncpg",
        "postgresql+psycopg",
        "postgresql+psycopg2",
        "postgres+asyncpg",
        "PostgreSQL",
    ],
)
def test_schemes(scheme: str) -> None:
    rest = f"user:{SECRET}@host:5432/database?application_name=x"
    assert libpq_url(f"{scheme}://{rest}") == f"postgresql://{rest}"


def test_white_space_around_a_url_is_a_slip() -> None:
    assert libpq_url(" postgresql://host/db\n") == "postgresql://host/db"


@pytest.mark.parametrize(
    "url",
    [
        "",
        "hunter2",
        "postgresql",
        "mysql://user:hunter2@host/db",
        "sqlite:///hunter2",
        "https://user:hunter2@host/db",
        "+postgresql://user:hunter2@host/db",
        "host=h user=u password=hunter2",
    ],
)
def test_wrong_schemes(url: str) -> None:
    _assert_refused(url, "DATABASE_URL is not a PostgreSQL URL.")


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://user:hun/ter2@host/db",
        "postgresql://user:hun@ter2@host/db",
        "postgresql://user:hunter2/@host/db",
        "postgresql://user:hunter2%zz@host/db",
        "postgresql://user:hunter2@[::1/db",
        "postgresql://user:hunter2@host:port/db",
        "postgresql://hunter2:part/db",
        "postgresql://user:hunter2@host/db?ssl=require",
        "postgresql://user:hunter2@host/db?nonsense",
    ],
)
def test_urls_that_cannot_be_read(url: str) -> None:
    _assert_refused(url, "DATABASE_URL cannot be read.")


def _assert_refused(url: str, message: str) -> None:
    for read in (libpq_url, without_password, lambda url: connect(url).__enter__()):
        with pytest.raises(UsageError) as refused:
            read(url)
        assert refused.value.code == "wrong_database_url"
        assert refused.value.message == message
        assert "postgresql://user:password@host" in refused.value.remedy
        _assert_silent(refused.value)


def _assert_silent(error: PipelineError) -> None:
    for part in (SECRET, "hun", "ter2", "user:h"):
        assert part not in str(error)


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("postgresql://user:hunter2@host:5432/photos", "photos on host:5432"),
        ("postgresql://host/photos", "photos on host"),
        ("postgresql+asyncpg://user:hunter2@[::1]:5433/photos", "photos on ::1:5433"),
        ("postgresql://user:hunter2@host", "the default database on host"),
        ("postgresql:///photos?host=/run/postgresql", "photos on a local socket"),
        ("postgresql:///photos?host=/run/postgresql&password=hunter2", "photos on a local socket"),
        ("postgresql://", "the default database on a local socket"),
        ("postgresql://user:hunter2%40%2F%25@host/photos", "photos on host"),
        ("postgresql://user:hun?ter2@host/photos", "photos on host"),
        ("postgresql://user:hun#ter2@host/photos", "photos on host"),
        ("postgresql://user:hunter2@one:1,two:2/photos", "photos on one,two:1,2"),
    ],
)
def test_what_messages_show(url: str, shown: str) -> None:
    assert without_password(url) == shown


def test_a_server_that_is_not_there(closed_port: int) -> None:
    url = f"postgresql+asyncpg://user:{SECRET}@127.0.0.1:{closed_port}/photos"
    with pytest.raises(BackendUnavailable) as down, connect(url):
        raise AssertionError("There is no server.")
    assert down.value.code == "database_unavailable"
    assert f"photos on 127.0.0.1:{closed_port}" in down.value.message
    assert "vuemantics doctor" in down.value.remedy
    _assert_silent(down.value)
