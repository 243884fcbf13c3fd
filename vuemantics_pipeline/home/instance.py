"""The Dagster instance of a home: its folder, its tables' schema, and the environment it needs."""

import shutil
from importlib import resources
from pathlib import Path

import psycopg
from psycopg import sql
from pydantic import AliasChoices, SecretStr
from sqlalchemy.engine import URL, make_url

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline.ledger.connection import Connection, connect, libpq_url
from vuemantics_pipeline.settings import Settings

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
            shutil.copyfile(_packaged(name), folder / name)
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
    """Return the URL under which Dagster's storage finds its own schema of the same database."""
    url: URL = make_url(libpq_url(database_url)).set(drivername="postgresql+psycopg2")
    given = url.query.get("options", ())
    options = [given] if isinstance(given, str) else [*given]
    options.append(f"-c search_path={SCHEMA}")
    url = url.update_query_dict({"options": " ".join(options)})
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


def _packaged(name: str) -> Path:
    return Path(str(resources.files(__package__) / name))


def _as_environment(settings: Settings) -> dict[str, str]:
    """Every setting under the name of its variable, except the password-bearing DATABASE_URL."""
    return {
        str(field.validation_alias.choices[0]): str(value)
        for name, field in Settings.model_fields.items()
        if isinstance(field.validation_alias, AliasChoices)
        and (value := getattr(settings, name)) is not None
        and not isinstance(value, SecretStr)
    }
