"""Running a batch again: what begins anew, what stays, and that the counters follow at once."""

from collections.abc import Callable
from dataclasses import replace

import pytest

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger import batches, leases, reruns, uploads
from vuemantics_pipeline.ledger.audit import audit
from vuemantics_pipeline.ledger.batches import BATCH_CHANNEL, BackOff, Closed
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.counters import PROGRESS_CHANNEL
from vuemantics_pipeline.ledger.leases import Lease, LeaseLost
from vuemantics_pipeline.ledger.records import Analysis, Scope
from vuemantics_pipeline.ledger.reruns import count_scope, retry
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.support import IDENTITY, TRUNCATED, Listener, NewBatch

NAMES = ("good.jpg", "bad.jpg", "left.jpg", "dead.jpg")
"""By what becomes of them: completed, failed for good, never begun, begun by a worker that died."""

TAKEN_UP = {
    Scope.UNFINISHED: {"left.jpg", "dead.jpg"},
    Scope.FAILED: {"left.jpg", "dead.jpg", "bad.jpg"},
    Scope.ALL: set(NAMES),
}
ENDS = ("pending", "processing", "failed", "cancelled")

scopes = pytest.mark.parametrize("scope", list(Scope))
ends = pytest.mark.parametrize("end", ENDS)


@pytest.fixture
def batch(connection: Connection) -> NewBatch:
    return support.add_batch(connection, support.add_user(connection), files=NAMES)


def succeed(lease: Lease, upload_id: object) -> None:
    attempt = uploads.start_attempt(lease, upload_id, IDENTITY)  # type: ignore[arg-type]
    assert attempt is not None
    uploads.complete(lease, attempt, support.outcome())


def fail(lease: Lease, upload_id: object) -> bool:
    attempt = uploads.start_attempt(lease, upload_id, IDENTITY)  # type: ignore[arg-type]
    assert attempt is not None
    return uploads.fail(lease, attempt, TRUNCATED, {})


def half_done(connection: Connection, database_url: str, batch: NewBatch, end: str) -> None:
    """One run of the batch, whose worker dies in the middle; the batch then stands at `end`."""
    with connect(database_url) as worker:
        lease = support.begin(worker, batch.batch_id)
        succeed(lease, batch.uploads["good.jpg"])
        fail(lease, batch.uploads["bad.jpg"])
        fail(lease, batch.uploads["bad.jpg"])
        uploads.start_attempt(lease, batch.uploads["dead.jpg"], IDENTITY)
        support.kill(connection, worker)
    if end == "cancelled":
        assert batches.cancel(connection, batch.batch_id, message="Enough.")
    elif end != "processing":
        batches.requeue(
            connection,
            batch.batch_id,
            run_id="run-1",
            reason="It broke.",
            backoff=BackOff(600, 600),
            max_tries=1 if end == "failed" else None,
        )
    assert support.batch_row(connection, batch.batch_id).status == end


def completed(worker: Connection, batch: NewBatch) -> None:
    """Two uploads done, two failed, and the batch completed."""
    lease = support.begin(worker, batch.batch_id)
    for name, upload_id in batch.uploads.items():
        if name in ("good.jpg", "left.jpg"):
            succeed(lease, upload_id)
        else:
            fail(lease, upload_id)
            fail(lease, upload_id)
    assert batches.close_batch(lease) == Closed(4, 2, 2, 0)
    leases.release(lease)


def assert_true(connection: Connection, batch: NewBatch) -> None:
    """The counters are what the rows say, and nothing contradicts anything."""
    support.assert_counters_true(connection, batch.batch_id)
    assert audit(connection).violations == []


def unfinished(connection: Connection, batch: NewBatch) -> set[str]:
    rows = connection.execute(
        "SELECT filename FROM uploads WHERE batch_id = %s"
        " AND processing_status NOT IN ('completed', 'failed')",
        (batch.batch_id,),
    ).fetchall()
    return {row[0] for row in rows}


def superseded(connection: Connection, batch: NewBatch) -> set[str]:
    """Names of the uploads that have attempts of an earlier life."""
    rows = connection.execute(
        "SELECT DISTINCT u.filename FROM uploads AS u"
        " JOIN vuemantics_pipeline.attempts AS a ON a.upload_id = u.id AND a.superseded"
        " WHERE u.batch_id = %s",
        (batch.batch_id,),
    ).fetchall()
    return {row[0] for row in rows}


