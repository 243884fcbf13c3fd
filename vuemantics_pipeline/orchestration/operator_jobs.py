"""Jobs that an operator launches from the UI: each calls the ledger and says what it did.

They stand in a queue of their own, so that they need not wait for the batch at work. What the
command line asks before it goes on is here a `dry_run` that is on unless it is switched off.
"""

from uuid import UUID

import dagster as dg
from pydantic import Field

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.ledger import batches, pruning, reruns
from vuemantics_pipeline.ledger.audit import audit
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.ingestion import find_user
from vuemantics_pipeline.ledger.reanalysis import reanalyze as reanalyze_outdated
from vuemantics_pipeline.ledger.records import Scope
from vuemantics_pipeline.orchestration import history
from vuemantics_pipeline.orchestration.ledger_access import open_ledger
from vuemantics_pipeline.orchestration.run_coordinator import QUEUE, Queue
from vuemantics_pipeline.orchestration.story import table
from vuemantics_pipeline.settings import Settings
from vuemantics_pipeline.status.batches import get_batch, parse_batch_id

Metadata = dg.MetadataValue | str | int | float | bool


class RetryConfig(dg.Config):
    """Which batch to run again, and what of it."""

    batch_id: str = Field(description="Id of the batch, as on the page of upload_batch.")
    scope: Scope = Field(
        default=Scope.UNFINISHED,
        description="Uploads to take up: those UNFINISHED, the FAILED as well, or ALL anew.",
    )


class CancelConfig(dg.Config):
    """Which batch to cancel."""

    batch_id: str = Field(description="Id of the batch, as on the page of upload_batch.")


class ReanalyzeConfig(dg.Config):
    """Whose uploads to make anew."""

    user: str | None = Field(
        default=None, description="Only uploads of this user: e-mail address or id."
    )
    dry_run: bool = Field(default=True, description="Only say how many uploads that would be.")


class AuditConfig(dg.Config):
    """What to audit."""

    batch_id: str | None = Field(default=None, description="Only this batch; without it, all.")


class PruneConfig(dg.Config):
    """What is old."""

    older_than_days: int = Field(
        default=90, ge=1, description="Age in days, counted from the end of the batch or run."
    )
    dry_run: bool = Field(default=True, description="Only say how much that would be.")


@dg.op(out=dg.Out(dg.Nothing))
def retry(context: dg.OpExecutionContext, config: RetryConfig) -> None:
    with open_ledger() as (connection, settings):
        batch_id = _batch_id(connection, config.batch_id)
        uploads = reruns.retry(connection, batch_id, config.scope)
    _tell(
        context,
        f"Batch {batch_id}: the next run takes up {uploads} of its uploads."
        if uploads
        else f"Batch {batch_id} has no uploads to take up in this scope; nothing was changed.",
        batch=_batch_link(settings, batch_id),
        scope=config.scope.value,
        uploads=uploads,
    )


@dg.op(out=dg.Out(dg.Nothing))
def cancel(context: dg.OpExecutionContext, config: CancelConfig) -> None:
    with open_ledger() as (connection, settings):
        batch_id = _batch_id(connection, config.batch_id)
        cancelled = batches.cancel(connection, batch_id, message="Cancelled from the Dagster UI.")
        batch = get_batch(connection, batch_id)
    done = f"{batch.processed_uploads} of {batch.total_uploads} uploads done"
    _tell(
        context,
        f"Batch {batch_id} is cancelled with {done}."
        if cancelled
        else f"Batch {batch_id} is {batch.status} already; nothing was changed.",
        batch=_batch_link(settings, batch_id),
        cancelled=cancelled,
        status=batch.status.value,
        uploads_total=batch.total_uploads,
        uploads_processed=batch.processed_uploads,
    )


@dg.op(out=dg.Out(dg.Nothing))
def reanalyze_uploads(
    context: dg.OpExecutionContext,
    config: ReanalyzeConfig,
    analyzer: dg.ResourceParam[Analyzer],
) -> None:
    with open_ledger() as (connection, settings):
        done = reanalyze_outdated(
            connection,
            analyzer.identity,
            application_model=settings.embedding_model,
            user_id=find_user(connection, config.user) if config.user else None,
            dry_run=config.dry_run,
        )
    would = "Would be made anew" if config.dry_run else "To be made anew by the next runs"
    _tell(
        context,
        f"{would}: uploads: {done.uploads}, in batches: {done.batches}.",
        dry_run=config.dry_run,
        uploads=done.uploads,
        batches=done.batches,
        uploads_skipped=done.skipped,
        vectors_cleared_of=done.forgets or "none",
        analyzer=analyzer.identity.analyzer,
    )


