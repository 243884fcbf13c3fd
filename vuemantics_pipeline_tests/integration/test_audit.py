"""The audit: every rule it knows, broken by hand, and silence about a database that is true."""

import threading
import time
from collections.abc import Sequence
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from psycopg import errors, sql

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.ledger import batches, leases, uploads
from vuemantics_pipeline.ledger.audit import Violation, audit
from vuemantics_pipeline.ledger.batches import BackOff
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.records import Scope, Stage
from vuemantics_pipeline.ledger.reruns import retry
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.support import IDENTITY, TRUNCATED, NewBatch

DOWN = BackendUnavailable("ollama_unreachable", "Ollama cannot be reached.", "Start it.")
AT_ONCE = BackOff(0, 0)


def add_completed(connection: Connection, database_url: str, user_id: UUID) -> NewBatch:
    """A completed batch of two: good.jpg succeeded, bad.jpg failed twice."""
    batch = support.add_batch(connection, user_id, files=("good.jpg", "bad.jpg"))
    with connect(database_url) as worker:
        lease = support.begin(worker, batch.batch_id)
        succeed(lease, batch.uploads["good.jpg"])
        fail_for_good(lease, batch.uploads["bad.jpg"])
        batches.close_batch(lease)
    return batch


def succeed(lease: leases.Lease, upload_id: UUID) -> None:
    attempt = uploads.start_attempt(lease, upload_id, IDENTITY)
    assert attempt is not None
    uploads.complete(lease, attempt, support.outcome())


def fail_for_good(lease: leases.Lease, upload_id: UUID) -> None:
    for _ in range(2):
        attempt = uploads.start_attempt(lease, upload_id, IDENTITY)
        assert attempt is not None
        uploads.fail(lease, attempt, TRUNCATED, {})


@pytest.fixture
def batch(connection: Connection, database_url: str) -> NewBatch:
    """A true batch, between two others that nobody touches."""
    user_id = support.add_user(connection)
    before, batch, after = (add_completed(connection, database_url, user_id) for _ in range(3))
    assert len({before.batch_id, batch.batch_id, after.batch_id}) == 3
    assert audit(connection).violations == []
    return batch


ATTEMPT = """
    INSERT INTO vuemantics_pipeline.attempts
        (upload_id, batch_id, attempt_number, run_id, fence, stage, analyzer, vision_model,
         embedding_model, prompt_version, outcome, ended_at)
    SELECT coalesce((SELECT id FROM uploads WHERE batch_id = %(batch)s AND filename = {file}),
                    gen_random_uuid()),
           %(batch)s, {number}, 'by-hand', 1, 'indexing', 'a', 'v', 'e', 'p', {outcome}, {ended}
"""


def attempt(file: str, number: int, outcome: str | None, *, ended: bool | None = None) -> str:
    """An attempt written by hand; of a deleted upload, where the batch has no such file."""
    is_ended = outcome is not None if ended is None else ended
    return ATTEMPT.format(
        file=f"'{file}'",
        number=number,
        outcome="NULL" if outcome is None else f"'{outcome}'",
        ended="now()" if is_ended else "NULL",
    )


def upload(file: str, change: str) -> str:
    return f"UPDATE uploads SET {change} WHERE batch_id = %(batch)s AND filename = '{file}'"


def row(change: str) -> str:
    return f"UPDATE upload_batches SET {change} WHERE id = %(batch)s"


def attempts_at(file: str, change: str, number: int) -> str:
    return (
        f"UPDATE vuemantics_pipeline.attempts SET {change} WHERE attempt_number = {number} AND"
        f" upload_id = (SELECT id FROM uploads WHERE batch_id = %(batch)s AND filename = '{file}')"
    )


def drop(index: str) -> str:
    return f"DROP INDEX vuemantics_pipeline.{index}"


ONE_LEFT = row("failed_uploads = 0, processed_uploads = 1")

