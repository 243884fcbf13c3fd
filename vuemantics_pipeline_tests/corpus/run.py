"""Samples as ordinary batches through everything that `vuemantics up` runs."""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

from psycopg.rows import class_row

from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline.home.stack import Address, running_stack
from vuemantics_pipeline.ingest import MAX_FILES
from vuemantics_pipeline.ledger.audit import audit
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.status.batches import follow_batch
from vuemantics_pipeline_tests.corpus.ground import Ground, prepared
from vuemantics_pipeline_tests.corpus.memory import Peaks, watched
from vuemantics_pipeline_tests.corpus.samples import COMPLETED, Sample

SLACK_SECONDS = 15.0
"""What an attempt may take beyond the time limit of decoding: a new decoder, a busy machine."""
WORKER_BYTES = 1 << 30
"""What a run's worker may have of memory."""

# What is our own business, or nobody's: where files are, Python's objects and its errors.
_INSIDE = re.compile(r"/uploads/|original\.|<\w+\.|NoneType|has no attribute|Traceback|Errno")
_ENDED = (COMPLETED, "failed")


@dataclass(frozen=True)
class Row:
    """What the database says of an upload after its batch.

    Attributes:
        seconds: of its longest attempt.
        deaths: attempts that ended with their worker, or were given back.
        format, width, height: as recorded; None unless it is completed.
    """

    upload_id: UUID
    status: str
    code: str | None
    message: str | None
    remedy: str | None
    attempts: int
    deaths: int
    runs: int
    seconds: float
    file_size: int
    format: str | None
    width: int | None
    height: int | None
    video_codec: str | None
    duration_seconds: float | None


@dataclass(frozen=True)
class Result:
    """A sample and what became of it."""

    sample: Sample
    row: Row

    @property
    def outcome(self) -> str:
        """'completed', an error code, or the status it is stuck in."""
        return self.row.code or "no code" if self.row.status == "failed" else self.row.status

    @property
    def is_expected(self) -> bool:
        return not self.sample.expected or self.outcome in self.sample.expected


