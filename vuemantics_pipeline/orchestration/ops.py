"""Ops: open the batch, process each of its uploads, close it.

What flows between them is order, not data: every output is `Nothing`, which costs the fewest
event rows, and each op reads what it needs from Postgres.
"""

import re
from collections.abc import Iterator
from contextlib import suppress

import dagster as dg
from pydantic import Field

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.errors import PipelineError
from vuemantics_pipeline.ledger import batches, uploads
from vuemantics_pipeline.ledger.records import Attempt, Scope, Stage, UploadKey
from vuemantics_pipeline.media.decoder import Decoder
from vuemantics_pipeline.orchestration.resources import RunLedger
from vuemantics_pipeline.orchestration.stopping import stopping
from vuemantics_pipeline.orchestration.story import (
    batch_metadata,
    tell_of_takeover,
    upload_metadata,
)
from vuemantics_pipeline.printable import printable
from vuemantics_pipeline.processing import OnStage, Processed, Tools, Verdict
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
        _, unfinished = ledger.open(analyzer, config.scope)
        tell_of_takeover(context.instance, context.run)
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
        processed = process(
            lease,
            upload_id,
            tools,
            upcoming=ledger.file_after(upload_id),
            on_stage=_log_stages(context),
        )
        metadata = upload_metadata(ledger.connection, processed, ledger.settings)
    if processed.verdict is Verdict.RETRY:
        raise dg.Failure(f"{_name(processed)}: {processed.error}", allow_retries=True)
    if processed.verdict is Verdict.FAILED:
        context.log.warning(f"{_name(processed)} failed for good: {processed.error}")
    yield dg.Output(None, metadata=metadata)


@dg.op(
    ins={"processed": dg.In(dg.Nothing)},
    out=dg.Out(dg.Nothing),
    description="Counts what is there and completes the batch if nothing is left to do.",
)
def close_batch(
    context: dg.AssetExecutionContext,
    ledger: dg.ResourceParam[RunLedger],
    analyzer: dg.ResourceParam[Analyzer],
) -> Iterator[dg.Output[None]]:
    with stopping(context.op_execution_context, ledger):
        lease, _ = ledger.open(analyzer)
        closed = batches.close_batch(lease)
        if closed.unfinished:
            raise PipelineError(
                "batch_unfinished",
                f"{closed.unfinished} uploads are not finished.",
                "Another run takes them up.",
            )
        # An output's metadata would be written twice: with the output, and with the asset.
        context.add_asset_metadata(batch_metadata(ledger.connection, ledger.run, ledger.settings))
        # Whoever asks for the batch again need not wait for the checks and the worker's end.
        ledger.release()
    yield dg.Output(None)


def _log_stages(context: dg.OpExecutionContext) -> OnStage:
    def log(attempt: Attempt, stage: Stage, seconds: float) -> None:
        # A line that cannot be written is no failure of the file.
        with suppress(Exception):
            context.log.info(f"{printable(attempt.filename)}: {stage} {seconds:.2f} s")

    return log


def _name(processed: Processed) -> str:
    return processed.attempt.filename if processed.attempt else "upload"
