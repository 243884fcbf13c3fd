"""One upload through media, analysis and ledger, with every fault a file or a model can have."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image

from vuemantics_pipeline.analysis.analyzer import Description, Label, OnFrame, unheard
from vuemantics_pipeline.analysis.audit import PASS_MARK, audit
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.errors import BackendUnavailable, UploadError
from vuemantics_pipeline.ledger import batches, leases, uploads
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.leases import BatchStopped, Lease, LeaseLost
from vuemantics_pipeline.ledger.records import Attempt, Stage
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.processing import MAX_SIDE, Processed, Tools, Verdict, process_upload
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.support import DIMENSION, NewBatch

DESCRIPTION = "A small wooden boat drifts on a quiet lake at dusk, far from both of its shores."


class ScriptedAnalyzer(ConstantAnalyzer):
    """Describes and embeds as the test says, and remembers what it was shown."""

    def __init__(
        self,
        describe: Callable[[], str] = lambda: DESCRIPTION,
        embed: Callable[[], list[float]] = lambda: [0.0, 1.0] + [0.0] * (DIMENSION - 2),
    ) -> None:
        super().__init__(DIMENSION)
        self._describe, self._embed = describe, embed
        self.shown: list[tuple[int, int]] = []
        self.embedded: list[str] = []

    def describe(
        self,
        frames: Sequence[Image.Image],
        info: MediaInfo,
        *,
        again: bool = False,
        on_frame: OnFrame = unheard,
    ) -> Description:
        self.shown += [frame.size for frame in frames]
        return Description(self._describe())

    def embed(self, text: str, labels: Sequence[Label] = ()) -> list[float]:
        self.embedded.append(text)
        return self._embed()


class SecondThoughts(ConstantAnalyzer):
    """Answers with one text after the other; an error is raised."""

    def __init__(self, *answers: str | UploadError) -> None:
        super().__init__(DIMENSION)
        self._answers = iter(answers)
        self.asked: list[bool] = []

    def describe(
        self,
        frames: Sequence[Image.Image],
        info: MediaInfo,
        *,
        again: bool = False,
        on_frame: OnFrame = unheard,
    ) -> Description:
        self.asked.append(again)
        answer = next(self._answers)
        if isinstance(answer, UploadError):
            raise answer
        return Description(answer)


def raising(error: BaseException) -> ScriptedAnalyzer:
    def describe() -> str:
        raise error

    return ScriptedAnalyzer(describe)


@pytest.fixture
def batch(connection: Connection, root: Path) -> NewBatch:
    """Two photos, the first of them larger than a thumbnail and than what analyzers see."""
    files = {"a.jpg": support.photo(MAX_SIDE * 2, 400), "b.jpg": support.photo()}
    return support.add_batch(
        connection, support.add_user(connection), files=files, uploads_root=root
    )


@pytest.fixture
def lease(worker: Connection, batch: NewBatch) -> Lease:
    """The right to write to `batch`, which is open."""
    return support.begin(worker, batch.batch_id)


def original(root: Path, batch: NewBatch, upload_id: UUID) -> Path:
    return root / f"{batch.user_id}/{upload_id}/original.jpg"


def set_path(connection: Connection, upload_id: UUID, file_path: str) -> None:
    connection.execute("UPDATE uploads SET file_path = %s WHERE id = %s", (file_path, upload_id))


def fails_for_good(lease: Lease, upload_id: UUID, root: Path) -> Processed:
    """Both attempts fail alike, and the batch goes on with its other upload."""
    connection = lease.connection
    assert support.process(lease, upload_id, root).verdict is Verdict.RETRY
    assert support.upload_state(connection, upload_id) == ("pending", None)
    last = support.process(lease, upload_id, root)
    assert last.verdict is Verdict.FAILED
    assert last.error is not None
    assert support.upload_state(connection, upload_id) == ("failed", str(last.error))
    code = last.error.code
    assert support.attempts(connection, upload_id) == [(1, "failed", code), (2, "failed", code)]
    again = support.process(lease, upload_id, root)
    assert again == Processed(Verdict.FINISHED_BEFORE)
    support.assert_counters_true(connection, lease.batch_id)
    row = connection.execute(
        "SELECT id FROM uploads WHERE batch_id = %s AND id <> %s", (lease.batch_id, upload_id)
    ).fetchone()
    assert row is not None
    assert support.process(lease, row[0], root).verdict is Verdict.COMPLETED
    assert batches.close_batch(lease) == batches.Closed(2, 1, 1, 0)
    return last


def test_a_good_file(connection: Connection, lease: Lease, batch: NewBatch, root: Path) -> None:
    analyzer = ScriptedAnalyzer()
    processed = support.process(lease, batch.first, root, analyzer)

    assert processed.verdict is Verdict.COMPLETED
    assert processed.error is None
    assert processed.outcome is not None
    assert processed.outcome.analysis.description == DESCRIPTION
    stages = ["extracting_frames", "vision_analysis", "description_audit", "embedding_generation"]
    assert list(processed.stage_seconds) == stages
    row = connection.execute(
        "SELECT processing_status, description, description_audit_score, thumbnail_path,"
        " embedding_local::text FROM uploads WHERE id = %s",
        (batch.first,),
    ).fetchone()
    assert row is not None
    stored = f"{batch.user_id}/{batch.first}/thumb_256.jpg"
    assert row == ("completed", DESCRIPTION, 100, stored, "[0,1" + ",0" * (DIMENSION - 2) + "]")
    with Image.open(root / stored) as thumbnail:
        assert thumbnail.format == "JPEG"
        assert thumbnail.size == (256, round(256 * 400 / (MAX_SIDE * 2)))
    assert analyzer.shown == [(MAX_SIDE, 200)]
    assert analyzer.embedded == [DESCRIPTION]
    assert sorted(path.name for path in (root / stored).parent.iterdir()) == [
        "original.jpg",
        "thumb_256.jpg",
    ]
    recorded = connection.execute(
        "SELECT stage, outcome, analyzer,"
        " ARRAY(SELECT jsonb_object_keys(stage_seconds) ORDER BY 1)"
        " FROM vuemantics_pipeline.attempts"
    ).fetchall()
    assert recorded == [("indexing", "completed", "none", sorted(stages))]
    assert support.process(lease, batch.first, root) == Processed(Verdict.FINISHED_BEFORE)


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"This is a letter, not a photo.\n" * 20, "unsupported_type"),
        (support.photo(400, 400)[:-900], "unreadable_media"),
        (support.photo()[:30], "unreadable_media"),
        (b"", "empty_file"),
        (b"\xff\xd8\xff", "unreadable_media"),
    ],
    ids=["text", "truncated", "header only", "zero bytes", "magic only"],
)
def test_a_bad_file(lease: Lease, batch: NewBatch, root: Path, content: bytes, code: str) -> None:
    original(root, batch, batch.first).write_bytes(content)
    last = fails_for_good(lease, batch.first, root)
    assert last.error is not None
    assert last.error.code == code
    assert last.error.remedy
    assert not (original(root, batch, batch.first).parent / "thumb_256.jpg").exists()


def test_too_many_pixels(lease: Lease, batch: NewBatch, root: Path) -> None:
    large = support.photo(support.MAX_PIXELS // 1000 + 1, 1000)
    original(root, batch, batch.first).write_bytes(large)
    last = fails_for_good(lease, batch.first, root)
    assert last.error is not None
    assert last.error.code == "too_many_pixels"


@pytest.mark.parametrize("what", ["file", "folder"])
def test_deleted_before_its_turn(lease: Lease, batch: NewBatch, root: Path, what: str) -> None:
    path = original(root, batch, batch.first)
    if what == "file":
        path.unlink()
    else:
        shutil.rmtree(path.parent)
    last = fails_for_good(lease, batch.first, root)
    assert last.error is not None
    assert last.error.code == "file_missing"


@pytest.mark.parametrize(
    "file_path",
    [
        "{outside}/secret.jpg",
        "../outside/secret.jpg",
        "x/../../outside/secret.jpg",
        "link.jpg",
        "link/secret.jpg",
        "",
        ".",
    ],
)
def test_a_path_out_of_the_upload_folder(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path, file_path: str
) -> None:
    outside = root.with_name("outside")
    outside.mkdir()
    (outside / "secret.jpg").write_bytes(support.photo())
    (root / "link.jpg").symlink_to(outside / "secret.jpg")
    (root / "link").symlink_to(outside)
    set_path(connection, batch.first, file_path.format(outside=outside))
    last = fails_for_good(lease, batch.first, root)
    assert last.error is not None
    assert last.error.code == "path_outside_uploads"


@pytest.mark.parametrize("name", ["x" * 300 + ".jpg", "loop", "folder"])
def test_a_path_that_no_file_can_have(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path, name: str
) -> None:
    """One file's fault, though the operating system answers with an error of its own."""
    (root / "loop").symlink_to(root / "loop")
    (root / "folder").mkdir()
    set_path(connection, batch.first, name)
    fails_for_good(lease, batch.first, root)


