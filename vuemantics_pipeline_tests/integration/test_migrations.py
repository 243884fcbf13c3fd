"""Preparing a database: what is created, twice, by several at once, and what stops it."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from psycopg import sql

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.ledger import uploads
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.migrate import Migration, column_dimension, is_migrated, migrate
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.integration.application_schemas import Catalogue, catalogue

OURS = "vuemantics_pipeline"

Columns = list[tuple[str, str, bool, str | None]]
"""(name, type, may be NULL, default), in order."""

USERS: Columns = [
    ("id", "uuid", False, "gen_random_uuid()"),
    ("email", "character varying(320)", False, None),
    ("password_hash", "text", False, None),
    ("is_active", "boolean", False, "true"),
    ("token_version", "integer", False, "0"),
    ("created_at", "timestamp with time zone", False, "now()"),
    ("updated_at", "timestamp with time zone", False, "now()"),
]
UPLOAD_BATCHES: Columns = [
    ("id", "uuid", False, "gen_random_uuid()"),
    ("user_id", "uuid", False, None),
    ("status", "character varying(20)", False, "'pending'::character varying"),
    ("total_uploads", "integer", False, "0"),
    ("processed_uploads", "integer", False, "0"),
    ("successful_uploads", "integer", False, "0"),
    ("failed_uploads", "integer", False, "0"),
    ("error_message", "text", True, None),
    ("created_at", "timestamp with time zone", True, "now()"),
    ("updated_at", "timestamp with time zone", True, "now()"),
    ("started_at", "timestamp with time zone", True, None),
    ("completed_at", "timestamp with time zone", True, None),
]
UPLOADS: Columns = [
    ("id", "uuid", False, "gen_random_uuid()"),
    ("user_id", "uuid", False, None),
    ("filename", "text", False, None),
    ("file_path", "text", False, None),
    ("file_type", "character varying(20)", False, None),
    ("file_size", "bigint", False, None),
    ("mime_type", "character varying(100)", False, None),
    ("processing_status", "character varying(20)", False, "'pending'::character varying"),
    ("description", "text", True, None),
    ("description_audit_score", "integer", True, None),
    ("embedding_local", "vector(384)", True, None),
    ("thumbnail_path", "text", True, None),
    ("video_codec", "character varying(20)", True, None),
    ("error_message", "text", True, None),
    ("metadata", "jsonb", False, "'{}'::jsonb"),
    ("hidden", "boolean", False, "false"),
    ("regeneration_count", "integer", False, "0"),
    ("last_regenerated_at", "timestamp with time zone", True, None),
    ("created_at", "timestamp with time zone", True, "now()"),
    ("updated_at", "timestamp with time zone", True, "now()"),
    ("batch_id", "uuid", True, None),
]
INDEXES = {
    "users_pkey": "UNIQUE INDEX users_pkey ON public.users USING btree (id)",
    "users_email_key": "UNIQUE INDEX users_email_key ON public.users USING btree (email)",
    "upload_batches_pkey": (
        "UNIQUE INDEX upload_batches_pkey ON public.upload_batches USING btree (id)"
    ),
    "idx_upload_batches_user_id": (
        "INDEX idx_upload_batches_user_id ON public.upload_batches USING btree (user_id)"
    ),
    "idx_upload_batches_status": (
        "INDEX idx_upload_batches_status ON public.upload_batches USING btree (status)"
    ),
    "idx_upload_batches_created_at": (
        "INDEX idx_upload_batches_created_at ON public.upload_batches USING btree (created_at DESC)"
    ),
    "uploads_pkey": "UNIQUE INDEX uploads_pkey ON public.uploads USING btree (id)",
    "idx_uploads_batch_id": "INDEX idx_uploads_batch_id ON public.uploads USING btree (batch_id)",
    "idx_uploads_user_id": "INDEX idx_uploads_user_id ON public.uploads USING btree (user_id)",
    "idx_uploads_embedding_local": (
        "INDEX idx_uploads_embedding_local ON public.uploads"
        " USING hnsw (embedding_local vector_cosine_ops)"
    ),
}
FOREIGN_KEYS = {
    ("upload_batches", "FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE"),
    ("uploads", "FOREIGN KEY (user_id) REFERENCES users(id) ON DELETE CASCADE"),
    ("uploads", "FOREIGN KEY (batch_id) REFERENCES upload_batches(id) ON DELETE SET NULL"),
}


@pytest.fixture
def empty(database_url: str) -> Iterator[Connection]:
    """A database with nothing in it."""
    with connect(database_url) as connection:
        yield connection


def columns(connection: Connection, table: str) -> Columns:
    return connection.execute(
        "SELECT attname, format_type(atttypid, atttypmod), NOT attnotnull,"
        " pg_get_expr(adbin, adrelid) FROM pg_attribute AS a"
        " LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum"
        " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped ORDER BY attnum",
        (table,),
    ).fetchall()


def both(connection: Connection) -> tuple[Catalogue, Catalogue]:
    return catalogue(connection), catalogue(connection, OURS)


def test_an_empty_database_gets_the_applications_tables(empty: Connection) -> None:
    assert not is_migrated(empty)

    done = migrate(empty, dimension=384)

    assert done == Migration(True, support.MIGRATIONS, listening=True, analysts=True)
    assert is_migrated(empty)
    assert columns(empty, "users") == USERS
    assert columns(empty, "upload_batches") == UPLOAD_BATCHES
    assert columns(empty, "uploads") == UPLOADS
    indexes: dict[str, str] = dict(
        empty.execute(
            "SELECT indexname, replace(indexdef, 'CREATE ', '') FROM pg_indexes"
            " WHERE schemaname = 'public'"
        ).fetchall()
    )
    assert indexes == INDEXES
    foreign_keys = empty.execute(
        "SELECT conrelid::regclass::text, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE contype = 'f'"
    ).fetchall()
    assert set(foreign_keys) == FOREIGN_KEYS
    tables = empty.execute(
        "SELECT tablename FROM pg_tables WHERE schemaname = 'public' ORDER BY 1"
    ).fetchall()
    assert tables == [("upload_batches",), ("uploads",), ("users",)]


@pytest.mark.parametrize(
    ("table", "column", "allowed"),
    [
        (
            "upload_batches",
            "status",
            {"pending", "processing", "completed", "failed", "cancelled"},
        ),
        (
            "uploads",
            "processing_status",
            {"pending", "analyzing", "embedding", "completed", "failed"},
        ),
        ("uploads", "file_type", {"image", "video"}),
        ("uploads", "description_audit_score", {0, 100}),
    ],
)
def test_checks(connection: Connection, table: str, column: str, allowed: set[object]) -> None:
    support.add_batch(connection, support.add_user(connection))
    update = sql.SQL("UPDATE {} SET {} = %s").format(sql.Identifier(table), sql.Identifier(column))
    for value in allowed:
        assert connection.execute(update, (value,)).rowcount == 1
    for value in (-1, 101) if isinstance(next(iter(allowed)), int) else ("done", ""):
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute(update, (value,))


def test_a_deleted_user_takes_batches_and_uploads_along(connection: Connection) -> None:
    batch = support.add_batch(connection, support.add_user(connection))
    connection.execute("DELETE FROM upload_batches")
    row = connection.execute("SELECT batch_id FROM uploads").fetchall()
    assert row == [(None,)]
    connection.execute("DELETE FROM users WHERE id = %s", (batch.user_id,))
    assert connection.execute("SELECT count(*) FROM uploads").fetchone() == (0,)


def test_migrating_twice_changes_nothing(empty: Connection) -> None:
    migrate(empty, dimension=384)
    before = both(empty)

    again = migrate(empty, dimension=1024)

    assert again == Migration(False, (), listening=True, analysts=True)
    assert both(empty) == before
    assert column_dimension(empty) == 384


def test_a_migration_whose_record_was_lost_can_be_applied_again(empty: Connection) -> None:
    migrate(empty, dimension=384)
    batch = support.add_batch(empty, support.add_user(empty))
    support.begin(empty, batch.batch_id)
    states = empty.execute("SELECT * FROM vuemantics_pipeline.batch_states").fetchall()
    before = both(empty)
    empty.execute("DELETE FROM vuemantics_pipeline.schema_migrations")
    assert not is_migrated(empty)

    again = migrate(empty, dimension=384)

    assert again == Migration(False, support.MIGRATIONS, listening=True, analysts=True)
    assert both(empty) == before
    assert empty.execute("SELECT * FROM vuemantics_pipeline.batch_states").fetchall() == states


def test_a_database_of_the_first_version_is_brought_up_to_date(empty: Connection) -> None:
    migrate(empty, dimension=384)
    batch = support.add_batch(empty, support.add_user(empty))
    lease = support.begin(empty, batch.batch_id)
    assert uploads.start_attempt(lease, batch.first, support.IDENTITY) is not None
    empty.execute(
        "DROP VIEW vuemantics_pipeline.batch_facts, vuemantics_pipeline.upload_facts,"
        " vuemantics_pipeline.attempt_facts, vuemantics_pipeline.stage_seconds;"
        "DROP TABLE vuemantics_pipeline.media_facts;"
        "ALTER TABLE vuemantics_pipeline.attempts"
        " DROP COLUMN model_digest, DROP COLUMN model_options, DROP COLUMN reused_from;"
        "DELETE FROM vuemantics_pipeline.schema_migrations WHERE number > 1"
    )
    assert not is_migrated(empty)

    assert migrate(empty, dimension=384) == Migration(
        False, support.MIGRATIONS[1:], listening=True, analysts=True
    )

    [attempt] = support.attempts(empty, batch.first)
    assert attempt == (1, None, None)
    assert is_migrated(empty)


def test_several_at_once(database_url: str) -> None:
    together = threading.Barrier(4)

    def prepare(_: int) -> Migration:
        with connect(database_url) as connection:
            together.wait(timeout=60)
            return migrate(connection, dimension=384)

    with ThreadPoolExecutor(4) as pool:
        done = list(pool.map(prepare, range(4)))

    assert sorted(one.created_tables for one in done) == [False, False, False, True]
    assert sorted(one.applied for one in done) == [(), (), (), support.MIGRATIONS]
    assert all(one.listening for one in done)
    with connect(database_url) as connection:
        assert is_migrated(connection)


def test_a_failed_migration_leaves_nothing(empty: Connection) -> None:
    # A type of this name takes the place of one of our tables.
    empty.execute(
        "CREATE SCHEMA vuemantics_pipeline; CREATE TYPE vuemantics_pipeline.attempts AS ()"
    )
    before = both(empty)

    with pytest.raises(psycopg.Error):
        migrate(empty, dimension=384)

    assert both(empty) == before
    assert not is_migrated(empty)


def test_pgvector_is_not_installed(database_url: str) -> None:
    with connect(database_url) as connection:
        # The server looks for extensions there only, as one does where no package brought them.
        connection.execute(
            sql.SQL("ALTER DATABASE {} SET extension_control_path = '/nowhere'").format(
                sql.Identifier(connection.info.dbname)
            )
        )
    with connect(database_url) as connection:
        before = catalogue(connection)
        with pytest.raises(BackendUnavailable) as refused:
            migrate(connection, dimension=384)
        assert catalogue(connection) == before
        assert not is_migrated(connection)
    assert refused.value.code == "pgvector_missing"
    assert "pgvector" in refused.value.message
    assert refused.value.remedy.startswith("Install pgvector")


def test_a_role_that_may_not_create_extensions(empty: Connection, database_url: str) -> None:
    with (
        support.new_role(empty) as role,
        connect(support.as_role(database_url, role)) as lesser,
    ):
        with pytest.raises(BackendUnavailable) as refused:
            migrate(lesser, dimension=384)
        assert refused.value.code == "missing_privilege"
        assert role in refused.value.message
        assert "GRANT CREATE ON DATABASE" in refused.value.remedy


def test_a_busy_application_delays_the_trigger_only(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A table locked for longer than we wait: prepared all the same, and polled until next time."""
    with support.connections(database_url, 2) as (connection, application):
        migrate(connection, dimension=384)
        connection.execute("DROP TRIGGER vuemantics_pipeline_notify ON upload_batches")
        monkeypatch.setattr("vuemantics_pipeline.ledger.migrate._SQL", _impatient("attach_trigger"))
        with application.transaction():
            application.execute("LOCK TABLE upload_batches IN ROW EXCLUSIVE MODE")
            assert migrate(connection, dimension=384) == Migration(
                False, (), listening=False, analysts=True
            )
        assert migrate(connection, dimension=384).listening


