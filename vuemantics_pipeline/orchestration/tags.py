"""What a run says about itself: its batch, the batch's owner, the try it is, and how it ended."""

from collections.abc import Mapping
from dataclasses import dataclass
from uuid import UUID

import dagster as dg

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.batches import RunRequest

BATCH_ID = "vuemantics/batch_id"
USER_ID = "vuemantics/user_id"
TRY_NUMBER = "vuemantics/try"
TAKEN_OVER_BY = "vuemantics/taken_over_by"
"""On a run that failed: the one that goes on with its batch."""
TAKES_OVER_FROM = "vuemantics/takes_over_from"
CANCELLED = "vuemantics/cancelled"
"""On a canceled run: why, and how much of the batch is done."""
REFUSED = "vuemantics/refused"
"""On a run that changed nothing: another holds its batch."""
PARTITION = "dagster/partition"
RUN_KEY = "dagster/run_key"


@dataclass(frozen=True)
class BatchRun:
    """The batch a run is for.

    Attributes:
        root_run_id: of the first run in a chain of re-executions; its own, if it is none.
        try_number: None for a run that a person started.
    """

    batch_id: UUID
    run_id: str
    root_run_id: str
    try_number: int | None


def run_tags(request: RunRequest) -> dict[str, str]:
    """Return the tags of a run that the sensor asks for."""
    return {
        BATCH_ID: str(request.batch_id),
        USER_ID: str(request.user_id),
        TRY_NUMBER: str(request.try_number),
    }


def run_key(request: RunRequest) -> str:
    """Return the key under which Dagster starts this try of the batch once and no more."""
    return f"{request.batch_id}:{request.try_number}"


def batch_run(run: dg.DagsterRun) -> BatchRun:
    """Read a run's tags.

    Raises:
        UsageError: the run has no partition, or one that cannot be a batch.
    """
    tags: Mapping[str, str] = run.tags
    partition = tags.get(PARTITION, "")
    try:
        batch_id = UUID(partition)
    except ValueError:
        raise UsageError(
            "not_a_batch",
            f"The partition {partition!r} is not the id of a batch.",
            "Choose a partition of upload_batch; `vuemantics batches` lists the ids.",
        ) from None
    try_number = tags.get(TRY_NUMBER, "")
    return BatchRun(
        batch_id,
        run.run_id,
        run.root_run_id or run.run_id,
        int(try_number) if try_number.isdecimal() and run.parent_run_id is None else None,
    )
