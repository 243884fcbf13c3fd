"""What `vuemantics doctor` looks at, one function for each thing."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.analysis.build import build_analyzer
from vuemantics_pipeline.errors import BackendUnavailable, PipelineError
from vuemantics_pipeline.home.database import database
from vuemantics_pipeline.home.instance import prepare_instance
from vuemantics_pipeline.ledger.connection import Connection, connect, without_password
from vuemantics_pipeline.ledger.migrate import column_dimension, is_migrated
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.vectors import check_space
from vuemantics_pipeline.settings import Settings

_SQL = queries("status")
_LITTLE_SPACE_BYTES = 1024**3


@dataclass(frozen=True)
class Check:
    """One thing looked at.

    Attributes:
        detail: what was found.
        remedy: what to do, "" where all is well.
    """

    name: str
    ok: bool
    detail: str
    remedy: str = ""


def examine(settings: Settings) -> list[Check]:
    """Look at everything; a failing check does not keep the others from being made.

    Nothing of the application's is changed.
    """
    analyzer = build_analyzer(settings)
    try:
        with database(settings) as url, connect(url) as connection:
            in_database = [
                *_database(connection, url),
                _vectors(connection, settings, analyzer),
                _dagster(settings, url),
            ]
    except PipelineError as error:
        in_database = [
            Check("database", False, error.message, error.remedy),
            *(
                Check(name, False, "Not looked at: no database.", "Mend the database first.")
                for name in ("migrations", "pgvector", "vector_dimension", "dagster")
            ),
        ]
    *database_checks, dagster = in_database
    return [
        *database_checks,
        _upload_path(settings.uploads),
        _attempt("analyzer", analyzer.check),
        dagster,
    ]


def _database(connection: Connection, url: str) -> list[Check]:
    row = connection.execute(_SQL["server"]).fetchone()
    assert row is not None
    version, installed, available = row
    if installed:
        pgvector = Check("pgvector", True, f"pgvector {installed}")
    elif available:
        remedy = "Run `vuemantics migrate`, or CREATE EXTENSION vector as a superuser."
        pgvector = Check("pgvector", False, "Available, but not created in this database.", remedy)
    else:
        remedy = "Install pgvector for this server (Debian: postgresql-NN-pgvector)."
        pgvector = Check("pgvector", False, "The server does not have it.", remedy)
    return [
        Check("database", True, f"PostgreSQL {version}, {without_password(url)}"),
        Check("migrations", True, "All applied.")
        if is_migrated(connection)
        else Check("migrations", False, "Not all applied.", "Run `vuemantics migrate`."),
        pgvector,
    ]


def _vectors(connection: Connection, settings: Settings, analyzer: Analyzer) -> Check:
    def look() -> str:
        check_space(connection, analyzer.identity, application_model=settings.embedding_model)
        return f"{column_dimension(connection) or 'any'} ({analyzer.identity.embedding_model})"

    if not is_migrated(connection):
        return Check(
            "vector_dimension", False, "There are no vectors yet.", "Run `vuemantics migrate`."
        )
    return _attempt("vector_dimension", look)


def _upload_path(folder: Path) -> Check:
    name = "upload_path"
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        remedy = "Make it a folder that you may write to, or set UPLOAD_PATH to one."
        return Check(name, False, f"{folder} cannot be written.", remedy)
    free = shutil.disk_usage(existing).free
    state = "exists" if existing == folder else "will be created"
    detail = f"{folder} {state}; {free / 1024**3:.1f} GB free"
    if free < _LITTLE_SPACE_BYTES:
        return Check(name, False, detail, "Free some space there.")
    return Check(name, True, detail)


def _dagster(settings: Settings, url: str) -> Check:
    """Load the instance and ask its storage, in a process of its own as Dagster's always are."""

    def look() -> str:
        environment = os.environ | prepare_instance(settings, url)
        command = [sys.executable, "-m", "dagster", "run", "list", "--limit", "1"]
        asked = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        if asked.returncode:
            reason = (asked.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise BackendUnavailable(
                "dagster_unavailable",
                f"The Dagster instance does not load: {reason}",
                f"Look at {settings.home / 'dagster' / 'dagster.yaml'} and the database's log.",
            )
        return f"The instance in {settings.home / 'dagster'} loads and its storage answers."

    return _attempt("dagster", look)


def _attempt(name: str, look: Callable[[], str]) -> Check:
    try:
        return Check(name, True, look())
    except PipelineError as error:
        return Check(name, False, error.message, error.remedy)
