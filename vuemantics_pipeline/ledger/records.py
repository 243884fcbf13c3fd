"""The rows of the ledger as immutable records, and the words their columns use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING
from uuid import UUID

if TYPE_CHECKING:
    from vuemantics_pipeline.media.probe import MediaInfo


class BatchStatus(StrEnum):
    """`upload_batches.status`, in the application's words."""

    PENDING = "pending"
    PROCESSING = "processing"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELLED = "cancelled"

    @property
    def is_terminal(self) -> bool:
        return self in (BatchStatus.COMPLETED, BatchStatus.FAILED, BatchStatus.CANCELLED)


class FileType(StrEnum):
    """`uploads.file_type`, in the application's words."""

    IMAGE = "image"
    VIDEO = "video"


class UploadStatus(StrEnum):
    """`uploads.processing_status`, in the application's words."""

    PENDING = "pending"
    ANALYZING = "analyzing"
    EMBEDDING = "embedding"
    COMPLETED = "completed"
    FAILED = "failed"


class Stage(StrEnum):
    """The stages of an attempt, in order, in the words of the application's progress messages."""

    QUEUED = "queued"
    EXTRACTING_FRAMES = "extracting_frames"
    VISION_ANALYSIS = "vision_analysis"
    DESCRIPTION_AUDIT = "description_audit"
    EMBEDDING_GENERATION = "embedding_generation"
    INDEXING = "indexing"

    @property
    def upload_status(self) -> UploadStatus:
        """What `uploads.processing_status` says during this stage."""
        if self in (Stage.EMBEDDING_GENERATION, Stage.INDEXING):
            return UploadStatus.EMBEDDING
        return UploadStatus.ANALYZING


@dataclass(frozen=True)
class Batch:
    """A row of `upload_batches`, timestamps in UTC."""

    batch_id: UUID
    user_id: UUID
    status: BatchStatus
    total_uploads: int
    processed_uploads: int
    successful_uploads: int
    failed_uploads: int
    error_message: str | None
    created_at: datetime
    started_at: datetime | None
    completed_at: datetime | None

    @property
    def progress_percentage(self) -> float:
        """Processed share of the batch, 0-100; a finished empty batch is at 100."""
        if self.total_uploads == 0:
            return 100.0 if self.status.is_terminal else 0.0
        return round(100 * self.processed_uploads / self.total_uploads, 1)


class Scope(StrEnum):
    """Which uploads of a batch a re-run takes up."""

    UNFINISHED = "unfinished"
    FAILED = "failed"
    """And those unfinished."""
    ALL = "all"

    @property
    def reset(self) -> list[str]:
        """The terminal statuses that go back to `pending`."""
        return {
            Scope.UNFINISHED: [],
            Scope.FAILED: [UploadStatus.FAILED.value],
            Scope.ALL: [UploadStatus.FAILED.value, UploadStatus.COMPLETED.value],
        }[self]


@dataclass(frozen=True)
class UploadKey:
    """An upload to be processed.

    Attributes:
        file_path: as stored, relative to UPLOAD_PATH and not yet trusted.
    """

    upload_id: UUID
    filename: str
    file_path: str


@dataclass(frozen=True)
class Attempt:
    """One open try at an upload.

    Attributes:
        number: 1 or 2, counting only attempts that were used up.
        releases: how often a model gave up on this upload before, without using up an attempt.
        file_path: as stored, relative to UPLOAD_PATH and not yet trusted.
        embedding_model: that the attempt embeds with.
    """

    attempt_id: int
    upload_id: UUID
    user_id: UUID
    number: int
    releases: int
    filename: str
    file_path: str
    embedding_model: str


@dataclass(frozen=True)
class Analysis:
    """What a model made of an upload, or of another upload with the same bytes.

    Attributes:
        audit_score: 0-100.
        embedding: unit vector in the dimension of the database's column.
        visible_text: writing that was read in the picture.
        model_digest: of the vision model's weights, None where there is none.
        model_options: what the model was run with, as JSON takes it.
        reused_from: the upload it was taken over from, None if a model was asked.
    """

    description: str
    audit_score: int
    embedding: list[float]
    visible_text: str = ""
    model_digest: str | None = None
    model_options: Mapping[str, str | int | float] = field(default_factory=dict)
    reused_from: UUID | None = None


@dataclass(frozen=True)
class Outcome:
    """What processing made of an upload.

    Attributes:
        info: what the file says about itself.
        sha256: of the file's bytes, in hexadecimal digits.
        thumbnail_path: relative to UPLOAD_PATH.
        stage_seconds: wall-clock seconds by stage.
    """

    analysis: Analysis
    info: MediaInfo
    sha256: str
    thumbnail_path: str
    stage_seconds: dict[str, float]
