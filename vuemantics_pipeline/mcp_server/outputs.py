"""The schemas of what tools return as structured content."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, WithJsonSchema

BatchStatusName = Literal["pending", "processing", "completed", "failed", "cancelled"]
Time = Annotated[str, Field(description="ISO 8601, UTC")]


class Output(BaseModel):
    """An object with exactly these properties."""

    model_config = ConfigDict(extra="forbid")


class Batch(Output):
    """A batch: files that were uploaded together."""

    batch_id: str
    user_id: str
    status: BatchStatusName
    total_uploads: int
    processed_uploads: int = Field(description="successful_uploads + failed_uploads")
    successful_uploads: int
    failed_uploads: int = Field(description="Failed for good, after two tries")
    progress_percentage: float = Field(description="0-100")
    created_at: Time
    started_at: Time | None
    completed_at: Time | None
    error_message: str | None


BatchField = Literal[
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
]
"""Everything about a batch but its id, which is always there."""

_SOME_FIELDS = Batch.model_json_schema() | {"required": ["batch_id"]}


class BatchPage(Output):
    """Some of the batches, the newest first."""

    batches: list[Annotated[dict[str, Any], WithJsonSchema(_SOME_FIELDS)]]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null: none")


class StageTiming(Output):
    """Wall-clock seconds of one stage, over every try that reached it."""

    stage: str
    tries: int
    sum_seconds: float
    p50_seconds: float = Field(description="Median of a try")
    p95_seconds: float = Field(description="95 % of the tries took no longer")


class BatchDetail(Batch):
    """A batch, where its time went, and the run that processed it."""

    seconds_to_finish: float | None = Field(
        description="Estimated from the uploads this batch's run has finished; null: not known"
    )
    stages: list[StageTiming] = Field(description="In the order an upload goes through them")
    run_id: str | None = Field(description="The last Dagster run of the batch")
    run_url: str | None = Field(description="Its page in the Dagster UI, for the operator")


class Upload(Output):
    """One file of a batch."""

    upload_id: str
    filename: str
    processing_status: str
    description: str | None
    description_audit_score: int | None = Field(description="Quality of the description, 0-100")
    error_message: str | None
    attempts: int = Field(description="Tries used up, at most 2 unless it was run again")


class UploadPage(Output):
    """Some of a batch's uploads, in the order they were added."""

    batch_id: str
    uploads: list[Upload]
    next_cursor: str | None = Field(description="Give it as `cursor` for the next page; null: none")


class FailedUpload(Output):
    """An upload that failed for good."""

    upload_id: str
    filename: str
    error_message: str | None


class FailureGroup(Output):
    """Uploads that failed for one reason."""

    error_code: str | None = Field(description="null: another worker failed them")
    remedy: str | None = Field(description="What to do about it")
    uploads: int = Field(description="How many")
    examples: list[FailedUpload]


class BatchFailures(Output):
    """A batch's failures by reason, the most frequent first."""

    batch_id: str
    failed_uploads: int
    groups: list[FailureGroup]


class Attempt(Output):
    """One time a worker began an upload."""

    attempt_number: int
    outcome: Literal["completed", "failed", "died", "released"] | None = Field(
        description="died: the worker did, over this file. released: the fault was not the "
        "file's, and the try does not count. null: it is open"
    )
    stage: str = Field(description="The stage it reached")
    stage_seconds: dict[str, float]
    started_at: Time
    ended_at: Time | None
    seconds: float | None
    superseded: bool = Field(description="It was made before the upload was run again")
    error_code: str | None
    error_message: str | None
    remedy: str | None
    run_id: str
    run_url: str | None
    analyzer: str
    vision_model: str
    embedding_model: str
    reused_from: str | None = Field(
        description="Upload with the same bytes whose description was taken over"
    )


class UploadExplanation(Output):
    """An upload, every try at it, and what to do."""

    upload_id: str
    batch_id: str | None
    batch_status: BatchStatusName | None
    filename: str
    file_type: str
    file_size: int = Field(description="Bytes")
    mime_type: str
    created_at: Time | None
    processing_status: str
    description: str | None
    description_audit_score: int | None
    error_message: str | None
    what_to_do: str
    attempts: list[Attempt] = Field(description="The oldest first")


class Hit(Output):
    """An upload that was found."""

    upload_id: str
    batch_id: str | None
    filename: str
    file_path: str = Field(description="Relative to the upload folder")
    file_type: str
    thumbnail_path: str | None = Field(description="Relative to the upload folder")
    score: float = Field(description="Higher is closer")
    matched: list[str] = Field(description="What was found besides the meaning: text, year")
    description: str | None


class SearchResult(Output):
    """What was found, the closest first."""

    hits: list[Hit]


class Queue(Output):
    """What waits and what is at work."""

    pending_batches: int
    processing_batches: int
    unfinished_uploads: int = Field(description="In pending and processing batches")
    oldest_pending: Time | None


class RunningBatch(Output):
    """A batch that is being processed, and the upload in hand."""

    batch_id: str
    run_id: str | None
    run_url: str | None
    total_uploads: int
    processed_uploads: int
    has_worker: bool = Field(description="false: its worker is gone")
    upload_id: str | None
    stage: str | None
    attempt_started_at: Time | None


class Backend(Output):
    """The model that describes and embeds."""

    analyzer: str
    ok: bool
    detail: str


class Sensor(Output):
    """What starts runs by itself."""

    last_tick_at: Time
    status: str


class Violation(Output):
    """Rows that contradict each other."""

    batch_id: str
    rule: str
    detail: str


class Books(Output):
    """Whether counters, uploads and attempts agree."""

    ok: bool
    batches: int = Field(description="How many were looked at")
    violations: list[Violation] = Field(description="At most 20 of them")


class PipelineHealth(Output):
    """The state of the pipeline."""

    ok: bool
    problems: list[str] = Field(description="What is not well, and what to do about it")
    queue: Queue
    running: list[RunningBatch]
    backend: Backend
    sensor: Sensor | None = Field(description="null: Dagster has not run on this database yet")
    audit: Books


class Retry(Output):
    """What a re-run takes up."""

    batch_id: str
    scope: Literal["unfinished", "failed", "all"]
    uploads: int = Field(description="How many are taken up, or would be")
    dry_run: bool


class Cancellation(Batch):
    """The batch after it was cancelled."""

    cancelled: bool = Field(description="false: it had ended already, and nothing was changed")
