"""The views for analysts: what they say, how they are documented, and that they hinder nobody."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from psycopg import sql
from psycopg.rows import dict_row

from vuemantics_pipeline.ledger import batches, leases, uploads
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.migrate import migrate
from vuemantics_pipeline.ledger.records import Scope
from vuemantics_pipeline.ledger.reruns import retry
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.integration.application_schemas import (
    VARIANTS,
    Variant,
    create_application_database,
)

VIEWS = ("batch_facts", "upload_facts", "attempt_facts", "stage_seconds")
NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
Row = dict[str, Any]


def rows(connection: Connection, view: str, **conditions: object) -> list[Row]:
    """Rows of a view, in the order of its first column."""
    where = sql.SQL(" AND ").join(
        sql.SQL("{} = {}").format(sql.Identifier(name), sql.Placeholder(name))
        for name in conditions
    )
    query = sql.SQL("SELECT * FROM {} WHERE {} ORDER BY 1").format(
        sql.Identifier("vuemantics_pipeline", view), where if conditions else sql.SQL("true")
    )
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(query, conditions).fetchall()


def only(connection: Connection, view: str, **conditions: object) -> Row:
    [row] = rows(connection, view, **conditions)
    return row


def attempt(
    connection: Connection, batch: support.NewBatch, name: str, at: float, **columns: object
) -> None:
    """Write an attempt that began `at` seconds after noon and took two."""
    values: dict[str, object] = {
        "upload_id": batch.uploads[name],
        "batch_id": batch.batch_id,
        "attempt_number": 1,
        "run_id": "run-1",
        "fence": 1,
        "stage": "indexing",
        "started_at": NOON + timedelta(seconds=at),
        "ended_at": NOON + timedelta(seconds=at + 2),
        "outcome": "completed",
        "analyzer": "test",
        "vision_model": "sees",
        "embedding_model": "embeds",
        "prompt_version": "v1",
    } | columns
    connection.execute(
        sql.SQL("INSERT INTO vuemantics_pipeline.attempts ({}) VALUES ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, values)),
            sql.SQL(", ").join(map(sql.Placeholder, values)),
        ),
        values,
    )


def set_times(connection: Connection, batch_id: UUID, **seconds_after_noon: float) -> None:
    for column, seconds in seconds_after_noon.items():
        connection.execute(
            sql.SQL("UPDATE upload_batches SET {} = %s WHERE id = %s").format(
                sql.Identifier(column)
            ),
            (NOON + timedelta(seconds=seconds), batch_id),
        )


def finish(connection: Connection, upload_id: UUID, status: str, score: int | None) -> None:
    connection.execute(
        "UPDATE uploads SET processing_status = %s, description_audit_score = %s WHERE id = %s",
        (status, score, upload_id),
    )


def arrive(connection: Connection, batch: support.NewBatch, at: Mapping[str, float]) -> None:
    for name, seconds in at.items():
        connection.execute(
            "UPDATE uploads SET created_at = %s WHERE id = %s",
            (NOON + timedelta(seconds=seconds), batch.uploads[name]),
        )


def test_a_batch_in_figures(connection: Connection) -> None:
    """Two runs and one re-run; every figure worked out by hand."""
    batch = support.add_batch(
        connection,
        support.add_user(connection),
        files={"a": b"12", "b": b"345", "c": b"6", "d": b"7"},
    )
    set_times(connection, batch.batch_id, created_at=-60, started_at=0, completed_at=130)
    arrive(connection, batch, {"a": -50, "b": -40, "c": -30, "d": 10})
    # The first run: an attempt of a life before, one failure, one given back.
    attempt(connection, batch, "a", -500, superseded=True, run_id="run-0", outcome="failed")
    attempt(connection, batch, "a", 1)
    attempt(connection, batch, "b", 4, outcome="failed")
    attempt(connection, batch, "b", 7, outcome="released", attempt_number=2)
    # The second, a hundred seconds later: at work for 9 s.
    attempt(connection, batch, "b", 100, run_id="run-2", outcome="died", attempt_number=2)
    attempt(
        connection,
        batch,
        "c",
        107,
        run_id="run-2",
        prompt_version="v2",
        reused_from=batch.uploads["a"],
    )
    finish(connection, batch.uploads["a"], "completed", 90)
    finish(connection, batch.uploads["b"], "failed", 10)
    finish(connection, batch.uploads["c"], "completed", 75)
    connection.execute(
        "INSERT INTO vuemantics_pipeline.batch_states (batch_id, takeovers) VALUES (%s, 1)",
        (batch.batch_id,),
    )

    assert only(connection, "batch_facts", batch_id=batch.batch_id) == {
        "batch_id": batch.batch_id,
        "user_id": batch.user_id,
        "status": "pending",
        "created_at": NOON - timedelta(seconds=60),
        "started_at": NOON,
        "completed_at": NOON + timedelta(seconds=130),
        "uploads_total": 4,
        "uploads_succeeded": 2,
        "uploads_failed": 1,
        "uploads_unfinished": 1,
        "uploads_reused": 1,
        "bytes_total": 7,
        "duration_seconds": 8.0 + 9.0,
        "seconds_waiting_in_queue": 30.0,
        "uploads_per_minute": pytest.approx(3 * 60 / 17),
        "audit_score_mean": 82.5,
        "attempts_total": 4,
        "attempts_released": 1,
        "takeovers": 1,
        "runs_total": 3,
        "run_id": "run-2",
        "analyzer": "test",
        "vision_model": "sees",
        "embedding_model": "embeds",
        "prompt_version": "v2",
        "error_message": None,
    }


def test_a_batch_that_waits(connection: Connection) -> None:
    batch = support.add_batch(connection, support.add_user(connection))
    row = only(connection, "batch_facts", batch_id=batch.batch_id)
    assert (row["uploads_total"], row["uploads_unfinished"], row["attempts_total"]) == (1, 1, 0)
    assert (row["takeovers"], row["runs_total"], row["uploads_reused"]) == (0, 0, 0)
    unknown = ("started_at", "duration_seconds", "seconds_waiting_in_queue", "uploads_per_minute")
    assert {row[name] for name in (*unknown, "audit_score_mean", "run_id", "analyzer")} == {None}


def test_an_empty_batch_waited_since_it_was_added(connection: Connection) -> None:
    batch = support.add_batch(connection, support.add_user(connection), files=())
    set_times(connection, batch.batch_id, created_at=-8, started_at=0)
    row = only(connection, "batch_facts", batch_id=batch.batch_id)
    assert (row["uploads_total"], row["bytes_total"]) == (0, 0)
    assert row["seconds_waiting_in_queue"] == 8.0


def test_nobody_waits_less_than_no_time(connection: Connection) -> None:
    batch = support.add_batch(connection, support.add_user(connection))
    set_times(connection, batch.batch_id, created_at=5, started_at=0)
    arrive(connection, batch, {"a.jpg": 5})
    row = only(connection, "batch_facts", batch_id=batch.batch_id)
    assert row["seconds_waiting_in_queue"] == 0.0


def test_an_upload_in_figures(connection: Connection) -> None:
    batch = support.add_batch(connection, support.add_user(connection), files={"a": b"12345"})
    attempt(connection, batch, "a", -9, superseded=True, outcome="died", error_code="old")
    attempt(
        connection,
        batch,
        "a",
        0,
        outcome="failed",
        error_code="unreadable_media",
        error_message="It is damaged.",
        remedy="Upload it again.",
    )
    attempt(connection, batch, "a", 5, outcome="released", attempt_number=2)
    attempt(
        connection,
        batch,
        "a",
        9,
        attempt_number=2,
        run_id="run-2",
        prompt_version="v2",
        reused_from=batch.first,
    )
    finish(connection, batch.first, "completed", 88)
    connection.execute(
        "INSERT INTO vuemantics_pipeline.media_facts (upload_id, user_id, sha256, format,"
        " mime_type, width, height, taken_at, camera, has_gps, visible_text)"
        " VALUES (%s, %s, %s, 'HEIF', 'image/heic', 30, 40, '2020-02-02 10:00', 'Cam', true, 'x')",
        (batch.first, batch.user_id, bytes(32)),
    )

    row = only(connection, "upload_facts", upload_id=batch.first)

    said = {
        "batch_id": batch.batch_id,
        "user_id": batch.user_id,
        "filename": "a",
        "file_type": "image",
        "mime_type": "image/jpeg",
        "file_size": 5,
        "format": "HEIF",
        "detected_mime_type": "image/heic",
        "width": 30,
        "height": 40,
        "taken_at": datetime(2020, 2, 2, 10),
        "camera": "Cam",
        "has_gps": True,
        "duration_seconds": None,
        "status": "completed",
        "audit_score": 88,
        "attempts": 2,
        "seconds": 6.0,
        "error_code": "unreadable_media",
        "error_message": "It is damaged.",
        "remedy": "Upload it again.",
        "run_id": "run-2",
        "prompt_version": "v2",
        "reused_from": batch.first,
        "started_at": NOON,
        "ended_at": NOON + timedelta(seconds=11),
    }
    assert {name: row[name] for name in said} == said


def test_an_upload_the_application_failed_says_what_that_said(connection: Connection) -> None:
    batch = support.add_batch(connection, support.add_user(connection))
    connection.execute(
        "UPDATE uploads SET processing_status = 'failed', error_message = 'Too big.'"
    )
    row = only(connection, "upload_facts", upload_id=batch.first)
    assert (row["error_code"], row["error_message"], row["attempts"]) == (None, "Too big.", 0)


def test_attempts_are_there_while_they_run_and_after_their_upload_is_gone(
    connection: Connection,
) -> None:
    batch = support.add_batch(connection, support.add_user(connection), files=("a.jpg", "b.jpg"))
    attempt(connection, batch, "a.jpg", 0)
    attempt(
        connection, batch, "b.jpg", 3, outcome=None, ended_at=None, frames_done=1, frames_total=4
    )
    connection.execute("DELETE FROM uploads WHERE id = %s", (batch.uploads["a.jpg"],))

    gone, running = rows(connection, "attempt_facts", batch_id=batch.batch_id)

    assert (gone["filename"], gone["user_id"], gone["seconds"]) == (None, None, 2.0)
    assert (running["filename"], running["user_id"]) == ("b.jpg", batch.user_id)
    assert (running["ended_at"], running["seconds"], running["outcome"]) == (None, None, None)
    assert (running["frames_done"], running["frames_total"]) == (1, 4)


def test_a_row_for_each_attempt_and_stage(connection: Connection) -> None:
    batch = support.add_batch(connection, support.add_user(connection))
    attempt(
        connection,
        batch,
        "a.jpg",
        0,
        stage_seconds='{"vision_analysis": 1.5, "indexing": 0.25}',
    )
    found = rows(connection, "stage_seconds", upload_id=batch.first)
    assert {(row["stage"], row["seconds"]) for row in found} == {
        ("vision_analysis", 1.5),
        ("indexing", 0.25),
    }
    assert {row["file_type"] for row in found} == {"image"}


def test_the_views_agree_with_a_real_run(connection: Connection, worker: Connection) -> None:
    """Through the ledger: one failed for good, one done, and then all of it again."""
    batch = support.add_batch(connection, support.add_user(connection), files=("a.jpg", "b.jpg"))
    lease = support.begin(worker, batch.batch_id)
    for _ in range(2):
        started = uploads.start_attempt(lease, batch.first, support.IDENTITY)
        assert started is not None
        uploads.fail(lease, started, support.TRUNCATED, {"extracting_frames": 0.1})
    started = uploads.start_attempt(lease, batch.uploads["b.jpg"], support.IDENTITY)
    assert started is not None
    uploads.complete(lease, started, support.outcome())
    batches.close_batch(lease)
    leases.release(lease)

    row = only(connection, "batch_facts", batch_id=batch.batch_id)
    counted = support.batch_row(connection, batch.batch_id)
    assert (row["uploads_total"], row["uploads_succeeded"], row["uploads_failed"]) == (
        counted.total,
        counted.successful,
        counted.failed,
    )
    assert (row["attempts_total"], row["runs_total"], row["prompt_version"]) == (3, 1, "v1")
    failed = only(connection, "upload_facts", upload_id=batch.first)
    assert (failed["error_code"], failed["remedy"]) == ("unreadable_media", "Upload it again.")

    retry(connection, batch.batch_id, Scope.ALL)
    row = only(connection, "batch_facts", batch_id=batch.batch_id)
    assert (row["uploads_unfinished"], row["attempts_total"], row["runs_total"]) == (2, 0, 1)
    assert all(row["superseded"] for row in rows(connection, "attempt_facts"))
    assert only(connection, "upload_facts", upload_id=batch.first)["error_code"] is None


@pytest.mark.parametrize("variant", VARIANTS, ids=str)
def test_times_are_those_of_the_application(database_url: str, variant: Variant) -> None:
    """Whatever the columns' type, and whatever the time zone."""
    with connect(database_url) as creator:
        create_application_database(creator, variant)
    with connect(database_url) as connection:
        migrate(connection, dimension=support.DIMENSION)
        batch = support.add_batch(connection, support.add_user(connection))
        set_times(connection, batch.batch_id, created_at=-10, started_at=0)
        arrive(connection, batch, {"a.jpg": -5})

        row = only(connection, "batch_facts", batch_id=batch.batch_id)
        assert (row["created_at"], row["started_at"]) == (NOON - timedelta(seconds=10), NOON)
        assert row["created_at"].tzinfo is not None
        assert row["seconds_waiting_in_queue"] == 5.0
        upload = only(connection, "upload_facts", upload_id=batch.first)
        assert upload["created_at"] == NOON - timedelta(seconds=5)