def test_a_thumbnail_that_is_a_symlink_out_is_not_written_through(
    lease: Lease, batch: NewBatch, root: Path
) -> None:
    precious = root.with_name("precious.jpg")
    precious.write_bytes(b"precious")
    (original(root, batch, batch.first).parent / "thumb_256.jpg").symlink_to(precious)
    support.process(lease, batch.first, root)
    assert precious.read_bytes() == b"precious"


def test_an_upload_folder_that_is_gone_is_nobodys_failed_upload(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path
) -> None:
    root.rename(root.with_name("unmounted"))
    with pytest.raises(BackendUnavailable) as down:
        support.process(lease, batch.first, root)
    assert down.value.code == "storage_unavailable"
    assert support.attempts(connection, batch.first) == [(1, "released", "storage_unavailable")]
    root.with_name("unmounted").rename(root)
    assert support.process(lease, batch.first, root).verdict is Verdict.COMPLETED


def test_the_analyzer_blames_the_file(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path
) -> None:
    error = UploadError("model_refused", "The model refuses this picture.", "Choose another.")
    processed = support.process(lease, batch.first, root, raising(error))
    assert (processed.verdict, processed.error) == (Verdict.RETRY, error)
    assert list(processed.stage_seconds) == ["extracting_frames", "vision_analysis"]
    assert support.process(lease, batch.first, root, raising(error)).verdict is Verdict.FAILED
    assert support.upload_state(connection, batch.first) == ("failed", str(error))


