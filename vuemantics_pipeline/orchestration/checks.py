"""Asset checks: what a person should look at after a batch has ended.

Their metadata names the batch, because checks cannot have partitions yet (a preview in Dagster
1.13, which warns against using it). Executed by themselves, they look at the last batch.
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from uuid import UUID

import dagster as dg

from vuemantics_pipeline.analysis.audit import PASS_MARK, faults
from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.audit import audit
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.orchestration.assets import upload_batch
from vuemantics_pipeline.orchestration.ledger_access import open_ledger
from vuemantics_pipeline.orchestration.story import failures_table, table
from vuemantics_pipeline.orchestration.tags import PARTITION, batch_run
from vuemantics_pipeline.status.batches import get_batch, list_failures
from vuemantics_pipeline.status.facts import (
    BatchFacts,
    UsualPace,
    batch_facts,
    list_poor_descriptions,
    usual_pace,
)
from vuemantics_pipeline.status.timing import stage_timings

_BATCHES_COMPARED = 50
_FEWEST_COMPARED = 5
_TIMES_THE_USUAL = 3
# A run loads its models with its first upload, however few there are.
_ALLOWANCE_SECONDS = 30
_DESCRIPTION_SHOWN = 200


@dg.asset_check(
    asset=upload_batch,
    description="No upload of the batch failed; those that did, and why.",
)
def no_failed_uploads(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    with _batch_to_check(context) as (connection, batch_id):
        failures = list_failures(connection, batch_id)
    return dg.AssetCheckResult(
        passed=not failures,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Uploads that failed: {len(failures)}.",
        metadata={
            "batch": str(batch_id),
            "failed_uploads": len(failures),
            "failures": failures_table(failures),
        },
    )


@dg.asset_check(
    asset=upload_batch,
    description="Counters, uploads and attempts of the batch agree.",
)
def counters_match_rows(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    with _batch_to_check(context) as (connection, batch_id):
        violations = audit(connection, batch_id).violations
        batch = get_batch(connection, batch_id)
    return dg.AssetCheckResult(
        passed=not violations,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"Broken rules: {len(violations)}.",
        metadata={
            "batch": str(batch_id),
            "broken_rules": len(violations),
            "total_uploads": batch.total_uploads,
            "processed_uploads": batch.processed_uploads,
            "successful_uploads": batch.successful_uploads,
            "failed_uploads": batch.failed_uploads,
            "violations": table(
                {"rule": "string", "detail": "string"},
                [{"rule": broken.rule, "detail": broken.detail} for broken in violations],
            ),
        },
    )


@dg.asset_check(
    asset=upload_batch,
    description=(
        f"The batch took no longer than {_TIMES_THE_USUAL} times what its uploads usually take, "
        f"and {_ALLOWANCE_SECONDS} s. What is usual is the median of the last {_BATCHES_COMPARED} "
        "completed batches, those of another analyzer or vision model left out."
    ),
)
def duration_within_expectation(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    with _batch_to_check(context) as (connection, batch_id):
        facts = batch_facts(connection, batch_id)
        usual = usual_pace(connection, facts, batches=_BATCHES_COMPARED)
        stages = stage_timings(connection, batch_id)
    limit_seconds = _limit_seconds(facts, usual)
    is_within = (
        limit_seconds is None
        or facts.duration_seconds is None
        or facts.duration_seconds <= limit_seconds
    )
    return dg.AssetCheckResult(
        passed=is_within,
        severity=dg.AssetCheckSeverity.WARN,
        description=_compared(facts, usual, limit_seconds),
        metadata={
            "batch": str(batch_id),
            **_known(
                {
                    "duration_seconds": facts.duration_seconds,
                    "limit_seconds": limit_seconds,
                    "seconds_per_upload": facts.seconds_per_upload,
                    "usual_seconds_per_upload": usual.seconds_per_upload,
                }
            ),
            "batches_compared": usual.batches,
            "stages": table(
                {"stage": "string", "tries": "int"}
                | {"p50_seconds": "float", "p95_seconds": "float", "sum_seconds": "float"},
                [vars(timing) for timing in stages],
            ),
        },
    )


@dg.asset_check(
    asset=upload_batch,
    description=(
        f"Every description scores at least {PASS_MARK} of 100 in the audit, so that search can "
        "rely on it; those that do not, the worst first."
    ),
)
def descriptions_pass_audit(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    with _batch_to_check(context) as (connection, batch_id):
        facts = batch_facts(connection, batch_id)
        poor = list_poor_descriptions(connection, batch_id, pass_mark=PASS_MARK)
    return dg.AssetCheckResult(
        passed=not poor,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Descriptions below {PASS_MARK}: {len(poor)} of {facts.uploads_succeeded}.",
        metadata={
            "batch": str(batch_id),
            "poor_descriptions": len(poor),
            "pass_mark": PASS_MARK,
            **_known({"audit_score_mean": facts.audit_score_mean}),
            "worst": table(
                {"file": "string", "score": "int", "faults": "string", "description": "string"},
                [
                    {
                        "file": one.filename,
                        "score": one.audit_score,
                        "faults": ", ".join(faults(one.description)),
                        "description": one.description[:_DESCRIPTION_SHOWN],
                    }
                    for one in poor
                ],
            ),
        },
    )


@contextmanager
def _batch_to_check(context: dg.AssetCheckExecutionContext) -> Iterator[tuple[Connection, UUID]]:
    """Open the ledger, and tell which batch to look at: the run's, else the last one materialized.

    "Execute" on the page of the checks starts a run of theirs alone, which has no partition.
    """
    with open_ledger() as (connection, _):
        if PARTITION in context.run.tags:
            yield connection, batch_run(context.run).batch_id
        else:
            yield connection, _last_materialized(context.instance)


def _last_materialized(instance: dg.DagsterInstance) -> UUID:
    event = instance.get_latest_materialization_event(upload_batch.key)
    if event is None or event.asset_materialization is None:
        raise UsageError(
            "nothing_to_check",
            "No batch has been materialized, so there is nothing to check.",
            "Every batch is checked when its run has ended.",
        )
    return UUID(event.asset_materialization.partition)


def _limit_seconds(facts: BatchFacts, usual: UsualPace) -> float | None:
    """How long the batch may take; None where nothing is known to compare it with."""
    if usual.batches < _FEWEST_COMPARED or usual.seconds_per_upload is None:
        return None
    uploads = facts.uploads_succeeded + facts.uploads_failed
    return _TIMES_THE_USUAL * usual.seconds_per_upload * uploads + _ALLOWANCE_SECONDS


def _compared(facts: BatchFacts, usual: UsualPace, limit_seconds: float | None) -> str:
    if facts.duration_seconds is None:
        return "There was nothing to process."
    took = f"It took {facts.duration_seconds:.1f} s"
    if limit_seconds is None:
        return (
            f"{took}; with {usual.batches} batches like it there are too few to compare it with "
            f"(at least {_FEWEST_COMPARED})."
        )
    return f"{took}; up to {limit_seconds:.1f} s were expected, by {usual.batches} batches like it."


def _known(numbers: Mapping[str, float | None]) -> dict[str, float]:
    return {name: round(value, 3) for name, value in numbers.items() if value is not None}