BREACHES: dict[str, tuple[str, tuple[str, ...]]] = {
    "too many successful": (
        "counters_differ_from_rows",
        (row("successful_uploads = 2, failed_uploads = 0"),),
    ),
    "none counted": (
        "counters_differ_from_rows",
        (row("successful_uploads = 0, failed_uploads = 0, processed_uploads = 0"),),
    ),
    "too few processed": ("processed_is_not_the_sum", (row("processed_uploads = 1"),)),
    "total too low": ("more_processed_than_total", (row("total_uploads = 1"),)),
    "pending in a completed batch": (
        "completed_with_work_left",
        (upload("bad.jpg", "processing_status = 'pending'"), ONE_LEFT),
    ),
    "analyzing in a completed batch": (
        "completed_with_work_left",
        (upload("bad.jpg", "processing_status = 'analyzing'"), ONE_LEFT),
    ),
    "completed at no time": ("ended_without_a_time", (row("completed_at = NULL"),)),
    "failed at no time": (
        "ended_without_a_time",
        (row("status = 'failed', completed_at = NULL"),),
    ),
    "begun at no time": (
        "begun_without_a_time",
        (row("status = 'processing', started_at = NULL, completed_at = NULL"),),
    ),
    "no description": (
        "completed_without_result",
        (upload("good.jpg", "description = NULL"),),
    ),
    "no vector": (
        "completed_without_result",
        (upload("good.jpg", "embedding_local = NULL"),),
    ),
    "no reason": ("failed_without_reason", (upload("bad.jpg", "error_message = NULL"),)),
    "an empty reason": ("failed_without_reason", (upload("bad.jpg", "error_message = ''"),)),
    "completed twice": (
        "counted_more_than_once",
        (drop("attempts_completed_once"), attempt("good.jpg", 2, "completed")),
    ),
    "three attempts": (
        "too_many_attempts",
        (drop("attempts_numbered_once"), attempt("bad.jpg", 2, "died")),
    ),
    "completed, attempt failed": (
        "outcome_contradicts_attempt",
        (attempts_at("good.jpg", "outcome = 'failed'", 1),),
    ),
    "completed, attempt open": (
        "outcome_contradicts_attempt",
        (
            row("status = 'processing', completed_at = NULL"),
            attempts_at("good.jpg", "outcome = NULL, ended_at = NULL", 1),
        ),
    ),
    "failed, attempt completed": (
        "outcome_contradicts_attempt",
        (attempts_at("bad.jpg", "outcome = 'completed'", 2),),
    ),
    "pending, attempt completed": (
        "outcome_contradicts_attempt",
        (
            row("status = 'processing', completed_at = NULL"),
            upload("good.jpg", "processing_status = 'pending'"),
            row("successful_uploads = 0, processed_uploads = 1"),
        ),
    ),
    "open in a completed batch": ("attempt_left_open", (attempt("deleted.jpg", 1, None),)),
    "open in a failed batch": (
        "attempt_left_open",
        (
            row("status = 'failed'"),
            upload("bad.jpg", "processing_status = 'pending'"),
            ONE_LEFT,
            attempts_at("bad.jpg", "outcome = NULL, ended_at = NULL", 2),
        ),
    ),
}


@pytest.mark.parametrize(("rule", "statements"), BREACHES.values(), ids=BREACHES.keys())
def test_a_broken_rule_is_found_with_its_batch_and_nothing_else(
    connection: Connection, batch: NewBatch, rule: str, statements: Sequence[str]
) -> None:
    for statement in statements:
        done = connection.execute(statement.encode(), {"batch": batch.batch_id})
        assert done.rowcount == (-1 if statement.startswith("DROP") else 1)

    found = audit(connection)

    assert [(violation.batch_id, violation.rule) for violation in found.violations] == [
        (batch.batch_id, rule)
    ]
    assert found.violations[0].detail
    assert found.batches == 3
    assert audit(connection, batch.batch_id).violations == found.violations


def test_every_rule_is_broken_here() -> None:
    known = {
        part.split("'")[1]
        for part in queries("audit")["violations"].split("SELECT")[1:]
        if "batch_id, '" in part
    }
    assert known == {rule for rule, _ in BREACHES.values()}


def test_the_detail_says_what_the_rows_say(connection: Connection, batch: NewBatch) -> None:
    connection.execute(
        "UPDATE upload_batches SET successful_uploads = 2, processed_uploads = 2,"
        " failed_uploads = 1 WHERE id = %s",
        (batch.batch_id,),
    )
    assert audit(connection).violations == [
        Violation(
            batch.batch_id,
            "counters_differ_from_rows",
            "says 2 successful and 1 failed; its uploads are 1 and 1",
        ),
        Violation(
            batch.batch_id,
            "processed_is_not_the_sum",
            "says 2 processed, 2 successful and 1 failed",
        ),
    ]


def test_one_batch_only(connection: Connection, database_url: str, batch: NewBatch) -> None:
    other = add_completed(connection, database_url, batch.user_id)
    connection.execute("UPDATE upload_batches SET total_uploads = 1")

    assert len(audit(connection).violations) == 4
    (violation,) = audit(connection, other.batch_id).violations
    assert violation.batch_id == other.batch_id
    assert audit(connection, other.batch_id).batches == 1
    nothing = audit(connection, uuid4())
    assert (nothing.batches, nothing.violations) == (0, [])


