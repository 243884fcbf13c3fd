"""SIGKILL at random moments, from the first instruction of a worker to its last.

VUEMANTICS_FAULT_SEED repeats a sequence of delays, as far as a machine can repeat anything;
VUEMANTICS_FAULT_KILLS says how many kills there are. `make soak` makes it 5,000.
"""

import os
import random
import time
from collections import Counter
from collections.abc import Mapping
from datetime import datetime

import pytest

from vuemantics_pipeline.ledger.batches import DIED_TWICE
from vuemantics_pipeline_tests.faults.conftest import Ground
from vuemantics_pipeline_tests.faults.worker import (
    KILLED,
    SUCCEEDED,
    Call,
    calls_in,
    describe,
    trace_of,
)
from vuemantics_pipeline_tests.support import NewBatch, attempts, batch_row, photo

KILLS = int(os.environ.get("VUEMANTICS_FAULT_KILLS", "200"))
SEED = int(os.environ.get("VUEMANTICS_FAULT_SEED", "20240229"))

SIZES = {f"{number:02}.jpg": (40 + number, 32) for number in range(20)}
OWN_REASON = "The file is text, not a photo or video we can read."
BAD = {"03.jpg", "11.jpg", "17.jpg"}
FILES = {name: b"no photo" if name in BAD else photo(*size) for name, size in SIZES.items()}
DESCRIPTIONS = {name: describe(*size) for name, size in SIZES.items()}

_RUNS_OF_ONE_BATCH = 200


@pytest.mark.timeout(120 + 5 * KILLS)
def test_workers_killed_at_random_moments_lose_nothing_and_count_nothing_twice(
    ground: Ground,
) -> None:
    print(f"VUEMANTICS_FAULT_SEED={SEED}")
    began = time.monotonic()
    chance = random.Random(SEED)
    start_up, an_upload = _measure(ground)
    kills = batches = repeated = died_twice = 0
    where: Counter[str] = Counter()
    while kills < KILLS:
        batch = ground.add_batch(FILES)
        for _ in range(_RUNS_OF_ONE_BATCH):
            row = batch_row(ground.connection, batch.batch_id)
            if row.status == "completed":
                break
            worker = ground.launch()
            if kills < KILLS:
                time.sleep(chance.uniform(0, start_up + an_upload * (row.total - row.processed)))
                worker.kill()
            status = worker.wait()
            assert status in (SUCCEEDED, KILLED), f"seed {SEED}, after {kills} kills: {status}"
            if status == KILLED:
                kills += 1
                reached = trace_of(worker.order)
                where[reached[-1].point if reached else "start-up"] += 1
            ground.settle(worker, status, hook_first=chance.random() < 0.5)
        batches += 1
        try:
            again, worn_out = _check(ground, batch)
        except AssertionError as error:
            raise AssertionError(
                f"seed {SEED}, batch {batches}, after {kills} kills: {error}"
            ) from error
        repeated += again
        died_twice += worn_out
    print(
        f"{kills} kills survived in {batches} batches of {len(FILES)} and"
        f" {time.monotonic() - began:.0f} s: {repeated} model calls repeated because the first"
        f" was never committed, {died_twice} good files given up after two deaths,"
        " no second call after a commit."
    )
    print("Died after:", ", ".join(f"{point} {count}" for point, count in where.most_common()))


def _measure(ground: Ground) -> tuple[float, float]:
    """Seconds to the first upload, and for each upload, in a run that nobody kills."""
    ground.add_batch(FILES)
    started = time.time()
    worker = ground.launch()
    assert worker.wait() == SUCCEEDED
    ended = time.time()
    ground.settle(worker, SUCCEEDED)
    first = min(call.at for call in calls_in(worker.order.calls))
    return first - started, (ended - first) / len(FILES)


def _check(ground: Ground, batch: NewBatch) -> tuple[int, int]:
    """Check a batch that has ended.

    Returns:
        How many model calls were repeated, and how many good files were given up.
    """
    ground.assert_sound(batch.batch_id)
    row = batch_row(ground.connection, batch.batch_id)
    assert (row.status, row.processed, row.total) == ("completed", len(FILES), len(FILES))
    names = {upload_id: name for name, upload_id in batch.uploads.items()}
    calls = calls_in(ground.calls(batch.batch_id))
    committed = _committed(ground, batch)
    repeated = worn_out = 0
    uploads = ground.connection.execute(
        "SELECT id, processing_status, error_message, description,"
        " embedding_local IS NOT NULL, thumbnail_path IS NOT NULL"
        " FROM uploads WHERE batch_id = %s",
        (batch.batch_id,),
    ).fetchall()
    assert len(uploads) == len(FILES)
    for upload_id, status, message, description, has_vector, has_thumbnail in uploads:
        name = names[upload_id]
        mine = [call for call in calls if call.subject == DESCRIPTIONS[name]]
        if message == DIED_TWICE:
            ends = [outcome for _, outcome, _ in attempts(ground.connection, upload_id)]
            assert ends == ["died", "died"], f"{name}: {ends}"
        if name in BAD:
            assert (status, mine) == ("failed", []), name
            assert message == DIED_TWICE or message.startswith(OWN_REASON), f"{name}: {message}"
        elif status == "failed":
            assert message == DIED_TWICE, name
            worn_out += 1
        else:
            assert (status, message) == ("completed", None), name
            assert description == DESCRIPTIONS[name]
            assert has_vector, name
            assert has_thumbnail, name
            repeated += _repeated(mine, committed[name], name)
    assert row.failed == len(BAD) + worn_out
    return repeated, worn_out


def _repeated(calls: list[Call], committed: float, name: str) -> int:
    kinds = Counter(call.kind for call in calls)
    assert kinds["describe"] in (1, 2), f"{name}: {kinds}"
    assert kinds["embed"] in (1, 2), f"{name}: {kinds}"
    late = [call for call in calls if call.at > committed]
    assert not late, f"{name} was completed, and went to a model again: {late}"
    return kinds["describe"] + kinds["embed"] - 2


def _committed(ground: Ground, batch: NewBatch) -> Mapping[str, float]:
    """When the completed uploads were, in seconds since 1970, by name."""
    rows: list[tuple[object, datetime]] = ground.connection.execute(
        "SELECT upload_id, ended_at FROM vuemantics_pipeline.attempts"
        " WHERE batch_id = %s AND outcome = 'completed'",
        (batch.batch_id,),
    ).fetchall()
    times = {upload_id: ended_at.timestamp() for upload_id, ended_at in rows}
    return {name: times[key] for name, key in batch.uploads.items() if key in times}
