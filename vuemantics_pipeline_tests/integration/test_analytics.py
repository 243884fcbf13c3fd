"""Frames for analysts and the files written of them, on real rows."""

import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from uuid import uuid4

import pandas as pd
import pytest
from psycopg import sql
from typer.testing import CliRunner, Result

from vuemantics_pipeline.cli import app
from vuemantics_pipeline.errors import BackendUnavailable, UsageError
from vuemantics_pipeline.ledger import batches as ledger_batches
from vuemantics_pipeline.ledger import leases, uploads
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.migrate import ANALYST_ROLE
from vuemantics_pipeline.status import analytics
from vuemantics_pipeline.status.analytics import frames
from vuemantics_pipeline.status.analytics.columns import (
    ATTEMPTS,
    BATCHES,
    STAGES,
    UPLOADS,
    Columns,
    Kind,
    frame,
)
from vuemantics_pipeline.status.analytics.selection import select
from vuemantics_pipeline_tests import support

ReadFrame = Callable[..., pd.DataFrame]
FRAMES: list[tuple[ReadFrame, Columns]] = [
    (analytics.batches, BATCHES),
    (analytics.uploads, UPLOADS),
    (analytics.attempts, ATTEMPTS),
    (analytics.stages, STAGES),
]
NASTY = "=cmd|' /C calc'!A0.jpg"


@pytest.fixture
def batches(connection: Connection) -> list[support.NewBatch]:
    """Three batches of two users: two done with one failure in each, one not yet begun."""
    users = [support.add_user(connection) for _ in range(2)]
    added = [
        support.add_batch(connection, user, files=files)
        for user, files in (
            (users[0], {"a.jpg": b"12", NASTY: b"345"}),
            (users[1], {"bad.jpg": b"6", 'été, \n"c".jpg': b"7"}),
            (users[1], {"'quoted.jpg": b"8"}),
        )
    ]
    for days, batch in enumerate(added):
        connection.execute(
            "UPDATE upload_batches SET created_at = %s WHERE id = %s",
            (datetime(2026, 3, 1 + days, tzinfo=UTC), batch.batch_id),
        )
    return added


@pytest.fixture
def done(worker: Connection, batches: list[support.NewBatch]) -> list[support.NewBatch]:
    """Of each of the first two, one upload completed, and one failed for good."""
    for batch in batches[:2]:
        lease = support.begin(worker, batch.batch_id)
        first, second = batch.uploads.values()
        for upload_id, is_good in ((first, True), (second, False), (second, False)):
            started = uploads.start_attempt(lease, upload_id, support.IDENTITY)
            assert started is not None
            if is_good:
                uploads.complete(lease, started, support.outcome())
            else:
                uploads.fail(lease, started, support.TRUNCATED, {"extracting_frames": 0.25})
        ledger_batches.close_batch(lease)
        leases.release(lease)
    return batches


def dtypes(columns: Columns) -> dict[str, str]:
    return {name: kind.dtype for name, kind in columns.items()}


def names_of(found: pd.DataFrame) -> dict[str, str]:
    return {str(name): str(dtype) for name, dtype in found.dtypes.items()}


@pytest.mark.parametrize(
    ("read", "columns"), FRAMES, ids=lambda each: getattr(each, "__name__", "")
)
def test_dtypes_do_not_depend_on_the_rows(
    connection: Connection,
    done: list[support.NewBatch],
    read: ReadFrame,
    columns: Columns,
) -> None:
    full = read(connection)
    empty = read(connection, since="2200-01-01")

    assert len(full) > 1
    assert len(empty) == 0
    assert names_of(full) == names_of(empty) == dtypes(columns)
    assert full.index.tolist() == list(range(len(full)))


