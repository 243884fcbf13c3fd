"""SIGKILL before and after every commit of the ledger and every stage of an upload.

For each point: a fresh batch, a worker that dies there, and then whatever the sensor and the
hooks make of it. In the end the rows are those of a run that nobody killed.
"""

import ast
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image

import vuemantics_pipeline.ledger
from vuemantics_pipeline_tests.faults.conftest import Ground
from vuemantics_pipeline_tests.faults.worker import (
    CANCELED,
    FAILED,
    KILLED,
    SUCCEEDED,
    Action,
    Fault,
    Reached,
    Worker,
    calls_in,
    describe,
    trace_of,
)
from vuemantics_pipeline_tests.support import BatchRow, NewBatch, attempts, batch_row, photo
from vuemantics_pipeline_tests.unit.media_files import write_video

SIZES = {"a.jpg": (64, 48), "clip.mp4": (96, 64), "d.png": (80, 60)}
BAD = "bad.jpg"

LEDGER = Path(vuemantics_pipeline.ledger.__file__).parent

IN_A_RUN = {
    *("open_batch", "start_attempt", "reach_stage", "describe_frame"),
    *("complete", "fail", "close_batch"),
}
WHEN_A_BACKEND_IS_DOWN = {"release", "requeue"}
WHEN_THE_CONNECTION_IS_CUT = {"release_own_attempts", "requeue"}
WHEN_TERMINATED = {"release", "cancel"}
IN_THE_SWEEP = {"requeue", "adopt", "end_cut_off"}
ON_A_RETRY = {"retry"}
ON_A_REANALYSIS = {"reanalyze"}
WHILE_FILES_COME_IN = {"add_upload", "settle_total"}

EVERY_COMMIT = (
    IN_A_RUN
    | WHEN_A_BACKEND_IS_DOWN
    | WHEN_THE_CONNECTION_IS_CUT
    | WHEN_TERMINATED
    | IN_THE_SWEEP
    | ON_A_RETRY
    | ON_A_REANALYSIS
    | WHILE_FILES_COME_IN
)


@dataclass(frozen=True)
class End:
    """How an upload ended."""

    status: str
    message: str | None
    description: str | None
    audit_score: int | None
    vector: str | None
    video_codec: str | None
    has_thumbnail: bool


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, bytes]:
    folder = tmp_path_factory.mktemp("media")
    write_video(folder / "clip.mp4", size=SIZES["clip.mp4"])
    Image.new("RGB", SIZES["d.png"], "teal").save(folder / "d.png")
    return {
        "a.jpg": photo(*SIZES["a.jpg"]),
        BAD: b"no photo",
        "clip.mp4": (folder / "clip.mp4").read_bytes(),
        "d.png": (folder / "d.png").read_bytes(),
    }


def test_every_commit_of_the_ledger_has_its_test() -> None:
    assert _callers_of_transaction() == EVERY_COMMIT


@pytest.mark.timeout(900)
def test_a_run_killed_anywhere_ends_as_if_nobody_had_killed_it(
    ground: Ground, files: Mapping[str, bytes]
) -> None:
    batch, worker = _undisturbed(ground, files)
    reached = trace_of(worker.order)
    assert _commits(reached) == IN_A_RUN
    expected = _ends(ground, batch), batch_row(ground.connection, batch.batch_id)
    # One good file and the bad one at each point; of the others a change of files is enough.
    watched = {batch.uploads["clip.mp4"], batch.uploads[BAD], None}
    faults = [
        fault
        for fault, at in zip(_faults(reached), reached, strict=True)
        if at.upload_id in watched or fault.point.endswith((":start_attempt", ":complete"))
    ]
    problems = []
    for fault in faults:
        try:
            _kill_and_resume(ground, files, fault, expected)
        except AssertionError as error:
            problems.append(f"{fault}: {error}")
    print(f"Killed at {len(faults)} points.")
    assert not problems, "\n\n".join(problems)