def finish(connection: Connection, worker: Connection, batch: NewBatch) -> None:
    """The next run, in which every upload succeeds; the books are true at every step."""
    lease = leases.acquire(worker, batch.batch_id, "run-last")
    for upload in batches.open_batch(lease, reopen=False):
        succeed(lease, upload.upload_id)
        assert_true(connection, batch)
    closed = batches.close_batch(lease)
    assert (closed.total, closed.unfinished) == (4, 0)
    leases.release(lease)
    assert_true(connection, batch)
    assert support.batch_row(connection, batch.batch_id).status == "completed"


# --- retry ---


@ends
@scopes
def test_retry_of_a_half_done_batch(
    connection: Connection,
    database_url: str,
    worker: Connection,
    batch: NewBatch,
    end: str,
    scope: Scope,
) -> None:
    half_done(connection, database_url, batch, end)
    assert_true(connection, batch)
    taken_up = TAKEN_UP[scope]

    assert count_scope(connection, batch.batch_id, scope) == len(taken_up)
    assert retry(connection, batch.batch_id, scope) == len(taken_up)

    assert_true(connection, batch)
    assert unfinished(connection, batch) == taken_up
    assert superseded(connection, batch) == taken_up - {"left.jpg", "dead.jpg"}
    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.message, row.ended, row.started) == ("pending", None, False, True)
    assert row.processed == 4 - len(taken_up)
    (request,) = batches.ready_batches(connection, limit=9, grace_seconds=900)
    assert (request.batch_id, request.was_requested) == (batch.batch_id, False)
    finish(connection, worker, batch)
    row = support.batch_row(connection, batch.batch_id)
    assert row.failed == (1 if scope is Scope.UNFINISHED else 0)


@pytest.mark.parametrize(("scope", "count"), [(Scope.FAILED, 2), (Scope.ALL, 4)])
def test_retry_of_a_completed_batch(
    connection: Connection, worker: Connection, batch: NewBatch, scope: Scope, count: int
) -> None:
    completed(worker, batch)

    assert retry(connection, batch.batch_id, scope) == count

    assert_true(connection, batch)
    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.total, row.processed) == ("pending", 4, 4 - count)
    assert (row.message, row.ended) == (None, False)
    finish(connection, worker, batch)
    assert support.batch_row(connection, batch.batch_id).successful == 4


def test_each_try_has_a_number_of_its_own(
    connection: Connection, worker: Connection, batch: NewBatch
) -> None:
    """Dagster uses a run key once, so a batch that is run again needs another."""
    completed(worker, batch)
    numbers = []
    for _ in range(3):
        retry(connection, batch.batch_id, Scope.ALL)
        (request,) = batches.ready_batches(connection, limit=9, grace_seconds=900)
        numbers.append(request.try_number)
    assert len(set(numbers)) == 3


def test_retry_ends_the_back_off(connection: Connection, batch: NewBatch) -> None:
    with_run = {"run_id": "run-none", "try_number": 1, "reason": "Down."}
    batches.mark_requested(connection, [batch.batch_id])
    for try_number in (1, 2):
        batches.requeue(
            connection,
            batch.batch_id,
            **(with_run | {"try_number": try_number}),  # type: ignore[arg-type]
            backoff=BackOff(600, 600),
        )
    assert batches.ready_batches(connection, limit=9, grace_seconds=900) == []

    assert retry(connection, batch.batch_id, Scope.UNFINISHED) == 4

    assert len(batches.ready_batches(connection, limit=9, grace_seconds=900)) == 1
    batches.requeue(
        connection,
        batch.batch_id,
        **(with_run | {"try_number": 4}),  # type: ignore[arg-type]
        backoff=BackOff(600, 600),
        max_tries=2,
    )
    assert support.batch_row(connection, batch.batch_id).status == "pending", "counted as before"


def test_a_batch_that_was_never_run(
    connection: Connection, worker: Connection, batch: NewBatch
) -> None:
    assert retry(connection, batch.batch_id, Scope.UNFINISHED) == 4
    assert_true(connection, batch)
    finish(connection, worker, batch)


def test_retry_wakes_the_sensor_and_whoever_watches(
    connection: Connection, worker: Connection, batch: NewBatch
) -> None:
    completed(worker, batch)
    listener = Listener(connection)
    listener.heard()

    retry(worker, batch.batch_id, Scope.FAILED)

    heard = listener.heard()
    assert [payload for channel, payload in heard if channel == BATCH_CHANNEL] == [
        str(batch.batch_id)
    ]
    progress = [payload for channel, payload in heard if channel == PROGRESS_CHANNEL]
    assert len(progress) == 1
    assert str(batch.batch_id) in progress[0]


