"""Every function of the ledger on a real Postgres: what it writes, and what it never writes."""

import json
import os
import signal
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from types import FrameType
from uuid import UUID, uuid4

import psycopg
import pytest

from vuemantics_pipeline.analysis.analyzer import AnalyzerIdentity
from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UploadError, UsageError
from vuemantics_pipeline.ledger import batches, counters, leases, reruns, uploads, vectors
from vuemantics_pipeline.ledger.batches import (
    BATCH_CHANNEL,
    DIED_TWICE,
    BackOff,
    Closed,
    Orphan,
    RunRequest,
)
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.counters import PROGRESS_CHANNEL
from vuemantics_pipeline.ledger.leases import BatchStopped, Lease, LeaseHeld, LeaseLost
from vuemantics_pipeline.ledger.records import Attempt, BatchStatus, Scope, Stage
from vuemantics_pipeline.ledger.transactions import transaction
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.support import IDENTITY, TRUNCATED, BatchRow, NewBatch

AT_ONCE = BackOff(0, 0)
DOWN = BackendUnavailable("model_unavailable", "The model does not answer.", "Start it.")
APPLICATION_MODEL = "bge-m3"


@pytest.fixture
def user_id(connection: Connection) -> UUID:
    """A user of the application."""
    return support.add_user(connection)


@pytest.fixture
def batch(connection: Connection, user_id: UUID) -> NewBatch:
    """Three pending uploads."""
    return support.add_batch(connection, user_id, files=("a.jpg", "b.jpg", "c.jpg"))


@pytest.fixture
def lease(worker: Connection, batch: NewBatch) -> Lease:
    """The right to write to `batch`, which is open, by a worker with a session of its own."""
    return support.begin(worker, batch.batch_id)


@pytest.fixture
def other(database_url: str, connection: Connection) -> Iterator[Connection]:
    """The session of another run."""
    with connect(database_url) as opened:
        yield opened


def succeed(lease: Lease, upload_id: UUID) -> None:
    attempt = uploads.start_attempt(lease, upload_id, IDENTITY)
    assert attempt is not None
    uploads.complete(lease, attempt, support.outcome())


def fail(lease: Lease, upload_id: UUID, error: UploadError = TRUNCATED) -> bool:
    attempt = uploads.start_attempt(lease, upload_id, IDENTITY)
    assert attempt is not None
    return uploads.fail(lease, attempt, error, {})


def requeue(
    connection: Connection,
    batch_id: UUID,
    run_id: str = "run-1",
    *,
    try_number: int | None = None,
    backoff: BackOff = AT_ONCE,
    max_tries: int | None = None,
) -> BatchStatus | None:
    return batches.requeue(
        connection,
        batch_id,
        run_id=run_id,
        try_number=try_number,
        reason="The run broke.",
        backoff=backoff,
        max_tries=max_tries,
    )


def ready(connection: Connection, *, limit: int = 10, grace_seconds: float = 900) -> list[UUID]:
    found = batches.ready_batches(connection, limit=limit, grace_seconds=grace_seconds)
    return [request.batch_id for request in found]


def state(connection: Connection, batch_id: UUID, column: str) -> object:
    row = connection.execute(
        "SELECT to_jsonb(s) -> %s FROM vuemantics_pipeline.batch_states AS s WHERE batch_id = %s",
        (column, batch_id),
    ).fetchone()
    return None if row is None else row[0]


def waiting_seconds(connection: Connection, batch_id: UUID) -> float:
    """How long after its requeue, one transaction, the batch is offered again."""
    row = connection.execute(
        "SELECT extract(epoch FROM s.not_before - b.updated_at)::float8"
        " FROM vuemantics_pipeline.batch_states AS s JOIN upload_batches AS b ON b.id = s.batch_id"
        " WHERE s.batch_id = %s",
        (batch_id,),
    ).fetchone()
    assert row is not None
    seconds: float = row[0]
    return seconds


# --- the life of a batch ---


def test_counters_follow_every_step(connection: Connection, batch: NewBatch, lease: Lease) -> None:
    a, b, c = batch.uploads.values()

    def counters() -> tuple[int, int, int]:
        support.assert_counters_true(connection, batch.batch_id)
        row = support.batch_row(connection, batch.batch_id)
        assert row.status == "processing"
        return row.processed, row.successful, row.failed

    assert counters() == (0, 0, 0)
    attempt = uploads.start_attempt(lease, a, IDENTITY)
    assert attempt is not None
    assert (attempt.number, attempt.filename, attempt.user_id) == (1, "a.jpg", batch.user_id)
    assert counters() == (0, 0, 0)
    for stage, status in zip(
        Stage,
        ("analyzing", "analyzing", "analyzing", "analyzing", "embedding", "embedding"),
        strict=True,
    ):
        uploads.reach_stage(lease, attempt, stage)
        assert support.upload_state(connection, a) == (status, None)
        assert counters() == (0, 0, 0)
    uploads.complete(lease, attempt, support.outcome())
    assert counters() == (1, 1, 0)
    assert not fail(lease, b)
    assert counters() == (1, 1, 0)
    assert fail(lease, b)
    assert counters() == (2, 1, 1)
    attempt = uploads.start_attempt(lease, c, IDENTITY)
    assert attempt is not None
    uploads.release(lease, c, DOWN, {})
    assert counters() == (2, 1, 1)
    succeed(lease, c)
    assert counters() == (3, 2, 1)

    assert batches.close_batch(lease) == Closed(3, 2, 1, 0)
    support.assert_counters_true(connection, batch.batch_id)
    assert support.batch_row(connection, batch.batch_id) == BatchRow(
        "completed", 3, 3, 2, 1, "1 of 3 uploads failed.", started=True, ended=True
    )


def test_an_outcome_is_written_whole(connection: Connection, batch: NewBatch, lease: Lease) -> None:
    connection.execute("UPDATE uploads SET error_message = 'Of an earlier time.'")
    attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
    assert attempt is not None
    uploads.complete(lease, attempt, support.outcome(video_codec="h264"))

    row = connection.execute(
        "SELECT processing_status, description, description_audit_score, thumbnail_path,"
        " video_codec, error_message, embedding_local::text FROM uploads WHERE id = %s",
        (batch.first,),
    ).fetchone()
    assert row == (
        "completed",
        "A lake at dusk.",
        80,
        "u/i/thumb_256.jpg",
        "h264",
        None,
        "[1" + ",0" * (support.DIMENSION - 1) + "]",
    )
    recorded = connection.execute(
        "SELECT attempt_number, run_id, outcome, stage_seconds, analyzer, vision_model,"
        " embedding_model, prompt_version, ended_at >= started_at, error_code"
        " FROM vuemantics_pipeline.attempts"
    ).fetchall()
    models = ("test", "a vision model", "an embedding model", "v1")
    assert recorded == [(1, "run-1", "completed", {"indexing": 0.5}, *models, True, None)]