@pytest.mark.parametrize("view", VIEWS)
def test_every_column_is_documented(connection: Connection, view: str) -> None:
    described = connection.execute(
        "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0",
        (f"vuemantics_pipeline.{view}",),
    ).fetchall()
    assert [name for name, comment in described if not comment] == []
    units = [(name, comment) for name, comment in described if "seconds" in name]
    assert all("seconds" in comment for _, comment in units)
    assert connection.execute(
        "SELECT obj_description(%s::regclass)", (f"vuemantics_pipeline.{view}",)
    ).fetchone() != (None,)


def test_the_application_may_change_every_column_of_its_own(connection: Connection) -> None:
    """As its migrations do: a view that named a column would forbid it."""
    # It names two columns, and has to go first.
    connection.execute("DROP TRIGGER vuemantics_pipeline_notify ON upload_batches")
    for table in ("upload_batches", "uploads"):
        columns = connection.execute(
            "SELECT attname, format_type(atttypid, atttypmod) FROM pg_attribute"
            " WHERE attrelid = %s::regclass AND attnum > 0 AND NOT attisdropped",
            (table,),
        ).fetchall()
        assert len(columns) > 10
        for name, type_ in columns:
            if (table, name) == ("upload_batches", "id"):
                continue  # the application's own foreign key points at it
            for change in _changes(name, type_):
                with connection.transaction(force_rollback=True):
                    connection.execute(
                        sql.SQL("ALTER TABLE {} ").format(sql.Identifier(table)) + change
                    )