def test_an_empty_database(connection: Connection) -> None:
    found = audit(connection)
    assert (found.batches, found.violations) == (0, [])


def test_true_books_of_every_kind_are_true(
    connection: Connection, database_url: str, tmp_path: Path
) -> None:
    """Batches that ended or stand in every way there is; each is looked at as it happens."""
    user_id = support.add_user(connection)

    def add(*names: str) -> NewBatch:
        return support.add_batch(connection, user_id, files=names)

    def assert_true() -> None:
        assert audit(connection).violations == []

    add()  # pending
    # Completed by the application's own worker, before there was any pipeline.
    theirs = add("a.jpg")
    connection.execute(
        "UPDATE uploads SET processing_status = 'completed', description = 'A lake.',"
        " embedding_local = '[1,0,0,0,0,0,0,0]' WHERE batch_id = %s",
        (theirs.batch_id,),
    )
    connection.execute(
        "UPDATE upload_batches SET status = 'completed', processed_uploads = 1,"
        " successful_uploads = 1, completed_at = now() WHERE id = %s",
        (theirs.batch_id,),
    )
    assert_true()
    with connect(database_url) as worker:
        empty = support.begin(worker, add().batch_id)
        assert_true()
        batches.close_batch(empty)
        assert_true()

        # Given back once, died once, failed at last, run again and completed; one never begun.
        twice = add("a.jpg", "b.jpg")
        lease = support.begin(worker, twice.batch_id, "run-1")
        uploads.start_attempt(lease, twice.first, IDENTITY)
        assert_true()
        uploads.release(lease, twice.first, DOWN, {})
        assert_true()
        uploads.start_attempt(lease, twice.first, IDENTITY)
        leases.release(lease)
        assert_true()
        lease = support.begin(worker, twice.batch_id, "run-2")
        assert_true()
        attempt = uploads.start_attempt(lease, twice.first, IDENTITY)
        assert attempt is not None
        uploads.fail(lease, attempt, TRUNCATED, {})
        assert_true()
        leases.release(lease)
        requeued = batches.requeue(
            connection, twice.batch_id, run_id="run-2", reason="x", backoff=AT_ONCE, max_tries=1
        )
        assert requeued == "failed"
        assert_true()
        retry(connection, twice.batch_id, Scope.FAILED)
        assert_true()
        lease = support.begin(worker, twice.batch_id, "run-3")
        for upload_id in twice.uploads.values():
            succeed(lease, upload_id)
            assert_true()
        batches.close_batch(lease)
        leases.release(lease)
        assert_true()
        retry(connection, twice.batch_id, Scope.ALL)
        assert_true()

        # Cancelled with an upload in hand, which is then given back; and one that was not.
        for is_given_back in (True, False):
            cancelled = add("a.jpg", "b.jpg")
            lease = support.begin(worker, cancelled.batch_id)
            succeed(lease, cancelled.first)
            uploads.start_attempt(lease, cancelled.uploads["b.jpg"], IDENTITY)
            batches.cancel(connection, cancelled.batch_id, message="Enough.")
            assert_true()
            if is_given_back:
                uploads.release(lease, cancelled.uploads["b.jpg"], DOWN, {})
            leases.release(lease)
            assert_true()

        # Failed by a worker that died in its last try, and never came back.
        died = add("a.jpg")
        lease = support.begin(worker, died.batch_id, "run-1")
        attempt = uploads.start_attempt(lease, died.first, IDENTITY)
        assert attempt is not None
        uploads.reach_stage(lease, attempt, Stage.INDEXING)
        leases.release(lease)
        requeued = batches.requeue(
            connection, died.batch_id, run_id="run-1", reason="x", backoff=AT_ONCE, max_tries=1
        )
        assert requeued == "failed"
        assert_true()
        assert support.attempts(connection, died.first) == [(1, "died", "worker_died")]
        assert support.upload_state(connection, died.first) == ("pending", None)

    for table in ("upload_batches", "uploads"):
        connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
        assert_true()
    assert audit(connection).batches == 0


# --- what the schema refuses by itself ---


