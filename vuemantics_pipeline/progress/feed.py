"""What the database commits, as messages: a thread that listens, reads the rows and tells.

A notification only says which batch has moved. What is told is read from the rows, in one
snapshot of the database: the batch, and every upload that a change after the last one told has
named. So nobody hears of anything that did not commit, missed notifications cost nothing, and the
number on a batch's message covers everything that was said before it.
"""

import json
import logging
import selectors
import socket
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar
from uuid import UUID

import psycopg

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.ledger.batches import BATCH_CHANNEL
from vuemantics_pipeline.ledger.connection import Connection, connect, database_errors
from vuemantics_pipeline.ledger.counters import PROGRESS_CHANNEL
from vuemantics_pipeline.ledger.migrate import is_migrated
from vuemantics_pipeline.progress.messages import (
    Message,
    batch_message,
    file_message,
    upload_channel,
    upload_message,
    user_channel,
)
from vuemantics_pipeline.status.progress import (
    BatchProgress,
    UploadProgress,
    batch_progress,
    running_batches,
    uploads_in_hand,
    uploads_moved,
    uploads_of_batches,
    with_time_to_finish,
)
from vuemantics_pipeline.status.timing import paces

_logger = logging.getLogger(__name__)
_T = TypeVar("_T")

# Changes that come faster are told together; far below what a person notices.
_GATHER_SECONDS = 0.05
# For changes that nobody announces, where the trigger on the application's table is missing.
_LOOK_SECONDS = 1.0
# The pace of a large batch takes longer to measure than everything else, and changes slowly.
_PACE_SECONDS = 2.0
_ANSWER_SECONDS = 0.02
_RECONNECT_SECONDS = (0.2, 5.0)
# Of all batches followed; an upload takes some 300 bytes. Beyond it, what is not remembered is
# told once more than needed.
_REMEMBERED_UPLOADS = 200_000

_State = tuple[str, int, int | None, str | None]


class Sink(Protocol):
    """Someone to tell. Both methods are called from the feed's thread and must not block."""

    def follows(self, channel: str) -> bool:
        """Whether anything said on a channel is of interest."""

    def tell(self, messages: Sequence[Message]) -> None:
        """Take messages, in the order of what they tell of."""


@dataclass
class _Told:
    """What was last told of a batch."""

    progress: BatchProgress
    states: dict[UUID, _State] = field(default_factory=dict)