@pytest.mark.parametrize(
    ("action", "commits"),
    [
        (Action.BACKEND_DOWN, WHEN_A_BACKEND_IS_DOWN),
        (Action.CUT_CONNECTION, WHEN_THE_CONNECTION_IS_CUT),
    ],
)
def test_a_worker_that_gives_its_batch_back_may_die_of_it(
    ground: Ground, files: Mapping[str, bytes], action: Action, commits: set[str]
) -> None:
    undisturbed, _ = _undisturbed(ground, files)
    expected = _ends(ground, undisturbed), batch_row(ground.connection, undisturbed.batch_id)
    cause = Fault("before:describe", 2, action)

    batch = ground.add_batch(files)
    worker = ground.launch(cause)
    assert worker.wait() == FAILED
    assert _commits(trace_of(worker.order)) >= commits
    ground.settle(worker, FAILED)
    ground.finish(batch.batch_id)
    assert (_ends(ground, batch), batch_row(ground.connection, batch.batch_id)) == expected

    for commit in sorted(commits):
        for side in ("before", "after"):
            _kill_and_resume(ground, files, Fault(f"{side}:{commit}"), expected, cause)


def test_a_terminated_run_that_dies_before_it_has_said_so_is_cancelled_all_the_same(
    ground: Ground, files: Mapping[str, bytes]
) -> None:
    cause = Fault("before:describe", 2, Action.TERMINATE)
    batch = ground.add_batch(files)
    worker = ground.launch(cause)
    assert worker.wait() == CANCELED
    assert _commits(trace_of(worker.order)) >= WHEN_TERMINATED
    ground.settle(worker, CANCELED)
    expected = batch_row(ground.connection, batch.batch_id)
    assert (expected.status, expected.successful, expected.failed) == ("cancelled", 1, 0)

    for commit in sorted(WHEN_TERMINATED):
        for side in ("before", "after"):
            for hook_first in (False, True):
                batch = ground.add_batch(files)
                worker = ground.launch(cause, Fault(f"{side}:{commit}"))
                assert worker.wait() == KILLED
                # The request to terminate is in Dagster's own tables, here in another instance.
                run = ground.instance.get_run_by_id(worker.order.run_id)
                assert run is not None
                ground.instance.report_run_canceling(run)
                ground.settle(worker, KILLED, hook_first=hook_first)
                ground.tick()

                assert ground.requests == []
                row = batch_row(ground.connection, batch.batch_id)
                assert (row.status, row.successful, row.failed) == ("cancelled", 1, 0)
                assert row.ended
                run = ground.instance.get_run_by_id(worker.order.run_id)
                assert run is not None
                assert run.status.value == "CANCELED"
                assert {end.status for end in _ends(ground, batch).values()} == {
                    "completed",
                    "pending",
                }
                ground.assert_sound(batch.batch_id)


def test_a_worker_of_a_cancelled_batch_that_dies_leaves_nothing_open(
    ground: Ground, files: Mapping[str, bytes]
) -> None:
    batch = ground.add_batch(files)
    worker = ground.launch(Fault("before:describe", 2, Action.STOP))
    worker.wait_until_stopped()
    ground.connection.execute(
        "UPDATE upload_batches SET status = 'cancelled' WHERE id = %s", (batch.batch_id,)
    )
    worker.kill()
    assert worker.wait() == KILLED
    ground.settle(worker, KILLED)

    ground.tick()

    assert ground.requests == []
    assert batch_row(ground.connection, batch.batch_id).status == "cancelled"
    assert {end.status for end in _ends(ground, batch).values()} == {"completed", "pending"}
    ground.assert_sound(batch.batch_id)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("commit", sorted(IN_THE_SWEEP))