def _changes(name: str, type_: str) -> list[sql.Composed]:
    column = sql.Identifier(name)
    changes = [
        sql.SQL("DROP COLUMN {}").format(column),
        sql.SQL("RENAME COLUMN {} TO another").format(column),
    ]
    if type_.startswith(("character varying", "integer")):
        other = "text" if type_.startswith("character") else "bigint"
        changes.append(sql.SQL(f"ALTER COLUMN {{}} TYPE {other}").format(column))
    if type_ == "timestamp with time zone":
        changes.append(sql.SQL("ALTER COLUMN {} TYPE timestamp").format(column))
    return changes


def test_the_views_follow_a_column_of_another_type(connection: Connection) -> None:
    batch = support.add_batch(connection, support.add_user(connection))
    before = rows(connection, "batch_facts"), rows(connection, "upload_facts")
    connection.execute(
        "DROP TRIGGER vuemantics_pipeline_notify ON upload_batches;"
        "ALTER TABLE upload_batches ALTER status TYPE varchar(50), ALTER created_at TYPE timestamp;"
        "ALTER TABLE uploads ALTER filename TYPE varchar(500), ALTER file_size TYPE integer,"
        " ADD COLUMN camera_roll text"
    )
    assert (rows(connection, "batch_facts"), rows(connection, "upload_facts")) == before
    assert only(connection, "upload_facts", upload_id=batch.first)["status"] == "pending"


