"""The ledger against a model of it: runs crash, wake up, are cancelled and repeated at will."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from uuid import UUID

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from vuemantics_pipeline.errors import BackendUnavailable, UsageError
from vuemantics_pipeline.ledger import batches, leases, reruns, uploads
from vuemantics_pipeline.ledger.audit import audit
from vuemantics_pipeline.ledger.batches import BackOff, Closed
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.leases import BatchStopped, Lease, LeaseHeld, LeaseLost
from vuemantics_pipeline.ledger.records import Attempt, BatchStatus, Scope, Stage
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.support import IDENTITY, TRUNCATED

DOWN = BackendUnavailable("model_unavailable", "The model does not answer.", "Start it.")
ENDED = ("completed", "failed")
AT_WORK = (
    *("reach", "succeed", "succeed", "succeed", "fail", "fail", "fail", "release", "close"),
    *("crash", "crash", "lose the lock", "lose the lock"),
    *("take what is held", "retry", "repeat", "wake up"),
    *("requeue", "give up", "cancel", "arrive"),
)
"""What may happen while a worker holds the batch; it starts an attempt where that takes one."""
IDLE = (
    *("take over", "take over", "take over, not again"),
    *("retry", "retry", "run a scope", "run a scope", "re-execute", "re-execute"),
    *("give back afresh", "give back afresh", "wake up", "wake up"),
    *("requeue", "give up", "cancel", "arrive"),
)
"""What may happen while none does."""


@dataclass
class Upload:
    """What the model knows of an upload: its status, and how many attempts are used up."""

    status: str = "pending"
    used: int = 0


class Sessions:
    """Connections to one database, used again where a rule has not broken them."""

    def __init__(self, database_url: str, stack: ExitStack) -> None:
        self._url, self._stack = database_url, stack
        self._idle: list[Connection] = []
        self.view = self.take()

    def take(self) -> Connection:
        return self._idle.pop() if self._idle else self._stack.enter_context(connect(self._url))

    def give_back(self, connection: Connection) -> None:
        connection.execute("SELECT pg_advisory_unlock_all()")
        self._idle.append(connection)


class LedgerMachine(RuleBasedStateMachine):
    """One batch; at most one worker holds its lease, and any number of old ones still live."""

    sessions: Sessions

    def __init__(self) -> None:
        super().__init__()
        self.view = self.sessions.view
        self.status = BatchStatus.PENDING
        self.uploads: dict[UUID, Upload] = {}
        self.lease: Lease | None = None
        self.run_id: str | None = None
        self.runs = 0
        self.open: Attempt | None = None
        self.left_open: dict[UUID, str] = {}
        self.listed: set[UUID] = set()
        self.reset_by: str | None = None
        self.ended: list[Attempt] = []
        self.old: list[tuple[Lease, Attempt | None]] = []

    @initialize(count=st.integers(0, 2))
    def offer(self, count: int) -> None:
        names = [f"{number}.jpg" for number in range(count)]
        self.batch = support.add_batch(self.view, support.add_user(self.view), files=names)
        self.uploads = {upload_id: Upload() for upload_id in self.batch.uploads.values()}

    def teardown(self) -> None:
        for lease, _ in self.old:
            self.sessions.give_back(lease.connection)
        if self.lease:
            self.sessions.give_back(self.lease.connection)

    # What the model says

    @property
    def unfinished(self) -> set[UUID]:
        return {key for key, upload in self.uploads.items() if upload.status not in ENDED}

    def put_down(self) -> Attempt | None:
        """The worker goes, in whatever way; its open attempt stays open in the ledger."""
        attempt, self.open = self.open, None
        if attempt:
            assert self.lease is not None
            self.left_open[attempt.upload_id] = self.lease.run_id
        return attempt

    def unchanged(self, *steps: Callable[[], object]) -> None:
        before = support.everything(self.view, self.batch.batch_id)
        for step in steps:
            step()
        assert support.everything(self.view, self.batch.batch_id) == before

    # What can happen

    # One rule, because of many Hypothesis leaves most out of each example, and no run gets far.
    @rule(
        at_work=st.sampled_from(AT_WORK),
        idle=st.sampled_from(IDLE),
        which=st.integers(0, 9),
        stage=st.sampled_from(Stage),
        scope=st.sampled_from(Scope),
    )
    def step(self, at_work: str, idle: str, which: int, stage: Stage, scope: Scope) -> None:
        """What is asked for, or where that cannot be, what a run does next."""
        if self.lease is None:
            without_a_worker: dict[str, Callable[[], None]] = {
                "take over": lambda: self._take_over(reopen=True),
                "take over, not again": lambda: self._take_over(reopen=False),
                "requeue": self._requeue,
                "cancel": self._cancel,
                "arrive": self._arrive,
                "wake up": lambda: self._wake_up(which),
                "retry": lambda: self._retry(scope),
                "run a scope": lambda: self._take_over(reopen=True, scope=scope),
                "re-execute": lambda: self._take_over(
                    reopen=True, scope=scope, root_run_id=self.reset_by
                ),
                "give back afresh": lambda: self._give_back_afresh(which),
                "give up": lambda: self._requeue(gives_up=True),
            }
            without_a_worker[idle]()
            return
        anyway: dict[str, Callable[[], None]] = {
            "take what is held": self._take_what_is_held,
            "crash": self._crash,
            "lose the lock": self._lose_the_lock,
            "requeue": self._requeue,
            "cancel": self._cancel,
            "arrive": self._arrive,
            "close": self._close,
            "repeat": lambda: self._repeat(which),
            "wake up": lambda: self._wake_up(which),
            "retry": lambda: self._retry_what_is_held(scope),
            "give up": lambda: self._requeue(gives_up=True),
        }
        with_an_attempt: dict[str, Callable[[], None]] = {
            "succeed": self._succeed,
            "fail": self._fail,
            "release": self._release,
        }
        if at_work in anyway:
            anyway[at_work]()
        elif self.open is None:
            self._start(which)
        else:
            with_an_attempt.get(at_work, lambda: self._reach(stage))()

    def _take_over(
        self, reopen: bool, scope: Scope = Scope.UNFINISHED, root_run_id: str | None = None
    ) -> None:
        self.runs += 1
        self.run_id = f"run-{self.runs}"
        connection = self.sessions.take()
        lease = leases.acquire(connection, self.batch.batch_id, self.run_id)
        if self.status.is_terminal and not reopen:
            with pytest.raises(BatchStopped):
                batches.open_batch(lease, reopen=False)
            self.sessions.give_back(connection)
            return
        root_run_id = root_run_id or self.run_id
        found = batches.open_batch(lease, reopen=reopen, scope=scope, root_run_id=root_run_id)
        for upload_id in self.left_open:
            self.uploads[upload_id].used += 1
        self.left_open.clear()
        for upload_id in self.unfinished:
            upload = self.uploads[upload_id]
            upload.status = "failed" if upload.used >= 2 else "pending"
        if scope.reset and root_run_id != self.reset_by:
            self.reset_by = root_run_id
            self._reset(scope)
        self.listed = self.unfinished
        assert {key.upload_id for key in found} == self.unfinished
        if self.unfinished or not self.status.is_terminal:
            self.status = BatchStatus.PROCESSING
        self.lease = lease

    def _take_what_is_held(self) -> None:
        other = self.sessions.take()

        def take() -> None:
            with pytest.raises(LeaseHeld):
                leases.acquire(other, self.batch.batch_id, "run-too-many")

        self.unchanged(take)
        self.sessions.give_back(other)

    def _start(self, which: int) -> None:
        assert self.lease is not None
        # What arrived since the run began is for the next.
        candidates = list(self.unfinished & self.listed or set(self.uploads) - self.unfinished)
        if not candidates:
            return
        upload_id = candidates[which % len(candidates)]
        upload = self.uploads[upload_id]
        if self.status != BatchStatus.PROCESSING and upload.status not in ENDED:
            with pytest.raises(BatchStopped):
                uploads.start_attempt(self.lease, upload_id, IDENTITY)
            self._lose_the_lock()  # which ends the run
            return
        attempt = uploads.start_attempt(self.lease, upload_id, IDENTITY)
        assert (attempt is None) == (upload.status in ENDED)
        if attempt:
            assert attempt.number == upload.used + 1
            self.open = attempt

    def _reach(self, stage: Stage) -> None:
        assert self.lease is not None
        assert self.open is not None
        uploads.reach_stage(self.lease, self.open, stage)
        self.uploads[self.open.upload_id].status = stage.upload_status

    def _succeed(self) -> None:
        assert self.lease is not None
        assert self.open is not None
        uploads.complete(self.lease, self.open, support.outcome())
        self._end("completed", used=1)

    def _fail(self) -> None:
        assert self.lease is not None
        assert self.open is not None
        is_final = uploads.fail(self.lease, self.open, TRUNCATED, {})
        assert is_final == (self.open.number == 2)
        self._end("failed" if is_final else "pending", used=1)

    def _release(self) -> None:
        assert self.lease is not None
        assert self.open is not None
        uploads.release(self.lease, self.open.upload_id, DOWN, {})
        self._end("pending", used=0)

    def _end(self, status: str, *, used: int) -> None:
        assert self.open is not None
        upload = self.uploads[self.open.upload_id]
        upload.status, upload.used = status, upload.used + used
        self.ended.append(self.open)
        self.open = None

    def _repeat(self, which: int) -> None:
        if not self.ended:
            return
        lease, attempt = self.lease, self.ended[which % len(self.ended)]
        assert lease is not None
        self.unchanged(
            lambda: uploads.complete(lease, attempt, support.outcome()),
            lambda: uploads.fail(lease, attempt, TRUNCATED, {}),
        )

    def _crash(self) -> None:
        assert self.lease is not None
        support.kill(self.view, self.lease.connection)
        self.put_down()
        self.lease = None

    def _lose_the_lock(self) -> None:
        """The server drops the lock; the worker lives on and does not know."""
        assert self.lease is not None
        leases.release(self.lease)
        self.old.append((self.lease, self.put_down()))
        self.lease = None

    def _requeue(self, *, gives_up: bool = False) -> None:
        back_off = BackOff(0, 0)
        run_id = self.run_id or "run-none"
        status = batches.requeue(
            self.view,
            self.batch.batch_id,
            run_id=run_id,
            reason="x",
            backoff=back_off,
            max_tries=1 if gives_up else None,
        )
        if self.run_id is None or self.status.is_terminal:
            assert status is None
            return
        if self.lease:
            leases.release(self.lease)
            self.old.append((self.lease, self.put_down()))
            self.lease = None
        if not gives_up:
            assert status == BatchStatus.PENDING
            self.status, self.run_id = BatchStatus.PENDING, None
            return
        assert status == BatchStatus.FAILED
        self.status = BatchStatus.FAILED
        for upload_id in self.left_open:
            self.uploads[upload_id].used += 1
        self.left_open.clear()
        for upload_id in self.unfinished:
            self.uploads[upload_id].status = "pending"

    def _cancel(self) -> None:
        changed = batches.cancel(self.view, self.batch.batch_id, message="x")
        assert changed == (not self.status.is_terminal)
        if changed:
            self.status = BatchStatus.CANCELLED

    def _close(self) -> None:
        assert self.lease is not None
        if self.status is BatchStatus.CANCELLED:
            with pytest.raises(BatchStopped):
                batches.close_batch(self.lease)
            return
        closed = batches.close_batch(self.lease)
        count = [upload.status for upload in self.uploads.values()].count
        left = len(self.unfinished)
        assert closed == Closed(len(self.uploads), count("completed"), count("failed"), left)
        if not left and not self.status.is_terminal:
            self.status = BatchStatus.COMPLETED

    def _reset(self, scope: Scope) -> None:
        for upload in self.uploads.values():
            if upload.status in scope.reset:
                upload.status, upload.used = "pending", 0

    def _retry(self, scope: Scope) -> None:
        ended = [upload for upload in self.uploads.values() if upload.status in scope.reset]
        count = len(self.unfinished) + len(ended)
        if not count:
            self.unchanged(lambda: reruns.retry(self.view, self.batch.batch_id, scope))
            return
        assert reruns.retry(self.view, self.batch.batch_id, scope) == count
        self._reset(scope)
        self.status, self.run_id = BatchStatus.PENDING, None

    def _retry_what_is_held(self, scope: Scope) -> None:
        def retry() -> None:
            with pytest.raises(UsageError):
                reruns.retry(self.view, self.batch.batch_id, scope)

        self.unchanged(retry)

    def _give_back_afresh(self, which: int) -> None:
        """A run whose connection died gives back, on a new one, what it had left open."""
        if not self.left_open:
            return
        run_id = sorted(set(self.left_open.values()))[which % len(set(self.left_open.values()))]
        batches.release_own_attempts(self.view, self.batch.batch_id, run_id=run_id, reason=DOWN)
        for upload_id in [key for key, run in self.left_open.items() if run == run_id]:
            del self.left_open[upload_id]
            if self.uploads[upload_id].status not in ENDED:
                self.uploads[upload_id].status = "pending"

    def _arrive(self) -> None:
        if len(self.uploads) == 5:
            return
        new = support.add_upload(self.view, self.batch.batch_id, self.batch.user_id)
        self.uploads[new] = Upload()

    def _wake_up(self, which: int) -> None:
        """A worker that was left behind tries everything it can."""
        old = [one for one in self.old if one[0].run_id != self.run_id]
        if not old:
            return
        lease, attempt = old[which % len(old)]
        steps: list[Callable[[], object]] = [
            lambda: batches.open_batch(lease, reopen=True),
            lambda: batches.close_batch(lease),
            *(self._starts(lease, upload_id) for upload_id in self.uploads),
        ]
        if attempt:
            steps += [
                lambda: uploads.reach_stage(lease, attempt, Stage.INDEXING),
                lambda: uploads.complete(lease, attempt, support.outcome()),
                lambda: uploads.fail(lease, attempt, TRUNCATED, {}),
                lambda: uploads.release(lease, attempt.upload_id, DOWN, {}),
            ]

        def refused() -> None:
            for step in steps:
                with pytest.raises(LeaseLost):
                    step()

        self.unchanged(refused)

    def _starts(self, lease: Lease, upload_id: UUID) -> Callable[[], object]:
        return lambda: uploads.start_attempt(lease, upload_id, IDENTITY)

    # What always holds

    @invariant()
    def the_ledger_says_what_the_model_says(self) -> None:
        row = support.batch_row(self.view, self.batch.batch_id)
        assert row.status == self.status
        assert row.ended == self.status.is_terminal
        found = self.view.execute(
            "SELECT id, processing_status FROM uploads WHERE batch_id = %s", (self.batch.batch_id,)
        ).fetchall()
        assert dict(found) == {key: upload.status for key, upload in self.uploads.items()}

    @invariant()
    def counters_are_a_group_by(self) -> None:
        support.assert_counters_true(self.view, self.batch.batch_id)

    @invariant()
    def attempts_are_what_was_used_up(self) -> None:
        found = self.view.execute(
            "SELECT upload_id, count(*) FILTER (WHERE outcome <> 'released' AND NOT superseded),"
            " count(*) FILTER (WHERE outcome IS NULL)"
            " FROM vuemantics_pipeline.attempts WHERE batch_id = %s GROUP BY 1",
            (self.batch.batch_id,),
        ).fetchall()
        now_open = set(self.left_open) | ({self.open.upload_id} if self.open else set())
        for upload_id, used, still_open in found:
            assert used == self.uploads[upload_id].used
            assert used + still_open <= 2
            assert still_open == (upload_id in now_open)

    @invariant()
    def the_audit_finds_nothing(self) -> None:
        """Except what is so: uploads that the application adds to a batch that is completed."""
        found = audit(self.view).violations
        is_added_to = self.status == BatchStatus.COMPLETED and self.unfinished
        late = ["completed_with_work_left"] if is_added_to else []
        assert [violation.rule for violation in found] == late


def test_the_ledger_against_its_model(connection: Connection, database_url: str) -> None:
    """The same examples every time; a failure prints the steps that lead to it."""
    with ExitStack() as stack:
        machine = type("Machine", (LedgerMachine,), {"sessions": Sessions(database_url, stack)})
        run_state_machine_as_test(
            machine,
            settings=settings(
                derandomize=True,
                database=None,
                deadline=None,
                max_examples=35,
                stateful_step_count=30,
                suppress_health_check=list(HealthCheck),
            ),
        )
