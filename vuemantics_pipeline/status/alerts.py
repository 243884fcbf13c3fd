"""How a batch stands after one of its runs has failed, as far as it decides about an alert."""

from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries

_SQL = queries("alerts")


@dataclass(frozen=True)
class Standing:
    """A batch after a failed run.

    Attributes:
        outages: runs in a row that a backend which is down has ended.
        is_unsettled: nobody has given the batch back or ended it since that run.
        is_longest_waiting: no other pending batch has been through as many outages.
    """

    status: str
    error_message: str | None
    outages: int
    is_unsettled: bool
    is_longest_waiting: bool


def standing(
    connection: Connection, batch_id: UUID, *, run_id: str, try_number: int | None
) -> Standing | None:
    """Return how a batch stands after this run of it failed; None if there is no such batch."""
    parameters = {"batch_id": batch_id, "run_id": run_id, "try_number": try_number}
    with connection.cursor(row_factory=class_row(Standing)) as cursor:
        return cursor.execute(_SQL["standing"], parameters).fetchone()
