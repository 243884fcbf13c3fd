"""What the Dagster UI tells of a batch, of its uploads and of its runs.

A batch's story is the metadata of its materialization, an upload's that of its step. What became
of a run that did not finish its batch is told twice: by a tag, which the list of runs shows and
finds, and by a last event, which is what a run's page opens at.
"""

import base64
from collections.abc import Mapping, Sequence
from uuid import UUID

import dagster as dg

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.records import BatchStatus
from vuemantics_pipeline.media.contact_sheet import contact_sheet, miniature
from vuemantics_pipeline.media.thumbnail import read_thumbnail
from vuemantics_pipeline.orchestration.tags import (
    CANCELLED,
    PARTITION,
    REFUSED,
    TAKEN_OVER_BY,
    TAKES_OVER_FROM,
    BatchRun,
)
from vuemantics_pipeline.processing import Processed
from vuemantics_pipeline.settings import Settings
from vuemantics_pipeline.status.batches import Failure, get_batch, list_failures
from vuemantics_pipeline.status.facts import BatchFacts, batch_facts, first_error, list_thumbnails
from vuemantics_pipeline.status.timing import TIMED_STAGES, StageTiming, stage_timings

Metadata = dict[str, dg.MetadataValue | str | int | float]

ROWS_SHOWN = 100
"""In a table of an event; the rest is only counted."""

_SHEET_PICTURES = 24
_SHEET_COLUMNS = 8
# The plots of an asset load what is told of its last 120 partitions, sheets and all: 5 MB.
_SHEET_BYTES = 32_000

_RUNS_LOOKED_AT = 10
_LEFT_WORK = (dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.STARTED)
_BEGUN = [*_LEFT_WORK, dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.CANCELED]


def batch_metadata(connection: Connection, run: BatchRun, settings: Settings) -> Metadata:
    """Tell what became of a batch that has ended: the metadata of its materialization.

    The names are the same for every batch, so that the UI plots them; what a batch does not have
    is null.

    Raises:
        UsageError: code 'no_such_batch'.
    """
    facts = batch_facts(connection, run.batch_id)
    stages = stage_timings(connection, run.batch_id)
    return {
        "uploads_total": facts.uploads_total,
        "uploads_succeeded": facts.uploads_succeeded,
        "uploads_failed": facts.uploads_failed,
        "uploads_reused": facts.uploads_reused,
        "failures": failures_table(list_failures(connection, run.batch_id)),
        "contact_sheet": _contact_sheet(connection, facts, settings),
        "bytes_total": facts.bytes_total,
        "duration_seconds": _number(facts.duration_seconds),
        "seconds_waiting_in_queue": _number(facts.seconds_waiting_in_queue),
        "uploads_per_minute": _number(facts.uploads_per_minute),
        **_stage_seconds(stages),
        "audit_score_mean": _number(facts.audit_score_mean),
        "attempts_total": facts.attempts_total,
        "takeovers": facts.takeovers,
        "user": str(facts.user_id),
        "analyzer": _text(facts.analyzer),
        "vision_model": _text(facts.vision_model),
        "embedding_model": _text(facts.embedding_model),
        "prompt_version": _text(facts.prompt_version),
        "run": dg.MetadataValue.url(f"{settings.ui_url}/runs/{run.run_id}"),
    }


def upload_metadata(connection: Connection, processed: Processed, settings: Settings) -> Metadata:
    """Tell what became of one upload: the metadata of its step."""
    metadata: Metadata = {"outcome": processed.verdict.value}
    attempt, outcome, error = processed.attempt, processed.outcome, processed.error
    if attempt:
        metadata |= {"file": attempt.filename, "attempt": attempt.number}
        if attempt.number > 1:
            metadata["first_error"] = first_error(connection, attempt.upload_id) or ""
    if error:
        metadata |= {"code": error.code, "reason": error.message, "remedy": error.remedy}
    if attempt and outcome:
        metadata |= {
            "description": outcome.analysis.description,
            "audit_score": outcome.analysis.audit_score,
        }
        if outcome.analysis.reused_from:
            metadata["reused_from"] = str(outcome.analysis.reused_from)
        written = read_thumbnail(settings.uploads, outcome.thumbnail_path, user_id=attempt.user_id)
        small = written and miniature(written)
        if small:
            metadata["thumbnail"] = _picture("thumbnail", "image/jpeg", small)
    return metadata | {
        f"{stage}_seconds": round(seconds, 3) for stage, seconds in processed.stage_seconds.items()
    }