def test_a_daemon_that_dies_in_the_sweep_is_followed_by_the_next(
    ground: Ground, files: Mapping[str, bytes], commit: str, side: str
) -> None:
    batch = ground.add_batch(files)
    worker = ground.launch(Fault("before:describe", 2))
    assert worker.wait() == KILLED
    ground.wait_for_lease(batch.batch_id)
    if commit == "adopt":
        ground.connection.execute("DELETE FROM vuemantics_pipeline.batch_states")
    elif commit == "end_cut_off":
        ground.connection.execute("UPDATE upload_batches SET status = 'cancelled'")

    daemon = ground.start(batch.batch_id, Fault(f"{side}:{commit}"), task="sweep")
    assert daemon.wait() == KILLED
    assert trace_of(daemon.order)[-1].point == f"{side}:{commit}"

    # What another worker left is taken over only after the grace period.
    ground.configure("VUEMANTICS_GRACE_SECONDS", "0")
    ground.tick()
    if commit == "end_cut_off":
        assert batch_row(ground.connection, batch.batch_id).status == "cancelled"
    else:
        ground.finish(batch.batch_id)
        assert batch_row(ground.connection, batch.batch_id).successful == len(SIZES)
    ground.assert_sound(batch.batch_id)


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_retry_is_whole_or_not_at_all(
    ground: Ground, files: Mapping[str, bytes], side: str
) -> None:
    batch, _ = _undisturbed(ground, files)
    ended, row = _ends(ground, batch), batch_row(ground.connection, batch.batch_id)

    person = ground.start(batch.batch_id, Fault(f"{side}:retry"), task="retry")
    assert person.wait() == KILLED

    is_retried = side == "after"
    now = batch_row(ground.connection, batch.batch_id)
    assert now.status == ("pending" if is_retried else "completed")
    if is_retried:
        assert (now.processed, now.successful, now.failed) == (0, 0, 0)
        ground.finish(batch.batch_id)
    assert (_ends(ground, batch), batch_row(ground.connection, batch.batch_id)) == (ended, row)
    ground.assert_sound(batch.batch_id)
    calls = _calls(ground, batch.batch_id)
    assert set(calls.values()) == {2 if is_retried else 1}


@pytest.mark.parametrize("side", ["before", "after"])
def test_a_reanalysis_is_whole_or_not_at_all(
    ground: Ground, files: Mapping[str, bytes], side: str
) -> None:
    """The model changes: either the old one's vectors are all there, or none is and all begins."""
    batch, _ = _undisturbed(ground, files)
    ended = _ends(ground, batch)

    person = ground.start(batch.batch_id, Fault(f"{side}:reanalyze"), task="reanalyze")
    assert person.wait() == KILLED

    has_begun = side == "after"
    now = batch_row(ground.connection, batch.batch_id)
    assert now.status == ("pending" if has_begun else "completed")
    space = ground.connection.execute(
        "SELECT embedding_model FROM vuemantics_pipeline.embedding_space"
    ).fetchone()
    assert space == ("another model" if has_begun else "none",)
    vectors = ground.connection.execute("SELECT count(embedding_local) FROM uploads").fetchone()
    assert vectors == (0 if has_begun else now.successful,)
    if not has_begun:
        assert _ends(ground, batch) == ended
    ground.assert_sound(batch.batch_id)


@pytest.mark.parametrize(
    ("point", "rows", "message"),
    [
        ("before:add_upload", 1, "2 of 3 announced files never arrived."),
        ("after:add_upload", 2, "1 of 3 announced files never arrived."),
        ("before:settle_total", 3, None),
        ("after:settle_total", 3, None),
    ],
)
def test_files_that_came_in_before_a_kill_are_processed(
    ground: Ground, files: Mapping[str, bytes], point: str, rows: int, message: str | None
) -> None:
    offered = ground.folder / "offered"
    offered.mkdir()
    for name in SIZES:
        (offered / name).write_bytes(files[name])
    occurrence = 1 if point.endswith("settle_total") else 2
    worker = ground.start(ground.user_id, Fault(point, occurrence), task="ingest")
    assert worker.wait() == KILLED

    ground.configure("VUEMANTICS_GRACE_SECONDS", "0")
    ground.tick()
    (request,) = ground.requests
    batch_id = UUID(request.partition_key)
    ground.finish(batch_id)

    row = batch_row(ground.connection, batch_id)
    assert row == BatchRow("completed", rows, rows, rows, 0, message, started=True, ended=True)
    ground.assert_sound(batch_id)


def _undisturbed(ground: Ground, files: Mapping[str, bytes]) -> tuple[NewBatch, Worker]:
    batch = ground.add_batch(files)
    worker = ground.launch()
    assert worker.wait() == SUCCEEDED
    ground.settle(worker, SUCCEEDED)
    row = batch_row(ground.connection, batch.batch_id)
    assert row == BatchRow(
        "completed", 4, 4, 3, 1, "1 of 4 uploads failed.", started=True, ended=True
    )
    assert set(_calls(ground, batch.batch_id).values()) == {1}
    ends = _ends(ground, batch)
    assert all(ends[name].vector and ends[name].has_thumbnail for name in SIZES)
    return batch, worker


