"""How far batches and uploads have come, as rows tell it."""

from uuid import UUID, uuid4

import pytest

from vuemantics_pipeline.ledger import batches, reruns, uploads
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.leases import Lease, release
from vuemantics_pipeline.ledger.records import Attempt, BatchStatus, Scope, Stage
from vuemantics_pipeline.status.batches import Outcome
from vuemantics_pipeline.status.progress import (
    UploadProgress,
    batch_progress,
    running_batches,
    upload_progress,
    uploads_in_hand,
    uploads_moved,
    uploads_of_batches,
    uploads_page,
)
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.support import IDENTITY, TRUNCATED, NewBatch


@pytest.fixture
def user_id(connection: Connection) -> UUID:
    return support.add_user(connection)


@pytest.fixture
def batch(connection: Connection, user_id: UUID) -> NewBatch:
    return support.add_batch(connection, user_id, files=["a.jpg", "b.jpg", "c.jpg"])


@pytest.fixture
def lease(worker: Connection, batch: NewBatch) -> Lease:
    return support.begin(worker, batch.batch_id)


def attempt(lease: Lease, upload_id: UUID, *stages: Stage) -> Attempt:
    begun = uploads.start_attempt(lease, upload_id, IDENTITY)
    assert begun is not None
    for stage in stages:
        uploads.reach_stage(lease, begun, stage)
    return begun


def one(connection: Connection, upload_id: UUID) -> UploadProgress:
    (found,) = upload_progress(connection, [upload_id])
    return found


def test_an_upload_on_its_way(connection: Connection, lease: Lease, batch: NewBatch) -> None:
    waiting = one(connection, batch.first)
    assert (waiting.stage, waiting.progress_percent, waiting.attempts) == ("queued", 0, 0)
    assert (waiting.seq, waiting.file_type, waiting.filename) == (0, "image", "a.jpg")
    assert (waiting.user_id, waiting.batch_id) == (batch.user_id, batch.batch_id)

    begun = attempt(lease, batch.first, Stage.EXTRACTING_FRAMES, Stage.VISION_ANALYSIS)
    uploads.describe_frame(lease, begun, 1, 4)
    looking = one(connection, batch.first)
    assert (looking.stage, looking.progress_percent) == ("vision_analysis", 30)
    assert (looking.frames_done, looking.frames_total, looking.attempts) == (1, 4, 1)
    assert looking.processing_status == "analyzing"
    (progress,) = batch_progress(connection, [batch.batch_id])
    assert looking.seq == progress.seq

    uploads.complete(lease, begun, support.outcome())
    done = one(connection, batch.first)
    assert (done.stage, done.progress_percent, done.frames_done) == ("completed", 100, None)
    assert (done.description, done.description_audit_score) == ("A lake at dusk.", 80)
    assert done.thumbnail_path is not None


def test_a_description_asked_for_again(
    connection: Connection, lease: Lease, batch: NewBatch
) -> None:
    begun = attempt(lease, batch.first, Stage.VISION_ANALYSIS)
    seconds = {Stage.VISION_ANALYSIS.value: 1.0, Stage.DESCRIPTION_AUDIT.value: 0.1}
    uploads.reach_stage(lease, begun, Stage.VISION_ANALYSIS, seconds)
    again = one(connection, batch.first)
    assert (again.stage, again.progress_percent) == ("vision_analysis", 75)


def test_a_second_attempt(connection: Connection, lease: Lease, batch: NewBatch) -> None:
    begun = attempt(lease, batch.first, Stage.VISION_ANALYSIS)
    uploads.describe_frame(lease, begun, 3, 4)
    uploads.fail(lease, begun, TRUNCATED, {})
    waiting = one(connection, batch.first)
    assert (waiting.stage, waiting.progress_percent, waiting.attempts) == ("queued", 60, 1)
    begun = attempt(lease, batch.first, Stage.VISION_ANALYSIS)
    uploads.describe_frame(lease, begun, 1, 4)
    assert one(connection, batch.first).progress_percent == 60
    uploads.fail(lease, begun, TRUNCATED, {})
    failed = one(connection, batch.first)
    assert (failed.stage, failed.progress_percent, failed.attempts) == ("failed", 100, 2)
    assert failed.error_message == str(TRUNCATED)


def test_an_upload_asked_for_again(connection: Connection, lease: Lease, batch: NewBatch) -> None:
    uploads.complete(lease, attempt(lease, batch.first, Stage.INDEXING), support.outcome())
    before = one(connection, batch.first)
    release(lease)
    reruns.retry(connection, batch.batch_id, Scope.ALL)
    anew = one(connection, batch.first)
    assert (anew.stage, anew.progress_percent, anew.attempts) == ("queued", 0, 0)
    assert anew.seq == before.seq


