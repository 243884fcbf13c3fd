"""The feed: what is told of committed changes, to whom, and how little can stop it."""

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import partial
from typing import Any
from uuid import UUID

import pytest

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.ledger import batches, leases, reruns, uploads
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.counters import announce
from vuemantics_pipeline.ledger.migrate import migrate
from vuemantics_pipeline.ledger.records import Scope, Stage
from vuemantics_pipeline.progress import feed as module
from vuemantics_pipeline.progress.feed import Feed
from vuemantics_pipeline.progress.messages import Message, user_channel
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.integration.gateway import of, says
from vuemantics_pipeline_tests.integration.served import new_database
from vuemantics_pipeline_tests.support import IDENTITY, TRUNCATED

WAIT_SECONDS = 30


class Ear:
    """A sink that keeps what it is told."""

    def __init__(self, *users: UUID) -> None:
        self._channels = {user_channel(user_id) for user_id in users}
        self._changed = threading.Condition()
        self.told: list[dict[str, Any]] = []

    def follows(self, channel: str) -> bool:
        return channel in self._channels

    def tell(self, messages: Sequence[Message]) -> None:
        assert all(self.follows(message.channel) for message in messages)
        with self._changed:
            self.told += [json.loads(text) for message in messages for text in message.texts]
            self._changed.notify()

    def hear_until(self, action: str, **payload: Any) -> list[dict[str, Any]]:
        """Everything told so far, once this is among it; then it is forgotten."""

        def is_told() -> bool:
            return any(says(message, action, payload) for message in self.told)

        with self._changed:
            assert self._changed.wait_for(is_told, WAIT_SECONDS), self.told
            told, self.told = self.told, []
        return told


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@contextmanager
def running(database_url: str, *ears: Ear) -> Iterator[Feed]:
    feed = Feed(database_url, ears)
    with feed.running():
        wait_until(lambda: feed.is_listening)
        yield feed


def unheard(_: Future[Any]) -> None:
    """Of a question whose future is looked at instead."""


@pytest.fixture
def user_id(connection: Connection) -> UUID:
    return support.add_user(connection)


def test_only_what_is_followed_is_told(
    database_url: str, connection: Connection, user_id: UUID
) -> None:
    other = support.add_user(connection)
    one, two = Ear(user_id), Ear(user_id, other)
    with running(database_url, one, two):
        support.add_batch(connection, other)
        batch = support.add_batch(connection, user_id)
        first = one.hear_until("batch_progress", batch_id=str(batch.batch_id))
        second = two.hear_until("batch_progress", batch_id=str(batch.batch_id))
    assert len(of(first, "batch_progress")) == 1
    assert len(of(second, "batch_progress")) == 2


def test_many_changes_at_once_are_told_as_one(
    database_url: str, connection: Connection, worker: Connection, user_id: UUID
) -> None:
    files = [f"{number}.jpg" for number in range(50)]
    batch = support.add_batch(connection, user_id, files=files)
    lease = support.begin(worker, batch.batch_id)
    ear = Ear(user_id)
    with running(database_url, ear):
        ear.hear_until("batch_progress")
        with worker.transaction():
            for upload_id in batch.uploads.values():
                attempt = uploads.start_attempt(lease, upload_id, IDENTITY)
                assert attempt is not None
                uploads.complete(lease, attempt, support.outcome())
        told = ear.hear_until("batch_progress", processed=50)
    assert len(of(told, "file_progress")) == 50
    assert len(of(told, "batch_progress")) == 1
    assert told[-1]["action"] == "batch_progress"
    numbers = [payload["seq"] for payload in of(told, "file_progress")]
    assert numbers == sorted(numbers)
    assert {payload["status"] for payload in of(told, "file_progress")} == {"completed"}


