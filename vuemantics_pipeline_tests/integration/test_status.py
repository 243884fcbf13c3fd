"""What the read side says about batches, and the documents it makes of that."""

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ingest import ingest
from vuemantics_pipeline.ledger.batches import cancel
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.records import BatchStatus
from vuemantics_pipeline.settings import Settings
from vuemantics_pipeline.status.batches import (
    batch_run,
    follow_batch,
    get_batch,
    list_batches,
    list_failures,
    list_uploads,
    parse_batch_id,
)
from vuemantics_pipeline.status.documents import batch_document, batch_with_uploads_document

RunBatch = Callable[..., None]


def stored_files(settings: Settings) -> list[Path]:
    return sorted(settings.uploads.glob("*/*/original.*"))


def test_a_pending_batch(connection: Connection, batch_id: UUID) -> None:
    batch = get_batch(connection, batch_id)

    assert batch.status is BatchStatus.PENDING
    assert (batch.total_uploads, batch.processed_uploads) == (3, 0)
    assert (batch.started_at, batch.completed_at, batch.error_message) == (None, None, None)
    assert abs((datetime.now(UTC) - batch.created_at).total_seconds()) < 60
    assert batch_run(connection, batch_id) is None


def test_a_finished_batch(connection: Connection, batch_id: UUID, run_batch: RunBatch) -> None:
    run_batch(batch_id)

    batch = get_batch(connection, batch_id)
    assert batch.status is BatchStatus.COMPLETED
    assert (batch.processed_uploads, batch.successful_uploads, batch.failed_uploads) == (3, 3, 0)
    assert batch.progress_percentage == 100
    assert batch.started_at is not None
    assert batch.completed_at is not None
    assert batch.created_at <= batch.started_at <= batch.completed_at
    assert batch_run(connection, batch_id) == "run-1"
    uploads = list_uploads(connection, batch_id)
    assert [upload.filename for upload in uploads] == ["first.jpg", "second.png", "third.webp"]
    assert {upload.processing_status for upload in uploads} == {"completed"}
    assert {upload.attempts for upload in uploads} == {1}
    assert all(upload.seconds is not None and upload.seconds > 0 for upload in uploads)
    assert list_failures(connection, batch_id) == []


def test_a_file_deleted_before_its_turn_fails_alone(
    connection: Connection, settings: Settings, batch_id: UUID, run_batch: RunBatch
) -> None:
    [file_path] = connection.execute(
        "SELECT file_path FROM uploads WHERE filename = 'second.png'"
    ).fetchone() or [""]
    (settings.uploads / file_path).unlink()

    run_batch(batch_id)

    batch = get_batch(connection, batch_id)
    assert batch.status is BatchStatus.COMPLETED
    assert (batch.successful_uploads, batch.failed_uploads) == (2, 1)
    [failure] = list_failures(connection, batch_id)
    assert (failure.filename, failure.error_code, failure.attempts) == (
        "second.png",
        "file_missing",
        2,
    )
    assert failure.error_message
    assert failure.remedy
    [failed] = [u for u in list_uploads(connection, batch_id) if u.processing_status == "failed"]
    assert (failed.attempts, failed.description) == (2, None)
    assert failed.error_message


@pytest.mark.parametrize("zone", ["UTC", "Pacific/Auckland"])
@pytest.mark.parametrize("kind", ["timestamp", "timestamptz"])
def test_times_are_utc_whatever_the_database_keeps(
    connection: Connection, batch_id: UUID, run_batch: RunBatch, kind: str, zone: str
) -> None:
    connection.execute(f"SET TIME ZONE '{zone}'".encode())
    for column in ("created_at", "updated_at", "started_at", "completed_at"):
        connection.execute(f"ALTER TABLE upload_batches ALTER COLUMN {column} TYPE {kind}".encode())
    run_batch(batch_id)

    document = batch_document(get_batch(connection, batch_id))

    for field in ("created_at", "started_at", "completed_at"):
        moment = datetime.fromisoformat(str(document[field]))
        assert moment.tzinfo == UTC
        assert abs((datetime.now(UTC) - moment).total_seconds()) < 60


