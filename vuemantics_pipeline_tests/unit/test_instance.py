"""The URL under which Dagster finds its own schema in the database of record."""

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy.dialects.postgresql.psycopg2 import PGDialect_psycopg2
from sqlalchemy.engine import make_url

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.home.instance import dagster_url


def connect_arguments(url: str) -> dict[str, str]:
    """What SQLAlchemy hands to the driver."""
    _, arguments = PGDialect_psycopg2().create_connect_args(make_url(url))  # type: ignore[no-untyped-call]
    return {name: str(value) for name, value in arguments.items()}


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://ada:p%40ss%2Fw%3Fo%23rd@db.example.org:6432/vue%20mantics",
        "postgres://ada@db.example.org/vuemantics?sslmode=require",
        "postgresql+asyncpg://ada:x@db.example.org/vuemantics",
        "postgresql://%2Fsrv%2Fvue%2Fpostgres/vuemantics",
        "postgresql://one.example.org:5432,two.example.org:5433/vuemantics",
        "postgresql://postgres@/vuemantics?host=/srv/vue/postgres&port=5432",
    ],
)
def test_the_same_database_with_a_schema_of_its_own(url: str) -> None:
    derived = dagster_url(url)

    assert derived.startswith("postgresql+psycopg2://")
    arguments = connect_arguments(derived)
    expected = conninfo_to_dict(url.replace("+asyncpg", ""))
    assert arguments.pop("options") == "-c search_path=vuemantics_dagster"
    assert arguments == {name: str(value) for name, value in expected.items()}


def test_options_that_were_given_are_kept() -> None:
    derived = dagster_url("postgresql://ada@db/vuemantics?options=-c%20statement_timeout%3D5s")

    options = connect_arguments(derived)["options"]
    assert options == "-c statement_timeout=5s -c search_path=vuemantics_dagster"


def test_a_url_of_another_kind() -> None:
    with pytest.raises(UsageError):
        dagster_url("mysql://ada@db/vuemantics")