@scopes
def test_nothing_to_do_changes_nothing(
    connection: Connection, worker: Connection, scope: Scope
) -> None:
    files = () if scope is Scope.ALL else ("good.jpg",)
    batch = support.add_batch(connection, support.add_user(connection), files=files)
    lease = support.begin(worker, batch.batch_id)
    for upload_id in batch.uploads.values():
        succeed(lease, upload_id)
    batches.close_batch(lease)
    leases.release(lease)
    before = support.everything(connection, batch.batch_id)

    assert count_scope(connection, batch.batch_id, scope) == 0
    assert retry(connection, batch.batch_id, scope) == 0

    assert support.everything(connection, batch.batch_id) == before


@scopes
@pytest.mark.parametrize("status", ["processing", "cancelled"])
def test_a_batch_that_is_being_processed_is_refused(
    connection: Connection, worker: Connection, batch: NewBatch, scope: Scope, status: str
) -> None:
    """A cancelled one as well, until its run has stopped."""
    lease = support.begin(worker, batch.batch_id)
    succeed(lease, batch.first)
    if status == "cancelled":
        batches.cancel(connection, batch.batch_id, message="Enough.")
    before = support.everything(connection, batch.batch_id)

    with pytest.raises(UsageError) as refused:
        retry(connection, batch.batch_id, scope)

    assert refused.value.code == "batch_is_processed"
    assert refused.value.remedy
    assert support.everything(connection, batch.batch_id) == before
    leases.release(lease)
    assert retry(connection, batch.batch_id, scope) >= 3


def test_an_unknown_batch(connection: Connection, batch: NewBatch) -> None:
    assert count_scope(connection, batch.user_id, Scope.ALL) == 0
    with pytest.raises(UsageError) as unknown:
        retry(connection, batch.user_id, Scope.ALL)
    assert unknown.value.code == "no_such_batch"


def test_other_batches_are_left_alone(
    connection: Connection, worker: Connection, batch: NewBatch
) -> None:
    other = support.add_batch(connection, batch.user_id, files=NAMES)
    for each in (batch, other):
        completed(worker, each)
    before = support.everything(connection, other.batch_id)

    retry(connection, batch.batch_id, Scope.ALL)

    assert support.everything(connection, other.batch_id) == before


def test_retry_is_one_transaction(
    connection: Connection, worker: Connection, batch: NewBatch
) -> None:
    """Whoever looks meanwhile sees rows and counters of before, and then those of after."""
    completed(worker, batch)
    before = support.everything(connection, batch.batch_id)

    with worker.transaction():
        retry(worker, batch.batch_id, Scope.ALL)
        assert support.everything(connection, batch.batch_id) == before
        assert_true(worker, batch)

    assert support.everything(connection, batch.batch_id) != before
    assert_true(connection, batch)


