"""On the application's own database, in each of its variants: nothing altered, everything works."""

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
from psycopg import sql

from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UsageError
from vuemantics_pipeline.ledger import batches, counters, ingestion, vectors
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.ingestion import NewUpload
from vuemantics_pipeline.ledger.migrate import Migration, column_dimension, is_migrated, migrate
from vuemantics_pipeline.status.batches import get_batch
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.integration.application_schemas import (
    DIMENSION,
    VARIANTS,
    Catalogue,
    Variant,
    catalogue,
    create_application_database,
    uncovered_pairs,
)
from vuemantics_pipeline_tests.support import BatchRow

OUR_TRIGGER = "upload_batches.vuemantics_pipeline_notify"
ANY = VARIANTS[2]
TABLES = ("users", "upload_batches", "uploads")
FILES = {"a.jpg": support.photo(), "bad.jpg": b"not a photo at all", "c.jpg": support.photo(9, 9)}
ANALYZER = ConstantAnalyzer(DIMENSION)


@pytest.fixture(params=VARIANTS, ids=str)
def variant(request: pytest.FixtureRequest) -> Variant:
    """Each shape of the application's database."""
    found: Variant = request.param
    return found


@pytest.fixture
def application(database_url: str, variant: Variant) -> Iterator[Connection]:
    """The application's database in one variant; the pipeline has never seen it."""
    with connect(database_url) as creator:
        create_application_database(creator, variant)
    with connect(database_url) as connection:
        yield connection


only_one = pytest.mark.parametrize("variant", [ANY], ids=str, indirect=False)


def rows(connection: Connection) -> list[list[tuple[object, ...]]]:
    """All rows of the application, with the version of each."""
    return [
        connection.execute(
            sql.SQL("SELECT xmin::text, t::text FROM {} AS t ORDER BY id").format(
                sql.Identifier(table)
            )
        ).fetchall()
        for table in TABLES
    ]


def now(connection: Connection) -> datetime:
    row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    moment: datetime = row[0]
    return moment.astimezone(UTC)


def names(things: Catalogue) -> list[tuple[str, ...]]:
    return sorted(thing[:2] for thing in things)


def grant(connection: Connection, privilege: str, role: str, verb: str = "GRANT") -> None:
    """GRANT, or with another verb REVOKE, something like 'SELECT ON users'."""
    direction = "TO" if verb == "GRANT" else "FROM"
    connection.execute(sql.SQL(f"{verb} {privilege} {direction} {{}}").format(sql.Identifier(role)))


def test_variants_meet_pairwise() -> None:
    assert uncovered_pairs() == set()


def test_migrating_adds_one_trigger_and_nothing_else(
    application: Connection, variant: Variant
) -> None:
    user_id = support.add_user(application)
    support.add_batch(application, user_id, files=("a.jpg", "b.jpg"))
    before, rows_before = catalogue(application), rows(application)

    first = migrate(application, dimension=DIMENSION)
    second = migrate(application, dimension=DIMENSION)

    after = catalogue(application)
    assert names(after - before) == [("trigger", OUR_TRIGGER)]
    assert before - after == set()
    assert rows(application) == rows_before
    assert (first.created_tables, first.listening) == (False, True)
    assert first.applied == support.MIGRATIONS
    assert second == Migration(created_tables=False, applied=(), listening=True, analysts=True)
    assert is_migrated(application)


@only_one
def test_a_dimension_given_does_not_touch_the_applications_column(
    application: Connection, variant: Variant
) -> None:
    migrate(application, dimension=384)

    assert column_dimension(application) == DIMENSION
    with pytest.raises(UsageError, match="holds 1024") as refused:
        vectors.check_space(application, support.IDENTITY, application_model="bge-m3")
    assert refused.value.code == "wrong_dimension"


