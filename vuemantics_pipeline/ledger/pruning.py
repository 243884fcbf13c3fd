"""What may be forgotten: which batches' history is old, and facts about media that are gone.

Batches, uploads, attempts and batch states stay, whatever their age.
"""

from collections.abc import Iterator, Sequence
from uuid import UUID

from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries

_SQL = queries("prune")
_MEDIA_AT_ONCE = 5000


def prunable_batches(
    connection: Connection, batch_ids: Sequence[UUID], *, older_than_days: int
) -> set[UUID]:
    """Return which of these batches ended so long ago, or were deleted by the application.

    Never one that is pending, processing or held by a run.
    """
    parameters = {"batch_ids": list(batch_ids), "older_than_days": older_than_days}
    return {batch_id for (batch_id,) in connection.execute(_SQL["prunable"], parameters)}


def unended_batches(connection: Connection) -> set[UUID]:
    """Return the batches that are pending or processing."""
    return {batch_id for (batch_id,) in connection.execute(_SQL["unended"])}


def count_forgotten_media(connection: Connection) -> int:
    """Return how many uploads the application deleted while their `media_facts` stayed."""
    row = connection.execute(_SQL["count_forgotten_media"]).fetchone()
    assert row is not None
    return int(row[0])


def delete_forgotten_media(connection: Connection) -> Iterator[int]:
    """Delete the `media_facts` of deleted uploads, 5,000 at a time; yield how many each time."""
    while deleted := connection.execute(
        _SQL["delete_forgotten_media"], {"limit": _MEDIA_AT_ONCE}
    ).rowcount:
        yield deleted