def test_each_stage_is_told_at_its_end(lease: Lease, batch: NewBatch, root: Path) -> None:
    heard: list[tuple[int, str, Stage, bool]] = []

    def tell(attempt: Attempt, stage: Stage, seconds: float) -> None:
        heard.append((attempt.number, attempt.filename, stage, seconds > 0))

    for answer in (UploadError("no", "No."), DESCRIPTION):
        analyzer = raising(answer) if isinstance(answer, UploadError) else ScriptedAnalyzer()
        tools = Tools(support.decoder(), analyzer, root, support.MAX_PIXELS)
        process_upload(lease, batch.first, tools, on_stage=tell)

    assert heard == [
        (1, "a.jpg", Stage.EXTRACTING_FRAMES, True),
        (1, "a.jpg", Stage.VISION_ANALYSIS, True),
        (2, "a.jpg", Stage.EXTRACTING_FRAMES, True),
        (2, "a.jpg", Stage.VISION_ANALYSIS, True),
        (2, "a.jpg", Stage.DESCRIPTION_AUDIT, True),
        (2, "a.jpg", Stage.EMBEDDING_GENERATION, True),
    ]


def test_frames_described_are_recorded_as_they_are(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path
) -> None:
    seen: list[object] = []

    class FrameByFrame(ConstantAnalyzer):
        def describe(
            self,
            frames: Sequence[Image.Image],
            info: MediaInfo,
            *,
            again: bool = False,
            on_frame: OnFrame = unheard,
        ) -> Description:
            for number in (1, 2):
                on_frame(number, 2)
                seen.append(
                    connection.execute(
                        "SELECT frames_done, frames_total FROM vuemantics_pipeline.attempts"
                    ).fetchone()
                )
            return super().describe(frames, info, again=again, on_frame=on_frame)

    support.process(lease, batch.first, root, FrameByFrame(DIMENSION))
    assert seen == [(1, 2), (2, 2)]


def test_a_second_attempt_may_succeed(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path
) -> None:
    processed = support.process(lease, batch.first, root, raising(KeyError("once")))
    assert processed.verdict is Verdict.RETRY
    assert support.process(lease, batch.first, root).verdict is Verdict.COMPLETED
    outcomes = [(1, "failed", "internal_error"), (2, "completed", None)]
    assert support.attempts(connection, batch.first) == outcomes
    assert support.upload_state(connection, batch.first) == ("completed", None)


