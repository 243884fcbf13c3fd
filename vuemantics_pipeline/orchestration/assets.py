"""Assets: `upload_batch`, one partition for each batch."""

from datetime import timedelta
from typing import Any

import dagster as dg

from vuemantics_pipeline.orchestration.ops import close_batch, open_batch, process_upload
from vuemantics_pipeline.orchestration.stopping import stop_run

upload_batches = dg.DynamicPartitionsDefinition(name="upload_batch")

_FRESHNESS = dg.FreshnessPolicy.time_window(
    warn_window=timedelta(days=1), fail_window=timedelta(days=7)
)
"""People upload when they like; a week without a batch is more likely a fault than a holiday."""


@dg.graph_asset(
    partitions_def=upload_batches,
    group_name="uploads",
    owners=["team:vuemantics"],
    kinds={"postgres", "pgvector", "ollama"},
    tags={"application": "vuemantics"},
    description=(
        "A batch of uploaded photos and videos, each described, embedded and searchable.\n\n"
        "The partition is the batch's id, a row of `upload_batches`. Materializing it processes "
        "what is not finished; `scope` in the launchpad takes up failed uploads too, or all anew."
    ),
)
def upload_batch() -> Any:
    opened = open_batch()
    return close_batch(opened.map(process_upload.with_hooks({stop_run})).collect())


upload_batch = upload_batch.map_asset_specs(
    lambda spec: spec.replace_attributes(freshness_policy=_FRESHNESS)
)
