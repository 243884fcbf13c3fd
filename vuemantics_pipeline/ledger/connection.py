"""Connections to the database of record, with errors that a person can act on."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg.conninfo import conninfo_to_dict
from psycopg.rows import TupleRow

from vuemantics_pipeline.errors import BackendUnavailable, UsageError

Connection = psycopg.Connection[TupleRow]

_SCHEMES = ("postgresql", "postgres")


def libpq_url(database_url: str) -> str:
    """Return a DATABASE_URL as libpq takes it: without SQLAlchemy's `+driver`.

    Raises:
        UsageError: the URL is not one of PostgreSQL.
    """
    scheme, separator, rest = database_url.strip().partition("://")
    if not separator or scheme.lower().partition("+")[0] not in _SCHEMES:
        raise UsageError(
            "wrong_database_url",
            "DATABASE_URL is not a PostgreSQL URL.",
            "Give it as postgresql://user:password@host:5432/database.",
        )
    url = f"postgresql://{rest}"
    if not _is_readable(url):
        raise UsageError(
            "wrong_database_url",
            "DATABASE_URL cannot be read.",
            "Give it as postgresql://user:password@host:5432/database, with libpq's parameters "
            "only, and in the password write @ as %40, / as %2F, : as %3A and % as %25.",
        )
    return url


def _is_readable(url: str) -> bool:
    """Whether each part of a URL is what it seems: else errors would quote half a password."""
    try:
        port = str(conninfo_to_dict(url).get("port") or "")
    except psycopg.Error:
        return False
    authority, _, path = url.partition("://")[2].partition("/")
    is_split_well = authority.count("@") <= 1 and "@" not in path.partition("?")[0]
    return is_split_well and all(number.isdecimal() for number in port.split(",") if number)


def without_password(database_url: str) -> str:
    """Return host and database of a URL for messages: never its user or password."""
    parts = conninfo_to_dict(libpq_url(database_url))
    host = str(parts.get("host") or "")
    if not host or host.startswith("/"):
        host = "a local socket"
    elif parts.get("port"):
        host = f"{host}:{parts['port']}"
    return f"{parts.get('dbname') or 'the default database'} on {host}"


@contextmanager
def connect(database_url: str) -> Iterator[Connection]:
    """Open an autocommit connection; what belongs together is an explicit transaction.

    Raises:
        UsageError: the URL is not one of PostgreSQL.
        BackendUnavailable: the server cannot be reached, refuses, or goes away later.
    """
    connection = open_connection(database_url)
    with connection, database_errors(connection):
        yield connection


def open_connection(database_url: str) -> Connection:
    """Open a connection as `connect` does, for whoever closes it and looks after its errors.

    Raises:
        UsageError, BackendUnavailable: as `connect`.
    """
    url = libpq_url(database_url)
    try:
        connection = psycopg.connect(
            url, autocommit=True, connect_timeout=10, application_name="vuemantics_pipeline"
        )
        connection.execute("SET lock_timeout = '30s'; SET statement_timeout = '60s'")
    except psycopg.Error as error:
        raise _unavailable(without_password(url), error) from error
    return connection


@contextmanager
def database_errors(connection: Connection) -> Iterator[None]:
    """Turn the loss of a connection into `BackendUnavailable`."""
    # Asked for now: a closed connection does not tell any more.
    where = _where(connection)
    try:
        yield
    except (
        psycopg.OperationalError,
        psycopg.InterfaceError,
        psycopg.errors.ReadOnlySqlTransaction,
    ) as error:
        raise _unavailable(where, error) from error


def _where(connection: Connection) -> str:
    if connection.closed:
        return "the connection is closed"
    return f"{connection.info.dbname} on {connection.info.host or 'a local socket'}"


def _unavailable(where: str, error: psycopg.Error) -> BackendUnavailable:
    reason = (str(error).strip().splitlines() or ["no reason given"])[0].rstrip(".")
    return BackendUnavailable(
        "database_unavailable",
        f"Postgres does not answer ({where}): {reason}.",
        "Start it, or correct DATABASE_URL; `vuemantics doctor` checks both.",
    )