@dg.op(out=dg.Out(dg.Nothing))
def audit_rows(context: dg.OpExecutionContext, config: AuditConfig) -> None:
    with open_ledger() as (connection, _):
        batch_id = _batch_id(connection, config.batch_id) if config.batch_id else None
        found = audit(connection, batch_id)
    violations = len(found.violations)
    metadata: dict[str, Metadata] = {
        "batches": found.batches,
        "violations": violations,
        "broken_rules": table(
            {"batch": "string", "rule": "string", "what the rows say": "string"},
            [
                {"batch": str(one.batch_id), "rule": one.rule, "what the rows say": one.detail}
                for one in found.violations
            ],
        ),
    }
    if violations:
        description = f"Batches checked: {found.batches}. Violations: {violations}."
        raise dg.Failure(description, metadata, allow_retries=False)
    _tell(context, f"Batches checked: {found.batches}. All agree.", **metadata)


@dg.op(out=dg.Out(dg.Nothing))
def prune(context: dg.OpExecutionContext, config: PruneConfig) -> None:
    instance, days = context.instance, config.older_than_days
    with open_ledger() as (connection, _):
        runs = history.old_runs(instance, connection, older_than_days=days)
        old = history.old_partitions(instance, connection, older_than_days=days)
        partitions, media_facts = len(old), pruning.count_forgotten_media(connection)
        if not config.dry_run:
            for gone in history.delete_runs(instance, runs):
                context.log.info(f"Runs deleted: {gone} of {len(runs)}.")
            for partitions in history.delete_partitions(
                instance, connection, old, older_than_days=days
            ):
                context.log.info(f"Partitions deleted: {partitions} of {len(old)}.")
            media_facts = sum(pruning.delete_forgotten_media(connection))
    would = "Would be deleted" if config.dry_run else "Deleted"
    _tell(
        context,
        f"{would}: runs with their events: {len(runs)}, partitions: {partitions}, media facts of "
        f"deleted uploads: {media_facts}.",
        dry_run=config.dry_run,
        older_than_days=days,
        runs=len(runs),
        partitions=partitions,
        media_facts=media_facts,
    )


def _job(name: str, op: dg.OpDefinition, description: str) -> dg.JobDefinition:
    return dg.GraphDefinition(name=name, node_defs=[op]).to_job(
        description=description, tags={QUEUE: Queue.OPERATORS.value}
    )


retry_batch = _job(
    "retry_batch",
    retry,
    "Runs a batch again: the sensor takes it up at its next tick. Descriptions and vectors stay in "
    "place until new ones replace them.",
)
cancel_batch = _job(
    "cancel_batch",
    cancel,
    "Cancels a batch at once: its run stops after the upload in hand, and what is done is kept.",
)
reanalyze = _job(
    "reanalyze",
    reanalyze_uploads,
    "Describes and embeds anew what another analyzer, model or prompt made. Where the embedding "
    "model changes, all vectors are cleared at once. Try it with dry_run first.",
)
audit_ledger = _job(
    "audit_ledger",
    audit_rows,
    "Checks that counters, uploads and attempts agree, of one batch or of all. Fails if not.",
)
prune_history = _job(
    "prune_history",
    prune,
    "Deletes old partitions of ended batches, old runs with their event rows, and what is known "
    "of media whose uploads were deleted. Batches, uploads and attempts stay.",
)

OPERATOR_JOBS = (retry_batch, cancel_batch, reanalyze, audit_ledger, prune_history)


def _batch_id(connection: Connection, text: str) -> UUID:
    """Read the id of a batch that exists.

    Raises:
        UsageError: code 'not_a_batch_id' or 'no_such_batch'.
    """
    return get_batch(connection, parse_batch_id(text)).batch_id


def _batch_link(settings: Settings, batch_id: UUID) -> dg.MetadataValue:
    page = f"{settings.ui_url}/assets/upload_batch?view=partitions&partition={batch_id}"
    return dg.MetadataValue.url(page)


def _tell(context: dg.OpExecutionContext, sentence: str, **metadata: Metadata) -> None:
    """Say what was done: a line in the log, and metadata on the output."""
    context.log.info(sentence)
    context.add_output_metadata(metadata)