def test_a_sweeping_change_tells_only_of_what_differs(
    database_url: str, connection: Connection, worker: Connection, user_id: UUID
) -> None:
    batch = support.add_batch(connection, user_id, files=["a.jpg", "b.jpg", "c.jpg"])
    ear = Ear(user_id)
    with running(database_url, ear):
        lease = support.begin(worker, batch.batch_id)
        attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
        assert attempt is not None
        uploads.complete(lease, attempt, support.outcome())
        second = uploads.start_attempt(lease, list(batch.uploads.values())[1], IDENTITY)
        assert second is not None
        uploads.reach_stage(lease, second, Stage.VISION_ANALYSIS)
        ear.hear_until("file_progress", stage="vision_analysis")
        # The worker is gone, and another goes on.
        batches.open_batch(lease, reopen=False)
        told = ear.hear_until("file_progress", stage="queued", file_name="b.jpg")
        assert [file["file_name"] for file in of(told, "file_progress")] == ["b.jpg"]
        assert of(told, "file_progress")[0]["progress_percentage"] == 15


def test_a_life_of_an_upload_begins_anew(
    database_url: str, connection: Connection, worker: Connection, user_id: UUID
) -> None:
    batch = support.add_batch(connection, user_id)
    ear = Ear(user_id)
    with running(database_url, ear):
        lease = support.begin(worker, batch.batch_id)
        for _ in range(2):
            attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
            assert attempt is not None
            uploads.reach_stage(lease, attempt, Stage.INDEXING)
            uploads.fail(lease, attempt, TRUNCATED, {})
        batches.close_batch(lease)
        ear.hear_until("batch_progress", status="completed")
        leases.release(lease)
        reruns.retry(connection, batch.batch_id, Scope.FAILED)
        ear.hear_until("file_progress", status="processing", progress_percentage=0)


def test_what_is_remembered_is_bounded(
    database_url: str,
    connection: Connection,
    worker: Connection,
    user_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "_REMEMBERED_UPLOADS", 3)
    ear = Ear(user_id)
    with running(database_url, ear) as feed:
        for _ in range(5):
            batch = support.add_batch(connection, user_id, files=["a.jpg", "b.jpg"])
            lease = support.begin(worker, batch.batch_id)
            ear.hear_until("batch_progress", batch_id=str(batch.batch_id), status="processing")
            leases.release(lease)
            batches.cancel(connection, batch.batch_id, message="Enough.")
            ear.hear_until("batch_progress", batch_id=str(batch.batch_id), status="cancelled")
        assert len(feed._told) < 5


def test_nothing_is_remembered_of_those_who_have_left(
    database_url: str, connection: Connection, user_id: UUID
) -> None:
    ear = Ear(user_id)
    with running(database_url, ear) as feed:
        support.add_batch(connection, user_id)
        ear.hear_until("batch_progress")
        ear._channels.clear()
        wait_until(lambda: not feed._told)


def test_a_batch_that_is_deleted(database_url: str, connection: Connection, user_id: UUID) -> None:
    batch = support.add_batch(connection, user_id)
    ear = Ear(user_id)
    with running(database_url, ear) as feed:
        ear.hear_until("batch_progress", batch_id=str(batch.batch_id))
        connection.execute("DELETE FROM upload_batches WHERE id = %s", (batch.batch_id,))
        wait_until(lambda: not feed._told)
        support.add_batch(connection, user_id)
        ear.hear_until("batch_progress")


@pytest.mark.parametrize("channel", ["vuemantics_progress", "vuemantics_batches"])
@pytest.mark.parametrize(
    "payload", ["", "nonsense", "{}", "[]", '{"batch_id": 7}', '{"batch_id": "x"}', "7"]
)
def test_notifications_of_others(
    shared_feed: tuple[Ear, Connection, UUID], channel: str, payload: str
) -> None:
    ear, connection, user_id = shared_feed
    connection.execute("SELECT pg_notify(%s, %s)", (channel, payload))
    batch = support.add_batch(connection, user_id)
    ear.hear_until("batch_progress", batch_id=str(batch.batch_id))


@pytest.fixture(scope="module")
def shared_feed(postgres_server: str) -> Iterator[tuple[Ear, Connection, UUID]]:
    with new_database(postgres_server) as url, connect(url) as connection:
        user_id = support.add_user(connection)
        ear = Ear(user_id)
        with running(url, ear):
            yield ear, connection, user_id


