"""Puts the definitions together. `vuemantics_pipeline.definitions` is what Dagster loads."""

from typing import Any

import dagster as dg

from vuemantics_pipeline.orchestration.alerts import failure_alerts
from vuemantics_pipeline.orchestration.assets import upload_batch
from vuemantics_pipeline.orchestration.checks import (
    counters_match_rows,
    descriptions_pass_audit,
    duration_within_expectation,
    no_failed_uploads,
)
from vuemantics_pipeline.orchestration.hooks import (
    batch_after_cancellation,
    batch_after_failure,
    batch_after_success,
)
from vuemantics_pipeline.orchestration.io_managers import StatelessIOManager
from vuemantics_pipeline.orchestration.jobs import process_batch
from vuemantics_pipeline.orchestration.operator_jobs import OPERATOR_JOBS
from vuemantics_pipeline.orchestration.reports import (
    daily_batch_report,
    daily_batch_report_schedule,
    report_day,
)
from vuemantics_pipeline.orchestration.resources import (
    analyzer_resource,
    decoder_resource,
    ledger_resource,
)
from vuemantics_pipeline.orchestration.sensors import pending_upload_batches


def build_definitions(**resources: Any) -> dg.Definitions:
    """Return fresh definitions.

    Args:
        resources: replacements, by resource key ('ledger', 'decoder', 'analyzer', 'io_manager').
    """
    return dg.Definitions(
        assets=[upload_batch, daily_batch_report],
        asset_checks=[
            no_failed_uploads,
            counters_match_rows,
            duration_within_expectation,
            descriptions_pass_audit,
        ],
        jobs=[process_batch, report_day, *OPERATOR_JOBS],
        schedules=[daily_batch_report_schedule],
        sensors=[
            pending_upload_batches,
            batch_after_success,
            batch_after_failure,
            batch_after_cancellation,
            failure_alerts,
        ],
        resources={
            "ledger": ledger_resource,
            "decoder": decoder_resource,
            "analyzer": analyzer_resource,
            "io_manager": StatelessIOManager(),
            **resources,
        },
        executor=dg.in_process_executor,
    )
