"""What happens to one upload: attempts, stages and the outcome, each one transaction."""

import json
from collections.abc import Mapping
from types import MappingProxyType
from uuid import UUID

from psycopg.types.json import Jsonb

from vuemantics_pipeline.analysis.analyzer import AnalyzerIdentity
from vuemantics_pipeline.errors import PipelineError, UploadError
from vuemantics_pipeline.ledger.connection import database_errors
from vuemantics_pipeline.ledger.counters import announce, mark_fruitful, recount
from vuemantics_pipeline.ledger.leases import BatchStopped, Lease, guard
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.records import Analysis, Attempt, BatchStatus, Outcome, Stage
from vuemantics_pipeline.ledger.text import storable
from vuemantics_pipeline.ledger.transactions import transaction
from vuemantics_pipeline.ledger.vectors import hold_space, literal

MAX_ATTEMPTS = 2
"""An upload that fails twice is failed for good."""

_SQL = queries("uploads")


def start_attempt(lease: Lease, upload_id: UUID, identity: AnalyzerIdentity) -> Attempt | None:
    """Record an attempt before its work starts.

    Returns:
        The attempt, or None if the upload is finished already and nothing is to be done.

    Raises:
        BatchStopped: the batch is not being processed any more.
        LeaseLost: another run took over.
    """
    connection = lease.connection
    with transaction(connection):
        status = guard(lease)
        key = {"upload_id": upload_id, "batch_id": lease.batch_id}
        row = connection.execute(_SQL["lock_unfinished"], key).fetchone()
        if row is None:
            return None
        if status != BatchStatus.PROCESSING:
            raise BatchStopped(
                "batch_stopped", f"Batch {lease.batch_id} is {status} now; this run stops."
            )
        user_id, filename, file_path, used, releases = row
        started = connection.execute(
            _SQL["start_attempt"],
            key
            | {
                "number": used + 1,
                "run_id": lease.run_id,
                "fence": lease.fence,
                "stage": Stage.QUEUED,
                "analyzer": identity.analyzer,
                "vision_model": identity.vision_model,
                "embedding_model": identity.embedding_model,
                "prompt_version": identity.prompt_version,
            },
        ).fetchone()
        assert started is not None
        announce(lease.connection, lease.batch_id, upload_id)
    return Attempt(
        attempt_id=started[0],
        upload_id=upload_id,
        user_id=user_id,
        number=used + 1,
        releases=releases,
        filename=filename,
        file_path=file_path,
        embedding_model=identity.embedding_model,
    )


def reach_stage(
    lease: Lease,
    attempt: Attempt,
    stage: Stage,
    stage_seconds: Mapping[str, float] = MappingProxyType({}),
) -> None:
    """Record that an attempt has reached a stage; nothing, if it has ended.

    A batch cancelled meanwhile does not stop it: the upload in hand is brought to its end.

    Raises:
        LeaseLost: another run took over.
    """
    with transaction(lease.connection):
        guard(lease)
        reached = lease.connection.execute(
            _SQL["reach_stage"],
            {
                "attempt_id": attempt.attempt_id,
                "stage": stage,
                "status": stage.upload_status,
                "stage_seconds": _rounded(stage_seconds),
            },
        )
        if reached.rowcount == 1:
            announce(lease.connection, lease.batch_id, attempt.upload_id)


def describe_frame(lease: Lease, attempt: Attempt, done: int, total: int) -> None:
    """Record that the vision model has described `done` of a video's `total` frames.

    Raises:
        LeaseLost: another run took over.
    """
    with transaction(lease.connection):
        guard(lease)
        moved = lease.connection.execute(
            _SQL["describe_frame"],
            {"attempt_id": attempt.attempt_id, "done": done, "total": total},
        )
        if moved.rowcount == 1:
            announce(lease.connection, lease.batch_id, attempt.upload_id)


def complete(lease: Lease, attempt: Attempt, outcome: Outcome) -> None:
    """Record that an upload is described and searchable. Repeating it changes nothing.

    Raises:
        LeaseLost: another run took over.
    """
    with transaction(lease.connection):
        guard(lease)
        if not _end_attempt(
            lease,
            attempt.upload_id,
            "completed",
            outcome.stage_seconds,
            analysis=outcome.analysis,
            attempt_id=attempt.attempt_id,
        ):
            return
        hold_space(lease.connection, attempt.embedding_model)
        lease.connection.execute(
            _SQL["complete"],
            {
                "upload_id": attempt.upload_id,
                "description": storable(outcome.analysis.description),
                "audit_score": outcome.analysis.audit_score,
                "embedding": literal(outcome.analysis.embedding),
                "thumbnail_path": outcome.thumbnail_path,
                "video_codec": outcome.info.video_codec,
            },
        )
        lease.connection.execute(
            _SQL["record_facts"],
            vars(outcome.info)
            | {
                "upload_id": attempt.upload_id,
                "user_id": attempt.user_id,
                "sha256": outcome.sha256,
                "visible_text": storable(outcome.analysis.visible_text),
            },
        )
        mark_fruitful(lease.connection, lease.batch_id)
        _settle(lease, attempt.upload_id)


