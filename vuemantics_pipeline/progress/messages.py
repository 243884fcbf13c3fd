"""The messages that the application's web client understands, as JSON texts.

`seq`, `seconds_to_finish`, `stage` and `error_message` are ours; clients that do not know them
leave them alone.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from vuemantics_pipeline.ledger.records import Stage, UploadStatus
from vuemantics_pipeline.status.progress import BatchProgress, UploadProgress

_WORDS: Mapping[str, str] = {
    Stage.QUEUED: "Waiting for its turn",
    Stage.EXTRACTING_FRAMES: "Reading the file",
    Stage.VISION_ANALYSIS: "Looking at it",
    Stage.DESCRIPTION_AUDIT: "Checking the description",
    Stage.EMBEDDING_GENERATION: "Making it searchable",
    Stage.INDEXING: "Storing the result",
    UploadStatus.COMPLETED: "Done",
    UploadStatus.FAILED: "Failed",
}


@dataclass(frozen=True, slots=True)
class Message:
    """Something to be said on a channel.

    Attributes:
        channel: `user:<id>` or `upload:<id>`.
        key: of two messages with the same key, only the newer one matters.
        texts: JSON, to be said in this order.
        is_summary: it may not overtake messages of other keys that were put before it: its `seq`
            tells a client that it has seen everything up to there.
    """

    channel: str
    key: str
    texts: tuple[str, ...]
    is_summary: bool = False


def user_channel(user_id: UUID) -> str:
    """Where everything about a user's batches is said."""
    return f"user:{user_id}"


def upload_channel(upload_id: UUID) -> str:
    """Where everything about one upload is said."""
    return f"upload:{upload_id}"


def text(action: str, payload: Mapping[str, Any] | None = None, **top_level: Any) -> str:
    """A message of the protocol as JSON, with the time it is now."""
    body = {"payload": payload} if payload is not None else {}
    return json.dumps(
        {"action": action, **body, **top_level, "timestamp": datetime.now(UTC).isoformat()}
    )


def batch_message(progress: BatchProgress) -> Message:
    """`batch_progress`, to the batch's owner."""
    batch = progress.batch
    payload = {
        "batch_id": str(batch.batch_id),
        "status": batch.status,
        "total": batch.total_uploads,
        "processed": batch.processed_uploads,
        "successful": batch.successful_uploads,
        "failed": batch.failed_uploads,
        "progress_percentage": batch.progress_percentage,
        "error_message": batch.error_message,
        "seconds_to_finish": progress.seconds_to_finish,
        "seq": progress.seq,
    }
    return Message(
        user_channel(batch.user_id),
        f"batch:{batch.batch_id}",
        (text("batch_progress", payload),),
        is_summary=True,
    )


def file_message(upload: UploadProgress) -> Message:
    """`file_progress`, to the upload's owner."""
    has_ended = upload.processing_status in (UploadStatus.COMPLETED, UploadStatus.FAILED)
    payload = {
        "batch_id": upload.batch_id and str(upload.batch_id),
        "upload_id": str(upload.upload_id),
        "file_name": upload.filename,
        "file_size": upload.file_size,
        "progress_percentage": upload.progress_percent,
        "status": upload.processing_status if has_ended else "processing",
        "stage": upload.stage,
        "error_message": upload.error_message,
        "seq": upload.seq,
    }
    return Message(
        user_channel(upload.user_id),
        f"file:{upload.upload_id}",
        (text("file_progress", payload),),
    )


def upload_message(upload: UploadProgress) -> Message:
    """`upload_progress`, then `upload_completed` or `upload_failed`, to whoever follows it."""
    payload = {
        "upload_id": str(upload.upload_id),
        "status": upload.processing_status,
        "stage": upload.stage,
        "progress_percent": upload.progress_percent,
        "message": _in_words(upload),
        "error_message": upload.error_message,
        "description_audit_score": upload.description_audit_score,
    }
    texts = [text("upload_progress", payload)]
    if upload.processing_status == UploadStatus.COMPLETED:
        texts.append(
            text(
                "upload_completed",
                upload_id=str(upload.upload_id),
                description=upload.description,
                audit_score=upload.description_audit_score,
            )
        )
    elif upload.processing_status == UploadStatus.FAILED:
        texts.append(
            text(
                "upload_failed",
                upload_id=str(upload.upload_id),
                error_message=upload.error_message,
            )
        )
    return Message(upload_channel(upload.upload_id), f"upload:{upload.upload_id}", tuple(texts))


def _in_words(upload: UploadProgress) -> str:
    if upload.stage == Stage.VISION_ANALYSIS and upload.frames_total:
        return f"Looking at it: frame {upload.frames_done} of {upload.frames_total} described"
    return _WORDS[upload.stage]
