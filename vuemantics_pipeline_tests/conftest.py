"""Fixtures for all tests: a Postgres server, and a fresh database on it."""

import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from vuemantics_pipeline.home.postgres import embedded_postgres
from vuemantics_pipeline.home.processes import Service, supervise
from vuemantics_pipeline_tests import support


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """The URL of an embedded server: one for each worker of pytest-xdist, gone at the end."""
    # Not under tmp_path: as root the server runs as somebody else, to whom pytest's are closed.
    home = Path(tempfile.mkdtemp(prefix="vuemantics-tests-"))
    # Stops the server when this process is killed.
    keeper = Service(
        "keeper", (sys.executable, "-m", "vuemantics_pipeline.home.postgres", str(home))
    )
    try:
        with supervise([keeper], logs=home / "logs"), embedded_postgres(home) as url:
            with psycopg.connect(url, autocommit=True) as connection:
                for setting in ("fsync", "synchronous_commit", "full_page_writes"):
                    connection.execute(
                        sql.SQL("ALTER SYSTEM SET {} = off").format(sql.Identifier(setting))
                    )
                connection.execute("SELECT pg_reload_conf()")
            yield url
    finally:
        shutil.rmtree(home)


@pytest.fixture
def database_url(postgres_server: str) -> Iterator[str]:
    """The URL of an empty database of the test's own."""
    with support.empty_database(postgres_server) as url:
        yield url