def _impatient(name: str) -> dict[str, str]:
    text = queries("schema")[name].replace("'5s'", "'50ms'")
    return {**queries("schema"), name: text}


@pytest.mark.parametrize("dimension", [1, 384, 2000])
def test_the_column_has_the_dimension_of_the_analyzer(empty: Connection, dimension: int) -> None:
    migrate(empty, dimension=dimension)

    assert column_dimension(empty) == dimension
    support.add_batch(empty, support.add_user(empty))
    fits = "[" + ",".join(["1"] * dimension) + "]"
    empty.execute("UPDATE uploads SET embedding_local = %s::vector", (fits,))
    with pytest.raises(psycopg.errors.DataException):
        empty.execute("UPDATE uploads SET embedding_local = %s::vector", ("[1,1,1]",))


def test_a_column_without_a_dimension(connection: Connection) -> None:
    connection.execute("ALTER TABLE uploads ALTER embedding_local TYPE vector")
    assert column_dimension(connection) is None


def test_the_hnsw_index_serves_cosine_searches(connection: Connection) -> None:
    connection.execute("SET enable_seqscan = off")
    plan = connection.execute(
        "EXPLAIN SELECT id FROM uploads ORDER BY embedding_local <=> %s::vector LIMIT 1",
        ("[1" + ",0" * (support.DIMENSION - 1) + "]",),
    ).fetchall()
    assert any("idx_uploads_embedding_local" in line for (line,) in plan)


def test_our_schema_points_at_none_of_the_applications_tables(connection: Connection) -> None:
    assert (
        connection.execute(
            "SELECT conname FROM pg_constraint"
            " WHERE contype = 'f' AND connamespace = 'vuemantics_pipeline'::regnamespace"
        ).fetchall()
        == []
    )