def test_retry_is_whole_or_not_at_all(
    connection: Connection, worker: Connection, batch: NewBatch, monkeypatch: pytest.MonkeyPatch
) -> None:
    completed(worker, batch)
    before = support.everything(connection, batch.batch_id)

    def break_down(*arguments: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(reruns, "announce", break_down)
    with pytest.raises(RuntimeError):
        retry(connection, batch.batch_id, Scope.ALL)

    assert support.everything(connection, batch.batch_id) == before


# --- what an earlier life leaves ---


def test_two_new_attempts_and_the_old_ones_stay_on_record(
    connection: Connection, worker: Connection, batch: NewBatch
) -> None:
    completed(worker, batch)
    bad = batch.uploads["bad.jpg"]
    retry(connection, batch.batch_id, Scope.FAILED)
    assert support.upload_state(connection, bad) == ("pending", None)

    lease = support.begin(worker, batch.batch_id, "run-2")
    assert not fail(lease, bad)
    assert_true(connection, batch)
    assert support.upload_state(connection, bad) == ("pending", None)
    assert fail(lease, bad)
    assert_true(connection, batch)

    assert support.upload_state(connection, bad) == ("failed", str(TRUNCATED))
    assert uploads.start_attempt(lease, bad, IDENTITY) is None
    code = TRUNCATED.code
    assert support.attempts(connection, bad) == [(1, "failed", code), (2, "failed", code)] * 2


def test_the_worker_may_die_twice_again(
    connection: Connection, database_url: str, batch: NewBatch
) -> None:
    """A file that killed its worker twice gets two new attempts, and no more."""
    first = batch.first
    for life in (1, 2):
        for run in (1, 2):
            with connect(database_url) as worker:
                lease = leases.acquire(worker, batch.batch_id, f"run-{life}-{run}")
                found = batches.open_batch(lease, reopen=False)
                assert first in {upload.upload_id for upload in found}
                uploads.start_attempt(lease, first, IDENTITY)
                support.kill(connection, worker)
        with connect(database_url) as worker:
            support.begin(worker, batch.batch_id, f"run-{life}-3")
            assert support.upload_state(connection, first) == ("failed", batches.DIED_TWICE)
            assert_true(connection, batch)
            support.kill(connection, worker)
        retry(connection, batch.batch_id, Scope.FAILED)
        assert support.upload_state(connection, first) == ("pending", None)
        assert_true(connection, batch)


def test_what_was_described_stays_until_it_is_replaced(
    connection: Connection, worker: Connection, batch: NewBatch
) -> None:
    def described() -> object:
        return connection.execute(
            "SELECT description, description_audit_score, embedding_local::text, thumbnail_path"
            " FROM uploads WHERE id = %s",
            (good,),
        ).fetchone()

    good = batch.uploads["good.jpg"]
    completed(worker, batch)
    before = described()

    retry(connection, batch.batch_id, Scope.ALL)
    assert described() == before
    lease = support.begin(worker, batch.batch_id, "run-2")
    fail(lease, good)
    fail(lease, good)
    assert described() == before, "a failure has taken away what there was"
    leases.release(lease)
    retry(connection, batch.batch_id, Scope.ALL)
    lease = support.begin(worker, batch.batch_id, "run-3")
    attempt = uploads.start_attempt(lease, good, IDENTITY)
    assert attempt is not None
    vector = [0.0, 1.0] + [0.0] * (support.DIMENSION - 2)
    new = replace(
        support.outcome(),
        analysis=Analysis("Something else.", 70, vector),
        thumbnail_path="new/thumb.jpg",
    )
    uploads.complete(lease, attempt, new)
    assert described() == ("Something else.", 70, "[0,1,0,0,0,0,0,0]", "new/thumb.jpg")


def test_a_worker_of_the_earlier_life_cannot_write(
    connection: Connection, worker: Connection, batch: NewBatch
) -> None:
    """Its lock was lost with its session, and it does not know."""
    lease = support.begin(worker, batch.batch_id)
    succeed(lease, batch.uploads["good.jpg"])
    attempt = uploads.start_attempt(lease, batch.uploads["dead.jpg"], IDENTITY)
    assert attempt is not None
    leases.release(lease)
    retry(connection, batch.batch_id, Scope.ALL)
    after = support.everything(connection, batch.batch_id)
    writes: list[Callable[[], object]] = [
        lambda: uploads.complete(lease, attempt, support.outcome()),
        lambda: uploads.fail(lease, attempt, TRUNCATED, {}),
        lambda: uploads.start_attempt(lease, batch.first, IDENTITY),
        lambda: batches.close_batch(lease),
    ]
    for write in writes:
        with pytest.raises(LeaseLost):
            write()
    assert support.everything(connection, batch.batch_id) == after


def test_an_attempt_left_open_at_a_finished_upload_belongs_to_its_earlier_life(
    connection: Connection, database_url: str, worker: Connection, batch: NewBatch
) -> None:
    """The application's own worker finished the upload, and ours died in its second attempt."""
    dead = batch.uploads["dead.jpg"]
    with connect(database_url) as first:
        lease = support.begin(first, batch.batch_id)
        fail(lease, dead)
        uploads.start_attempt(lease, dead, IDENTITY)
        connection.execute(
            "UPDATE uploads SET processing_status = 'completed', description = 'Theirs.',"
            " embedding_local = '[1,0,0,0,0,0,0,0]' WHERE id = %s",
            (dead,),
        )
        support.kill(connection, first)

    retry(connection, batch.batch_id, Scope.ALL)

    lease = support.begin(worker, batch.batch_id, "run-2")
    assert_true(connection, batch)
    assert not fail(lease, dead)
    succeed(lease, dead)
    assert_true(connection, batch)
    for name in ("good.jpg", "bad.jpg", "left.jpg"):
        succeed(lease, batch.uploads[name])
    assert batches.close_batch(lease) == Closed(4, 4, 0, 0)


# --- a scope given to a run ---


@ends
@scopes
def test_a_run_with_a_scope(
    connection: Connection,
    database_url: str,
    worker: Connection,
    batch: NewBatch,
    end: str,
    scope: Scope,
) -> None:
    half_done(connection, database_url, batch, end)
    lease = leases.acquire(worker, batch.batch_id, "run-2")

    found = batches.open_batch(lease, reopen=True, scope=scope, root_run_id="run-2")

    assert {upload.filename for upload in found} == TAKEN_UP[scope]
    assert_true(connection, batch)
    assert unfinished(connection, batch) == TAKEN_UP[scope]
    assert superseded(connection, batch) == TAKEN_UP[scope] - {"left.jpg", "dead.jpg"}
    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.message, row.ended) == ("processing", None, False)
    for upload in found:
        succeed(lease, upload.upload_id)
        assert_true(connection, batch)
    assert batches.close_batch(lease).unfinished == 0
    assert_true(connection, batch)


