"""One upload through media, analysis and ledger. A plain function: Dagster only calls it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from enum import StrEnum
from functools import partial
from pathlib import Path
from uuid import UUID

from PIL import Image

from vuemantics_pipeline.analysis.analyzer import Analyzer, Description
from vuemantics_pipeline.analysis.audit import PASS_MARK, audit
from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UploadError
from vuemantics_pipeline.ledger import uploads
from vuemantics_pipeline.ledger.leases import Lease, LeaseLost
from vuemantics_pipeline.ledger.records import Analysis, Attempt, Outcome, Stage
from vuemantics_pipeline.ledger.text import storable
from vuemantics_pipeline.limits import TimeLimitExceeded, time_limit
from vuemantics_pipeline.media.decode import Decoded
from vuemantics_pipeline.media.decoder import Decoder
from vuemantics_pipeline.media.paths import require_folder, resolve_upload, thumbnail_path
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.media.thumbnail import write_thumbnail

MAX_SIDE = 1568
"""Longest side in pixels that an analyzer is shown: what Qwen2.5-VL takes without tiling."""

_FAILURES_TO_BLAME_A_FILE = 3
_SOUND_SIZE = (128, 128)
_SOUND_PHOTO = MediaInfo("image", "JPEG", "image/jpeg", "jpg", *_SOUND_SIZE)


OnStage = Callable[[Attempt, Stage, float], None]
"""Hears of each stage at its end, however it ended, and how many seconds it took."""


def _unheard(attempt: Attempt, stage: Stage, seconds: float) -> None:
    """The `OnStage` of whoever does not follow."""


class Verdict(StrEnum):
    """How one call of `process_upload` ended."""

    COMPLETED = "completed"
    FAILED = "failed"
    """For good: the attempts are used up."""
    RETRY = "retry"
    """One more attempt is left."""
    FINISHED_BEFORE = "finished before"
    """Nothing was done, because nothing was left to do."""


@dataclass(frozen=True)
class Tools:
    """What uploads are processed with.

    Attributes:
        uploads_root: folder that `uploads.file_path` is relative to.
        max_pixels: larger pictures are refused before they are decoded.
        stage_seconds: how long one stage may take before it counts as a failure of the file.
        reuse: take over what was made of a file with the same bytes, and ask no model again.
    """

    decoder: Decoder
    analyzer: Analyzer
    uploads_root: Path
    max_pixels: int
    stage_seconds: float = 3600
    reuse: bool = True

    def decode(self, file_path: str) -> Decoded:
        path = resolve_upload(self.uploads_root, file_path)
        return self.decoder.decode(path, max_pixels=self.max_pixels, max_side=MAX_SIDE)

    def decode_ahead(self, file_path: str) -> None:
        """Let the decoder begin with a file; what is wrong with it shows when its turn comes."""
        with suppress(PipelineError):
            path = resolve_upload(self.uploads_root, file_path)
            self.decoder.begin(path, max_pixels=self.max_pixels, max_side=MAX_SIDE)


@dataclass(frozen=True)
class Processed:
    """What became of one upload; `error` is set for FAILED and RETRY, `outcome` for COMPLETED."""

    verdict: Verdict
    attempt: Attempt | None = None
    outcome: Outcome | None = None
    error: UploadError | None = None
    stage_seconds: dict[str, float] = field(default_factory=dict)


def process_upload(
    lease: Lease,
    upload_id: UUID,
    tools: Tools,
    *,
    upcoming: str | None = None,
    on_stage: OnStage = _unheard,
) -> Processed:
    """Make one attempt at an upload and record what came of it.

    Whatever the file does to the code is that file's failure. Whatever stops the run (a backend
    that is down, a request to stop) gives the attempt back and is raised.

    Args:
        upcoming: `file_path` of the upload that is probably next: it is decoded while the model
            works on this one. Nothing is recorded about it.
        on_stage: called at the end of each stage.

    Raises:
        BackendUnavailable: a model, the disk or the database is down.
        BatchStopped: the batch was cancelled.
        LeaseLost: another run took over.
    """
    clock = _StageClock(lease, tools.stage_seconds, on_stage)
    try:
        attempt = uploads.start_attempt(lease, upload_id, tools.analyzer.identity)
        if attempt is None:
            return Processed(Verdict.FINISHED_BEFORE)
        try:
            with _faults_of_the_file():
                outcome = _make_outcome(lease, attempt, clock, tools, upcoming)
                uploads.reach_stage(lease, attempt, Stage.INDEXING, clock.seconds)
                uploads.complete(lease, attempt, outcome)
        except UploadError as error:
            is_final = uploads.fail(lease, attempt, error, clock.seconds)
            verdict = Verdict.FAILED if is_final else Verdict.RETRY
            return Processed(verdict, attempt, error=error, stage_seconds=clock.seconds)
        return Processed(Verdict.COMPLETED, attempt, outcome, stage_seconds=clock.seconds)
    except LeaseLost:
        raise
    except BaseException as reason:
        _give_back(lease, upload_id, reason, clock.seconds)
        raise


@contextmanager
def _faults_of_the_file() -> Iterator[None]:
    """Let what stops a run pass; make everything else an `UploadError`."""
    try:
        yield
    except PipelineError:
        raise
    except Exception as error:
        raise UploadError(
            "internal_error",
            f"Processing broke on this file: {type(error).__name__}: {error}.",
            "Report it together with the file; this is a fault of the pipeline.",
        ) from error


@contextmanager
def _blamed_in_the_end(attempt: Attempt, analyzer: Analyzer) -> Iterator[None]:
    """Let a model that is down stop the run, unless it fails on this file alone, and again."""
    try:
        yield
    except BackendUnavailable as down:
        if attempt.releases + 1 < _FAILURES_TO_BLAME_A_FILE or not _is_well(analyzer):
            raise
        raise UploadError(
            "model_fails_on_file",
            f"The model failed {attempt.releases + 1} times on this file and is well otherwise: "
            f"{down.message}",
            "Convert the file to another format, or export it again.",
        ) from down


def _is_well(analyzer: Analyzer) -> bool:
    """Whether the models answer when asked about something that is surely sound."""
    try:
        analyzer.check()
        analyzer.describe([Image.new("RGB", _SOUND_SIZE, "white")], _SOUND_PHOTO)
        analyzer.embed("A plain white picture.")
    except PipelineError:
        return False
    return True


def _make_outcome(
    lease: Lease, attempt: Attempt, clock: "_StageClock", tools: Tools, upcoming: str | None
) -> Outcome:
    with clock.stage(attempt, Stage.EXTRACTING_FRAMES):
        require_folder(tools.uploads_root)
        decoded = tools.decode(attempt.file_path)
        thumbnail = thumbnail_path(attempt.user_id, attempt.upload_id)
        write_thumbnail(decoded.thumbnail, resolve_upload(tools.uploads_root, thumbnail))
    if upcoming is not None:
        tools.decode_ahead(upcoming)
    analysis = _known_analysis(lease, attempt, decoded.sha256, tools)
    if analysis is None:
        analysis = _ask(attempt, clock, decoded, tools.analyzer)
    return Outcome(analysis, decoded.info, decoded.sha256, thumbnail, clock.seconds)


def _known_analysis(lease: Lease, attempt: Attempt, sha256: str, tools: Tools) -> Analysis | None:
    if not tools.reuse:
        return None
    return uploads.find_same_bytes(
        lease, attempt, sha256, tools.analyzer.identity, pass_mark=PASS_MARK
    )


def _ask(attempt: Attempt, clock: "_StageClock", decoded: Decoded, analyzer: Analyzer) -> Analysis:
    described, audit_score = _describe(attempt, clock, decoded, analyzer)
    if audit_score < PASS_MARK:
        with suppress(UploadError):
            second, second_score = _describe(attempt, clock, decoded, analyzer, again=True)
            if second_score > audit_score:
                described, audit_score = second, second_score
    with _blamed_in_the_end(attempt, analyzer), clock.stage(attempt, Stage.EMBEDDING_GENERATION):
        embedding = analyzer.embed(described.text, described.labels)
    return Analysis(
        description=described.text,
        audit_score=audit_score,
        embedding=embedding,
        visible_text=described.visible_text,
        model_digest=described.model_digest,
        model_options=described.options,
    )


def _describe(
    attempt: Attempt,
    clock: "_StageClock",
    decoded: Decoded,
    analyzer: Analyzer,
    *,
    again: bool = False,
) -> tuple[Description, int]:
    with _blamed_in_the_end(attempt, analyzer), clock.stage(attempt, Stage.VISION_ANALYSIS):
        described = analyzer.describe(
            decoded.frames,
            decoded.info,
            again=again,
            on_frame=partial(uploads.describe_frame, clock.lease, attempt),
        )
        described = replace(described, text=storable(described.text).strip())
    with clock.stage(attempt, Stage.DESCRIPTION_AUDIT):
        return described, audit(described.text)


def _give_back(
    lease: Lease, upload_id: UUID, reason: BaseException, stage_seconds: dict[str, float]
) -> None:
    if not isinstance(reason, PipelineError):
        reason = PipelineError("interrupted", "The run was asked to stop.")
    # With the database gone, the next run finds the attempt open and closes it.
    with suppress(BackendUnavailable, LeaseLost):
        uploads.release(lease, upload_id, reason, stage_seconds)


class _StageClock:
    """Records each stage in the ledger as it begins, how long it took, and ends it in time."""

    def __init__(self, lease: Lease, limit_seconds: float, on_stage: OnStage) -> None:
        self.seconds: dict[str, float] = {}
        self.lease = lease
        self._limit_seconds = limit_seconds
        self._on_stage = on_stage

    @contextmanager
    def stage(self, attempt: Attempt, stage: Stage) -> Iterator[None]:
        uploads.reach_stage(self.lease, attempt, stage, self.seconds)
        started = time.perf_counter()
        try:
            with time_limit(self._limit_seconds):
                yield
        except TimeLimitExceeded as error:
            raise UploadError(
                "stage_timeout",
                f"The stage {stage} took longer than {self._limit_seconds:g} s and was stopped.",
                "Try a smaller file, or raise VUEMANTICS_STAGE_SECONDS.",
            ) from error
        finally:
            # A description that was asked for twice took the time of both.
            taken = time.perf_counter() - started
            self.seconds[stage] = self.seconds.get(stage, 0) + taken
            self._on_stage(attempt, stage, taken)
