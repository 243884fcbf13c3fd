"""The JSON documents that other programs read. Field names are the application's own."""

from collections.abc import Callable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime

from vuemantics_pipeline.ledger.records import Batch
from vuemantics_pipeline.status.batches import UploadRow
from vuemantics_pipeline.status.explain import AttemptRow, Explanation, FailureGroup
from vuemantics_pipeline.status.health import Health
from vuemantics_pipeline.status.progress import BatchProgress, UploadProgress
from vuemantics_pipeline.status.search import SearchHit
from vuemantics_pipeline.status.timing import BatchTiming

Document = dict[str, object]
"""What `json.dumps` takes: ids as strings, times in ISO 8601 and UTC."""


def batch_document(batch: Batch) -> Document:
    """{batch_id, user_id, status, the counters, progress_percentage, the times, error_message}"""
    return {
        "batch_id": str(batch.batch_id),
        "user_id": str(batch.user_id),
        "status": batch.status.value,
        "total_uploads": batch.total_uploads,
        "processed_uploads": batch.processed_uploads,
        "successful_uploads": batch.successful_uploads,
        "failed_uploads": batch.failed_uploads,
        "progress_percentage": batch.progress_percentage,
        "created_at": _iso(batch.created_at),
        "started_at": _iso(batch.started_at),
        "completed_at": _iso(batch.completed_at),
        "error_message": batch.error_message,
    }


def batch_with_uploads_document(batch: Batch, uploads: Sequence[UploadRow]) -> Document:
    """`batch_document` and `uploads`, one `upload_document` each."""
    return batch_document(batch) | {"uploads": [upload_document(upload) for upload in uploads]}


def upload_document(upload: UploadRow) -> Document:
    """{upload_id, filename, processing_status, description, score, error_message, attempts}"""
    return {
        "upload_id": str(upload.upload_id),
        "filename": upload.filename,
        "processing_status": upload.processing_status,
        "description": upload.description,
        "description_audit_score": upload.description_audit_score,
        "error_message": upload.error_message,
        "attempts": upload.attempts,
    }


def batch_progress_document(progress: BatchProgress) -> Document:
    """`batch_document` and {seq, seconds_to_finish}"""
    return batch_document(progress.batch) | {
        "seq": progress.seq,
        "seconds_to_finish": progress.seconds_to_finish,
    }


def upload_progress_document(progress: UploadProgress, thumbnail_url: str | None) -> Document:
    """An upload and how far it has come, for whoever owns it."""
    return {
        "upload_id": str(progress.upload_id),
        "filename": progress.filename,
        "file_type": progress.file_type,
        "file_size": progress.file_size,
        "processing_status": progress.processing_status,
        "stage": progress.stage,
        "progress_percent": progress.progress_percent,
        "description": progress.description,
        "description_audit_score": progress.description_audit_score,
        "error_message": progress.error_message,
        "attempts": progress.attempts,
        "thumbnail_url": thumbnail_url,
    }


def search_document(hits: Sequence[SearchHit]) -> list[Document]:
    """A list of hits, the best first: a document with the fields of `SearchHit` each."""
    return [
        {
            "upload_id": str(hit.upload_id),
            "batch_id": None if hit.batch_id is None else str(hit.batch_id),
            "filename": hit.filename,
            "file_path": hit.file_path,
            "file_type": hit.file_type,
            "thumbnail_path": hit.thumbnail_path,
            "score": hit.score,
            "matched": list(hit.matched),
            "description": hit.description,
        }
        for hit in hits
    ]


def batch_detail_document(
    batch: Batch, timing: BatchTiming, run_id: str | None, run_url: str | None
) -> Document:
    """`batch_document` and {seconds_to_finish, stages, run_id, run_url}"""
    return batch_document(batch) | {
        "seconds_to_finish": timing.seconds_to_finish,
        "stages": [asdict(stage) for stage in timing.stages],
        "run_id": run_id,
        "run_url": run_url,
    }


def failures_document(groups: Sequence[FailureGroup], examples: int) -> list[Document]:
    """A list of {error_code, remedy, uploads, examples}, with so many examples of each group."""
    return [
        {
            "error_code": group.error_code,
            "remedy": group.remedy,
            "uploads": len(group.failures),
            "examples": [
                {
                    "upload_id": str(failure.upload_id),
                    "filename": failure.filename,
                    "error_message": failure.error_message,
                }
                for failure in group.failures[:examples]
            ],
        }
        for group in groups
    ]


def explanation_document(
    explanation: Explanation, run_url: Callable[[str | None], str | None]
) -> Document:
    """What is known of an upload, {what_to_do} and {attempts}, the oldest first."""
    upload = explanation.upload
    return {
        "upload_id": str(upload.upload_id),
        "batch_id": None if upload.batch_id is None else str(upload.batch_id),
        "batch_status": upload.batch_status,
        "filename": upload.filename,
        "file_type": upload.file_type,
        "file_size": upload.file_size,
        "mime_type": upload.mime_type,
        "created_at": _iso(upload.created_at),
        "processing_status": upload.processing_status,
        "description": upload.description,
        "description_audit_score": upload.description_audit_score,
        "error_message": upload.error_message,
        "what_to_do": explanation.what_to_do,
        "attempts": [_attempt(attempt, run_url) for attempt in explanation.attempts],
    }


def health_document(health: Health) -> Document:
    """{ok, problems, queue, running, backend, sensor, audit}"""
    queue, tick, books = health.queue, health.last_tick, health.audit
    return {
        "ok": not health.problems,
        "problems": list(health.problems),
        "queue": asdict(queue) | {"oldest_pending": _iso(queue.oldest_pending)},
        "running": [
            asdict(batch)
            | {
                "batch_id": str(batch.batch_id),
                "upload_id": None if batch.upload_id is None else str(batch.upload_id),
                "attempt_started_at": _iso(batch.attempt_started_at),
            }
            for batch in health.running
        ],
        "backend": asdict(health.backend),
        "sensor": None
        if tick is None
        else {"last_tick_at": _iso(tick.started_at), "status": tick.status},
        "audit": {
            "ok": not books.violations,
            "batches": books.batches,
            "violations": [
                asdict(violation) | {"batch_id": str(violation.batch_id)}
                for violation in books.violations
            ],
        },
    }


def _attempt(attempt: AttemptRow, run_url: Callable[[str | None], str | None]) -> Document:
    return asdict(attempt) | {
        "started_at": _iso(attempt.started_at),
        "ended_at": _iso(attempt.ended_at),
        "reused_from": None if attempt.reused_from is None else str(attempt.reused_from),
        "run_url": run_url(attempt.run_id),
    }


def _iso(moment: datetime | None) -> str | None:
    return moment.astimezone(UTC).isoformat() if moment else None