@pytest.mark.parametrize(("scope", "count"), [(Scope.FAILED, 2), (Scope.ALL, 4)])
def test_a_run_of_a_completed_batch_with_a_scope(
    connection: Connection, worker: Connection, batch: NewBatch, scope: Scope, count: int
) -> None:
    completed(worker, batch)
    lease = leases.acquire(worker, batch.batch_id, "run-2")

    found = batches.open_batch(lease, reopen=True, scope=scope, root_run_id="run-2")

    assert len(found) == count
    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.processed) == ("processing", 4 - count)
    assert_true(connection, batch)


def test_a_re_execution_goes_on_where_its_root_was(
    connection: Connection, database_url: str, worker: Connection, batch: NewBatch
) -> None:
    completed(worker, batch)
    with connect(database_url) as first:
        lease = leases.acquire(first, batch.batch_id, "run-2")
        assert (
            len(batches.open_batch(lease, reopen=True, scope=Scope.ALL, root_run_id="run-2")) == 4
        )
        succeed(lease, batch.uploads["good.jpg"])
        fail(lease, batch.uploads["bad.jpg"])
        fail(lease, batch.uploads["bad.jpg"])
        support.kill(connection, first)

    lease = leases.acquire(worker, batch.batch_id, "run-3")
    found = batches.open_batch(lease, reopen=True, scope=Scope.ALL, root_run_id="run-2")

    assert {upload.filename for upload in found} == {"left.jpg", "dead.jpg"}
    assert_true(connection, batch)
    for upload in found:
        succeed(lease, upload.upload_id)
    batches.close_batch(lease)
    ended = support.batch_row(connection, batch.batch_id)
    assert (ended.status, ended.successful, ended.failed) == ("completed", 3, 1)

    assert batches.open_batch(lease, reopen=True, scope=Scope.ALL, root_run_id="run-2") == []
    assert support.batch_row(connection, batch.batch_id) == ended
    again = batches.open_batch(lease, reopen=True, scope=Scope.ALL, root_run_id="run-4")
    assert len(again) == 4
    assert_true(connection, batch)


def test_a_scope_without_anything_to_reset(
    connection: Connection, worker: Connection, batch: NewBatch
) -> None:
    completed(worker, batch)
    retry(connection, batch.batch_id, Scope.FAILED)
    finish(connection, worker, batch)
    before = support.batch_row(connection, batch.batch_id)
    lease = leases.acquire(worker, batch.batch_id, "run-2")

    assert batches.open_batch(lease, reopen=True, scope=Scope.FAILED, root_run_id="run-2") == []

    assert support.batch_row(connection, batch.batch_id) == before
    assert_true(connection, batch)


def test_uploads_that_came_after_the_end_are_counted_in(
    connection: Connection, worker: Connection
) -> None:
    """Grace was over, the batch was completed with what was there, and then more came."""
    user_id = support.add_user(connection)
    batch = support.add_batch(connection, user_id, files=("a.jpg", "b.jpg"), offered=3)
    lease = support.begin(worker, batch.batch_id)
    for upload_id in batch.uploads.values():
        succeed(lease, upload_id)
    batches.close_batch(lease)
    leases.release(lease)
    assert support.batch_row(connection, batch.batch_id).total == 2
    late = support.add_upload(connection, batch.batch_id, user_id)

    assert retry(connection, batch.batch_id, Scope.UNFINISHED) == 1
    lease = support.begin(worker, batch.batch_id, "run-2")
    succeed(lease, late)

    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.total, row.processed) == ("processing", 3, 3)
    assert_true(connection, batch)