@pytest.mark.parametrize(
    ("query", "index"),
    [
        ("batch_facts WHERE batch_id = gen_random_uuid()", "upload_batches_pkey"),
        ("batch_facts WHERE created_at > now()", "idx_upload_batches_created_at"),
        ("upload_facts WHERE batch_id = gen_random_uuid()", "idx_uploads_batch_id"),
        ("upload_facts WHERE upload_id = gen_random_uuid()", "uploads_pkey"),
        ("attempt_facts WHERE batch_id = gen_random_uuid()", "attempts_batch_id"),
        ("attempt_facts WHERE upload_id = gen_random_uuid()", "uploads_pkey"),
        ("stage_seconds WHERE batch_id = gen_random_uuid()", "attempts_batch_id"),
    ],
)
def test_conditions_reach_the_indexes(connection: Connection, query: str, index: str) -> None:
    """Through the functions that stand between the views and the application's columns."""
    connection.execute("SET enable_seqscan = off")
    # now() for the moment, a subquery for an id that is the same for every row.
    query = query.replace("gen_random_uuid()", "(SELECT gen_random_uuid())")
    plan = connection.execute(f"EXPLAIN SELECT * FROM vuemantics_pipeline.{query}").fetchall()
    assert any(index in line for (line,) in plan), plan
    assert not any("_columns" in line for (line,) in plan)


def test_columns_nobody_asks_for_cost_nothing(connection: Connection) -> None:
    plan = connection.execute(
        "EXPLAIN SELECT batch_id, attempts_total FROM vuemantics_pipeline.batch_facts"
    ).fetchall()
    assert not any("uploads upload" in line for (line,) in plan)