def test_a_whole_batch(application: Connection, variant: Variant, tmp_path: Path) -> None:
    user_id = support.add_user(application)
    batch = support.add_batch(application, user_id, files=FILES, uploads_root=tmp_path)
    migrate(application, dimension=DIMENSION)
    before = now(application)

    closed = support.run_batch(application, batch.batch_id, tmp_path, ANALYZER)

    after = now(application)
    assert (closed.total, closed.successful, closed.failed, closed.unfinished) == (3, 2, 1, 0)
    assert support.batch_row(application, batch.batch_id) == BatchRow(
        "completed", 3, 3, 2, 1, "1 of 3 uploads failed.", started=True, ended=True
    )
    status, message = support.upload_state(application, batch.uploads["bad.jpg"])
    assert status == "failed"
    assert message is not None
    assert message.startswith("The file is text")
    done = application.execute(
        "SELECT description <> '', description_audit_score, vector_dims(embedding_local),"
        " thumbnail_path, error_message FROM uploads WHERE processing_status = 'completed'"
    ).fetchall()
    thumbnails = {f"{user_id}/{batch.uploads[name]}/thumb_256.jpg" for name in ("a.jpg", "c.jpg")}
    assert {row[3] for row in done} == thumbnails
    assert [(row[0], row[2], row[4]) for row in done] == [(True, DIMENSION, None)] * 2
    # Read with the session's own zone, as the application does, and as we do.
    in_time = application.execute(
        "SELECT %(before)s <= started_at AND started_at <= completed_at"
        " AND completed_at <= %(after)s AND completed_at <= updated_at"
        " FROM upload_batches",
        {"before": before, "after": after},
    ).fetchall()
    assert in_time == [(True,)]
    record = get_batch(application, batch.batch_id)
    assert record.started_at is not None
    assert record.completed_at is not None
    assert record.created_at <= before <= record.started_at <= record.completed_at <= after


def test_readiness_and_grace_in_every_zone(application: Connection, variant: Variant) -> None:
    migrate(application, dimension=DIMENSION)
    user_id = support.add_user(application)
    filling = support.add_batch(application, user_id, files=("a.jpg", "b.jpg"), offered=3)

    def ready(grace_seconds: float) -> bool:
        found = batches.ready_batches(application, limit=10, grace_seconds=grace_seconds)
        return [request.batch_id for request in found] == [filling.batch_id]

    assert not ready(600)
    for table in ("upload_batches", "uploads"):
        application.execute(
            sql.SQL(
                "UPDATE {} SET created_at = now() - interval '1 hour',"
                " updated_at = now() - interval '1 hour'"
            ).format(sql.Identifier(table))
        )
    if variant.own_trigger:
        application.execute("ALTER TABLE upload_batches DISABLE TRIGGER touch_upload_batches")
        application.execute("UPDATE upload_batches SET updated_at = now() - interval '1 hour'")
    assert not ready(3660)
    assert ready(3540)
    support.add_upload(application, filling.batch_id, user_id)
    assert ready(3660)


def test_an_orphan_of_another_worker_in_every_zone(
    application: Connection, variant: Variant
) -> None:
    migrate(application, dimension=DIMENSION)
    batch = support.add_batch(application, support.add_user(application))
    if variant.own_trigger:
        application.execute("ALTER TABLE upload_batches DISABLE TRIGGER touch_upload_batches")
    application.execute(
        "UPDATE upload_batches SET status = 'processing', updated_at = now() - interval '1 hour'"
    )

    assert list(batches.orphaned_batches(application, grace_seconds=3660)) == []
    found = batches.orphaned_batches(application, grace_seconds=3540)
    assert list(found) == [batches.Orphan(batch.batch_id, None)]


def test_without_our_schema_the_application_is_as_it_was(
    application: Connection, variant: Variant, tmp_path: Path
) -> None:
    before = catalogue(application)
    migrate(application, dimension=DIMENSION)
    user_id = support.add_user(application)
    batch = support.add_batch(application, user_id, files=FILES, uploads_root=tmp_path)
    support.run_batch(application, batch.batch_id, tmp_path, ANALYZER)
    rows_before = rows(application)

    application.execute("DROP SCHEMA vuemantics_pipeline CASCADE")

    assert catalogue(application) == before
    assert rows(application) == rows_before
    support.add_batch(application, user_id)
    application.execute("UPDATE upload_batches SET status = 'cancelled'")


