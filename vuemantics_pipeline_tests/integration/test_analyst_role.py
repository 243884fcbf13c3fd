"""The role of analysts reads four views, and nothing else of ours or the application's."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql
from typer.testing import CliRunner

from vuemantics_pipeline.cli import app
from vuemantics_pipeline.ledger import migrate as module
from vuemantics_pipeline.ledger import uploads
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.migrate import ANALYST_ROLE, Migration, migrate
from vuemantics_pipeline_tests import support

VIEWS = ("attempt_facts", "batch_facts", "stage_seconds", "upload_facts")


@pytest.fixture
def batch(connection: Connection, worker: Connection) -> support.NewBatch:
    """A batch with one upload done."""
    added = support.add_batch(connection, support.add_user(connection))
    lease = support.begin(worker, added.batch_id)
    attempt = uploads.start_attempt(lease, added.first, support.IDENTITY)
    assert attempt is not None
    uploads.complete(lease, attempt, support.outcome())
    return added


@pytest.fixture
def analyst(connection: Connection, database_url: str) -> Iterator[Connection]:
    """The session of somebody who is a member of the analysts' role and nothing else."""
    with support.new_role(connection) as role:
        connection.execute(
            sql.SQL("GRANT {} TO {}").format(sql.Identifier(ANALYST_ROLE), sql.Identifier(role))
        )
        with connect(support.as_role(database_url, role)) as session:
            yield session


@pytest.fixture
def another_name(monkeypatch: pytest.MonkeyPatch, connection: Connection) -> Iterator[str]:
    """A name for the analysts' role that no other test uses: roles belong to the whole server."""
    name = f"analysts_{uuid4().hex}"
    monkeypatch.setattr(module, "ANALYST_ROLE", name)
    yield name
    role = sql.Identifier(name)
    if connection.execute("SELECT FROM pg_roles WHERE rolname = %s", (name,)).fetchone():
        connection.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(role, role))


def refused(session: Connection, statement: sql.SQL | sql.Composed) -> bool:
    try:
        with session.transaction(force_rollback=True):
            session.execute(statement)
    except psycopg.errors.InsufficientPrivilege:
        return True
    return False


@pytest.mark.parametrize("view", VIEWS)
def test_the_views_can_be_read(batch: support.NewBatch, analyst: Connection, view: str) -> None:
    rows = analyst.execute(
        sql.SQL("SELECT * FROM {}").format(sql.Identifier("vuemantics_pipeline", view))
    ).fetchall()
    assert rows


@pytest.mark.parametrize("view", VIEWS)
def test_the_views_can_only_be_read(connection: Connection, analyst: Connection, view: str) -> None:
    name = sql.Identifier("vuemantics_pipeline", view)
    for statement in ("DELETE FROM {}", "INSERT INTO {} DEFAULT VALUES", "DROP VIEW {}"):
        with pytest.raises(psycopg.Error), analyst.transaction():
            analyst.execute(sql.SQL(statement).format(name))


def test_no_other_relation_can_be_read(
    connection: Connection, analyst: Connection, database_url: str
) -> None:
    connection.execute("CREATE SCHEMA vuemantics_dagster; CREATE TABLE vuemantics_dagster.runs ()")
    relations = connection.execute(
        "SELECT relnamespace::regnamespace::text, relname FROM pg_class"
        " WHERE relkind IN ('r', 'p', 'v', 'm', 'f') AND relnamespace::regnamespace::text"
        " NOT IN ('pg_catalog', 'information_schema', 'pg_toast')"
    ).fetchall()
    readable = {
        (schema, name)
        for schema, name in relations
        if not refused(
            analyst, sql.SQL("SELECT FROM {}").format(sql.Identifier(str(schema), str(name)))
        )
    }
    assert {("public", "users"), ("public", "uploads"), ("vuemantics_dagster", "runs")} < {
        *relations
    }
    assert readable == {("vuemantics_pipeline", view) for view in VIEWS}


def test_nothing_can_be_changed_or_added(analyst: Connection) -> None:
    for statement in (
        "UPDATE public.users SET is_active = false",
        "UPDATE public.uploads SET hidden = true",
        "DELETE FROM vuemantics_pipeline.attempts",
        "CREATE TABLE vuemantics_pipeline.mine ()",
        "CREATE TABLE public.mine ()",
        "CREATE SCHEMA mine",
        "CREATE ROLE mine",
    ):
        assert refused(analyst, sql.SQL(statement)), statement