def find_same_bytes(
    lease: Lease, attempt: Attempt, sha256: str, identity: AnalyzerIdentity, *, pass_mark: int
) -> Analysis | None:
    """Return what this analyzer made of another upload of the same user with the same bytes.

    Args:
        sha256: of the file's bytes, in hexadecimal digits.
        pass_mark: a description with a lower score is not worth a second use.

    Raises:
        BackendUnavailable: the connection is lost.
    """
    with database_errors(lease.connection):
        row = lease.connection.execute(
            _SQL["same_bytes"],
            vars(identity)
            | {
                "user_id": attempt.user_id,
                "upload_id": attempt.upload_id,
                "sha256": sha256,
                "pass_mark": pass_mark,
            },
        ).fetchone()
    if row is None:
        return None
    upload_id, description, audit_score, vector, visible_text, model_digest, model_options = row
    return Analysis(
        description=description,
        audit_score=audit_score,
        embedding=json.loads(vector),
        visible_text=visible_text,
        model_digest=model_digest,
        model_options=model_options or {},
        reused_from=upload_id,
    )


def fail(
    lease: Lease, attempt: Attempt, error: UploadError, stage_seconds: dict[str, float]
) -> bool:
    """Record that an attempt failed. Repeating it changes nothing.

    Returns:
        Whether that was the last attempt: the upload is then failed for good.

    Raises:
        LeaseLost: another run took over.
    """
    is_final = attempt.number >= MAX_ATTEMPTS
    with transaction(lease.connection):
        guard(lease)
        if _end_attempt(
            lease,
            attempt.upload_id,
            "failed",
            stage_seconds,
            error,
            attempt_id=attempt.attempt_id,
        ):
            query = _SQL["fail"] if is_final else _SQL["back_to_pending"]
            lease.connection.execute(
                query, {"upload_id": attempt.upload_id, "error_message": storable(str(error))}
            )
            if is_final:
                mark_fruitful(lease.connection, lease.batch_id)
            _settle(lease, attempt.upload_id)
    return is_final


def release(
    lease: Lease, upload_id: UUID, reason: PipelineError, stage_seconds: dict[str, float]
) -> None:
    """Give the upload's open attempt back unused, if it has one: its end was no fault of the file.

    Raises:
        LeaseLost: another run took over.
    """
    with transaction(lease.connection):
        guard(lease)
        if _end_attempt(lease, upload_id, "released", stage_seconds, reason):
            lease.connection.execute(_SQL["back_to_pending"], {"upload_id": upload_id})
            _settle(lease, upload_id)


def find_upload(lease: Lease, id_prefix: str) -> UUID:
    """Return the upload of the lease's batch whose id begins with 12 hexadecimal digits.

    Raises:
        LookupError: the batch has no such upload.
    """
    row = lease.connection.execute(
        _SQL["find_upload"],
        {
            "batch_id": lease.batch_id,
            "lowest": UUID(id_prefix.ljust(32, "0")),
            "highest": UUID(id_prefix.ljust(32, "f")),
        },
    ).fetchone()
    if row is None:
        raise LookupError(f"Batch {lease.batch_id} has no upload {id_prefix}.")
    upload_id: UUID = row[0]
    return upload_id


def _end_attempt(
    lease: Lease,
    upload_id: UUID,
    outcome: str,
    stage_seconds: dict[str, float],
    error: PipelineError | None = None,
    *,
    analysis: Analysis | None = None,
    attempt_id: int | None = None,
) -> bool:
    """Close this run's open attempt at an upload; False if there is none.

    Args:
        attempt_id: close only this one, None: whichever is open.
    """
    closed = lease.connection.execute(
        _SQL["end_attempt"],
        {
            "upload_id": upload_id,
            "attempt_id": attempt_id,
            "fence": lease.fence,
            "outcome": outcome,
            "stage_seconds": _rounded(stage_seconds),
            "error_code": error.code if error else None,
            "error_message": storable(error.message) if error else None,
            "remedy": storable(error.remedy) if error else None,
            "model_digest": analysis.model_digest if analysis else None,
            "model_options": Jsonb(dict(analysis.model_options)) if analysis else None,
            "reused_from": analysis.reused_from if analysis else None,
        },
    )
    return closed.rowcount == 1


def _rounded(stage_seconds: Mapping[str, float]) -> Jsonb:
    return Jsonb({stage: round(seconds, 4) for stage, seconds in stage_seconds.items()})


def _settle(lease: Lease, upload_id: UUID) -> None:
    recount(lease.connection, lease.batch_id)
    announce(lease.connection, lease.batch_id, upload_id)