@pytest.mark.parametrize(
    "error",
    [
        KeyError("colour"),
        ValueError("a\0b \ud800"),
        RecursionError("too deep"),
        MemoryError(),
        ExceptionGroup("several", [ValueError("one")]),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_fault_of_ours_costs_one_upload_only(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path, error: Exception
) -> None:
    for verdict in (Verdict.RETRY, Verdict.FAILED):
        processed = support.process(lease, batch.first, root, raising(error))
        assert processed.verdict is verdict
        assert processed.error is not None
        assert processed.error.code == "internal_error"
        assert type(error).__name__ in processed.error.message
    status, message = support.upload_state(connection, batch.first)
    assert status == "failed"
    assert message is not None
    assert type(error).__name__ in message
    b = batch.uploads["b.jpg"]
    assert support.process(lease, b, root).verdict is Verdict.COMPLETED
    assert batches.close_batch(lease) == batches.Closed(2, 1, 1, 0)


class Interrupted(BaseException):
    """As Dagster's own interrupt: no `Exception`."""


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (BackendUnavailable("model_unavailable", "Ollama is down.", "Start it."), None),
        (KeyboardInterrupt(), "interrupted"),
        (SystemExit(3), "interrupted"),
        (Interrupted(), "interrupted"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_stops_the_run_gives_the_attempt_back(
    connection: Connection,
    lease: Lease,
    batch: NewBatch,
    root: Path,
    error: BaseException,
    code: str | None,
) -> None:
    for _ in range(2):
        with pytest.raises(type(error)) as stopped:
            support.process(lease, batch.first, root, raising(error))
        assert stopped.value is error
    assert support.upload_state(connection, batch.first) == ("pending", None)
    released = [(1, "released", code or "model_unavailable")] * 2
    assert support.attempts(connection, batch.first) == released
    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.processed) == ("processing", 0)
    assert support.process(lease, batch.first, root).verdict is Verdict.COMPLETED


def test_interrupted_while_it_is_recorded(
    connection: Connection,
    lease: Lease,
    batch: NewBatch,
    root: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The request to stop arrives between the commit of the outcome and the return."""
    complete = uploads.complete

    def interrupted(*arguments: object) -> None:
        complete(*arguments)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(uploads, "complete", interrupted)
    with pytest.raises(KeyboardInterrupt):
        support.process(lease, batch.first, root)
    assert support.upload_state(connection, batch.first) == ("completed", None)
    assert support.attempts(connection, batch.first) == [(1, "completed", None)]
    support.assert_counters_true(connection, batch.batch_id)


@pytest.mark.parametrize(
    ("said", "stored"),
    [
        (f"\0{DESCRIPTION}\0", DESCRIPTION),
        (f"  {DESCRIPTION}\n\n", DESCRIPTION),
        (f"{DESCRIPTION}\nWith a second line.", f"{DESCRIPTION}\nWith a second line."),
        (f"{DESCRIPTION} \U0001f6f6 été", f"{DESCRIPTION} \U0001f6f6 été"),
        (f"{DESCRIPTION} \ud83d", f"{DESCRIPTION} ?"),
    ],
    ids=["NUL", "blanks", "lines", "unicode", "half a character"],
)
def test_what_a_model_may_say(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path, said: str, stored: str
) -> None:
    processed = support.process(lease, batch.first, root, ScriptedAnalyzer(lambda: said))
    assert processed.verdict is Verdict.COMPLETED
    row = connection.execute(
        "SELECT description FROM uploads WHERE id = %s", (batch.first,)
    ).fetchone()
    assert row == (stored,)
    assert processed.outcome is not None
    assert processed.outcome.analysis.description == stored


def test_a_model_that_says_nothing(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path
) -> None:
    support.process(lease, batch.first, root, ScriptedAnalyzer(lambda: " \n\0"))
    row = connection.execute(
        "SELECT description, description_audit_score FROM uploads WHERE id = %s", (batch.first,)
    ).fetchone()
    assert row == ("", 0)


@pytest.mark.parametrize(
    "vector",
    [[1.0], [1.0] * (DIMENSION + 1), [float("nan")] * DIMENSION, [float("inf")] * DIMENSION, []],
    ids=["too short", "too long", "nan", "inf", "empty"],
)
def test_a_vector_that_does_not_fit(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path, vector: list[float]
) -> None:
    """Nothing of the upload is written, and the session is of use for the next."""
    analyzer = ScriptedAnalyzer(embed=lambda: vector)
    processed = support.process(lease, batch.first, root, analyzer)
    assert processed.verdict is Verdict.RETRY
    assert processed.error is not None
    assert processed.error.code == "internal_error"
    assert support.upload_state(connection, batch.first) == ("pending", None)
    assert support.process(lease, batch.first, root).verdict is Verdict.COMPLETED


SHORT = "A boat on a lake."
NONSENSE = "<|im_start|>"


@pytest.mark.parametrize(
    ("answers", "kept"),
    [
        ((DESCRIPTION,), DESCRIPTION),
        ((SHORT, DESCRIPTION), DESCRIPTION),
        ((SHORT, NONSENSE), SHORT),
        ((NONSENSE, SHORT), SHORT),
        ((SHORT, UploadError("empty_description", "The model said nothing.")), SHORT),
    ],
    ids=["good", "better", "worse", "less bad", "none"],
)
def test_a_bad_description_is_asked_for_once_more(
    connection: Connection,
    lease: Lease,
    batch: NewBatch,
    root: Path,
    answers: Sequence[str | UploadError],
    kept: str,
) -> None:
    analyzer = SecondThoughts(*answers)

    assert support.process(lease, batch.first, root, analyzer).verdict is Verdict.COMPLETED

    assert analyzer.asked == [False, True][: len(answers)]
    row = connection.execute(
        "SELECT description, description_audit_score FROM uploads WHERE id = %s", (batch.first,)
    ).fetchone()
    assert row == (kept, audit(kept))
    assert (audit(kept) >= PASS_MARK) == (kept == DESCRIPTION)


@pytest.mark.parametrize("when", ["describing", "embedding"])
def test_cancelled_meanwhile(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path, when: str
) -> None:
    def cancel() -> None:
        assert batches.cancel(connection, batch.batch_id, message="Enough.")

    def describe() -> str:
        cancel()
        return DESCRIPTION

    def embed() -> list[float]:
        cancel()
        return [1.0] + [0.0] * (DIMENSION - 1)

    analyzer = ScriptedAnalyzer(describe) if when == "describing" else ScriptedAnalyzer(embed=embed)
    processed = support.process(lease, batch.first, root, analyzer)
    assert processed.verdict is Verdict.COMPLETED, "the upload in hand was not brought to its end"
    row = support.batch_row(connection, batch.batch_id)
    assert (row.status, row.message, row.processed) == ("cancelled", "Enough.", 1)
    with pytest.raises(BatchStopped):
        support.process(lease, batch.uploads["b.jpg"], root)
    assert support.attempts(connection, batch.uploads["b.jpg"]) == []


def test_the_lease_is_lost_meanwhile(
    connection: Connection,
    database_url: str,
    lease: Lease,
    batch: NewBatch,
    root: Path,
) -> None:
    """Another run has taken over and finished the upload; what this one saw is not written."""
    after: list[object] = []
    with connect(database_url) as other:

        def describe() -> str:
            leases.release(lease)  # as when the server has dropped the session
            taken = support.begin(other, batch.batch_id, "run-2")
            assert support.process(taken, batch.first, root).verdict is Verdict.COMPLETED
            after.extend(support.everything(connection, batch.batch_id))
            return "What the first run saw."

        with pytest.raises(LeaseLost):
            support.process(lease, batch.first, root, ScriptedAnalyzer(describe))
    assert support.everything(connection, batch.batch_id) == after
    outcomes = [(1, "died", "worker_died"), (2, "completed", None)]
    assert support.attempts(connection, batch.first) == outcomes


def test_the_database_goes_away_meanwhile(
    connection: Connection, database_url: str, lease: Lease, batch: NewBatch, root: Path
) -> None:
    def describe() -> str:
        support.kill(connection, lease.connection)
        return DESCRIPTION

    with pytest.raises(BackendUnavailable):
        support.process(lease, batch.first, root, ScriptedAnalyzer(describe))
    assert support.attempts(connection, batch.first) == [(1, None, None)]
    with connect(database_url) as again:
        taken = support.begin(again, batch.batch_id, "run-2")
        assert support.process(taken, batch.first, root).verdict is Verdict.COMPLETED


def test_finished_by_another_meanwhile_is_counted_once(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path
) -> None:
    """The application's own worker may still be running."""

    def describe() -> str:
        connection.execute(
            "UPDATE uploads SET processing_status = 'completed', description = 'Theirs.'"
            " WHERE id = %s",
            (batch.first,),
        )
        return DESCRIPTION

    support.process(lease, batch.first, root, ScriptedAnalyzer(describe))
    row = connection.execute(
        "SELECT processing_status, description FROM uploads WHERE id = %s", (batch.first,)
    ).fetchone()
    assert row == ("completed", "Theirs.")
    support.assert_counters_true(connection, batch.batch_id)


def test_an_upload_deleted_meanwhile(
    connection: Connection, lease: Lease, batch: NewBatch, root: Path
) -> None:
    def describe() -> str:
        connection.execute("DELETE FROM uploads WHERE id = %s", (batch.first,))
        return DESCRIPTION

    support.process(lease, batch.first, root, ScriptedAnalyzer(describe))
    support.assert_counters_true(connection, batch.batch_id)
    assert support.process(lease, batch.first, root) == Processed(Verdict.FINISHED_BEFORE)
    assert support.process(lease, batch.uploads["b.jpg"], root).verdict is Verdict.COMPLETED
    assert batches.close_batch(lease) == batches.Closed(1, 1, 0, 0)