@only_one
def test_a_role_that_may_not_attach_the_trigger(
    application: Connection, variant: Variant, database_url: str, tmp_path: Path
) -> None:
    with support.new_role(application) as role:
        grant(application, "SELECT, UPDATE ON upload_batches, uploads", role)
        database = application.info.dbname
        grant(application, f'CREATE ON DATABASE "{database}"', role)
        granted = catalogue(application)
        with connect(support.as_role(database_url, role)) as lesser:
            for _ in range(2):
                assert not migrate(lesser, dimension=DIMENSION).listening
            assert catalogue(application) == granted

            batch = support.add_batch(
                application, support.add_user(application), files=FILES, uploads_root=tmp_path
            )
            listener = support.Listener(application)
            support.run_batch(lesser, batch.batch_id, tmp_path, ANALYZER)
            row = support.batch_row(application, batch.batch_id)
            assert (row.status, row.successful, row.failed) == ("completed", 2, 1)
            assert {channel for channel, _ in listener.heard()} == {counters.PROGRESS_CHANNEL}

            # Once the owner has attached it, the lesser role finds it there.
            migrate(application, dimension=DIMENSION)
            assert migrate(lesser, dimension=DIMENSION).listening


@only_one
def test_a_role_that_may_not_create_a_schema(
    application: Connection, variant: Variant, database_url: str
) -> None:
    before = catalogue(application)
    with (
        support.new_role(application) as role,
        connect(support.as_role(database_url, role)) as lesser,
    ):
        with pytest.raises(BackendUnavailable) as refused:
            migrate(lesser, dimension=DIMENSION)
        assert refused.value.code == "missing_privilege"
        assert role in refused.value.message
        assert (
            f"GRANT CREATE ON DATABASE {application.info.dbname} TO {role}" in refused.value.remedy
        )
        assert catalogue(application) == before
        assert not is_migrated(application)

        migrate(application, dimension=DIMENSION)
        grant(application, "USAGE ON SCHEMA vuemantics_pipeline", role)
        grant(application, "SELECT ON vuemantics_pipeline.schema_migrations", role)
        assert migrate(lesser, dimension=DIMENSION) == Migration(
            False, (), listening=True, analysts=True
        )


@only_one
def test_a_role_that_may_not_use_a_schema_that_is_there(
    application: Connection, variant: Variant, database_url: str
) -> None:
    migrate(application, dimension=DIMENSION)
    with (
        support.new_role(application) as role,
        connect(support.as_role(database_url, role)) as lesser,
    ):
        with pytest.raises(BackendUnavailable) as refused:
            migrate(lesser, dimension=DIMENSION)
        assert refused.value.code == "missing_privilege"
        assert "vuemantics_pipeline" in refused.value.message
        assert f"GRANT USAGE ON SCHEMA vuemantics_pipeline TO {role}" in refused.value.remedy
        with pytest.raises(BackendUnavailable, match="GRANT USAGE"):
            is_migrated(lesser)


RUN_GRANTS = (
    "USAGE ON SCHEMA public",
    "SELECT, UPDATE ON upload_batches",
    "SELECT, UPDATE ON uploads",
    "USAGE ON SCHEMA vuemantics_pipeline",
    "SELECT ON vuemantics_pipeline.schema_migrations",
    "SELECT, INSERT ON vuemantics_pipeline.embedding_space",
    "SELECT, INSERT, UPDATE ON vuemantics_pipeline.batch_states",
    "SELECT, INSERT, UPDATE ON vuemantics_pipeline.attempts",
    "EXECUTE ON FUNCTION vuemantics_pipeline.lease_key, vuemantics_pipeline.lease_is_held",
)
INGEST_GRANTS = ("SELECT ON users", "INSERT ON upload_batches", "INSERT ON uploads")