def _kill_and_resume(
    ground: Ground,
    files: Mapping[str, bytes],
    fault: Fault,
    expected: tuple[dict[str, End], BatchRow],
    *causes: Fault,
) -> None:
    batch = ground.add_batch(files)
    worker = ground.launch(*causes, fault)
    status = worker.wait()
    reached = trace_of(worker.order)
    assert status == KILLED
    assert reached[-1].point == fault.point
    assert Counter(at.point for at in reached)[fault.point] == fault.occurrence
    in_hand = _in_hand(reached)
    before = _calls(ground, batch.batch_id)
    assert ground.open_attempts(batch.batch_id) == ({in_hand} if in_hand else set())
    completed = {at.upload_id for at in reached if at.point == "after:complete"}

    ground.settle(worker, KILLED)
    ground.finish(batch.batch_id)

    assert (_ends(ground, batch), batch_row(ground.connection, batch.batch_id)) == expected
    ground.assert_sound(batch.batch_id)
    assert max(before.values(), default=0) <= 1
    calls = _calls(ground, batch.batch_id)
    for name, size in SIZES.items():
        said = describe(*size)
        again = 0 if batch.uploads[name] in completed else 1
        for kind in ("describe", "embed"):
            assert calls[kind, said] == before[kind, said] + again, f"{kind} {name}"
    for name, upload_id in batch.uploads.items():
        counted = [
            (number, outcome)
            for number, outcome, _ in attempts(ground.connection, upload_id)
            if outcome != "released"
        ]
        outcomes = ["failed", "failed"] if name == BAD else ["completed"]
        if upload_id == in_hand:
            failures = [at for at in reached if at == Reached("after:fail", upload_id)]
            outcomes = [*outcomes[: len(failures)], "died", *outcomes[len(failures) + 1 :]]
            if name != BAD:
                outcomes.append("completed")
        assert counted == list(enumerate(outcomes, start=1)), name


def _in_hand(reached: Sequence[Reached]) -> UUID | None:
    """The upload with an attempt begun and not ended, going by the commits."""
    in_hand = None
    for at in reached:
        if at.point == "after:start_attempt":
            in_hand = at.upload_id
        elif at.point in ("after:complete", "after:fail", "after:release") or (
            at.point == "after:release_own_attempts"
        ):
            in_hand = None
    return in_hand


def _faults(reached: Sequence[Reached]) -> list[Fault]:
    seen: Counter[str] = Counter()
    faults = []
    for at in reached:
        seen[at.point] += 1
        faults.append(Fault(at.point, seen[at.point]))
    return faults


def _commits(reached: Sequence[Reached]) -> set[str]:
    """The transactions of the ledger among the points reached."""
    names = {at.point.partition(":")[2] for at in reached}
    return names & _callers_of_transaction()


def _callers_of_transaction() -> set[str]:
    return {
        function.name
        for file in LEDGER.glob("*.py")
        for function in ast.walk(ast.parse(file.read_text()))
        if isinstance(function, ast.FunctionDef)
        for call in ast.walk(function)
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "transaction"
    }


def _calls(ground: Ground, batch_id: UUID) -> Counter[tuple[str, str]]:
    return Counter((call.kind, call.subject) for call in calls_in(ground.calls(batch_id)))


def _ends(ground: Ground, batch: NewBatch) -> dict[str, End]:
    ends = {}
    for name, upload_id in batch.uploads.items():
        row = ground.connection.execute(
            "SELECT processing_status, error_message, description, description_audit_score,"
            " embedding_local::text, video_codec, thumbnail_path FROM uploads WHERE id = %s",
            (upload_id,),
        ).fetchone()
        assert row is not None
        thumbnail = row[-1]
        if thumbnail is not None:
            assert thumbnail == f"{batch.user_id}/{upload_id}/thumb_256.jpg"
            with Image.open(ground.folder / "uploads" / thumbnail) as image:
                image.load()
        ends[name] = End(*(*row[:-1], thumbnail is not None))
    return ends
