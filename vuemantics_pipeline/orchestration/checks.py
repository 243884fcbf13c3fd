"""Asset checks: what a person should look at after a batch has ended."""

import dagster as dg

from vuemantics_pipeline.ledger.audit import audit
from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline.orchestration.assets import upload_batch
from vuemantics_pipeline.orchestration.tags import batch_run
from vuemantics_pipeline.settings import load_settings
from vuemantics_pipeline.status.batches import list_failures

_SHOWN = 100
"""Rows listed in a check's table; the rest is only counted."""


@dg.asset_check(
    asset=upload_batch,
    description="No upload of the batch failed; those that did, and why.",
)
def no_failed_uploads(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    run = batch_run(context.run)
    with connect(load_settings().require_database_url()) as connection:
        failures = list_failures(connection, run.batch_id)
    records = [
        dg.TableRecord(
            {
                "file": failure.filename,
                "reason": failure.error_message or "",
                "remedy": failure.remedy or "",
            }
        )
        for failure in failures[:_SHOWN]
    ]
    return dg.AssetCheckResult(
        passed=not failures,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"Uploads that failed: {len(failures)}.",
        metadata={
            "failed_uploads": len(failures),
            "failures": _table(records, "file", "reason", "remedy"),
        },
    )


@dg.asset_check(
    asset=upload_batch,
    description="Counters, uploads and attempts of the batch agree.",
)
def counters_match_rows(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
    run = batch_run(context.run)
    with connect(load_settings().require_database_url()) as connection:
        violations = audit(connection, run.batch_id).violations
    records = [
        dg.TableRecord({"rule": violation.rule, "detail": violation.detail})
        for violation in violations[:_SHOWN]
    ]
    return dg.AssetCheckResult(
        passed=not violations,
        severity=dg.AssetCheckSeverity.ERROR,
        description=f"Broken rules: {len(violations)}.",
        metadata={"violations": _table(records, "rule", "detail")},
    )


def _table(records: list[dg.TableRecord], *columns: str) -> dg.TableMetadataValue:
    return dg.MetadataValue.table(
        records, dg.TableSchema([dg.TableColumn(name) for name in columns])
    )