@only_one
def test_the_least_privileged_role(
    application: Connection, variant: Variant, database_url: str, tmp_path: Path
) -> None:
    """After the owner ran `vuemantics migrate`, a role that runs batches needs exactly

    - USAGE on the application's schema (every role has it, unless it was revoked from PUBLIC),
    - SELECT and UPDATE on upload_batches and uploads,
    - USAGE on schema vuemantics_pipeline,
    - SELECT on its schema_migrations,
    - SELECT and INSERT on its embedding_space,
    - SELECT, INSERT and UPDATE on its batch_states and attempts,
    - EXECUTE on its functions lease_key and lease_is_held,

    and one that also ingests, besides

    - SELECT on users, INSERT on upload_batches and uploads.
    """
    migrate(application, dimension=DIMENSION)
    application.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    application.execute("REVOKE ALL ON uploads FROM PUBLIC")
    user_id = support.add_user(application)
    with (
        support.new_role(application) as role,
        connect(support.as_role(database_url, role)) as lesser,
    ):

        def run(name: str) -> None:
            """All that a sensor's tick, a run, its hook and its sweep do."""
            root = tmp_path / name
            batch = support.add_batch(application, user_id, files=FILES, uploads_root=root)
            assert is_migrated(lesser)
            migrate(lesser, dimension=DIMENSION)
            requested = batches.ready_batches(lesser, limit=100, grace_seconds=900)
            batches.mark_requested(lesser, [request.batch_id for request in requested])
            vectors.claim_space(lesser, ANALYZER.identity, application_model="bge-m3")
            support.run_batch(lesser, batch.batch_id, root, ANALYZER)
            assert support.batch_row(application, batch.batch_id).status == "completed"
            cancelled = support.add_batch(application, user_id)
            support.begin(lesser, cancelled.batch_id, "another-run")
            batches.requeue(
                lesser,
                cancelled.batch_id,
                run_id="another-run",
                reason="It was told to stop.",
                backoff=batches.BackOff(1, 1),
            )
            assert batches.cancel(lesser, cancelled.batch_id, message="Cancelled.")
            batches.orphaned_batches(lesser, grace_seconds=900)

        for privilege in RUN_GRANTS:
            grant(application, privilege, role)
        run("with all of them")
        for privilege in RUN_GRANTS:
            words, _, thing = privilege.partition(" ON ")
            for word in words.split(", "):
                grant(application, f"{word} ON {thing}", role, "REVOKE")
                with pytest.raises((PipelineError, psycopg.Error)):
                    run(f"without {word} on {thing}")
                grant(application, f"{word} ON {thing}", role)
        run("with all of them again")

        for privilege in INGEST_GRANTS:
            grant(application, privilege, role)
        assert ingestion.find_user(lesser, str(user_id)) == user_id
        batch_id = ingestion.add_batch(lesser, user_id, offered=2)
        ingestion.add_upload(
            lesser,
            batch_id,
            user_id,
            NewUpload(uuid4(), "a.jpg", "u/i/original.jpg", "image", 9, "image/jpeg", None),
        )
        assert ingestion.settle_total(lesser, batch_id) == 1


@only_one
@pytest.mark.parametrize(
    "missing",
    [("users",), ("uploads",), ("upload_batches", "uploads"), ("users", "uploads")],
    ids="-".join,
)
def test_some_tables_only(
    application: Connection, variant: Variant, missing: tuple[str, ...]
) -> None:
    for table in missing:
        application.execute(sql.SQL("DROP TABLE {} CASCADE").format(sql.Identifier(table)))
    before = catalogue(application)

    with pytest.raises(UsageError) as refused:
        migrate(application, dimension=DIMENSION)

    assert refused.value.code == "incomplete_database"
    for table in TABLES:
        assert (f" {table}" in refused.value.message) == (table not in missing)
    assert refused.value.remedy
    assert catalogue(application) == before
    assert not is_migrated(application)
