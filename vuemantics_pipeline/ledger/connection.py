"""Connections to the database of record, with errors that a person can act on."""

from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import psycopg
from psycopg.rows import TupleRow

from vuemantics_pipeline.errors import BackendUnavailable, UsageError

Connection = psycopg.Connection[TupleRow]

_SCHEMES = ("postgresql", "postgres")


def libpq_url(database_url: str) -> str:
    """Return a DATABASE_URL as libpq takes it: without SQLAlchemy's `+driver`.

    Raises:
        UsageError: the URL is not one of PostgreSQL.
    """
    scheme, separator, rest = database_url.partition("://")
    if not separator or scheme.partition("+")[0] not in _SCHEMES:
        raise UsageError(
            "wrong_database_url",
            "DATABASE_URL is not a PostgreSQL URL.",
            "Give it as postgresql://user:password@host:5432/database.",
        )
    return f"postgresql://{rest}"


def without_password(database_url: str) -> str:
    """Return host and database of a URL for messages: never its user or password."""
    parts = urlsplit(libpq_url(database_url))
    host = parts.netloc.rpartition("@")[2] or "a local socket"
    return f"{parts.path.lstrip('/') or 'the default database'} on {host}"


@contextmanager
def connect(database_url: str) -> Iterator[Connection]:
    """Open an autocommit connection; what belongs together is an explicit transaction.

    Raises:
        UsageError: the URL is not one of PostgreSQL.
        BackendUnavailable: the server cannot be reached, refuses, or goes away later.
    """
    url = libpq_url(database_url)
    try:
        connection = psycopg.connect(
            url, autocommit=True, connect_timeout=10, application_name="vuemantics_pipeline"
        )
    except psycopg.Error as error:
        raise _unavailable(without_password(url), error) from error
    with connection, database_errors(connection):
        connection.execute("SET lock_timeout = '30s'; SET statement_timeout = '60s'")
        yield connection


@contextmanager
def database_errors(connection: Connection) -> Iterator[None]:
    """Turn the loss of a connection into `BackendUnavailable`."""
    try:
        yield
    except (psycopg.OperationalError, psycopg.InterfaceError) as error:
        where = f"{connection.info.dbname} on {connection.info.host or 'a local socket'}"
        raise _unavailable(where, error) from error


def _unavailable(where: str, error: psycopg.Error) -> BackendUnavailable:
    reason = (str(error).strip().splitlines() or ["no reason given"])[-1]
    return BackendUnavailable(
        "database_unavailable",
        f"Postgres does not answer ({where}): {reason}.",
        "Start it, or correct DATABASE_URL; `vuemantics doctor` checks both.",
    )