@pytest.mark.parametrize(
    ("status", "stage", "expected"),
    [("analyzing", "vision_analysis", 15), ("embedding", "embedding_generation", 80)],
)
def test_an_upload_in_the_hands_of_the_applications_own_worker(
    connection: Connection, batch: NewBatch, status: str, stage: str, expected: int
) -> None:
    connection.execute(
        "UPDATE uploads SET processing_status = %s WHERE id = %s", (status, batch.first)
    )
    found = one(connection, batch.first)
    assert (found.stage, found.progress_percent) == (stage, expected)


def test_words_that_are_no_status(connection: Connection, batch: NewBatch) -> None:
    connection.execute("ALTER TABLE uploads DROP CONSTRAINT uploads_processing_status_check")
    connection.execute("ALTER TABLE upload_batches DROP CONSTRAINT upload_batches_status_check")
    connection.execute("UPDATE uploads SET processing_status = 'strange'")
    connection.execute("UPDATE upload_batches SET status = 'strange'")
    found = one(connection, batch.first)
    assert (found.processing_status, found.stage) == ("strange", "queued")
    assert batch_progress(connection, [batch.batch_id]) == []


def test_an_upload_that_came_from_another_batch(
    connection: Connection, lease: Lease, batch: NewBatch
) -> None:
    attempt(lease, batch.first)
    other = support.add_batch(connection, batch.user_id, files=[])
    connection.execute(
        "UPDATE uploads SET batch_id = %s WHERE id = %s", (other.batch_id, batch.first)
    )
    assert one(connection, batch.first).seq == 0


def test_what_has_moved(connection: Connection, lease: Lease, batch: NewBatch) -> None:
    first, second, third = batch.uploads.values()
    (progress,) = batch_progress(connection, [batch.batch_id])
    begun = attempt(lease, first)
    attempt(lease, second)
    uploads.reach_stage(lease, begun, Stage.VISION_ANALYSIS)

    def moved(after: int, limit: int | None = None) -> list[UUID]:
        found = uploads_moved(connection, {batch.batch_id: after}, limit=limit)
        return [upload.upload_id for upload in found]

    assert moved(progress.seq) == [second, first]
    assert moved(progress.seq, limit=1) == [second]
    assert moved(progress.seq + 2) == [first]
    assert moved(progress.seq + 3) == []
    assert uploads_moved(connection, {}) == []
    in_hand = uploads_in_hand(connection, [batch.batch_id])
    assert [upload.upload_id for upload in in_hand] == [first]
    everything = {upload.upload_id for upload in uploads_of_batches(connection, [batch.batch_id])}
    assert everything == {first, second, third}


def test_pages(connection: Connection, lease: Lease, batch: NewBatch) -> None:
    uploads.complete(lease, attempt(lease, batch.first), support.outcome())
    first = uploads_page(connection, batch.batch_id, limit=2)
    second = uploads_page(connection, batch.batch_id, position=first[-1].position, limit=2)
    assert [upload.filename for upload in [*first, *second]] == ["a.jpg", "b.jpg", "c.jpg"]
    completed = uploads_page(connection, batch.batch_id, outcome=Outcome.COMPLETED, limit=9)
    assert [upload.filename for upload in completed] == ["a.jpg"]
    unfinished = uploads_page(connection, batch.batch_id, outcome=Outcome.UNFINISHED, limit=9)
    assert [upload.filename for upload in unfinished] == ["b.jpg", "c.jpg"]


def test_a_batch(connection: Connection, batch: NewBatch, worker: Connection) -> None:
    (pending,) = batch_progress(connection, [batch.batch_id, uuid4()])
    assert (pending.seq, pending.sweeping_seq, pending.seconds_to_finish) == (0, 0, None)
    lease = support.begin(worker, batch.batch_id)
    (opened,) = batch_progress(connection, [batch.batch_id])
    assert opened.batch.status is BatchStatus.PROCESSING
    assert opened.seq == opened.sweeping_seq > 0
    begun = attempt(lease, batch.first)
    connection.execute(
        "UPDATE vuemantics_pipeline.attempts SET started_at = clock_timestamp() - interval '30 s'"
    )
    uploads.complete(lease, begun, support.outcome())
    (moved,) = batch_progress(connection, [batch.batch_id])
    assert moved.seq > moved.sweeping_seq == opened.sweeping_seq
    assert moved.seconds_to_finish == pytest.approx(60, abs=20)
    (unmeasured,) = batch_progress(connection, [batch.batch_id], measured=False)
    assert unmeasured.seconds_to_finish is None
    assert (unmeasured.batch, unmeasured.seq) == (moved.batch, moved.seq)


def test_running_batches(connection: Connection, batch: NewBatch, worker: Connection) -> None:
    other = support.add_batch(connection, support.add_user(connection))
    ended = support.add_batch(connection, batch.user_id)
    batches.cancel(connection, ended.batch_id, message="Enough.")
    support.begin(worker, batch.batch_id)
    of_all = {found.batch.batch_id for found in running_batches(connection)}
    assert of_all == {batch.batch_id, other.batch_id}
    (mine,) = running_batches(connection, batch.user_id)
    assert mine.batch.batch_id == batch.batch_id
