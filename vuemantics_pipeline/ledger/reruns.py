"""Running a batch again: which uploads begin anew, and with which attempts."""

from uuid import UUID

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.counters import announce, recount
from vuemantics_pipeline.ledger.leases import no_such_batch
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.records import Scope
from vuemantics_pipeline.ledger.transactions import transaction

_SQL = queries("reruns")


def count_scope(connection: Connection, batch_id: UUID, scope: Scope) -> int:
    """Return how many uploads of a batch a re-run would take up."""
    row = connection.execute(
        _SQL["count_scope"], {"batch_id": batch_id, "reset": scope.reset}
    ).fetchone()
    return 0 if row is None else int(row[0])


def retry(connection: Connection, batch_id: UUID, scope: Scope) -> int:
    """Give a batch to the sensor again, with the uploads of a scope to be done.

    Returns:
        How many uploads that is. With none, nothing is changed.

    Raises:
        UsageError: there is no such batch, or a run is processing it.
    """
    with transaction(connection):
        row = connection.execute(_SQL["lock"], {"batch_id": batch_id}).fetchone()
        if row is None:
            raise no_such_batch(batch_id)
        if row[1]:
            raise UsageError(
                "batch_is_processed",
                f"A run is processing batch {batch_id}.",
                "Wait for its end, or cancel the batch first.",
            )
        count = count_scope(connection, batch_id, scope)
        if count:
            reset_uploads(connection, batch_id, scope)
            give_to_sensor(connection, batch_id)
    return count


def give_to_sensor(connection: Connection, batch_id: UUID) -> None:
    """Make a batch `pending`, with a run key that was never used."""
    connection.execute(_SQL["back_to_start"], {"batch_id": batch_id})
    connection.execute(_SQL["fresh_try"], {"batch_id": batch_id})
    recount(connection, batch_id)
    announce(connection, batch_id)


def reset_uploads(connection: Connection, batch_id: UUID, scope: Scope) -> None:
    """Set finished uploads of a scope back to `pending`, with new attempts to use up."""
    key = {"batch_id": batch_id, "reset": scope.reset}
    connection.execute(_SQL["supersede_attempts"], key)
    connection.execute(_SQL["reset_uploads"], key)
