"""The JSON documents that other programs read. Field names are the application's own."""

from collections.abc import Sequence
from datetime import datetime

from vuemantics_pipeline.ledger.records import Batch
from vuemantics_pipeline.status.batches import UploadRow
from vuemantics_pipeline.status.search import SearchHit

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


def _iso(moment: datetime | None) -> str | None:
    return moment.isoformat() if moment else None