def tell_of_takeover(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    """Tell a run that left its batch unfinished which one goes on with it, and this one whose.

    Call it with the batch's lease in hand: a run that has given its batch back may still say that
    it is at work.
    """
    of_batch = dg.RunsFilter(tags={PARTITION: run.tags.get(PARTITION, "")}, statuses=_BEGUN)
    earlier = [
        other
        for other in instance.get_runs(of_batch, limit=_RUNS_LOOKED_AT)
        if other.run_id != run.run_id and REFUSED not in other.tags
    ]
    if not earlier or earlier[0].status not in _LEFT_WORK:
        return
    predecessor = earlier[0]
    instance.add_run_tags(run.run_id, {TAKES_OVER_FROM: predecessor.run_id})
    instance.report_engine_event(f"Goes on with the batch of run {predecessor.run_id}.", run)
    instance.add_run_tags(predecessor.run_id, {TAKEN_OVER_BY: run.run_id})
    instance.report_engine_event(f"Run {run.run_id} took the batch over.", predecessor)


def tell_of_cancellation(
    instance: dg.DagsterInstance, connection: Connection, run: dg.DagsterRun, batch_id: UUID
) -> None:
    """Tell a run that ended canceled why it did, and how much of its batch is done; once."""
    if CANCELLED in run.tags:
        return
    try:
        batch = get_batch(connection, batch_id)
    except UsageError as gone:
        story = gone.message
    else:
        why = "Terminated in Dagster."
        if batch.status is BatchStatus.CANCELLED:
            why = batch.error_message or "Cancelled in the application."
        story = f"{batch.processed_uploads} of {batch.total_uploads} uploads are done. {why}"
    instance.add_run_tags(run.run_id, {CANCELLED: story})
    instance.report_engine_event(story, run)


def failures_table(failures: Sequence[Failure]) -> dg.TableMetadataValue:
    """List uploads that failed for good: why, and what to do."""
    return table(
        {"file": "string", "code": "string", "reason": "string", "remedy": "string"}
        | {"attempts": "int"},
        [
            {
                "file": failure.filename,
                "code": failure.error_code,
                "reason": failure.error_message,
                "remedy": failure.remedy,
                "attempts": failure.attempts,
            }
            for failure in failures
        ],
    )


def table(
    columns: Mapping[str, str], rows: Sequence[Mapping[str, str | int | float | None]]
) -> dg.TableMetadataValue:
    """Make a table of the first ROWS_SHOWN rows; a last one says how many more there are.

    Args:
        columns: name -> type, as the UI shows it.
        rows: a value for each column; None is shown as an empty cell.
    """
    shown: list[Mapping[str, str | int | float | None]] = list(rows[:ROWS_SHOWN])
    if len(rows) > ROWS_SHOWN:
        shown.append({next(iter(columns)): f"and {len(rows) - ROWS_SHOWN} more"})
    empty = dict.fromkeys(columns, "")
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                empty | {name: value for name, value in row.items() if value is not None}
            )
            for row in shown
        ],
        dg.TableSchema([dg.TableColumn(name, type_) for name, type_ in columns.items()]),
    )


def _stage_seconds(stages: Sequence[StageTiming]) -> Metadata:
    timings = {timing.stage: timing for timing in stages}
    metadata: Metadata = {}
    for stage in TIMED_STAGES:
        timing = timings.get(stage)
        metadata[f"{stage}_seconds_p50"] = _number(timing.p50_seconds if timing else None)
        metadata[f"{stage}_seconds_p95"] = _number(timing.p95_seconds if timing else None)
    return metadata


def _number(value: float | None) -> dg.MetadataValue | int | float:
    return dg.MetadataValue.null() if value is None else round(value, 4)


def _text(value: str | None) -> dg.MetadataValue | str:
    return dg.MetadataValue.null() if value is None else value


def _contact_sheet(
    connection: Connection, facts: BatchFacts, settings: Settings
) -> dg.MetadataValue:
    listed = list_thumbnails(connection, facts.batch_id, limit=_SHEET_PICTURES)
    read = [
        read_thumbnail(settings.uploads, one.thumbnail_path, user_id=one.user_id) for one in listed
    ]
    thumbnails = [content for content in read if content is not None]
    sheet = contact_sheet(thumbnails, columns=_SHEET_COLUMNS, most_bytes=_SHEET_BYTES)
    if sheet is None:
        return dg.MetadataValue.null()
    left = facts.uploads_succeeded - len(thumbnails)
    return _picture("contact sheet", "image/png", sheet, f"and {left} more" if left > 0 else "")


def _picture(name: str, mime_type: str, content: bytes, caption: str = "") -> dg.MetadataValue:
    encoded = base64.b64encode(content).decode()
    return dg.MetadataValue.md(f"![{name}](data:{mime_type};base64,{encoded})\n\n{caption}".strip())