def test_only_the_functions_of_the_views_can_be_called(
    connection: Connection, analyst: Connection
) -> None:
    """Those two read nothing: they pick columns from a row that the caller must have already."""
    may_call = connection.execute(
        "SELECT proname, has_function_privilege(%s, oid, 'EXECUTE') FROM pg_proc"
        " WHERE pronamespace = 'vuemantics_pipeline'::regnamespace ORDER BY 1",
        (analyst.info.user,),
    ).fetchall()
    assert may_call == [
        ("batch_columns", True),
        ("lease_is_held", False),
        ("lease_key", False),
        ("notify_batch", False),
        ("upload_columns", True),
    ]
    assert refused(analyst, sql.SQL("SELECT vuemantics_pipeline.lease_is_held(gen_random_uuid())"))


def test_no_secret_and_no_address_is_in_the_views(connection: Connection) -> None:
    columns = {
        name
        for (name,) in connection.execute(
            "SELECT attname FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid"
            " WHERE c.relnamespace = 'vuemantics_pipeline'::regnamespace AND c.relkind = 'v'"
        )
    }
    assert "user_id" in columns
    assert not columns & {"email", "password_hash", "token_version", "description", "visible_text"}


def test_somebody_who_is_no_member_reads_nothing(connection: Connection, database_url: str) -> None:
    with (
        support.new_role(connection) as role,
        connect(support.as_role(database_url, role)) as stranger,
    ):
        for view in VIEWS:
            name = sql.Identifier("vuemantics_pipeline", view)
            assert refused(stranger, sql.SQL("SELECT FROM {}").format(name))


def test_the_role_itself_cannot_log_in(connection: Connection) -> None:
    assert connection.execute(
        "SELECT rolcanlogin, rolsuper, rolcreaterole, rolcreatedb FROM pg_roles WHERE rolname = %s",
        (ANALYST_ROLE,),
    ).fetchone() == (False, False, False, False)


def test_privileges_that_were_lost_come_back(connection: Connection) -> None:
    role = sql.Identifier(ANALYST_ROLE)
    connection.execute(
        sql.SQL("REVOKE ALL ON ALL TABLES IN SCHEMA vuemantics_pipeline FROM {}").format(role)
    )
    assert migrate(connection, dimension=support.DIMENSION) == Migration(
        False, (), listening=True, analysts=True
    )


def test_a_role_that_may_not_create_roles(
    connection: Connection,
    database_url: str,
    another_name: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It migrates all the same; once somebody has created the role, the owner grants the rest."""
    with support.new_role(connection) as owner:
        connection.execute("DROP SCHEMA vuemantics_pipeline CASCADE")
        connection.execute(
            sql.SQL(
                "GRANT CREATE ON DATABASE {} TO {owner};"
                "GRANT SELECT, UPDATE, TRIGGER ON upload_batches, uploads TO {owner}"
            ).format(sql.Identifier(connection.info.dbname), owner=sql.Identifier(owner))
        )
        with connect(support.as_role(database_url, owner)) as lesser:
            first = migrate(lesser, dimension=support.DIMENSION)
            assert (first.applied, first.analysts) == (support.MIGRATIONS, False)
            monkeypatch.setenv("DATABASE_URL", support.as_role(database_url, owner))
            monkeypatch.setenv("VUEMANTICS_ANALYZER", "none")
            said = CliRunner().invoke(app, ["migrate"])
            assert said.exit_code == 0
            assert f"    CREATE ROLE {another_name} NOLOGIN;\n" in said.stdout

            connection.execute(
                sql.SQL("CREATE ROLE {} NOLOGIN").format(sql.Identifier(another_name))
            )
            assert migrate(lesser, dimension=support.DIMENSION).analysts


@pytest.mark.usefixtures("another_name")
def test_several_databases_of_a_server_at_once(postgres_server: str) -> None:
    """Each creates the role of the whole server: one of them does, and none fails."""

    def prepare(url: str) -> Migration:
        with connect(url) as session:
            return migrate(session, dimension=support.DIMENSION)

    with ExitStack() as stack:
        urls = [stack.enter_context(support.empty_database(postgres_server)) for _ in range(3)]
        with ThreadPoolExecutor(len(urls)) as pool:
            assert all(done.analysts for done in pool.map(prepare, urls))
