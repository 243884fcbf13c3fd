"""Why uploads came out as they did, and what to do about it."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from psycopg.rows import class_row

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.records import BatchStatus, UploadStatus
from vuemantics_pipeline.status.batches import Failure

_SQL = queries("reports")


@dataclass(frozen=True)
class FailureGroup:
    """The uploads of a batch that failed for the same reason.

    Attributes:
        error_code, remedy: None where the application's own worker failed them.
        failures: in the order the uploads were added.
    """

    error_code: str | None
    remedy: str | None
    failures: Sequence[Failure]


@dataclass(frozen=True)
class AttemptRow:
    """One time a worker began an upload.

    Attributes:
        outcome: 'completed', 'failed', 'died' or 'released' (given back: not the file's fault);
            None while it is open.
        stage: that it reached.
        seconds: wall-clock time, None while it is open.
        superseded: it belongs to an earlier life of the upload, before a re-run.
        reused_from: the upload with the same bytes whose description was taken over.
    """

    attempt_number: int
    outcome: str | None
    stage: str
    stage_seconds: Mapping[str, float]
    started_at: datetime
    ended_at: datetime | None
    seconds: float | None
    superseded: bool
    error_code: str | None
    error_message: str | None
    remedy: str | None
    run_id: str
    analyzer: str
    vision_model: str
    embedding_model: str
    reused_from: UUID | None


@dataclass(frozen=True)
class UploadDetail:
    """One upload as its row says.

    Attributes:
        file_size: bytes.
        description_audit_score: 0-100.
        thumbnail_path: as stored, relative to UPLOAD_PATH and not yet trusted.
        batch_status: None where it belongs to no batch.
    """

    upload_id: UUID
    batch_id: UUID | None
    user_id: UUID
    filename: str
    file_type: str
    file_size: int
    mime_type: str
    processing_status: str
    description: str | None
    description_audit_score: int | None
    error_message: str | None
    thumbnail_path: str | None
    created_at: datetime
    batch_status: str | None


@dataclass(frozen=True)
class Explanation:
    """An upload, everything that was tried with it, and what follows.

    Attributes:
        attempts: the oldest first.
        what_to_do: one or two sentences for a person.
    """

    upload: UploadDetail
    attempts: Sequence[AttemptRow]
    what_to_do: str


def parse_upload_id(text: str) -> UUID:
    """Read an upload id as a person or a client gives it.

    Raises:
        UsageError: code 'not_an_upload_id'.
    """
    try:
        return UUID(text.strip())
    except ValueError:
        raise UsageError(
            "not_an_upload_id",
            f"{text!r} is not an upload id: those look like 1b4e28ba-2fa1-4d2f-883f-0016d3cca427.",
            "`vuemantics status BATCH --uploads --json` lists those of a batch.",
        ) from None


def explain_upload(
    connection: Connection, upload_id: UUID, *, user_id: UUID | None = None
) -> Explanation:
    """Tell the history of one upload.

    Args:
        user_id: there are no other users' uploads.

    Raises:
        UsageError: code 'no_such_upload'.
    """
    upload = get_upload(connection, upload_id, user_id=user_id)
    with connection.cursor(row_factory=class_row(AttemptRow)) as cursor:
        attempts = cursor.execute(_SQL["attempts"], {"upload_id": upload_id}).fetchall()
    return Explanation(upload, attempts, _what_to_do(upload, attempts))


def get_upload(
    connection: Connection, upload_id: UUID, *, user_id: UUID | None = None
) -> UploadDetail:
    """Return one upload.

    Args:
        user_id: there are no other users' uploads.

    Raises:
        UsageError: code 'no_such_upload'.
    """
    key = {"upload_id": upload_id, "user_id": user_id}
    with connection.cursor(row_factory=class_row(UploadDetail)) as cursor:
        upload = cursor.execute(_SQL["upload"], key).fetchone()
    if upload is None:
        raise UsageError(
            "no_such_upload",
            f"There is no upload {upload_id}.",
            "`vuemantics status BATCH --uploads --json` lists those of a batch.",
        )
    return upload


def group_failures(failures: Iterable[Failure]) -> list[FailureGroup]:
    """Group failures by reason: the most frequent first, equally frequent ones by code."""
    groups: dict[tuple[str | None, str | None], list[Failure]] = {}
    for failure in failures:
        groups.setdefault((failure.error_code, failure.remedy), []).append(failure)
    found = [FailureGroup(code, remedy, of_it) for (code, remedy), of_it in groups.items()]
    return sorted(
        found, key=lambda group: (-len(group.failures), group.error_code or "", group.remedy or "")
    )


def _what_to_do(upload: UploadDetail, attempts: Sequence[AttemptRow]) -> str:
    last = next((one for one in reversed(attempts) if one.error_code and not one.superseded), None)
    if upload.processing_status == UploadStatus.COMPLETED:
        return "Nothing: it is described, and search finds it."
    if upload.processing_status == UploadStatus.FAILED:
        remedy = last.remedy if last and last.remedy else "Upload the file again."
        again = "Or run its batch again with the scope 'failed'." if upload.batch_id else ""
        return f"{remedy} {again}".strip()
    if upload.batch_status is None:
        return "It belongs to no batch, so nothing will process it. Upload the file again."
    if BatchStatus(upload.batch_status).is_terminal:
        return (
            f"Its batch is {upload.batch_status}. Run it again with the scope 'unfinished' "
            "to have the upload processed."
        )
    if upload.processing_status != UploadStatus.PENDING:
        return "Wait: it is being processed."
    if last is not None and last.outcome == "released":
        return f"Wait: it will be tried again. {last.remedy or ''}".strip()
    if last is not None:
        return "Wait: its first try failed, and it will be tried once more."
    return "Wait: its turn comes by itself."