def test_a_batch_that_cannot_be_read_holds_up_no_other(
    database_url: str, connection: Connection, user_id: UUID
) -> None:
    connection.execute("ALTER TABLE upload_batches DROP CONSTRAINT upload_batches_status_check")
    strange = support.add_batch(connection, user_id)
    ear = Ear(user_id)
    with running(database_url, ear):
        connection.execute(
            "UPDATE upload_batches SET status = 'strange' WHERE id = %s", (strange.batch_id,)
        )
        batch = support.add_batch(connection, user_id)
        ear.hear_until("batch_progress", batch_id=str(batch.batch_id))


def test_a_snapshot_keeps_nothing_from_those_who_were_there(
    database_url: str, connection: Connection, user_id: UUID
) -> None:
    ear = Ear(user_id)
    with running(database_url, ear) as feed:
        for _ in range(5):
            batch = support.add_batch(connection, user_id)
            snapshot = feed.ask(partial(feed.snapshot, user_id=user_id, alone=False), unheard)
            assert snapshot.result(WAIT_SECONDS)
            told = ear.hear_until("batch_progress", batch_id=str(batch.batch_id))
            assert len(told) == 1


def test_questions_are_answered_in_order_with_what_is_told(
    database_url: str, connection: Connection, user_id: UUID
) -> None:
    order: list[int] = []
    ear = Ear(user_id)
    with running(database_url, ear) as feed:

        def ask(number: int) -> Future[int]:
            return feed.ask(lambda _: number, lambda answer: order.append(answer.result()))

        futures = [ask(number) for number in range(5)]
        assert [future.result(WAIT_SECONDS) for future in futures] == list(range(5))
    assert order == list(range(5))


def test_a_question_that_breaks(database_url: str, connection: Connection, user_id: UUID) -> None:
    def broken(connection: Connection) -> None:
        raise ZeroDivisionError

    def killed(connection: Connection) -> None:
        connection.execute("SELECT pg_terminate_backend(pg_backend_pid())")

    ear = Ear(user_id)
    with running(database_url, ear) as feed:
        with pytest.raises(ZeroDivisionError):
            feed.ask(broken, unheard).result(WAIT_SECONDS)
        with pytest.raises(BackendUnavailable):
            feed.ask(killed, unheard).result(WAIT_SECONDS)
        batch = support.add_batch(connection, user_id)
        ear.hear_until("batch_progress", batch_id=str(batch.batch_id))


def test_a_question_that_is_withdrawn(database_url: str, connection: Connection) -> None:
    asked: list[str] = []
    gate = threading.Event()
    with running(database_url) as feed:
        feed.ask(lambda _: gate.wait(WAIT_SECONDS), unheard)
        withdrawn = feed.ask(lambda _: asked.append("withdrawn"), unheard)
        assert withdrawn.cancel()
        gate.set()
        feed.ask(lambda _: asked.append("last"), unheard).result(WAIT_SECONDS)
    assert asked == ["last"]


def test_a_database_that_is_not_prepared_yet(
    database_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    feed = Feed(database_url, [])
    with feed.running():
        wait_until(lambda: "vuemantics migrate" in caplog.text)
        assert not feed.is_listening
        with connect(database_url) as connection:
            migrate(connection, dimension=support.DIMENSION)
        wait_until(lambda: feed.is_listening)
    assert not [record for record in caplog.records if record.exc_info]


def test_a_session_that_is_killed_misses_nothing(
    database_url: str, connection: Connection, worker: Connection, user_id: UUID
) -> None:
    batch = support.add_batch(connection, user_id)
    lease = support.begin(worker, batch.batch_id)
    ear = Ear(user_id)
    with running(database_url, ear):
        ear.hear_until("batch_progress")
        with connection.transaction():
            connection.execute(
                "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
                " WHERE datname = current_database() AND query LIKE '%%FROM upload_batches%%'"
                " AND pid NOT IN (pg_backend_pid(), %s)",
                (support.backend_pid(worker),),
            )
        attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
        assert attempt is not None
        uploads.complete(lease, attempt, support.outcome())
        ear.hear_until("batch_progress", processed=1)


def test_an_announcement_alone_is_told(
    database_url: str, connection: Connection, user_id: UUID
) -> None:
    batch = support.add_batch(connection, user_id)
    ear = Ear(user_id)
    with running(database_url, ear):
        ear.hear_until("batch_progress", seq=0)
        announce(connection, batch.batch_id)
        ear.hear_until("batch_progress", seq=1)
