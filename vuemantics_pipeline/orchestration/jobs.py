"""Jobs: what the sensor launches and what "Materialize" runs are the same asset."""

import dagster as dg

from vuemantics_pipeline.orchestration.assets import upload_batch

process_batch = dg.define_asset_job(
    "process_batch",
    selection=dg.AssetSelection.assets(upload_batch),
    description="Processes one batch of uploads, one upload at a time.",
)