def test_batches_are_listed_newest_first_and_filtered(
    connection: Connection, settings: Settings, batch_id: UUID, tmp_path: Path
) -> None:
    newer = ingest(connection, settings, [tmp_path / "photos" / "first.jpg"]).batch_id
    assert cancel(connection, newer, message="Not wanted.")
    user_id = get_batch(connection, newer).user_id

    def ids(**filters: object) -> list[UUID]:
        batches = list_batches(connection, **filters)  # type: ignore[arg-type]
        return [batch.batch_id for batch in batches]

    assert ids() == [newer, batch_id]
    assert ids(limit=1) == [newer]
    assert ids(status=BatchStatus.PENDING) == [batch_id]
    assert ids(user_id=user_id) == [newer, batch_id]
    assert ids(user_id=uuid4()) == []


def test_the_documents_have_the_applications_fields(
    connection: Connection, batch_id: UUID, run_batch: RunBatch
) -> None:
    run_batch(batch_id)
    batch, uploads = get_batch(connection, batch_id), list_uploads(connection, batch_id)

    document = json.loads(json.dumps(batch_with_uploads_document(batch, uploads)))

    assert [*document] == [
        "batch_id",
        "user_id",
        "status",
        "total_uploads",
        "processed_uploads",
        "successful_uploads",
        "failed_uploads",
        "progress_percentage",
        "created_at",
        "started_at",
        "completed_at",
        "error_message",
        "uploads",
    ]
    assert document["batch_id"] == str(batch_id)
    assert document["status"] == "completed"
    assert [*document["uploads"][0]] == [
        "upload_id",
        "filename",
        "processing_status",
        "description",
        "description_audit_score",
        "error_message",
        "attempts",
    ]


def test_a_batch_that_is_not_there(connection: Connection) -> None:
    with pytest.raises(UsageError) as caught:
        get_batch(connection, uuid4())

    assert caught.value.code == "no_such_batch"


@pytest.mark.parametrize("text", ["", "7", "not-a-uuid", "1b4e28ba-2fa1-4d2f-883f-0016d3cca42"])
def test_what_is_no_batch_id(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_batch_id(text)

    assert caught.value.code == "not_a_batch_id"


def test_a_batch_id_with_space_around() -> None:
    batch_id = uuid4()

    assert parse_batch_id(f" {batch_id}\n") == batch_id


def test_following_a_batch_to_its_end(
    connection: Connection, database_url: str, batch_id: UUID, run_batch: RunBatch
) -> None:
    seen: list[tuple[BatchStatus, int]] = []

    def follow() -> None:
        with connect(database_url) as own:
            for batch in follow_batch(own, batch_id):
                seen.append((batch.status, batch.processed_uploads))

    follower = threading.Thread(target=follow)
    follower.start()
    while not seen:
        time.sleep(0.01)
    run_batch(batch_id)
    follower.join(timeout=10)

    assert not follower.is_alive()
    assert seen[0] == (BatchStatus.PENDING, 0)
    assert seen[-1] == (BatchStatus.COMPLETED, 3)
    assert [done for _, done in seen] == sorted(done for _, done in seen)


def test_following_sees_what_is_not_announced(
    connection: Connection, database_url: str, batch_id: UUID
) -> None:
    with connect(database_url) as own:
        states = follow_batch(own, batch_id)
        assert next(states).status is BatchStatus.PENDING
        connection.execute(
            "UPDATE upload_batches SET status = 'cancelled' WHERE id = %s", [batch_id]
        )
        assert [batch.status for batch in states][-1] is BatchStatus.CANCELLED


def test_following_a_batch_that_is_deleted(
    connection: Connection, database_url: str, batch_id: UUID
) -> None:
    with connect(database_url) as own:
        states = follow_batch(own, batch_id)
        next(states)
        connection.execute("DELETE FROM upload_batches WHERE id = %s", [batch_id])
        with pytest.raises(UsageError, match="There is no batch"):
            list(states)