class Feed:
    """Tells its sinks how the batches they follow move. Use it once, as `with feed.running()`."""

    def __init__(self, database_url: str, sinks: Sequence[Sink]) -> None:
        self._database_url = database_url
        self._sinks = sinks
        self._told: OrderedDict[UUID, _Told] = OrderedDict()
        self._paces: dict[UUID, tuple[float, float]] = {}
        self._questions: deque[tuple[Future[Any], Callable[[Connection], Any]]] = deque()
        self._is_listening = False
        self._stopping = threading.Event()
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._ringer.setblocking(False)

    @property
    def is_listening(self) -> bool:
        """Whether it hears the database at present."""
        return self._is_listening

    @contextmanager
    def running(self) -> Iterator[None]:
        """Follow the database while the block runs, however often it goes away meanwhile."""
        thread = threading.Thread(target=self._run, name="progress-feed", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._stopping.set()
            self._ring()
            thread.join()
            for end in (self._bell, self._ringer):
                end.close()

    def ask(
        self, question: Callable[[Connection], _T], answered: Callable[[Future[_T]], None]
    ) -> Future[_T]:
        """Have something read by the feed's own connection, between what it tells.

        While the database is away, questions wait; cancel the future to withdraw one.

        Args:
            answered: called by the feed's thread, in order with what sinks are told. The error, if
                there is one, is `BackendUnavailable`.
        """
        future: Future[_T] = Future()
        future.add_done_callback(answered)
        self._questions.append((future, question))
        self._ring()
        return future

    def snapshot(self, connection: Connection, user_id: UUID, *, alone: bool) -> list[Message]:
        """How a user's running batches stand, and the uploads in hand. A question for `ask`.

        What is told afterwards goes on from there.

        Args:
            alone: nobody else has heard of this user's batches, and so nobody has to be told of
                one that is new.
        """
        with connection.transaction():
            running = running_batches(connection, user_id)
            running = self._measured(connection, running)
            batch_ids = [progress.batch.batch_id for progress in running]
            in_hand = uploads_in_hand(connection, batch_ids) if batch_ids else []
            new = [found for found in running if found.batch.batch_id not in self._told]
            if alone:
                self._begin(connection, new)
        if new and not alone:
            self._tell(connection, [found.batch.batch_id for found in new])
        files = [file_message(upload) for upload in in_hand]
        return [*files, *(batch_message(progress) for progress in running)]

    def _begin(self, connection: Connection, found: Sequence[BatchProgress]) -> None:
        """Remember how batches stand, so that only what moves from now on is told."""
        if not found:
            return
        for progress in found:
            self._told[progress.batch.batch_id] = _Told(progress)
        for upload in uploads_of_batches(connection, [p.batch.batch_id for p in found]):
            assert upload.batch_id is not None
            self._told[upload.batch_id].states[upload.upload_id] = _state(upload)

    def _run(self) -> None:
        shortest, longest = _RECONNECT_SECONDS
        wait = shortest
        while not self._stopping.is_set():
            try:
                with connect(self._database_url) as connection:
                    # Each transaction reads one state of the database.
                    connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                    connection.read_only = True
                    _require_migrated(connection)
                    for channel in (PROGRESS_CHANNEL, BATCH_CHANNEL):
                        connection.execute(f"LISTEN {channel}")
                    _logger.info("Following the progress of batches.")
                    wait = shortest
                    self._follow(connection)
            except BackendUnavailable as error:
                _logger.warning("%s It is tried again.", error)
            except Exception:
                _logger.exception("The feed broke, and begins again.")
            finally:
                self._is_listening = False
            self._stopping.wait(wait)
            wait = min(2 * wait, longest)

    def _follow(self, connection: Connection) -> None:
        moved: set[UUID] = set()
        self._look(connection, anew=True)
        self._is_listening = True
        told = looked = time.monotonic()
        with selectors.DefaultSelector() as selector:
            selector.register(connection.fileno(), selectors.EVENT_READ)
            selector.register(self._bell, selectors.EVENT_READ)
            while not self._stopping.is_set():
                moved |= _heard(connection)
                self._answer(connection)
                if moved and time.monotonic() >= told + _GATHER_SECONDS:
                    self._tell(connection, moved)
                    moved = set()
                    told = time.monotonic()
                if time.monotonic() >= looked + _LOOK_SECONDS:
                    self._look(connection)
                    looked = time.monotonic()
                due = looked + _LOOK_SECONDS
                if moved:
                    due = min(due, told + _GATHER_SECONDS)
                selector.select(0 if self._questions else max(0, due - time.monotonic()))
                self._clear_bell()

    def _answer(self, connection: Connection) -> None:
        """Answer questions for a short time: those who listen have waited longer."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while self._questions and time.monotonic() < deadline:
            future, question = self._questions.popleft()
            if not future.set_running_or_notify_cancel():
                continue
            try:
                with database_errors(connection):
                    answer = question(connection)
            except BackendUnavailable as error:
                future.set_exception(error)
                raise
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(answer)

    def _look(self, connection: Connection, *, anew: bool = False) -> None:
        """Find what moved without a word, and forget what nobody follows any more.

        Args:
            anew: tell of every batch followed, as it stands.
        """
        running = {
            found.batch.batch_id: found
            for found in running_batches(connection)
            if self._is_followed(found.batch.user_id)
        }
        for batch_id, told in list(self._told.items()):
            if not self._is_followed(told.progress.batch.user_id):
                del self._told[batch_id]
        moved = {
            batch_id
            for batch_id, found in running.items()
            if anew or batch_id not in self._told or _differs(found, self._told[batch_id].progress)
        } | {
            batch_id
            for batch_id, told in self._told.items()
            if anew or (batch_id not in running and not told.progress.batch.status.is_terminal)
        }
        if moved:
            self._tell(connection, moved, anew=anew)

    def _tell(
        self, connection: Connection, batch_ids: Collection[UUID], *, anew: bool = False
    ) -> None:
        """Tell what has become of batches since they were last told of."""
        with connection.transaction():
            followed = [
                progress
                for progress in batch_progress(connection, list(batch_ids), measured=False)
                if self._is_followed(progress.batch.user_id)
            ]
            found = {
                progress.batch.batch_id: progress
                for progress in self._measured(connection, followed)
            }
            # Any upload of these may have moved; of the others, those that changes have named.
            whole = [
                batch_id
                for batch_id, progress in found.items()
                if batch_id not in self._told
                or progress.sweeping_seq > self._told[batch_id].progress.seq
            ]
            named = {
                batch_id: self._told[batch_id].progress.seq
                for batch_id, progress in found.items()
                if batch_id not in whole and progress.seq > self._told[batch_id].progress.seq
            }
            uploads = [
                *(uploads_of_batches(connection, whole) if whole else ()),
                *(uploads_moved(connection, named) if named else ()),
            ]
        for batch_id in set(batch_ids) - set(found):
            self._told.pop(batch_id, None)
        by_batch: dict[UUID, list[UploadProgress]] = {batch_id: [] for batch_id in found}
        for upload in sorted(uploads, key=lambda upload: upload.seq):
            assert upload.batch_id is not None
            by_batch[upload.batch_id].append(upload)
        for batch_id, progress in found.items():
            self._tell_of(progress, by_batch[batch_id], anew=anew)
        self._forget_oldest()

    def _tell_of(
        self, progress: BatchProgress, uploads: Sequence[UploadProgress], *, anew: bool
    ) -> None:
        batch_id = progress.batch.batch_id
        before = self._told.get(batch_id)
        now = self._told[batch_id] = _Told(progress, before.states if before else {})
        self._told.move_to_end(batch_id)
        messages: list[Message] = []
        for upload in uploads:
            state = _state(upload)
            # Nobody needs to hear that an upload has not begun.
            is_new = upload.seq == 0 and upload.upload_id not in now.states
            if not is_new and now.states.get(upload.upload_id) != state:
                messages.append(file_message(upload))
                if self._any_follows(upload_channel(upload.upload_id)):
                    messages.append(upload_message(upload))
            now.states[upload.upload_id] = state
        if anew or before is None or _differs(progress, before.progress):
            messages.append(batch_message(progress))
        for sink in self._sinks:
            wanted = [message for message in messages if sink.follows(message.channel)]
            if wanted:
                sink.tell(wanted)

    def _forget_oldest(self) -> None:
        remembered = sum(len(told.states) for told in self._told.values())
        while remembered > _REMEMBERED_UPLOADS and len(self._told) > 1:
            _, forgotten = self._told.popitem(last=False)
            remembered -= len(forgotten.states)

    def _measured(
        self, connection: Connection, found: Sequence[BatchProgress]
    ) -> list[BatchProgress]:
        """Batches with their times to finish, at paces that are some seconds old at most."""
        return with_time_to_finish(connection, found, self._recent_paces)

    def _recent_paces(
        self, connection: Connection, batch_ids: Sequence[UUID]
    ) -> Mapping[UUID, float]:
        now = time.monotonic()
        self._paces = {
            batch_id: (at, pace)
            for batch_id, (at, pace) in self._paces.items()
            if now < at + _PACE_SECONDS
        }
        stale = [batch_id for batch_id in batch_ids if batch_id not in self._paces]
        if stale:
            measured = paces(connection, stale)
            self._paces |= {batch_id: (now, pace) for batch_id, pace in measured.items()}
        return {batch_id: pace for batch_id, (_, pace) in self._paces.items()}

    def _is_followed(self, user_id: UUID) -> bool:
        return self._any_follows(user_channel(user_id))

    def _any_follows(self, channel: str) -> bool:
        return any(sink.follows(channel) for sink in self._sinks)

    def _ring(self) -> None:
        """Wake the thread up."""
        with suppress(BlockingIOError):  # it has rung often enough to be heard
            self._ringer.send(b"!")

    def _clear_bell(self) -> None:
        with suppress(BlockingIOError):
            while self._bell.recv(4096):
                pass


def _require_migrated(connection: Connection) -> None:
    if not is_migrated(connection):
        raise BackendUnavailable(
            "database_not_prepared",
            "The database is not prepared.",
            "Run `vuemantics migrate`.",
        )


def _heard(connection: Connection) -> set[UUID]:
    """The batches that notifications waiting on a connection name."""
    moved = set()
    for notify in connection.notifies(timeout=0):
        try:
            moved.add(_batch_named(notify))
        except (ValueError, TypeError, KeyError):
            # Anybody who may use the database may notify.
            _logger.warning("A notification on %s cannot be read.", notify.channel)
    return moved


def _batch_named(notify: psycopg.Notify) -> UUID:
    if notify.channel == BATCH_CHANNEL:
        return UUID(notify.payload)
    return UUID(json.loads(notify.payload)["batch_id"])


def _state(upload: UploadProgress) -> _State:
    """What clients see of an upload."""
    return upload.stage, upload.progress_percent, upload.frames_done, upload.error_message


def _differs(now: BatchProgress, before: BatchProgress) -> bool:
    return (now.seq, now.batch) != (before.seq, before.batch)