@pytest.mark.parametrize(
    ("view", "columns"),
    [
        ("batch_facts", BATCHES),
        ("upload_facts", UPLOADS),
        ("attempt_facts", ATTEMPTS),
        ("stage_seconds", STAGES),
    ],
)
def test_the_frames_have_the_columns_of_the_views(
    connection: Connection, view: str, columns: Columns
) -> None:
    of_view = connection.execute(
        "SELECT attname, atttypid::regtype::text FROM pg_attribute"
        " WHERE attrelid = %s::regclass AND attnum > 0 ORDER BY attnum",
        (f"vuemantics_pipeline.{view}",),
    ).fetchall()
    expected = {
        "uuid": {Kind.TEXT, Kind.CATEGORY},
        "text": {Kind.TEXT, Kind.CATEGORY},
        "integer": {Kind.INTEGER},
        "bigint": {Kind.INTEGER},
        "double precision": {Kind.NUMBER},
        "boolean": {Kind.FLAG},
        "timestamp with time zone": {Kind.MOMENT},
        "timestamp without time zone": {Kind.LOCAL_TIME},
    }
    assert [name for name, _ in of_view] == list(columns)
    assert all(columns[name] in expected[type_] for name, type_ in of_view)


def test_batches_in_one_call(connection: Connection, done: list[support.NewBatch]) -> None:
    found = analytics.batches(connection)

    assert found["batch_id"].tolist() == [str(batch.batch_id) for batch in done]
    assert found["uploads_succeeded"].tolist() == [1, 1, 0]
    assert found["uploads_failed"].tolist() == [1, 1, 0]
    assert found["bytes_total"].tolist() == [5, 2, 1]
    assert found["status"].tolist() == ["completed", "completed", "pending"]
    assert found["created_at"].iloc[0] == pd.Timestamp("2026-03-01T00:00Z")
    assert found["duration_seconds"].isna().tolist() == [False, False, True]
    assert found["run_id"].isna().tolist() == [False, False, True]


def test_a_url_will_do(database_url: str, done: list[support.NewBatch]) -> None:
    assert len(analytics.batches(database_url)) == 3


def test_times_are_utc_whatever_the_session(
    connection: Connection, done: list[support.NewBatch]
) -> None:
    connection.execute("SET timezone = 'Asia/Kolkata'")
    found = analytics.batches(connection)
    assert str(found["created_at"].dtype) == "datetime64[us, UTC]"
    assert found["created_at"].iloc[0].isoformat() == "2026-03-01T00:00:00+00:00"


def test_filters_of_batches(connection: Connection, done: list[support.NewBatch]) -> None:
    def ids(**conditions: object) -> list[str]:
        return analytics.batches(connection, **conditions)["batch_id"].tolist()  # type: ignore[arg-type]

    first, second, third = (str(batch.batch_id) for batch in done)
    assert ids(since="2026-03-02") == [second, third]
    assert ids(until="2026-03-02") == [first]
    assert ids(since="2026-03-01T19:00-05:00", until=datetime(2026, 3, 3, tzinfo=UTC)) == [second]
    assert ids(since=datetime(2026, 3, 2), until=None) == [second, third]
    assert ids(user=done[1].user_id) == [second, third]
    assert ids(user=str(done[1].user_id), status="completed") == [second]
    assert ids(analyzer=support.IDENTITY.analyzer) == [first, second]
    assert ids(analyzer="another") == ids(user=uuid4()) == ids(status="nothing") == []
    assert ids(batch=third) == [third]


def test_filters_of_uploads_and_attempts(
    connection: Connection, done: list[support.NewBatch]
) -> None:
    failed = analytics.uploads(connection, status="failed")
    assert failed["filename"].tolist() == [NASTY, 'été, \n"c".jpg']
    assert failed["attempts"].tolist() == [2, 2]
    assert set(failed["error_code"]) == {support.TRUNCATED.code}
    assert len(analytics.uploads(connection, batch=done[0].batch_id)) == 2
    assert len(analytics.uploads(connection, user=done[1].user_id)) == 3
    assert len(analytics.uploads(connection, analyzer=support.IDENTITY.analyzer)) == 4

    attempts = analytics.attempts(connection, status="failed", user=done[0].user_id)
    assert attempts["attempt_number"].tolist() == [1, 2]
    assert (attempts["seconds"] >= 0).all()
    assert analytics.attempts(connection, until="2026-01-01").empty
    stages = analytics.stages(connection, status="failed", batch=done[0].batch_id)
    assert stages["seconds"].tolist() == [0.25, 0.25]
    assert stages["stage"].tolist() == ["extracting_frames", "extracting_frames"]


