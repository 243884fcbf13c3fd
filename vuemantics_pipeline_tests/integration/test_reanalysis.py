"""Describing and embedding anew what another model or prompt made, as ordinary batches."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from uuid import UUID

import pytest

from vuemantics_pipeline.analysis.analyzer import AnalyzerIdentity
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger import batches, leases, uploads
from vuemantics_pipeline.ledger.audit import audit
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.reanalysis import Reanalysis, reanalyze
from vuemantics_pipeline.ledger.vectors import check_space, claim_space
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.support import DIMENSION, NewBatch

OLD = AnalyzerIdentity("test", "a vision model", "an embedding model", DIMENSION, "1")
NEW_PROMPT = replace(OLD, prompt_version="2")
NEW_MODEL = replace(OLD, embedding_model="a better embedding model")

Finish = Callable[..., NewBatch]


class As(ConstantAnalyzer):
    """Looks at nothing, under another name."""

    def __init__(self, identity: AnalyzerIdentity) -> None:
        super().__init__(DIMENSION)
        self._identity = identity


@pytest.fixture
def user_id(connection: Connection) -> UUID:
    return support.add_user(connection)


@pytest.fixture
def finish(connection: Connection, worker: Connection, user_id: UUID, root: Path) -> Finish:
    """Adds a batch and runs it to its end with an analyzer of some identity."""

    def act(identity: AnalyzerIdentity = OLD, owner: UUID | None = None) -> NewBatch:
        claim_space(connection, identity, application_model="bge-m3")
        names = ("a.jpg", "b.jpg")
        batch = support.add_batch(connection, owner or user_id, files=names, uploads_root=root)
        support.run_batch(worker, batch.batch_id, root, As(identity))
        return batch

    return act


def anew(
    connection: Connection,
    identity: AnalyzerIdentity,
    *,
    user_id: UUID | None = None,
    dry_run: bool = False,
) -> Reanalysis:
    return reanalyze(
        connection, identity, application_model="bge-m3", user_id=user_id, dry_run=dry_run
    )


def vectors(connection: Connection) -> int:
    row = connection.execute("SELECT count(embedding_local) FROM uploads").fetchone()
    assert row is not None
    return int(row[0])


def test_another_prompt(
    connection: Connection, worker: Connection, finish: Finish, root: Path
) -> None:
    old = finish()
    kept = finish(NEW_PROMPT)

    assert anew(connection, NEW_PROMPT) == Reanalysis(2, 1, 0, None)

    row = support.batch_row(connection, old.batch_id)
    assert (row.status, row.total, row.processed, row.ended) == ("pending", 2, 0, False)
    assert support.batch_row(connection, kept.batch_id).status == "completed"
    assert vectors(connection) == 4, "vectors of the same model can stay until replaced"
    assert not audit(connection).violations
    support.run_batch(worker, old.batch_id, root, As(NEW_PROMPT))
    assert not audit(connection).violations
    assert support.batch_row(connection, old.batch_id).status == "completed"
    assert anew(connection, NEW_PROMPT) == Reanalysis(0, 0, 0, None)


def test_another_embedding_model(
    connection: Connection, worker: Connection, finish: Finish, root: Path
) -> None:
    one, two = finish(), finish()

    assert anew(connection, NEW_MODEL) == Reanalysis(4, 2, 0, OLD.embedding_model)

    assert vectors(connection) == 0, "vectors of two models would be mixed"
    check_space(connection, NEW_MODEL, application_model="bge-m3")
    for batch in (one, two):
        support.run_batch(worker, batch.batch_id, root, As(NEW_MODEL))
    assert vectors(connection) == 4
    assert not audit(connection).violations


def test_a_dry_run_changes_nothing(connection: Connection, finish: Finish) -> None:
    batch = finish()
    before = support.everything(connection, batch.batch_id)
    assert anew(connection, NEW_MODEL, dry_run=True) == Reanalysis(2, 1, 0, "an embedding model")
    assert support.everything(connection, batch.batch_id) == before
    check_space(connection, OLD, application_model="bge-m3")


def test_one_users_only(connection: Connection, finish: Finish, user_id: UUID) -> None:
    finish()
    theirs = finish(owner=support.add_user(connection))

    assert anew(connection, NEW_PROMPT, user_id=user_id).uploads == 2
    assert support.batch_row(connection, theirs.batch_id).status == "completed"
    with pytest.raises(UsageError) as caught:
        anew(connection, NEW_MODEL, user_id=user_id)
    assert caught.value.code == "all_users_only"
    assert vectors(connection) == 4


def test_what_the_application_described_itself(connection: Connection, finish: Finish) -> None:
    batch = finish()
    connection.execute("DELETE FROM vuemantics_pipeline.attempts")
    assert anew(connection, OLD) == Reanalysis(2, 1, 0, None)
    assert support.batch_row(connection, batch.batch_id).status == "pending"


def test_uploads_without_a_batch_get_one(
    connection: Connection, finish: Finish, user_id: UUID
) -> None:
    batch = finish()
    connection.execute("DELETE FROM upload_batches WHERE id = %s", (batch.batch_id,))

    assert anew(connection, NEW_PROMPT) == Reanalysis(2, 1, 0, None)

    row = connection.execute(
        "SELECT b.user_id, b.status, b.total_uploads, count(*) FROM upload_batches AS b"
        " JOIN uploads AS u ON u.batch_id = b.id GROUP BY b.id"
    ).fetchall()
    assert row == [(user_id, "pending", 2, 2)]
    [request] = batches.ready_batches(connection, limit=10, grace_seconds=900)
    assert request.user_id == user_id


def test_a_cancelled_batch_stays_cancelled(
    connection: Connection, worker: Connection, user_id: UUID, root: Path
) -> None:
    claim_space(connection, OLD, application_model="bge-m3")
    files = ("done.jpg", "never.jpg")
    batch = support.add_batch(connection, user_id, files=files, uploads_root=root)
    lease = support.begin(worker, batch.batch_id)
    support.process(lease, batch.first, root, As(OLD))
    assert batches.cancel(connection, batch.batch_id, message="Enough.")
    leases.release(lease)

    assert anew(connection, NEW_PROMPT) == Reanalysis(1, 1, 0, None)

    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.processed) == ("cancelled", 0)
    never = batch.uploads["never.jpg"]
    assert support.upload_state(connection, never) == ("pending", None)
    [request] = batches.ready_batches(connection, limit=10, grace_seconds=900)
    assert request.batch_id != batch.batch_id
    assert not audit(connection).violations


def test_a_batch_at_work_is_left_alone(
    connection: Connection, worker: Connection, finish: Finish, user_id: UUID, root: Path
) -> None:
    finish()
    busy = support.add_batch(connection, user_id, files=("a.jpg", "b.jpg"), uploads_root=root)
    lease = support.begin(worker, busy.batch_id)
    support.process(lease, busy.first, root, As(OLD))
    before = support.everything(connection, busy.batch_id)

    assert anew(connection, NEW_PROMPT) == Reanalysis(2, 1, 1, None)
    with pytest.raises(UsageError) as caught:
        anew(connection, NEW_MODEL)

    assert caught.value.code == "batch_is_processed"
    assert str(busy.batch_id) in caught.value.message
    assert support.everything(connection, busy.batch_id) == before


def test_a_worker_of_the_old_model_cannot_write_any_more(
    connection: Connection, worker: Connection, finish: Finish, user_id: UUID
) -> None:
    """It checked the space before the switch, and took its lease after it."""
    finish()
    batch = support.add_batch(connection, user_id)
    anew(connection, NEW_MODEL)
    lease = support.begin(worker, batch.batch_id)
    attempt = uploads.start_attempt(lease, batch.first, OLD)
    assert attempt is not None

    with pytest.raises(UsageError) as caught:
        uploads.complete(lease, attempt, support.outcome())

    assert caught.value.code == "wrong_embedding_model"
    assert "vuemantics reanalyze" in caught.value.remedy
    assert vectors(connection) == 0
    assert support.upload_state(connection, batch.first) == ("pending", None)


def test_another_dimension_is_refused(connection: Connection, finish: Finish) -> None:
    finish()
    with pytest.raises(UsageError) as caught:
        anew(connection, replace(NEW_MODEL, dimension=DIMENSION + 1))
    assert caught.value.code == "wrong_dimension"
    assert vectors(connection) == 2
