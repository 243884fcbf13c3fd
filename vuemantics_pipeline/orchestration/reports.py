"""The asset `daily_batch_report`, one partition for each day in UTC, and its schedule.

pandas and matplotlib are loaded by runs that make a report and by no others: the workers of
batches load this module too.
"""

from collections.abc import Mapping
from datetime import date
from typing import Any

import dagster as dg

from vuemantics_pipeline.orchestration.assets import upload_batch
from vuemantics_pipeline.orchestration.ledger_access import open_ledger
from vuemantics_pipeline.orchestration.run_coordinator import QUEUE, REPORT_KEY, Queue

_DAYS_A_RUN = 31


@dg.asset(
    key=REPORT_KEY,
    partitions_def=dg.DailyPartitionsDefinition(start_date="2026-01-01", timezone="UTC"),
    # For the lineage alone: a report reads the ledger, and no batch makes those before it outdated.
    deps=[dg.AssetDep(upload_batch, partition_mapping=dg.SpecificPartitionsPartitionMapping([]))],
    group_name="uploads",
    owners=["team:vuemantics"],
    kinds={"postgres", "pandas", "parquet"},
    tags={"application": "vuemantics"},
    description=(
        "What the batches that ended on a day (UTC) came to: how many, how well, how fast, and "
        "why uploads failed, for each analyzer.\n\n"
        "Each day is a Parquet file in the reports folder; made again, it takes the place of the "
        "old one."
    ),
)
def daily_batch_report(context: dg.AssetExecutionContext) -> None:
    from vuemantics_pipeline.status.report_page import as_markdown
    from vuemantics_pipeline.status.reports import daily_report, write_report

    with open_ledger() as (connection, settings):
        for day in context.partition_keys:
            report = daily_report(connection, date.fromisoformat(day))
            path = write_report(report, settings.reports)
            totals = report.totals
            context.add_asset_metadata(
                {
                    "report": dg.MetadataValue.md(as_markdown(report)),
                    **_numbers(totals),
                    "top_failure": next((one["error_code"] for one in totals["failures"]), None),
                    "file": dg.MetadataValue.path(path),
                },
                partition_key=day,
            )
            context.log.info(
                f"{day}: batches ended: {totals['batches']}, uploads: {totals['uploads_total']}."
            )


# A month is one run: a worker takes longer to start than to make the report of a day. Set here,
# because the decorator's parameter is still in beta and warns at every start.
daily_batch_report = daily_batch_report.with_attributes(
    backfill_policy=dg.BackfillPolicy.multi_run(_DAYS_A_RUN)
)

report_day = dg.define_asset_job(
    "report_day",
    selection=dg.AssetSelection.assets(REPORT_KEY),
    description="Reports on the batches that ended on a day.",
    tags={QUEUE: Queue.REPORTS.value},
)

daily_batch_report_schedule = dg.build_schedule_from_partitioned_job(
    report_day,
    name="daily_batch_report_after_midnight",
    description="Reports on the day that has just ended, five minutes after midnight UTC.",
    hour_of_day=0,
    minute_of_hour=5,
    default_status=dg.DefaultScheduleStatus.RUNNING,
)


def _numbers(totals: Mapping[str, Any]) -> dict[str, int | float | None]:
    """What the UI plots, with no more digits than mean something."""
    return {
        name: round(value, 4) if isinstance(value, float) else value
        for name, value in totals.items()
        if name != "failures"
    }
