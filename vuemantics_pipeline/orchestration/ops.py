"""Ops: open the batch, process each of its uploads, close it.

What flows between them is order, not data: every output is `Nothing`, which costs the fewest
event rows, and each op reads what it needs from Postgres.
"""

import re
from collections.abc import Iterator

import dagster as dg
from pydantic import Field

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.errors import PipelineError
from vuemantics_pipeline.ledger import batches, uploads
from vuemantics_pipeline.ledger.records import Scope, UploadKey
from vuemantics_pipeline.media.decoder import Decoder
from vuemantics_pipeline.orchestration.resources import RunLedger
from vuemantics_pipeline.orchestration.stopping import StopRun, give_back, stopping
from vuemantics_pipeline.orchestration.tags import PARTITION
from vuemantics_pipeline.processing import Processed, Tools, Verdict
from vuemantics_pipeline.processing import process_upload as process

_ID_DIGITS = 12
_NOT_ALLOWED_IN_KEYS = re.compile(r"[^A-Za-z0-9]+")


def mapping_key(upload: UploadKey) -> str:
    """Return a step name that a person can read: the file's name and the first digits of its id."""
    name = _NOT_ALLOWED_IN_KEYS.sub("_", upload.filename).strip("_")[:40] or "file"
    return f"{name}_{upload.upload_id.hex[:_ID_DIGITS]}"


class BatchConfig(dg.Config):
    """What an operator chooses in the launchpad."""

    scope: Scope = Field(
        default=Scope.UNFINISHED,
        description="Which uploads to take up: those UNFINISHED, the FAILED as well, or ALL anew.",
    )


@dg.op(
    out=dg.DynamicOut(dg.Nothing),
    description="Takes the batch's lease and lists the uploads that are not finished.",
)
def open_batch(
    context: dg.OpExecutionContext,
    config: BatchConfig,
    ledger: dg.ResourceParam[RunLedger],
    analyzer: dg.ResourceParam[Analyzer],
) -> Iterator[dg.DynamicOutput[None]]:
    with stopping(context, ledger):
        lease, unfinished = ledger.open(analyzer, config.scope)
    _tell_predecessor(context)
    context.log.info(f"Batch {lease.batch_id}: {len(unfinished)} uploads to process.")
    for upload in unfinished:
        yield dg.DynamicOutput(None, mapping_key=mapping_key(upload))


@dg.op(
    ins={"opened": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    retry_policy=dg.RetryPolicy(max_retries=1),
    description="Makes one attempt at one upload. After the second it is failed for good.",
)
def process_upload(
    context: dg.OpExecutionContext,
    ledger: dg.ResourceParam[RunLedger],
    decoder: dg.ResourceParam[Decoder],
    analyzer: dg.ResourceParam[Analyzer],
) -> Iterator[dg.Output[None]]:
    with stopping(context, ledger):
        lease, _ = ledger.open(analyzer)
        key = context.get_mapping_key() or ""
        upload_id = uploads.find_upload(lease, key[-_ID_DIGITS:])
        tools = Tools(
            decoder=decoder,
            analyzer=analyzer,
            uploads_root=ledger.settings.uploads,
            max_pixels=ledger.settings.max_pixels,
            stage_seconds=ledger.settings.stage_seconds,
            reuse=ledger.settings.reuse,
        )
        processed = process(lease, upload_id, tools, upcoming=ledger.file_after(upload_id))
    if processed.verdict is Verdict.RETRY:
        raise dg.Failure(f"{_name(processed)}: {processed.error}", allow_retries=True)
    if processed.verdict is Verdict.FAILED:
        context.log.warning(f"{_name(processed)} failed for good: {processed.error}")
    yield dg.Output(None, metadata=_metadata(processed))


@dg.op(
    ins={"processed": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    description="Counts what is there and completes the batch if nothing is left to do.",
)
def close_batch(
    context: dg.OpExecutionContext,
    ledger: dg.ResourceParam[RunLedger],
    analyzer: dg.ResourceParam[Analyzer],
) -> Iterator[dg.Output[None]]:
    with stopping(context, ledger):
        lease, _ = ledger.open(analyzer)
        closed = batches.close_batch(lease)
    if closed.unfinished:
        unfinished = PipelineError(
            "batch_unfinished",
            f"{closed.unfinished} uploads are not finished.",
            "Another run takes them up.",
        )
        give_back(ledger, unfinished)
        raise StopRun(str(unfinished))
    yield dg.Output(
        None,
        metadata={
            "uploads_total": closed.total,
            "uploads_succeeded": closed.successful,
            "uploads_failed": closed.failed,
        },
    )


def _tell_predecessor(context: dg.OpExecutionContext) -> None:
    """Note on the page of a failed run which run goes on with its batch."""
    of_batch = {PARTITION: context.run.tags.get(PARTITION, "")}
    earlier = [
        run
        for run in context.instance.get_runs(dg.RunsFilter(tags=of_batch), limit=2)
        if run.run_id != context.run_id
    ]
    if earlier and earlier[0].status == dg.DagsterRunStatus.FAILURE:
        message = f"Run {context.run_id} took the batch over."
        context.instance.report_engine_event(message, earlier[0])


def _name(processed: Processed) -> str:
    return processed.attempt.filename if processed.attempt else "upload"


def _metadata(processed: Processed) -> dict[str, dg.MetadataValue | str | int | float]:
    metadata: dict[str, dg.MetadataValue | str | int | float] = {"outcome": processed.verdict.value}
    if processed.attempt:
        metadata |= {"file": processed.attempt.filename, "attempt": processed.attempt.number}
    if processed.error:
        metadata |= {"reason": processed.error.message, "remedy": processed.error.remedy}
    if processed.outcome:
        metadata |= {
            "description": processed.outcome.analysis.description,
            "audit_score": processed.outcome.analysis.audit_score,
        }
        if processed.outcome.analysis.reused_from:
            metadata["reused_from"] = str(processed.outcome.analysis.reused_from)
    return metadata | {
        f"{stage}_seconds": round(seconds, 3) for stage, seconds in processed.stage_seconds.items()
    }
