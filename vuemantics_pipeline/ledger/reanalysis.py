"""Making anew what another model or another prompt made: finished uploads become work again."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from vuemantics_pipeline.analysis.analyzer import AnalyzerIdentity
from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.counters import announce, recount
from vuemantics_pipeline.ledger.ingestion import add_batch
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.reruns import give_to_sensor
from vuemantics_pipeline.ledger.transactions import transaction
from vuemantics_pipeline.ledger.vectors import check_dimension, present_model

MAX_UPLOADS = 1000
"""Of a batch that is made for uploads without one: the application's own limit."""

_SQL = queries("reanalysis")


@dataclass(frozen=True)
class Reanalysis:
    """What `reanalyze` did, or would do.

    Attributes:
        uploads: how many begin anew.
        batches: in how many batches.
        skipped: uploads left alone, because a run is processing their batch.
        forgets: the model whose vectors were cleared, None if they can stay until replaced.
    """

    uploads: int
    batches: int
    skipped: int
    forgets: str | None


@dataclass(frozen=True)
class _Outdated:
    """A finished upload that another analyzer, model or prompt was used on.

    Attributes:
        batch_id: that it is done again in; None if it needs another batch.
        cancelled_batch_id: the batch it leaves for that.
    """

    upload_id: UUID
    user_id: UUID
    batch_id: UUID | None
    cancelled_batch_id: UUID | None
    is_processed: bool


def reanalyze(
    connection: Connection,
    identity: AnalyzerIdentity,
    *,
    application_model: str,
    user_id: UUID | None = None,
    dry_run: bool = False,
) -> Reanalysis:
    """Give every finished upload that `identity` did not make to the sensor again.

    Descriptions and vectors stay until new ones replace them, unless the embedding model changes:
    vectors of two models are never mixed, so all of them are cleared in the same transaction.

    Args:
        application_model: the model that made vectors which were there before this pipeline.
        user_id: only uploads of this user.

    Raises:
        UsageError: code 'wrong_dimension'; and where the embedding model changes,
            'batch_is_processed' while a run is at work, or 'all_users_only' for one user's.
    """
    check_dimension(connection, identity)
    with transaction(connection):
        connection.execute(_SQL["lock_space"])
        present = present_model(connection, application_model)
        forgets = present[0] if present and present[0] != identity.embedding_model else None
        if forgets:
            _require_switchable(connection, user_id)
        outdated = _outdated(connection, identity, user_id)
        found = [upload for upload in outdated if not upload.is_processed]
        groups = _grouped(found)
        if not dry_run:
            if forgets:
                connection.execute(_SQL["forget_vectors"])
                connection.execute(
                    _SQL["switch_space"],
                    {"embedding_model": identity.embedding_model, "dimension": identity.dimension},
                )
            _begin_anew(connection, groups)
            _recount_cancelled(connection, found)
    return Reanalysis(len(found), len(groups), len(outdated) - len(found), forgets)


def _require_switchable(connection: Connection, user_id: UUID | None) -> None:
    if user_id is not None:
        raise UsageError(
            "all_users_only",
            "The embedding model changes, and one database holds the vectors of one model only.",
            "Leave --user out: everybody's uploads have to be embedded anew.",
        )
    row = connection.execute(_SQL["any_lease_is_held"]).fetchone()
    if row is not None:
        raise UsageError(
            "batch_is_processed",
            f"The embedding model changes, but a run is processing batch {row[0]}.",
            "Wait for its end, or cancel the batch first.",
        )


def _outdated(
    connection: Connection, identity: AnalyzerIdentity, user_id: UUID | None
) -> Sequence[_Outdated]:
    with connection.cursor(row_factory=class_row(_Outdated)) as cursor:
        return cursor.execute(_SQL["outdated"], vars(identity) | {"user_id": user_id}).fetchall()


def _grouped(found: Sequence[_Outdated]) -> list[list[_Outdated]]:
    """By batch, and those without one by user, at most MAX_UPLOADS together; in order of batch."""
    of_batch: dict[tuple[str, UUID], list[_Outdated]] = defaultdict(list)
    for upload in found:
        key = ("", upload.user_id) if upload.batch_id is None else ("batch", upload.batch_id)
        of_batch[key].append(upload)
    groups = []
    for key in sorted(of_batch):
        uploads = of_batch[key]
        step = MAX_UPLOADS if uploads[0].batch_id is None else len(uploads)
        groups += [uploads[start : start + step] for start in range(0, len(uploads), step)]
    return groups


def _begin_anew(connection: Connection, groups: Sequence[Sequence[_Outdated]]) -> None:
    for group in groups:
        upload_ids = [upload.upload_id for upload in group]
        batch_id = group[0].batch_id or _move(connection, group[0].user_id, upload_ids)
        connection.execute(_SQL["lock_batch"], {"batch_id": batch_id})
        connection.execute(_SQL["supersede_attempts"], {"upload_ids": upload_ids})
        connection.execute(_SQL["reset_uploads"], {"upload_ids": upload_ids})
        give_to_sensor(connection, batch_id)


def _recount_cancelled(connection: Connection, found: Sequence[_Outdated]) -> None:
    """Let the batches that uploads have left say so."""
    for cancelled in sorted({u.cancelled_batch_id for u in found if u.cancelled_batch_id}):
        recount(connection, cancelled)
        announce(connection, cancelled)


def _move(connection: Connection, user_id: UUID, upload_ids: list[UUID]) -> UUID:
    """Put uploads into a batch of their own, and return its id."""
    batch_id = add_batch(connection, user_id, offered=len(upload_ids))
    connection.execute(_SQL["move"], {"batch_id": batch_id, "upload_ids": upload_ids})
    return batch_id