@dataclass
class Part:
    """One source's share of a run.

    Attributes:
        worker_bytes, decoder_bytes: highest resident memory of any of its processes.
        left_out: samples that this system cannot have, and why.
    """

    source: str
    results: list[Result] = field(default_factory=list)
    worker_bytes: int = 0
    decoder_bytes: int = 0
    left_out: list[tuple[Sample, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Report:
    """What a whole run came to.

    Attributes:
        problems: by what was checked, everything that is not as it must be.
        unchecked: what could not be checked here.
    """

    parts: Sequence[Part]
    problems: dict[str, list[str]]
    unchecked: Sequence[str]

    @property
    def results(self) -> list[Result]:
        return [result for part in self.parts for result in part.results]

    @property
    def is_clean(self) -> bool:
        return not any(self.problems.values())


def run(
    sources: dict[str, list[Sample]],
    folder: Path,
    *,
    analyzer: str = "none",
    decode_seconds: float = 20,
    on_progress: Callable[[str, int], None] = lambda source, done: None,
) -> Report:
    """Run every sample through the pipeline, on a home and an embedded database of its own.

    Args:
        sources: samples by source.
        folder: emptied first; everything the run writes is in there.
        on_progress: called with a source and how many of all its files are done.
    """
    settings = {
        "analyzer": analyzer,
        "decode_seconds": decode_seconds,
        "stage_seconds": decode_seconds + SLACK_SECONDS,
        "backoff_seconds": 1,
    }
    with prepared(folder, settings) as ground:
        with (
            running_stack(ground.settings, ui=Address(free_port())) as stack,
            connect(stack.database_url) as connection,
            watched() as peaks,
        ):
            stack.wait_until_ready()
            parts, stuck = [], []
            for source, samples in sources.items():
                part = Part(source)
                parts.append(part)
                for start in range(0, len(samples), MAX_FILES):
                    chunk = samples[start : start + MAX_FILES]
                    stuck += _run_batch(ground, connection, chunk, part, peaks, on_progress)
            violations = [
                f"batch {violation.batch_id} {violation.detail}"
                for violation in audit(connection).violations
            ]
        trespasses = ground.trespasses()
        unchecked = [] if ground.notes_reading() else ["nothing read outside UPLOAD_PATH"]
    problems = _problems([result for part in parts for result in part.results], decode_seconds)
    problems["every batch ends, in one run"] += stuck
    problems[f"the worker's memory stays below {WORKER_BYTES >> 20} MiB"] = [
        f"{part.source}: {part.worker_bytes >> 20} MiB"
        for part in parts
        if part.worker_bytes >= WORKER_BYTES
    ]
    problems["nothing is written outside UPLOAD_PATH, or read there"] = trespasses
    problems["the audit finds nothing"] = violations
    return Report(parts, problems, unchecked)


def _run_batch(
    ground: Ground,
    connection: Connection,
    samples: list[Sample],
    part: Part,
    peaks: Peaks,
    on_progress: Callable[[str, int], None],
) -> list[str]:
    """Run one batch, add what came of it to its part, and return what kept it from its end."""
    done_before = len(part.results)
    added = ground.add_batch(connection, samples)
    part.left_out += added.left_out
    peaks.start()
    stuck = _follow(ground, connection, added.batch_id, part, done_before, on_progress)
    rows = {row.upload_id: row for row in _rows(connection, added.batch_id)}
    part.results += [Result(sample, rows[upload]) for upload, sample in added.uploads.items()]
    part.worker_bytes = max(part.worker_bytes, peaks.worker)
    part.decoder_bytes = max(part.decoder_bytes, peaks.decoder)
    return stuck


def _follow(
    ground: Ground,
    connection: Connection,
    batch_id: UUID,
    part: Part,
    done_before: int,
    on_progress: Callable[[str, int], None],
) -> list[str]:
    # Two attempts at one file, and the start of a worker.
    patience = 2 * (ground.settings.decode_seconds + SLACK_SECONDS) + 60
    moved_at, done = time.monotonic(), -1
    for batch in follow_batch(connection, batch_id):
        if batch.processed_uploads != done:
            moved_at, done = time.monotonic(), batch.processed_uploads
            on_progress(part.source, done_before + done)
        if time.monotonic() - moved_at > patience:
            return [
                f"{part.source}: the batch is {batch.status} after {done} of "
                f"{batch.total_uploads} uploads, and nothing has moved for {patience:.0f} s "
                f"({batch.error_message})"
            ]
    if batch.status != COMPLETED:
        return [f"{part.source}: the batch is {batch.status} ({batch.error_message})"]
    return []


def _rows(connection: Connection, batch_id: UUID) -> list[Row]:
    with connection.cursor(row_factory=class_row(Row)) as cursor:
        return cursor.execute(
            """
            SELECT u.id AS upload_id, u.processing_status AS status, last.error_code AS code,
                   last.error_message AS message, last.remedy, counted.attempts, counted.deaths,
                   counted.runs, coalesce(counted.seconds, 0) AS seconds, u.file_size,
                   m.format, m.width, m.height, u.video_codec, m.duration_seconds
            FROM uploads AS u
            LEFT JOIN vuemantics_pipeline.media_facts AS m ON m.upload_id = u.id
            LEFT JOIN LATERAL (
                SELECT count(*) AS attempts,
                       count(*) FILTER (WHERE outcome IN ('died', 'released')) AS deaths,
                       count(DISTINCT run_id) AS runs,
                       max(extract(epoch FROM ended_at - started_at))::float8 AS seconds
                FROM vuemantics_pipeline.attempts WHERE upload_id = u.id
            ) AS counted ON true
            LEFT JOIN LATERAL (
                SELECT error_code, error_message, remedy FROM vuemantics_pipeline.attempts
                WHERE upload_id = u.id ORDER BY id DESC LIMIT 1
            ) AS last ON true
            WHERE u.batch_id = %s
            """,
            (batch_id,),
        ).fetchall()


def _problems(results: Sequence[Result], decode_seconds: float) -> dict[str, list[str]]:
    limit = decode_seconds + SLACK_SECONDS
    return {
        "every file is completed, or failed with a reason and a remedy": [
            _line(result)
            for result in results
            if result.row.status not in _ENDED
            or (
                result.row.status == "failed"
                and not (result.row.code and result.row.message and result.row.remedy)
            )
        ],
        "no file finds a fault of the pipeline": [
            _line(result) for result in results if result.row.code == "internal_error"
        ],
        "every reason is for a person to read": [
            f"{_line(result)}: {result.row.message}"
            for result in results
            if _INSIDE.search(result.row.message or "")
        ],
        "generated files end as they should": [
            f"{_line(result)}; right: {', '.join(sorted(result.sample.expected))}"
            for result in results
            if not result.is_expected
        ],
        "no worker dies or gives up": [
            f"{_line(result)}: {result.row.deaths} of {result.row.attempts} attempts"
            for result in results
            if result.row.deaths
        ],
        "every batch ends, in one run": [
            f"{_line(result)}: {result.row.runs} runs" for result in results if result.row.runs > 1
        ],
        f"no attempt takes longer than {limit:g} s": [
            f"{_line(result)}: {result.row.seconds:.1f} s"
            for result in results
            if result.row.seconds > limit
        ],
    }


def _line(result: Result) -> str:
    return f"{result.sample.source} {result.sample.name[:80]!r} {result.outcome}"