def test_an_image_keeps_the_codec_the_application_gave_it(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    connection.execute("UPDATE uploads SET video_codec = 'hevc'")
    succeed(lease, batch.first)
    row = connection.execute(
        "SELECT video_codec FROM uploads WHERE id = %s", (batch.first,)
    ).fetchone()
    assert row == ("hevc",)


def test_uploads_come_oldest_first(
    connection: Connection, worker: Connection, batch: NewBatch
) -> None:
    connection.execute(
        "UPDATE uploads SET created_at = now() - interval '1 day' WHERE filename = 'b.jpg'"
    )
    lease = leases.acquire(worker, batch.batch_id, "run-1")
    unfinished = batches.open_batch(lease, reopen=False)
    assert [upload.filename for upload in unfinished] == ["b.jpg", "a.jpg", "c.jpg"]
    assert unfinished[1].upload_id == batch.uploads["a.jpg"]


def test_a_batch_without_uploads_is_completed_at_once(
    connection: Connection, worker: Connection, user_id: UUID
) -> None:
    empty = support.add_batch(connection, user_id, files=())
    assert ready(connection) == [empty.batch_id]
    lease = leases.acquire(worker, empty.batch_id, "run-1")
    assert list(batches.open_batch(lease, reopen=False)) == []
    assert batches.close_batch(lease) == Closed(0, 0, 0, 0)
    row = support.batch_row(connection, empty.batch_id)
    assert (row.status, row.total, row.ended) == ("completed", 0, True)
    assert row.message == (
        "None of the files offered was accepted, so there was nothing to process."
    )


def test_files_that_never_arrived_are_told(
    connection: Connection, worker: Connection, user_id: UUID
) -> None:
    short = support.add_batch(connection, user_id, files=("a.jpg", "b.jpg"), offered=5)
    lease = support.begin(worker, short.batch_id)
    succeed(lease, short.first)
    for _ in range(2):
        fail(lease, short.uploads["b.jpg"])
    assert batches.close_batch(lease) == Closed(2, 1, 1, 0)
    row = support.batch_row(connection, short.batch_id)
    assert (row.status, row.total, row.processed) == ("completed", 2, 2)
    assert row.message == "1 of 2 uploads failed. 3 of 5 announced files never arrived."


def test_a_batch_with_work_left_is_not_done(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    succeed(lease, batch.first)
    assert batches.close_batch(lease) == Closed(3, 1, 0, 2)
    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.ended, row.processed) == ("processing", False, 1)


def test_an_upload_that_arrives_late_is_counted_before_the_end(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    for upload_id in batch.uploads.values():
        succeed(lease, upload_id)
    late = support.add_upload(connection, batch.batch_id, batch.user_id)
    assert batches.close_batch(lease).unfinished == 1
    succeed(lease, late)
    assert batches.close_batch(lease) == Closed(4, 4, 0, 0)
    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.total, row.processed, row.message) == ("completed", 4, 4, None)


def test_started_once_ended_once(connection: Connection, batch: NewBatch, lease: Lease) -> None:
    def times() -> object:
        return connection.execute("SELECT started_at, completed_at FROM upload_batches").fetchone()

    before = times()
    batches.open_batch(lease, reopen=False)
    assert times() == before
    for upload_id in batch.uploads.values():
        succeed(lease, upload_id)
    batches.close_batch(lease)
    ended = times()
    assert batches.close_batch(lease) == Closed(3, 3, 0, 0)
    assert times() == ended


# --- attempts ---


def test_failed_twice_is_failed_for_good_with_the_reason(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    assert not fail(lease, batch.first, UploadError("unreadable_media", "First.", "Do this."))
    assert support.upload_state(connection, batch.first) == ("pending", None)
    assert fail(lease, batch.first, UploadError("empty_file", "Second.", "Do that."))
    assert support.upload_state(connection, batch.first) == ("failed", "Second. Do that.")
    assert uploads.start_attempt(lease, batch.first, IDENTITY) is None
    assert support.attempts(connection, batch.first) == [
        (1, "failed", "unreadable_media"),
        (2, "failed", "empty_file"),
    ]
    stored = connection.execute(
        "SELECT error_message, remedy FROM vuemantics_pipeline.attempts ORDER BY id"
    ).fetchall()
    assert stored == [("First.", "Do this."), ("Second.", "Do that.")]


def test_a_finished_upload_is_left_alone(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    succeed(lease, batch.first)
    before = support.everything(connection, batch.batch_id)
    assert uploads.start_attempt(lease, batch.first, IDENTITY) is None
    assert support.everything(connection, batch.batch_id) == before


def test_an_upload_of_another_batch_is_not_ours(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    foreign = support.add_batch(connection, batch.user_id)
    assert uploads.start_attempt(lease, foreign.first, IDENTITY) is None
    assert uploads.start_attempt(lease, uuid4(), IDENTITY) is None
    assert support.attempts(connection, foreign.first) == []


def test_repeating_an_outcome_changes_nothing(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    a, b, c = batch.uploads.values()
    done = uploads.start_attempt(lease, a, IDENTITY)
    assert done is not None
    uploads.complete(lease, done, support.outcome())
    fail(lease, b)
    failed = uploads.start_attempt(lease, b, IDENTITY)
    assert failed is not None
    assert uploads.fail(lease, failed, TRUNCATED, {})
    assert uploads.start_attempt(lease, c, IDENTITY) is not None
    uploads.release(lease, c, DOWN, {})
    before = support.everything(connection, batch.batch_id)
    listener = support.Listener(connection)

    uploads.complete(lease, done, support.outcome(description="Something else."))
    uploads.fail(lease, done, TRUNCATED, {})
    assert uploads.fail(lease, failed, TRUNCATED, {})
    uploads.complete(lease, failed, support.outcome())
    for upload_id in (a, b, c):
        uploads.release(lease, upload_id, DOWN, {})
    for ended in (done, failed):
        uploads.reach_stage(lease, ended, Stage.VISION_ANALYSIS)

    assert support.everything(connection, batch.batch_id) == before
    assert listener.heard() == []
    outcomes = [support.attempts(connection, upload_id) for upload_id in (a, b, c)]
    assert outcomes == [
        [(1, "completed", None)],
        [(1, "failed", "unreadable_media"), (2, "failed", "unreadable_media")],
        [(1, "released", "model_unavailable")],
    ]


def test_the_outcome_of_an_attempt_that_ended_does_not_end_the_next(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    first = uploads.start_attempt(lease, batch.first, IDENTITY)
    assert first is not None
    uploads.fail(lease, first, TRUNCATED, {})
    uploads.start_attempt(lease, batch.first, IDENTITY)
    before = support.everything(connection, batch.batch_id)
    uploads.fail(lease, first, TRUNCATED, {})
    uploads.complete(lease, first, support.outcome())
    uploads.reach_stage(lease, first, Stage.INDEXING)
    assert support.everything(connection, batch.batch_id) == before


def test_a_released_attempt_is_not_used_up(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    for _ in range(3):
        attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
        assert attempt is not None
        assert attempt.number == 1
        uploads.reach_stage(lease, attempt, Stage.VISION_ANALYSIS)
        uploads.release(lease, batch.first, DOWN, {"vision_analysis": 1.23456})
        assert support.upload_state(connection, batch.first) == ("pending", None)
    recorded = connection.execute(
        "SELECT DISTINCT outcome, error_message, remedy, stage_seconds, stage"
        " FROM vuemantics_pipeline.attempts"
    ).fetchall()
    assert recorded == [
        ("released", DOWN.message, DOWN.remedy, {"vision_analysis": 1.2346}, "vision_analysis")
    ]
    assert not fail(lease, batch.first)
    assert fail(lease, batch.first)


def test_a_died_attempt_is_used_up(
    connection: Connection, database_url: str, batch: NewBatch, lease: Lease, other: Connection
) -> None:
    attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
    assert attempt is not None
    uploads.reach_stage(lease, attempt, Stage.EMBEDDING_GENERATION)
    support.kill(connection, lease.connection)

    again = leases.acquire(other, batch.batch_id, "run-2")
    unfinished = batches.open_batch(again, reopen=False)

    assert batch.first in [upload.upload_id for upload in unfinished]
    assert support.upload_state(connection, batch.first) == ("pending", None)
    assert support.attempts(connection, batch.first) == [(1, "died", "worker_died")]
    second = uploads.start_attempt(again, batch.first, IDENTITY)
    assert second is not None
    assert second.number == 2
    assert uploads.fail(again, second, TRUNCATED, {})
    assert support.upload_state(connection, batch.first) == ("failed", str(TRUNCATED))


def test_died_twice_is_failed_for_good_and_the_batch_goes_on(
    connection: Connection, database_url: str, batch: NewBatch
) -> None:
    for number in (1, 2):
        with connect(database_url) as worker:
            lease = support.begin(worker, batch.batch_id, f"run-{number}")
            attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
            assert attempt is not None
            assert attempt.number == number
            support.kill(connection, worker)
    with connect(database_url) as worker:
        lease = leases.acquire(worker, batch.batch_id, "run-3")
        unfinished = batches.open_batch(lease, reopen=False)
        assert [upload.filename for upload in unfinished] == ["b.jpg", "c.jpg"]
        assert support.upload_state(connection, batch.first) == ("failed", DIED_TWICE)
        support.assert_counters_true(connection, batch.batch_id)
        assert support.batch_row(connection, batch.batch_id).failed == 1
        for upload in unfinished:
            succeed(lease, upload.upload_id)
        assert batches.close_batch(lease) == Closed(3, 2, 1, 0)


def test_failed_and_died_keeps_the_reason_there_was(
    connection: Connection, batch: NewBatch, lease: Lease, other: Connection
) -> None:
    fail(lease, batch.first)
    uploads.start_attempt(lease, batch.first, IDENTITY)
    support.kill(connection, lease.connection)
    support.begin(other, batch.batch_id, "run-2")
    assert support.upload_state(connection, batch.first) == ("failed", str(TRUNCATED))


def test_one_open_attempt_at_most(connection: Connection, batch: NewBatch, lease: Lease) -> None:
    uploads.start_attempt(lease, batch.first, IDENTITY)
    with pytest.raises(psycopg.errors.UniqueViolation):
        uploads.start_attempt(lease, batch.first, IDENTITY)
    assert support.attempts(connection, batch.first) == [(1, None, None)]


def test_text_that_postgres_cannot_hold(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    """File names and messages of decoders and models hold whatever the file held."""
    odd = UploadError("unreadable_media", "Chunk '\0\ud800'.", "Remove \0.")
    fail(lease, batch.first, odd)
    assert fail(lease, batch.first, odd)
    status, message = support.upload_state(connection, batch.first)
    assert status == "failed"
    assert message is not None
    assert message.startswith("Chunk ")
    b = batch.uploads["b.jpg"]
    uploads.start_attempt(lease, b, IDENTITY)
    uploads.release(lease, b, PipelineError("x", "\0\udfff", "\0"), {})
    attempt = uploads.start_attempt(lease, b, IDENTITY)
    assert attempt is not None
    uploads.complete(lease, attempt, support.outcome(description="A \0\ud83d lake."))
    assert support.upload_state(connection, b) == ("completed", None)
    batches.requeue(
        connection, batch.batch_id, run_id="run-1", reason="\0\ud800 broke", backoff=AT_ONCE
    )
    assert batches.cancel(connection, batch.batch_id, message="\0\ud800 stop")
    assert "stop" in (support.batch_row(connection, batch.batch_id).message or "")


def test_find_upload(batch: NewBatch, lease: Lease) -> None:
    for upload_id in batch.uploads.values():
        assert uploads.find_upload(lease, upload_id.hex[:12]) == upload_id
    with pytest.raises(LookupError):
        uploads.find_upload(lease, uuid4().hex[:12])


def test_find_upload_looks_in_its_batch_only(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    foreign = support.add_batch(connection, batch.user_id)
    with pytest.raises(LookupError):
        uploads.find_upload(lease, foreign.first.hex[:12])


# --- the lease ---


def test_a_held_lease_names_the_run(
    connection: Connection, batch: NewBatch, lease: Lease, other: Connection
) -> None:
    before = support.everything(connection, batch.batch_id)
    with pytest.raises(LeaseHeld, match=r"by run run-1 since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC"):
        leases.acquire(other, batch.batch_id, "run-2")
    assert support.everything(connection, batch.batch_id) == before
    succeed(lease, batch.first)


def test_the_time_of_the_holder_is_utc(
    database_url: str, connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    with connect(database_url) as other:
        other.execute("SET timezone = 'Asia/Kolkata'")
        with pytest.raises(LeaseHeld) as held:
            leases.acquire(other, batch.batch_id, "run-2")
    words = held.value.message.partition(" since ")[2].split()
    since = datetime.fromisoformat(" ".join(words[:2])).replace(tzinfo=UTC)
    assert abs((datetime.now(UTC) - since).total_seconds()) < 3600


def test_a_released_lease_is_free(batch: NewBatch, lease: Lease, other: Connection) -> None:
    leases.release(lease)
    again = leases.acquire(other, batch.batch_id, "run-2")
    assert again.fence > lease.fence
    with pytest.raises(LeaseLost):
        uploads.start_attempt(lease, batch.first, IDENTITY)


def test_leases_of_two_batches_are_independent(
    connection: Connection, batch: NewBatch, lease: Lease, other: Connection
) -> None:
    second = support.add_batch(connection, batch.user_id)
    support.begin(other, second.batch_id, "run-2")
    succeed(lease, batch.first)


def test_killing_the_backend_frees_the_lease(
    connection: Connection, batch: NewBatch, lease: Lease, other: Connection
) -> None:
    assert list(batches.orphaned_batches(connection, grace_seconds=0)) == []
    support.kill(connection, lease.connection)
    found = batches.orphaned_batches(connection, grace_seconds=900)
    assert list(found) == [Orphan(batch.batch_id, "run-1")]
    assert leases.acquire(other, batch.batch_id, "run-2").fence == lease.fence + 1


def test_a_lost_connection_is_nobodys_failed_upload(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
    assert attempt is not None
    support.kill(connection, lease.connection)
    for write in _writes(lease, attempt, batch.first):
        with pytest.raises(BackendUnavailable) as down:
            write()
        assert down.value.code == "database_unavailable"
    assert support.attempts(connection, batch.first) == [(1, None, None)]


def test_a_batch_that_does_not_exist(connection: Connection, other: Connection) -> None:
    nowhere = uuid4()
    with pytest.raises(UsageError, match=str(nowhere)) as refused:
        leases.acquire(connection, nowhere, "run-1")
    assert refused.value.code == "no_such_batch"
    # Nothing is held afterwards: should a batch of this id come, it can be taken.
    held = connection.execute("SELECT vuemantics_pipeline.lease_is_held(%s)", (nowhere,)).fetchone()
    assert held == (False,)


def test_a_deleted_batch_stops_its_run(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    connection.execute("DELETE FROM upload_batches")
    with pytest.raises(LeaseLost):
        uploads.start_attempt(lease, batch.first, IDENTITY)
    with pytest.raises(LeaseLost):
        batches.close_batch(lease)


def _writes(lease: Lease, attempt: Attempt, upload_id: UUID) -> list[Callable[[], object]]:
    """Everything that a run can write."""
    return [
        lambda: batches.open_batch(lease, reopen=False),
        lambda: batches.open_batch(lease, reopen=True),
        lambda: uploads.start_attempt(lease, upload_id, IDENTITY),
        lambda: uploads.reach_stage(lease, attempt, Stage.VISION_ANALYSIS),
        lambda: uploads.complete(lease, attempt, support.outcome()),
        lambda: uploads.fail(lease, attempt, TRUNCATED, {}),
        lambda: uploads.release(lease, upload_id, DOWN, {}),
        lambda: batches.close_batch(lease),
    ]


@pytest.mark.parametrize("how", ["taken over", "requeued", "batch deleted"])
def test_an_old_fence_cannot_write(
    connection: Connection, batch: NewBatch, lease: Lease, other: Connection, how: str
) -> None:
    attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
    assert attempt is not None
    if how == "taken over":
        leases.release(lease)  # the server lost it; the worker has not noticed
        taken = support.begin(other, batch.batch_id, "run-2")
        uploads.start_attempt(taken, batch.first, IDENTITY)
    elif how == "requeued":
        assert requeue(connection, batch.batch_id) == BatchStatus.PENDING
    else:
        connection.execute("DELETE FROM upload_batches")
    before = support.everything(connection, batch.batch_id)
    listener = support.Listener(connection)

    for write in _writes(lease, attempt, batch.first):
        with pytest.raises(LeaseLost, match=str(batch.batch_id)):
            write()

    assert support.everything(connection, batch.batch_id) == before
    assert listener.heard() == []


# --- cancelling and reopening ---


def test_cancel_keeps_what_is_done_and_stops_the_run(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    a, b, c = batch.uploads.values()
    succeed(lease, a)
    in_hand = uploads.start_attempt(lease, b, IDENTITY)
    assert in_hand is not None

    assert batches.cancel(connection, batch.batch_id, message="Not wanted any more.")

    assert support.batch_row(connection, batch.batch_id) == BatchRow(
        "cancelled", 3, 1, 1, 0, "Not wanted any more.", started=True, ended=True
    )
    with pytest.raises(BatchStopped, match="cancelled"):
        uploads.start_attempt(lease, c, IDENTITY)
    # The upload in hand is brought to its end.
    uploads.reach_stage(lease, in_hand, Stage.VISION_ANALYSIS)
    uploads.complete(lease, in_hand, support.outcome())
    with pytest.raises(BatchStopped, match="cancelled"):
        batches.close_batch(lease)
    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.processed, row.successful) == ("cancelled", 2, 2)
    assert row.message == "Not wanted any more."


def test_cancelled_by_the_application(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    connection.execute("UPDATE upload_batches SET status = 'cancelled'")
    with pytest.raises(BatchStopped):
        uploads.start_attempt(lease, batch.first, IDENTITY)


def test_only_a_run_that_does_not_stop_is_overdue(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    def overdue() -> list[str | None]:
        return [held.run_id for held in batches.cancelled_but_held(connection, after_seconds=60)]

    def put_back(table: str, column: str) -> None:
        connection.execute(f"UPDATE {table} SET {column} = now() - interval '2 minutes'")

    put_back("vuemantics_pipeline.batch_states", "claimed_at")
    assert overdue() == []
    connection.execute("UPDATE upload_batches SET status = 'cancelled', updated_at = now()")
    assert overdue() == []
    put_back("upload_batches", "updated_at")
    assert overdue() == [lease.run_id]

    leases.release(lease)
    assert overdue() == []
    leases.acquire(connection, batch.batch_id, "run-2")
    assert overdue() == []
    put_back("vuemantics_pipeline.batch_states", "claimed_at")
    assert overdue() == ["run-2"]


@pytest.mark.parametrize("status", ["completed", "failed", "cancelled"])
def test_an_ended_batch_stays_as_it_is(
    connection: Connection, batch: NewBatch, lease: Lease, other: Connection, status: str
) -> None:
    connection.execute(
        "UPDATE upload_batches SET status = %s, error_message = 'So it ended.',"
        " completed_at = now()",
        (status,),
    )
    before = support.everything(connection, batch.batch_id)

    assert not batches.cancel(connection, batch.batch_id, message="Again.")
    assert not batches.cancel(connection, batch.batch_id, message="Again.", run_id="run-1")
    assert requeue(connection, batch.batch_id) is None
    with pytest.raises(BatchStopped, match=status):
        batches.open_batch(lease, reopen=False)
    if status == "cancelled":
        with pytest.raises(BatchStopped, match=status):
            batches.close_batch(lease)
    else:
        assert batches.close_batch(lease).unfinished == 3
    assert ready(connection, grace_seconds=0) == []
    assert list(batches.orphaned_batches(connection, grace_seconds=0)) == []
    assert support.everything(connection, batch.batch_id) == before

    batches.adopt(connection, batch.batch_id)
    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.message, row.ended) == (status, "So it ended.", True)


def test_cancelling_a_run_spares_the_batch_of_another(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    def cancel(run_id: str, try_number: int | None = None) -> bool:
        return batches.cancel(
            connection, batch.batch_id, message="Terminated.", run_id=run_id, try_number=try_number
        )

    assert not cancel("run-0")
    assert not cancel("run-0", try_number=1)  # its try, but another run holds it
    assert support.batch_row(connection, batch.batch_id).status == "processing"
    assert cancel("run-1")
    assert support.batch_row(connection, batch.batch_id).message == "Terminated."
    assert not cancel("run-1")


def test_cancelling_a_run_that_never_began(connection: Connection, batch: NewBatch) -> None:
    batches.mark_requested(connection, [batch.batch_id])
    assert not batches.cancel(
        connection, batch.batch_id, message="Terminated.", run_id="run-1", try_number=2
    )
    assert batches.cancel(
        connection, batch.batch_id, message="Terminated.", run_id="run-1", try_number=1
    )
    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.started, row.ended) == ("cancelled", False, True)


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_a_person_reopens_an_ended_batch(
    connection: Connection, batch: NewBatch, lease: Lease, status: str
) -> None:
    succeed(lease, batch.first)
    connection.execute(
        "UPDATE upload_batches SET status = %s, error_message = 'x', completed_at = now()",
        (status,),
    )
    unfinished = batches.open_batch(lease, reopen=True)
    assert [upload.filename for upload in unfinished] == ["b.jpg", "c.jpg"]
    assert support.batch_row(connection, batch.batch_id) == BatchRow(
        "processing", 3, 1, 1, 0, None, started=True, ended=False
    )
    for upload in unfinished:
        succeed(lease, upload.upload_id)
    assert batches.close_batch(lease) == Closed(3, 3, 0, 0)


def test_reopening_a_finished_batch_leaves_it(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    for upload_id in batch.uploads.values():
        succeed(lease, upload_id)
    batches.close_batch(lease)
    before = support.batch_row(connection, batch.batch_id)
    assert list(batches.open_batch(lease, reopen=True)) == []
    assert support.batch_row(connection, batch.batch_id) == before


# --- requeue and back-off ---


def test_requeue_once(connection: Connection, batch: NewBatch, lease: Lease) -> None:
    succeed(lease, batch.first)
    leases.release(lease)
    assert requeue(connection, batch.batch_id) == BatchStatus.PENDING
    assert support.batch_row(connection, batch.batch_id) == BatchRow(
        "pending", 3, 1, 1, 0, "The run broke.", started=True, ended=False
    )
    before = support.everything(connection, batch.batch_id)
    for try_number in (None, 1):
        assert requeue(connection, batch.batch_id, try_number=try_number) is None
    assert requeue(connection, batch.batch_id, "run-0", try_number=1) is None
    assert support.everything(connection, batch.batch_id) == before
    found = batches.ready_batches(connection, limit=1, grace_seconds=900)
    assert list(found) == [RunRequest(batch.batch_id, batch.user_id, 2, was_requested=False)]


def test_requeue_by_a_run_that_never_had_it(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    before = support.everything(connection, batch.batch_id)
    assert requeue(connection, batch.batch_id, "run-0") is None
    assert requeue(connection, batch.batch_id, "run-0", try_number=1) is None
    assert requeue(connection, uuid4()) is None
    assert support.everything(connection, batch.batch_id) == before


def test_requeue_of_a_run_that_failed_at_launch(connection: Connection, batch: NewBatch) -> None:
    assert requeue(connection, batch.batch_id, try_number=1) is None  # never asked for
    batches.mark_requested(connection, [batch.batch_id])
    assert requeue(connection, batch.batch_id, try_number=2) is None
    assert requeue(connection, batch.batch_id, try_number=1) == BatchStatus.PENDING
    assert state(connection, batch.batch_id, "try_number") == 2
    assert ready(connection) == [batch.batch_id]


def test_the_wait_doubles_up_to_a_limit(
    connection: Connection, batch: NewBatch, worker: Connection
) -> None:
    waits = []
    for number in range(6):
        lease = support.begin(worker, batch.batch_id, f"run-{number}")
        leases.release(lease)
        requeue(connection, batch.batch_id, f"run-{number}", backoff=BackOff(100, 500))
        waits.append(waiting_seconds(connection, batch.batch_id))
        assert ready(connection) == ([batch.batch_id] if number == 0 else [])
    assert waits == [0, 100, 200, 400, 500, 500]

    lease = support.begin(worker, batch.batch_id, "run-6")
    succeed(lease, batch.first)
    leases.release(lease)
    requeue(connection, batch.batch_id, "run-6", backoff=BackOff(100, 500))
    assert waiting_seconds(connection, batch.batch_id) == 0
    assert ready(connection) == [batch.batch_id]


def test_a_final_failure_is_progress_too(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    connection.execute("UPDATE vuemantics_pipeline.batch_states SET fruitless_runs = 3")
    fail(lease, batch.first)
    assert state(connection, batch.batch_id, "fruitless_runs") == 3
    fail(lease, batch.first)
    assert state(connection, batch.batch_id, "fruitless_runs") == 0


@pytest.mark.parametrize("runs", [0, 1, 2, 40, 10**6])
def test_back_off_is_bounded(runs: int) -> None:
    assert 0 <= BackOff(10, 600).wait_seconds(runs) <= 600
    assert BackOff(0, 600).wait_seconds(runs) == 0


def test_a_backend_that_was_down_never_fails_the_batch(
    connection: Connection, batch: NewBatch
) -> None:
    backoff = BackOff(0, 0)
    for number in range(1, 6):
        leases.release(leases.acquire(connection, batch.batch_id, f"run-{number}"))
        assert batches.requeue(
            connection, batch.batch_id, run_id=f"run-{number}", reason="down", backoff=backoff
        )
    leases.release(leases.acquire(connection, batch.batch_id, "killed"))
    status = batches.requeue(
        connection, batch.batch_id, run_id="killed", reason="died", backoff=backoff, max_tries=2
    )
    assert status == "pending"


def test_too_many_fruitless_runs_fail_the_batch(
    connection: Connection, batch: NewBatch, worker: Connection
) -> None:
    results = []
    for number in range(3):
        lease = support.begin(worker, batch.batch_id, f"run-{number}")
        leases.release(lease)
        results.append(requeue(connection, batch.batch_id, f"run-{number}", max_tries=3))
    assert results == [BatchStatus.PENDING, BatchStatus.PENDING, BatchStatus.FAILED]
    assert support.batch_row(connection, batch.batch_id) == BatchRow(
        "failed", 3, 0, 0, 0, "The run broke.", started=True, ended=True
    )
    assert requeue(connection, batch.batch_id, "run-2", max_tries=3) is None
    assert ready(connection, grace_seconds=0) == []


def test_a_requeued_batch_takes_up_where_it_was(
    connection: Connection, batch: NewBatch, lease: Lease, other: Connection
) -> None:
    succeed(lease, batch.first)
    uploads.start_attempt(lease, batch.uploads["b.jpg"], IDENTITY)
    uploads.release(lease, batch.uploads["b.jpg"], DOWN, {})
    requeue(connection, batch.batch_id)
    leases.release(lease)
    again = leases.acquire(other, batch.batch_id, "run-2")
    unfinished = batches.open_batch(again, reopen=False)
    assert [upload.filename for upload in unfinished] == ["b.jpg", "c.jpg"]
    assert support.batch_row(connection, batch.batch_id).message is None
    attempt = uploads.start_attempt(again, batch.uploads["b.jpg"], IDENTITY)
    assert attempt is not None
    assert attempt.number == 1


# --- what the sensor sees ---


def test_ready_oldest_first_up_to_the_limit(connection: Connection, user_id: UUID) -> None:
    ids = [support.add_batch(connection, user_id).batch_id for _ in range(4)]
    connection.execute(
        "UPDATE upload_batches SET created_at = now() - interval '1 day' WHERE id = %s", (ids[2],)
    )
    expected = [ids[2], ids[0], ids[1], ids[3]]
    assert ready(connection) == expected
    assert ready(connection, limit=2) == expected[:2]
    assert ready(connection, limit=1) == expected[:1]


def test_a_batch_that_is_being_filled_is_never_ready(connection: Connection, user_id: UUID) -> None:
    filling = support.add_batch(connection, user_id, files=(), offered=3)
    for number in range(3):
        assert ready(connection) == []
        support.add_upload(connection, filling.batch_id, user_id, f"{number}.jpg")
    assert ready(connection) == [filling.batch_id]


def test_lowering_the_total_makes_a_batch_ready(connection: Connection, user_id: UUID) -> None:
    filling = support.add_batch(connection, user_id, offered=3)
    assert ready(connection) == []
    connection.execute("UPDATE upload_batches SET total_uploads = 1")
    assert ready(connection) == [filling.batch_id]


@pytest.mark.parametrize("recent", ["upload_batches.created_at", "upload_batches.updated_at"])
def test_the_grace_period_begins_with_the_last_change(
    connection: Connection, user_id: UUID, recent: str
) -> None:
    filling = support.add_batch(connection, user_id, offered=3)
    connection.execute(
        "UPDATE uploads SET created_at = now() - interval '1 hour';"
        "UPDATE upload_batches SET created_at = now() - interval '1 hour',"
        " updated_at = now() - interval '1 hour'"
    )
    assert ready(connection, grace_seconds=3500) == [filling.batch_id]
    assert ready(connection, grace_seconds=3700) == []
    connection.execute(f"UPDATE upload_batches SET {recent.partition('.')[2]} = now()".encode())
    assert ready(connection, grace_seconds=3500) == []


def test_the_grace_period_begins_with_the_last_upload(
    connection: Connection, user_id: UUID
) -> None:
    filling = support.add_batch(connection, user_id, offered=3)
    connection.execute(
        "UPDATE uploads SET created_at = now() - interval '1 hour';"
        "UPDATE upload_batches SET created_at = now() - interval '1 day', updated_at = NULL"
    )
    assert ready(connection, grace_seconds=3700) == []
    assert ready(connection, grace_seconds=3500) == [filling.batch_id]
    support.add_upload(connection, filling.batch_id, user_id)
    assert ready(connection, grace_seconds=3500) == []


@pytest.mark.parametrize("status", ["processing", "completed", "failed", "cancelled"])
def test_only_pending_batches_are_ready(
    connection: Connection, batch: NewBatch, status: str
) -> None:
    assert ready(connection) == [batch.batch_id]
    connection.execute("UPDATE upload_batches SET status = %s", (status,))
    assert ready(connection, grace_seconds=0) == []


def test_a_batch_asked_for_is_left_out_for_a_minute(
    connection: Connection, batch: NewBatch
) -> None:
    batches.mark_requested(connection, [batch.batch_id])
    batches.mark_requested(connection, [])
    assert ready(connection) == []
    connection.execute(
        "UPDATE vuemantics_pipeline.batch_states SET requested_at = now() - interval '59 s'"
    )
    assert ready(connection) == []
    connection.execute(
        "UPDATE vuemantics_pipeline.batch_states SET requested_at = now() - interval '61 s'"
    )
    found = batches.ready_batches(connection, limit=1, grace_seconds=900)
    assert list(found) == [RunRequest(batch.batch_id, batch.user_id, 1, was_requested=True)]
    batches.mark_requested(connection, [batch.batch_id])
    assert ready(connection) == []


def test_a_batch_that_backs_off_is_left_out(connection: Connection, batch: NewBatch) -> None:
    batches.mark_requested(connection, [batch.batch_id])
    connection.execute(
        "UPDATE vuemantics_pipeline.batch_states"
        " SET requested_at = NULL, not_before = now() + interval '1 hour'"
    )
    assert ready(connection) == []
    connection.execute("UPDATE vuemantics_pipeline.batch_states SET not_before = now()")
    assert ready(connection) == [batch.batch_id]


def test_orphans_and_adoption(
    connection: Connection, batch: NewBatch, worker: Connection, user_id: UUID
) -> None:
    def orphans(grace_seconds: float) -> list[Orphan]:
        return list(batches.orphaned_batches(connection, grace_seconds=grace_seconds))

    support.add_batch(connection, user_id)  # pending: nobody's orphan
    connection.execute(
        "UPDATE upload_batches SET status = 'processing', processed_uploads = 2,"
        " updated_at = now() - interval '1 hour' WHERE id = %s",
        (batch.batch_id,),
    )
    connection.execute(
        "UPDATE uploads SET processing_status = 'completed' WHERE id = %s", (batch.first,)
    )
    assert orphans(3700) == []
    assert orphans(3500) == [Orphan(batch.batch_id, None)]

    batches.adopt(connection, batch.batch_id)

    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.processed, row.successful) == ("pending", 1, 1)
    assert orphans(0) == []
    lease = leases.acquire(worker, batch.batch_id, "run-1")
    unfinished = batches.open_batch(lease, reopen=False)
    assert [upload.filename for upload in unfinished] == ["b.jpg", "c.jpg"]


def test_adoption_leaves_a_batch_to_the_run_that_took_it_meanwhile(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    before = support.everything(connection, batch.batch_id)
    batches.adopt(connection, batch.batch_id)
    assert support.everything(connection, batch.batch_id) == before
    succeed(lease, batch.first)


# --- notifications ---


def progress(batch: NewBatch, upload_id: UUID | None = None) -> tuple[str, str]:
    message = {"batch_id": str(batch.batch_id)}
    if upload_id is not None:
        message["upload_id"] = str(upload_id)
    return PROGRESS_CHANNEL, json.dumps(message, separators=(" , ", " : "))


def test_each_change_is_announced_once(
    connection: Connection, batch: NewBatch, worker: Connection
) -> None:
    listener = support.Listener(connection)
    lease = leases.acquire(worker, batch.batch_id, "run-1")
    assert listener.heard() == []
    batches.open_batch(lease, reopen=False)
    started = (BATCH_CHANNEL, str(batch.batch_id))
    assert _parsed(listener.heard()) == _parsed([started, progress(batch)])
    a, b, c = batch.uploads.values()
    moved = _parsed([progress(batch, a)])
    attempt = uploads.start_attempt(lease, a, IDENTITY)
    assert attempt is not None
    assert _parsed(listener.heard()) == moved
    uploads.reach_stage(lease, attempt, Stage.VISION_ANALYSIS)
    assert _parsed(listener.heard()) == moved
    uploads.describe_frame(lease, attempt, 1, 8)
    assert _parsed(listener.heard()) == moved
    uploads.complete(lease, attempt, support.outcome())
    assert _parsed(listener.heard()) == moved
    for _ in range(2):
        attempt = uploads.start_attempt(lease, b, IDENTITY)
        assert attempt is not None
        listener.heard()
        uploads.fail(lease, attempt, TRUNCATED, {})
        assert _parsed(listener.heard()) == _parsed([progress(batch, b)])
    uploads.start_attempt(lease, c, IDENTITY)
    listener.heard()
    uploads.release(lease, c, DOWN, {})
    assert _parsed(listener.heard()) == _parsed([progress(batch, c)])
    succeed(lease, c)
    listener.heard()
    batches.close_batch(lease)
    assert _parsed(listener.heard()) == _parsed([started, progress(batch)])


def test_what_else_moves_a_batch_is_announced_once(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    listener = support.Listener(connection)
    expected = _parsed([(BATCH_CHANNEL, str(batch.batch_id)), progress(batch)])
    requeue(connection, batch.batch_id)
    assert _parsed(listener.heard()) == expected
    batches.cancel(connection, batch.batch_id, message="x")
    assert _parsed(listener.heard()) == expected
    batches.cancel(connection, batch.batch_id, message="x")
    assert listener.heard() == []


def test_what_was_announced_is_numbered(
    connection: Connection, batch: NewBatch, worker: Connection
) -> None:
    def numbers() -> tuple[object, object]:
        named = ("progress_seq", "sweeping_seq")
        first, second = (state(connection, batch.batch_id, column) for column in named)
        return first, second

    def number_of(upload_id: UUID) -> list[int]:
        return [
            number
            for (number,) in connection.execute(
                "SELECT progress_seq FROM vuemantics_pipeline.attempts"
                " WHERE upload_id = %s ORDER BY id",
                (upload_id,),
            )
        ]

    lease = support.begin(worker, batch.batch_id)
    assert numbers() == (1, 1)
    a, b, _ = batch.uploads.values()
    attempt = uploads.start_attempt(lease, a, IDENTITY)
    assert attempt is not None
    uploads.describe_frame(lease, attempt, 3, 8)
    assert numbers() == (3, 1)
    assert number_of(a) == [3]
    assert connection.execute(
        "SELECT frames_done, frames_total FROM vuemantics_pipeline.attempts"
    ).fetchall() == [(3, 8)]
    uploads.complete(lease, attempt, support.outcome())
    uploads.describe_frame(lease, attempt, 4, 8)  # too late: it has ended
    assert numbers() == (4, 1)
    fail(lease, b)
    fail(lease, b)
    assert numbers() == (8, 1)
    assert (number_of(a), number_of(b)) == ([4], [6, 8])
    batches.cancel(connection, batch.batch_id, message="x")
    assert numbers() == (9, 9)


def test_each_run_that_goes_on_with_a_batch_is_counted(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    assert state(connection, batch.batch_id, "takeovers") == 0
    requeue(connection, batch.batch_id)
    leases.release(lease)
    assert state(connection, batch.batch_id, "takeovers") == 1
    reruns.retry(connection, batch.batch_id, Scope.ALL)
    assert state(connection, batch.batch_id, "takeovers") == 0


def test_a_new_batch_is_announced_to_the_sensor(connection: Connection, user_id: UUID) -> None:
    listener = support.Listener(connection)
    new = support.add_batch(connection, user_id, offered=2)
    assert listener.heard() == [(BATCH_CHANNEL, str(new.batch_id))]
    connection.execute("UPDATE upload_batches SET total_uploads = 1")
    assert listener.heard() == [(BATCH_CHANNEL, str(new.batch_id))]
    connection.execute("UPDATE upload_batches SET processed_uploads = 1, updated_at = now()")
    assert listener.heard() == []


def test_a_rollback_announces_nothing(
    connection: Connection, batch: NewBatch, lease: Lease, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last step of each transaction fails, when everything else of it is written."""
    attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
    assert attempt is not None
    before = support.everything(connection, batch.batch_id)
    listener = support.Listener(connection)

    def break_after(step: Callable[..., None]) -> Callable[..., None]:
        def broken(*arguments: object) -> None:
            step(*arguments)
            raise ZeroDivisionError

        return broken

    for module in ("uploads", "batches"):
        name = f"vuemantics_pipeline.ledger.{module}.announce"
        monkeypatch.setattr(name, break_after(counters.announce))
    steps: list[Callable[[], object]] = [
        lambda: uploads.start_attempt(lease, batch.uploads["b.jpg"], IDENTITY),
        lambda: uploads.reach_stage(lease, attempt, Stage.INDEXING),
        lambda: uploads.complete(lease, attempt, support.outcome()),
        lambda: uploads.fail(lease, attempt, TRUNCATED, {}),
        lambda: uploads.release(lease, batch.first, DOWN, {}),
        lambda: batches.open_batch(lease, reopen=False),
        lambda: requeue(connection, batch.batch_id),
        lambda: batches.cancel(connection, batch.batch_id, message="x"),
    ]
    for step in steps:
        with pytest.raises(ZeroDivisionError):
            step()
    assert listener.heard() == []
    assert support.everything(connection, batch.batch_id) == before


def _parsed(heard: list[tuple[str, str]]) -> list[tuple[str, object]]:
    """Notifications of one transaction, in an order of their own."""
    return sorted(
        (channel, json.loads(payload) if channel == PROGRESS_CHANNEL else payload)
        for channel, payload in heard
    )


# --- transactions and signals ---


class Told(BaseException):
    """What a signal handler raises."""


@pytest.fixture
def told() -> Iterator[None]:
    """Signals raise `Told`, as Dagster's handlers and time limits raise their own."""

    def tell(number: int, frame: FrameType | None) -> None:
        raise Told(number)

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)
    before = {number: signal.signal(number, tell) for number in numbers}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("told")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGALRM])
def test_a_signal_waits_for_the_commit(
    connection: Connection, batch: NewBatch, lease: Lease, number: int
) -> None:
    def write() -> None:
        with transaction(lease.connection):
            lease.connection.execute("UPDATE upload_batches SET error_message = 'whole'")
            os.kill(os.getpid(), number)
            lease.connection.execute("UPDATE upload_batches SET total_uploads = 7")

    with pytest.raises(Told):
        write()
    row = support.batch_row(connection, batch.batch_id)
    assert (row.message, row.total) == ("whole", 7)
    # Outside, signals are as prompt as before, and the connection is still of use.
    with pytest.raises(Told):
        signal.raise_signal(number)
    succeed(lease, batch.first)


@pytest.mark.usefixtures("told")
def test_a_signal_in_a_transaction_that_fails(
    connection: Connection, batch: NewBatch, lease: Lease
) -> None:
    def write() -> None:
        with transaction(lease.connection):
            lease.connection.execute("UPDATE upload_batches SET total_uploads = 7")
            os.kill(os.getpid(), signal.SIGTERM)
            raise ZeroDivisionError

    with pytest.raises(Told) as told:
        write()
    assert isinstance(told.value.__context__, ZeroDivisionError)
    assert support.batch_row(connection, batch.batch_id).total == 3


@pytest.mark.usefixtures("told")
def test_a_request_to_stop_goes_before_a_time_limit(lease: Lease) -> None:
    def write() -> None:
        with transaction(lease.connection):
            os.kill(os.getpid(), signal.SIGALRM)
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Told) as told:
        write()
    assert told.value.args == (signal.SIGTERM,)


def test_a_transaction_is_whole_or_not_at_all(
    connection: Connection, batch: NewBatch, worker: Connection
) -> None:
    def write() -> None:
        with transaction(worker):
            worker.execute("UPDATE upload_batches SET total_uploads = 7")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write()
    assert support.batch_row(connection, batch.batch_id).total == 3


def test_losing_the_connection_in_a_transaction(connection: Connection, worker: Connection) -> None:
    def write() -> None:
        with transaction(worker):
            support.kill(connection, worker)
            worker.execute("SELECT 1")

    with pytest.raises(BackendUnavailable) as down:
        write()
    assert down.value.code == "database_unavailable"
    assert down.value.remedy


# --- whose vectors ---


def identity(model: str, dimension: int = support.DIMENSION) -> AnalyzerIdentity:
    return AnalyzerIdentity("embedded", "vision", model, dimension, "v1")


def claim(connection: Connection, model: str, dimension: int = support.DIMENSION) -> None:
    vectors.claim_space(connection, identity(model, dimension), application_model=APPLICATION_MODEL)


def check(connection: Connection, model: str, dimension: int = support.DIMENSION) -> None:
    vectors.check_space(connection, identity(model, dimension), application_model=APPLICATION_MODEL)


def store_a_vector(connection: Connection) -> None:
    connection.execute(
        "UPDATE uploads SET embedding_local = %s::vector",
        (vectors.literal([0.0, 1.0] + [0.0] * (support.DIMENSION - 2)),),
    )


def test_the_first_model_claims_the_database(connection: Connection, batch: NewBatch) -> None:
    check(connection, "minilm")
    check(connection, "another")  # looking claims nothing
    claim(connection, "minilm")
    claim(connection, "minilm")
    check(connection, "minilm")
    for refuse in (claim, check):
        with pytest.raises(UsageError, match=r"made by minilm.*another cannot") as refused:
            refuse(connection, "another")
        assert refused.value.code == "wrong_embedding_model"
        assert "VUEMANTICS_ANALYZER" in refused.value.remedy
    assert connection.execute(
        "SELECT embedding_model, dimension FROM vuemantics_pipeline.embedding_space"
    ).fetchall() == [("minilm", support.DIMENSION)]


def test_another_dimension_is_refused(connection: Connection) -> None:
    for refuse in (claim, check):
        with pytest.raises(UsageError, match=r"of 384 dimensions.*holds 8") as refused:
            refuse(connection, "minilm", 384)
        assert refused.value.code == "wrong_dimension"
    assert connection.execute(
        "SELECT count(*) FROM vuemantics_pipeline.embedding_space"
    ).fetchone() == (0,)


def test_vectors_that_were_there_are_the_applications(
    connection: Connection, batch: NewBatch
) -> None:
    store_a_vector(connection)
    for refuse in (claim, check):
        with pytest.raises(UsageError, match=f"made by {APPLICATION_MODEL}"):
            refuse(connection, "minilm")
    claim(connection, APPLICATION_MODEL)
    check(connection, APPLICATION_MODEL)


def test_a_column_without_a_dimension_takes_it_from_its_vectors(
    connection: Connection, batch: NewBatch
) -> None:
    connection.execute("DROP INDEX idx_uploads_embedding_local")
    connection.execute("ALTER TABLE uploads ALTER embedding_local TYPE vector")
    check(connection, "minilm", 384)
    store_a_vector(connection)
    with pytest.raises(UsageError):
        check(connection, APPLICATION_MODEL, 384)
    claim(connection, APPLICATION_MODEL, support.DIMENSION)


def test_two_models_at_once_cannot_both_win(
    connection: Connection, worker: Connection, other: Connection
) -> None:
    with worker.transaction():
        check(other, "another")
        claim(worker, "minilm")
    with pytest.raises(UsageError):
        claim(other, "another")


def test_a_vector_reads_back_as_it_was_written(connection: Connection, batch: NewBatch) -> None:
    values = [0.1, -1e-30, 1.0, 0.333333343, 1e20, -0.0, 2.5e-7, 3.0]
    row = connection.execute("SELECT %s::vector::real[]", (vectors.literal(values),)).fetchone()
    assert row is not None
    assert row[0] == pytest.approx(values, rel=1e-6)
