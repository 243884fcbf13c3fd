"""Brings a database up to what the pipeline needs. Safe to run twice, and by two at once."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable

import psycopg
from psycopg import sql

from vuemantics_pipeline.errors import BackendUnavailable, UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries

ANALYST_ROLE = "vuemantics_analyst"
"""Group role whose members may read the views for analysts, and nothing else of ours."""

_MIGRATIONS = resources.files(__package__) / "migrations"
_NUMBERED = re.compile(r"^(\d{4})_(\w+)\.sql$")
_SQL = queries("schema")
_TABLES = ("users", "upload_batches", "uploads")


@dataclass(frozen=True)
class Migration:
    """What `migrate` did.

    Attributes:
        created_tables: the database was empty, so the application's tables were created.
        applied: names of the migrations applied now, in order.
        listening: the trigger that wakes the sensor is in place; else it polls every second.
        analysts: `ANALYST_ROLE` is there and may read the views.
    """

    created_tables: bool
    applied: tuple[str, ...]
    listening: bool
    analysts: bool


def migrate(connection: Connection, *, dimension: int) -> Migration:
    """Create what is missing; never alter what is there.

    Args:
        dimension: of `uploads.embedding_local`, used only where that table is created here.

    Raises:
        UsageError: some of the application's tables are there and others are not.
        BackendUnavailable: the role may not create a schema, or pgvector is not installed.
    """
    with _explained(connection), connection.transaction():
        connection.execute(_SQL["lock_migrations"])
        created = _create_application_tables(connection, dimension)
        if connection.execute(_SQL["has_schema"]).fetchone() is None:
            connection.execute(_SQL["create_schema"])
        done = {number for (number,) in connection.execute(_SQL["applied_migrations"])}
        applied = []
        for number, file in _numbered_files():
            if number not in done:
                connection.execute(file.read_bytes())
                connection.execute(_SQL["record_migration"], {"number": number, "name": file.name})
                applied.append(file.name)
        listening = _attach_trigger(connection)
        analysts = _admit_analysts(connection)
    return Migration(created, tuple(applied), listening, analysts)


def is_migrated(connection: Connection) -> bool:
    """Say whether every migration of this version has been applied.

    Raises:
        BackendUnavailable: the role may not look.
    """
    with _explained(connection):
        if connection.execute(_SQL["has_schema"]).fetchone() is None:
            return False
        done = {number for (number,) in connection.execute(_SQL["applied_migrations"])}
    return done >= {number for number, _ in _numbered_files()}


def column_dimension(connection: Connection) -> int | None:
    """Return the dimension of `uploads.embedding_local`, or None where it has none."""
    row = connection.execute(_SQL["column_dimension"]).fetchone()
    return row[0] if row and row[0] > 0 else None


def _numbered_files() -> list[tuple[int, Traversable]]:
    matches = ((_NUMBERED.match(file.name), file) for file in _MIGRATIONS.iterdir())
    return sorted(
        ((int(match[1]), file) for match, file in matches if match), key=lambda pair: pair[0]
    )


def _create_application_tables(connection: Connection, dimension: int) -> bool:
    present = [
        name for (name,) in connection.execute(_SQL["present_tables"], {"names": [*_TABLES]})
    ]
    if len(present) == len(_TABLES):
        return False
    if present:
        raise UsageError(
            "incomplete_database",
            f"The database has {', '.join(present)} but not the application's other tables.",
            "Start the application once so that it creates them, or use an empty database.",
        )
    text = (_MIGRATIONS / "application_tables.sql").read_text()
    connection.execute(sql.SQL(text).format(dimension=sql.Literal(dimension)))
    return True


def _attach_trigger(connection: Connection) -> bool:
    try:
        with connection.transaction():
            connection.execute(_SQL["attach_trigger"])
    except (psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable):
        return connection.execute(_SQL["has_trigger"]).fetchone() is not None
    return True


def _admit_analysts(connection: Connection) -> bool:
    """Let the analysts' role read the views, as far as the own role may see to that."""
    key = {"role": ANALYST_ROLE}
    role = sql.Identifier(ANALYST_ROLE)
    if connection.execute(_SQL["has_role"], key).fetchone() is None:
        # Roles belong to the whole server: another database's migration may create it just now.
        taken = (psycopg.errors.DuplicateObject, psycopg.errors.UniqueViolation)
        refused = (psycopg.errors.InsufficientPrivilege, psycopg.errors.LockNotAvailable)
        with suppress(*taken, *refused), connection.transaction():
            connection.execute(sql.SQL(_SQL["create_analyst_role"]).format(role=role))
    if connection.execute(_SQL["has_role"], key).fetchone() is not None:
        with suppress(psycopg.errors.InsufficientPrivilege), connection.transaction():
            connection.execute(sql.SQL(_SQL["grant_views"]).format(role=role))
    return connection.execute(_SQL["may_read_views"], key).fetchone() is not None


@contextmanager
def _explained(connection: Connection) -> Iterator[None]:
    """Turn what Postgres refuses during a migration into an error with a remedy."""
    try:
        yield
    except (psycopg.errors.UndefinedFile, psycopg.errors.FeatureNotSupported) as error:
        raise BackendUnavailable(
            "pgvector_missing",
            "The Postgres server has no pgvector extension.",
            "Install pgvector for this server (Debian: postgresql-NN-pgvector).",
        ) from error
    except psycopg.errors.UndefinedObject as error:
        raise BackendUnavailable(
            "pgvector_too_old",
            f"The server's pgvector cannot do what is needed: {error.diag.message_primary}.",
            "Install pgvector 0.5 or later, then ALTER EXTENSION vector UPDATE.",
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        role = connection.info.user
        raise BackendUnavailable(
            "missing_privilege",
            f"The role {role} may not prepare the database: {error.diag.message_primary}.",
            _grant(connection, role),
        ) from error


def _grant(connection: Connection, role: str) -> str:
    """What gives a role the privilege it lacks."""
    if connection.execute(_SQL["schema_is_there"]).fetchone() is None:
        database = connection.info.dbname
        return (
            f"GRANT CREATE ON DATABASE {database} TO {role}, "
            "or let its owner run `vuemantics migrate`."
        )
    return (
        f"GRANT USAGE ON SCHEMA vuemantics_pipeline TO {role}, and SELECT, INSERT, UPDATE ON ALL "
        "TABLES and EXECUTE ON ALL FUNCTIONS IN SCHEMA vuemantics_pipeline; let its owner run "
        "`vuemantics migrate` after every upgrade."
    )