@pytest.mark.parametrize(
    ("conditions", "code"),
    [
        ({"since": "yesterday"}, "not_a_time"),
        ({"until": ""}, "not_a_time"),
        ({"user": "somebody@example.com"}, "not_an_id"),
        ({"batch": "1; DROP TABLE uploads"}, "not_an_id"),
    ],
)
def test_conditions_that_are_none(conditions: dict[str, str], code: str) -> None:
    with pytest.raises(UsageError) as refused:
        select(**conditions)
    assert refused.value.code == code


def test_rows_come_in_pages(
    connection: Connection, done: list[support.NewBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = analytics.uploads(connection)
    monkeypatch.setattr(frames, "PAGE_ROWS", 2)

    pages = list(frames.pages(connection, frames.UPLOAD_FACTS, select()))

    assert [len(page) for page in pages] == [2, 2, 1]
    assert frames.count(connection, frames.UPLOAD_FACTS, select()) == 5
    pd.testing.assert_frame_equal(analytics.uploads(connection), whole)


def test_all_pages_are_of_one_moment(
    connection: Connection,
    done: list[support.NewBatch],
    monkeypatch: pytest.MonkeyPatch,
    worker: Connection,
) -> None:
    monkeypatch.setattr(frames, "PAGE_ROWS", 1)
    pages = frames.pages(connection, frames.BATCH_FACTS, select())
    first = next(pages)
    worker.execute("DELETE FROM upload_batches")
    assert len([first, *pages]) == 3


def test_a_database_that_was_not_prepared(database_url: str) -> None:
    with pytest.raises(UsageError) as refused:
        analytics.batches(database_url)
    assert refused.value.code == "not_migrated"


def test_a_role_that_may_not_look(connection: Connection, database_url: str) -> None:
    with support.new_role(connection) as role:
        with pytest.raises(BackendUnavailable) as refused:
            analytics.batches(support.as_role(database_url, role))
        assert refused.value.code == "missing_privilege"
        assert refused.value.remedy == f"GRANT {ANALYST_ROLE} TO {role}."


# vuemantics export


@pytest.fixture
def environment(database_url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("VUEMANTICS_HOME", str(tmp_path / "home"))


def export(*arguments: object) -> Result:
    result = CliRunner().invoke(app, ["export", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("rows", "read"),
    [
        ("batches", analytics.batches),
        ("uploads", analytics.uploads),
        ("attempts", analytics.attempts),
    ],
)
def test_a_parquet_file_holds_the_frame(
    connection: Connection,
    done: list[support.NewBatch],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    rows: str,
    read: ReadFrame,
) -> None:
    monkeypatch.setattr(frames, "PAGE_ROWS", 2)
    file = tmp_path / "rows.parquet"

    result = export(rows, "--format", "parquet", "--output", file)

    assert (result.exit_code, result.stdout) == (0, "")
    whole = read(connection)
    assert f"{len(whole)} rows in {file}." in result.stderr
    pd.testing.assert_frame_equal(
        pd.read_parquet(file), whole, check_categorical=False, check_dtype=True
    )
    assert sorted(tmp_path.glob("*rows*")) == [file]


@pytest.mark.usefixtures("environment")
def test_an_empty_parquet_file_has_the_same_dtypes(
    done: list[support.NewBatch], tmp_path: Path
) -> None:
    file = tmp_path / "none.parquet"
    result = export("uploads", "--format", "parquet", "--output", file, "--status", "x")
    assert result.exit_code == 0
    assert names_of(pd.read_parquet(file)) == dtypes(UPLOADS)


@pytest.mark.usefixtures("environment")
def test_csv_goes_to_standard_output(
    connection: Connection, done: list[support.NewBatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(frames, "PAGE_ROWS", 2)
    result = export("uploads", "--until", "2300-01-01")

    assert result.exit_code == 0
    read = pd.read_csv(io.BytesIO(result.stdout_bytes), parse_dates=["created_at"])
    assert list(read.columns) == list(UPLOADS)
    assert read["upload_id"].tolist() == analytics.uploads(connection)["upload_id"].tolist()
    assert read["created_at"].equals(
        analytics.uploads(connection)["created_at"].astype(read["created_at"].dtype)
    )
    assert read["filename"].tolist() == [
        "a.jpg",
        "'" + NASTY,
        "bad.jpg",
        'été, \n"c".jpg',
        "''quoted.jpg",
    ]


@pytest.mark.usefixtures("environment")
def test_an_analyst_exports(
    connection: Connection,
    done: list[support.NewBatch],
    database_url: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with support.new_role(connection) as role:
        monkeypatch.setenv("DATABASE_URL", support.as_role(database_url, role))
        refused = export("batches")
        assert (refused.exit_code, refused.stdout) == (3, "")
        assert f"GRANT {ANALYST_ROLE} TO {role}" in refused.stderr

        connection.execute(
            sql.SQL("GRANT {} TO {}").format(sql.Identifier(ANALYST_ROLE), sql.Identifier(role))
        )
        assert export("batches").stdout.count("\n") == 4


@pytest.mark.usefixtures("environment")
@pytest.mark.parametrize(
    ("arguments", "exit_code", "said"),
    [
        (("batches", "--format", "parquet"), 2, "--output FILE"),
        (("batches", "--format", "parquet", "--output", "-"), 2, "--output FILE"),
        (("batches", "--since", "soon"), 2, "not a time"),
        (("batches", "--user", "me"), 2, "not an id"),
        (("batches", "--output", "/nowhere/file.csv"), 2, "/nowhere/file.csv cannot be written"),
        (("batches", "--output", "/"), 2, "cannot be written"),
        (("nothing",), 2, "nothing"),
    ],
)
def test_what_cannot_be_exported(
    connection: Connection, arguments: tuple[str, ...], exit_code: int, said: str
) -> None:
    result = export(*arguments)
    assert (result.exit_code, result.stdout) == (exit_code, "")
    assert said in result.stderr.replace("\n", " ")


@pytest.mark.usefixtures("environment")
def test_the_file_that_was_there_stays_until_the_new_one_is_whole(
    done: list[support.NewBatch], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "batches.csv"
    file.write_text("as it was")

    def stopped(*arguments: object) -> Iterator[pd.DataFrame]:
        yield frame(BATCHES, [])
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(frames, "pages", stopped)
        assert (
            CliRunner().invoke(app, ["export", "batches", "--output", str(file)]).exit_code == 130
        )
    assert file.read_text() == "as it was"
    assert list(tmp_path.glob("*batches*")) == [file]

    assert export("batches", "--output", file).exit_code == 0
    assert file.read_text().startswith("batch_id,")


@pytest.mark.usefixtures("environment")
def test_a_reader_that_has_seen_enough(connection: Connection, tmp_path: Path) -> None:
    """`vuemantics export ... | head -1`, with more behind it than a pipe holds."""
    connection.execute(
        "INSERT INTO upload_batches (user_id) SELECT %s FROM generate_series(1, 3000)",
        (support.add_user(connection),),
    )
    command = [sys.executable, "-m", "vuemantics_pipeline", "export", "batches"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline().startswith(b"batch_id,")
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
