"""The sensor that starts batches: one run for each batch that is ready.

A tick waits on Postgres LISTEN for up to VUEMANTICS_LISTEN_SECONDS instead of returning empty
handed, so that a new batch starts within its tick and not at the next. It looks once a second
besides: a batch becomes ready also by its last upload, by its grace period, by its back-off and
by the death of its worker.
"""

import time
from collections.abc import Sequence

import dagster as dg

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.ledger import batches
from vuemantics_pipeline.ledger.batches import BATCH_CHANNEL, RunRequest
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.migrate import is_migrated
from vuemantics_pipeline.orchestration.assets import upload_batches
from vuemantics_pipeline.orchestration.jobs import process_batch
from vuemantics_pipeline.orchestration.sweep import is_spent, offer_again, sweep
from vuemantics_pipeline.orchestration.tags import run_key, run_tags
from vuemantics_pipeline.settings import Settings, load_settings

_LOOK_EVERY_SECONDS = 1.0


@dg.sensor(
    job=process_batch,
    name="pending_upload_batches",
    description="Starts a run for each pending batch whose uploads are all there, oldest first.",
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def pending_upload_batches(
    context: dg.SensorEvaluationContext,
) -> dg.SensorResult | dg.SkipReason:
    settings = load_settings()
    try:
        with connect(settings.require_database_url()) as connection:
            if not is_migrated(connection):
                return dg.SkipReason("The database is not prepared: run `vuemantics migrate`.")
            offer_again(context.instance, connection)
            ready = wait_for_batches(context, connection, settings)
            batches.mark_requested(connection, [request.batch_id for request in ready])
    except BackendUnavailable as error:
        return dg.SkipReason(str(error))
    if not ready:
        return dg.SkipReason("No batch is ready.")
    return dg.SensorResult(
        run_requests=[
            dg.RunRequest(
                run_key=run_key(request),
                partition_key=str(request.batch_id),
                tags=run_tags(request),
            )
            for request in ready
        ],
        dynamic_partitions_requests=[
            upload_batches.build_add_request([str(request.batch_id) for request in ready])
        ],
    )


def wait_for_batches(
    context: dg.SensorEvaluationContext, connection: Connection, settings: Settings
) -> Sequence[RunRequest]:
    """Return the batches that want a run, waiting for the first up to the settings' limit."""
    connection.execute(f"LISTEN {BATCH_CHANNEL}")
    deadline = time.monotonic() + settings.listen_seconds
    while True:
        for message in sweep(context.instance, connection, settings):
            context.log.warning(message)
        ready = [
            request
            for request in batches.ready_batches(
                connection, limit=settings.batches_per_tick, grace_seconds=settings.grace_seconds
            )
            if not is_spent(context.instance, connection, request, settings)
        ]
        left = deadline - time.monotonic()
        if ready or left <= 0:
            return ready
        for _ in connection.notifies(timeout=min(left, _LOOK_EVERY_SECONDS), stop_after=1):
            pass
