"""The Dagster instance of a home: its folder, its tables' schema, and the environment it needs."""

import os
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict
from pydantic import SecretStr
from sqlalchemy.engine import URL

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline.ledger.connection import Connection, connect, libpq_url
from vuemantics_pipeline.settings import Settings, variable

SCHEMA = "vuemantics_dagster"
"""Dagster's own tables live in the database of record, in a schema apart."""

_FILES = ("dagster.yaml", "workspace.yaml")


def prepare_instance(settings: Settings, database_url: str) -> dict[str, str]:
    """Make a home ready for Dagster, and return the environment its processes need.

    It names every setting as it is in use, the database as it was resolved, and a free port for
    the code server; the rest is inherited from the caller's environment.

    Raises:
        BackendUnavailable: the database cannot be reached, or the home cannot be written.
    """
    folder = settings.home / "dagster"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name in _FILES:
            _copy_if_changed(resources.files(__package__) / name, folder / name)
    except OSError as error:
        raise home_unusable(settings.home, error) from error
    with connect(database_url) as connection:
        _create_schema(connection)
    return _as_environment(settings) | {
        "DATABASE_URL": database_url,
        "UPLOAD_PATH": str(settings.uploads),
        "DAGSTER_HOME": str(folder),
        "DAGSTER_POSTGRES_URL": dagster_url(database_url),
        "DAGSTER_DISABLE_TELEMETRY": "1",
        "VUEMANTICS_CODE_SERVER_PORT": str(free_port()),
    }


def dagster_url(database_url: str) -> str:
    """Return the URL under which Dagster's storage finds its own schema of the same database.

    Raises:
        UsageError: the URL is not one of PostgreSQL.
    """
    parameters = conninfo_to_dict(libpq_url(database_url))
    given = {name: str(value) for name, value in parameters.items()}
    options = f"{given.get('options', '')} -c search_path={SCHEMA}".strip()
    # As a query every parameter reaches the driver just as libpq understood it.
    url = URL.create("postgresql+psycopg2", query=given | {"options": options})
    return url.render_as_string(hide_password=False)


def home_unusable(home: Path, error: OSError) -> BackendUnavailable:
    return BackendUnavailable(
        "home_unusable",
        f"The home {home} cannot be written: {error.strerror}.",
        "Name a folder that you may write to with --home or VUEMANTICS_HOME.",
    )


def _create_schema(connection: Connection) -> None:
    # "IF NOT EXISTS" would ask for the privilege even where the schema is there.
    if connection.execute("SELECT to_regnamespace(%s)", [SCHEMA]).fetchone() != (None,):
        return
    try:
        connection.execute(sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(SCHEMA)))
    except psycopg.errors.InsufficientPrivilege as error:
        role = connection.info.user
        raise BackendUnavailable(
            "missing_privilege",
            f"The role {role} may not create the schema {SCHEMA} for Dagster's own tables.",
            f"GRANT CREATE ON DATABASE to {role}, or create it: "
            f"CREATE SCHEMA {SCHEMA} AUTHORIZATION {role}.",
        ) from error


def _copy_if_changed(source: Traversable, target: Path) -> None:
    """Copy a small file at one stroke: processes of a running instance may be reading it."""
    content = source.read_bytes()
    if not target.exists() or target.read_bytes() != content:
        part = target.with_suffix(f".{os.getpid()}")
        part.write_bytes(content)
        part.replace(target)


def _as_environment(settings: Settings) -> dict[str, str]:
    """Every setting under the name of its variable, except secrets: those are inherited."""
    return {
        variable(name): ",".join(value) if isinstance(value, tuple) else str(value)
        for name in Settings.model_fields
        if (value := getattr(settings, name)) is not None and not isinstance(value, SecretStr)
    }
