"""Assets: `upload_batch`, one partition for each batch."""

from typing import Any

import dagster as dg

from vuemantics_pipeline.orchestration.ops import close_batch, open_batch, process_upload
from vuemantics_pipeline.orchestration.stopping import stop_run

upload_batches = dg.DynamicPartitionsDefinition(name="upload_batch")


@dg.graph_asset(
    partitions_def=upload_batches,
    group_name="uploads",
    kinds={"postgres", "pgvector"},
    description=(
        "A batch of uploaded photos and videos, each described, embedded and searchable. "
        "The partition is the batch's id; materializing it processes what is not finished."
    ),
)
def upload_batch() -> Any:
    opened = open_batch()
    return close_batch(opened.map(process_upload.with_hooks({stop_run})).collect())