@pytest.mark.parametrize(
    ("statement", "refusal"),
    [
        (attempt("good.jpg", 2, "completed"), errors.UniqueViolation),
        (attempt("bad.jpg", 3, "failed"), errors.CheckViolation),
        (attempt("bad.jpg", 2, "failed"), errors.UniqueViolation),
        (attempt("bad.jpg", 1, "died"), errors.UniqueViolation),
        (attempt("good.jpg", 0, "failed"), errors.CheckViolation),
        (attempt("good.jpg", 2, None, ended=True), errors.CheckViolation),
        (attempt("good.jpg", 2, "failed", ended=False), errors.CheckViolation),
        (attempt("good.jpg", 2, "lost"), errors.CheckViolation),
    ],
    ids=[
        "second completed",
        "third",
        "second failed again",
        "first died again",
        "number zero",
        "open with an end",
        "ended without an end",
        "unknown outcome",
    ],
)
def test_an_attempt_that_the_schema_refuses(
    connection: Connection, batch: NewBatch, statement: str, refusal: type[Exception]
) -> None:
    with pytest.raises(refusal):
        connection.execute(statement.encode(), {"batch": batch.batch_id})
    assert audit(connection).violations == []


def test_a_second_open_attempt_is_refused(connection: Connection, batch: NewBatch) -> None:
    key = {"batch": batch.batch_id}
    connection.execute(attempt("good.jpg", 2, None).encode(), key)
    with pytest.raises(errors.UniqueViolation):
        connection.execute(attempt("good.jpg", 2, None).encode(), key)


def test_a_released_attempt_may_be_made_again(connection: Connection, batch: NewBatch) -> None:
    for _ in range(3):
        connection.execute(attempt("bad.jpg", 2, "released").encode(), {"batch": batch.batch_id})
    assert audit(connection).violations == []


# --- as of one moment, and soon ---


def test_it_sees_one_moment(connection: Connection, database_url: str) -> None:
    """While broken batches are added, it counts as many batches as it finds broken."""
    user_id = support.add_user(connection)
    is_over = threading.Event()

    def add_broken_ones() -> None:
        with connect(database_url) as writer:
            while not is_over.is_set():
                writer.execute(
                    "INSERT INTO upload_batches (user_id, status, processed_uploads, total_uploads)"
                    " VALUES (%s, 'pending', 1, 1)",
                    (user_id,),
                )

    writer = threading.Thread(target=add_broken_ones)
    writer.start()
    try:
        found = [audit(connection)]
        # On a busy machine the writer may be that late.
        while len(found) < 150 or (found[0].batches == found[-1].batches and writer.is_alive()):
            found.append(audit(connection))
    finally:
        is_over.set()
        writer.join()

    assert found[0].batches < found[-1].batches
    assert all(each.batches == len(each.violations) for each in found)


def test_two_thousand_batches(connection: Connection) -> None:
    """Without statistics, as after a bulk load."""
    count, each = 2000, 20
    user_id = support.add_user(connection)
    connection.execute("DROP INDEX idx_uploads_embedding_local")  # slow to fill, and not asked
    connection.execute(
        "INSERT INTO upload_batches (user_id, status, total_uploads, processed_uploads,"
        " successful_uploads, started_at, completed_at)"
        " SELECT %(user)s, 'completed', %(each)s, %(each)s, %(each)s, now(), now()"
        " FROM generate_series(1, %(count)s)",
        {"user": user_id, "each": each, "count": count},
    )
    connection.execute(
        "INSERT INTO uploads (user_id, batch_id, filename, file_path, file_type, file_size,"
        " mime_type, processing_status, description, embedding_local)"
        " SELECT user_id, id, 'a.jpg', 'a.jpg', 'image', 1, 'image/jpeg', 'completed', 'A lake.',"
        " '[1,0,0,0,0,0,0,0]' FROM upload_batches, generate_series(1, %s)",
        (each,),
    )
    connection.execute(
        "INSERT INTO vuemantics_pipeline.attempts (upload_id, batch_id, attempt_number, run_id,"
        " fence, stage, analyzer, vision_model, embedding_model, prompt_version, outcome, ended_at)"
        " SELECT id, batch_id, 1, 'run', 1, 'indexing', 'a', 'v', 'e', 'p', 'completed', now()"
        " FROM uploads"
    )
    started = time.perf_counter()
    found = audit(connection)
    seconds = time.perf_counter() - started
    print(f"audit of {count} batches with {each} uploads each: {seconds:.2f} s")

    assert (found.batches, found.violations) == (count, [])
    connection.execute(
        "UPDATE uploads SET description = NULL WHERE id = (SELECT min(id::text)::uuid FROM uploads)"
    )
    assert [violation.rule for violation in audit(connection).violations] == [
        "completed_without_result"
    ]
