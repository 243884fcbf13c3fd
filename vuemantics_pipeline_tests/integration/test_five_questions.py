"""The script in the documentation, on rows of which the answers are known."""

import runpy
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image

from vuemantics_pipeline.ledger import batches, leases, uploads
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.leases import Lease
from vuemantics_pipeline_tests import support

SCRIPT = Path(__file__).parents[2] / "docs" / "five_questions.py"
PLOTS = ["1_failures", "2_photo_seconds", "3_queue_by_hour", "4_users", "5_prompts"]


@pytest.fixture
def answers(
    database_url: str,
    connection: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Any:
    """Runs the script, and returns the names it defines."""

    def run() -> dict[str, Any]:
        monkeypatch.setenv("DATABASE_URL", database_url)
        monkeypatch.setenv("MPLBACKEND", "Agg")
        monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(tmp_path)])
        return runpy.run_path(str(SCRIPT), run_name="__main__")

    return run


def finish(
    lease: Lease, upload_id: UUID, *, score: int, prompt: str, seconds: float, reused: bool = False
) -> None:
    identity = replace(support.IDENTITY, prompt_version=prompt)
    attempt = uploads.start_attempt(lease, upload_id, identity)
    assert attempt is not None
    outcome = support.outcome()
    analysis = replace(
        outcome.analysis, audit_score=score, reused_from=upload_id if reused else None
    )
    stages = {"vision_analysis": seconds, "indexing": 0.5}
    uploads.complete(lease, attempt, replace(outcome, analysis=analysis, stage_seconds=stages))


def add(connection: Connection, user_id: UUID, hour: int, *names: str) -> support.NewBatch:
    """A batch that came at an hour of the day and waited as many seconds."""
    batch = support.add_batch(connection, user_id, files=names)
    for table, key in (("upload_batches", "id"), ("uploads", "batch_id")):
        connection.execute(
            f"UPDATE {table} SET created_at = '2026-03-01 00:00Z'::timestamptz"
            f" + make_interval(hours => %s) WHERE {key} = %s",
            (hour, batch.batch_id),
        )
    connection.execute(
        "UPDATE upload_batches SET started_at = created_at + make_interval(secs => %s)"
        " WHERE id = %s",
        (hour, batch.batch_id),
    )
    return batch


def test_the_answers(
    connection: Connection, worker: Connection, answers: Any, tmp_path: Path
) -> None:
    heavy, light = support.add_user(connection), support.add_user(connection)
    old = add(connection, heavy, 7, *(f"old {n}.jpg" for n in range(4)), "broken.jpg")
    new = add(connection, heavy, 9, *(f"new {n}.jpg" for n in range(4)), "same.jpg")
    add(connection, light, 9, "waits.jpg")
    connection.execute("UPDATE uploads SET file_size = 2000000 WHERE user_id = %s", (heavy,))
    connection.execute("UPDATE uploads SET file_type = 'video' WHERE filename = 'new 3.jpg'")
    for batch, prompt, base in ((old, "v1", 60), (new, "v2", 80)):
        lease = support.begin(worker, batch.batch_id)
        for number, (name, upload_id) in enumerate(batch.uploads.items()):
            if name == "broken.jpg":
                for _ in range(2):
                    attempt = uploads.start_attempt(lease, upload_id, support.IDENTITY)
                    assert attempt is not None
                    uploads.fail(lease, attempt, support.TRUNCATED, {})
            else:
                is_copy = name == "same.jpg"
                finish(
                    lease,
                    upload_id,
                    score=100 if is_copy else base + number,
                    prompt=prompt,
                    seconds=100.0 if is_copy or name == "new 3.jpg" else 1.0 + number,
                    reused=is_copy,
                )
        batches.close_batch(lease)
        leases.release(lease)

    found = answers()

    [failure] = found["failures"].to_dict("records")
    assert failure["filename"] == "broken.jpg"
    assert failure["error_code"] == support.TRUNCATED.code
    assert failure["remedy"] == support.TRUNCATED.remedy
    assert failure["attempts"] == 2
    # Photos described by a model: 1, 2, 3, 4 seconds under v1 and 1, 2, 3 under v2.
    assert found["photo_seconds"]["median"].to_dict() == {"indexing": 0.5, "vision_analysis": 2.0}
    assert found["whole_photo"] == 2.5
    waits = found["wait_by_hour"].dropna()
    assert waits["median"].to_dict() == {7: 7.0, 9: 9.0}
    assert waits["batches"].to_dict() == {7: 1, 9: 2}
    by_user = found["by_user"]
    assert by_user.index.tolist() == [str(heavy), str(light)]
    assert by_user.loc[str(heavy), ["image", "video", "megabytes"]].tolist() == [9, 1, 20]
    assert by_user.loc[str(light), ["image", "video"]].tolist() == [1, 0]
    assert found["by_prompt"]["mean"].to_dict() == {"v1": 61.5, "v2": 81.5}
    assert found["difference"] == 20
    assert found["verdict"].startswith("Yes: +20.0 points")
    assert_plots(tmp_path)


def test_before_anything_was_uploaded(answers: Any, tmp_path: Path) -> None:
    found = answers()
    assert found["failures"].empty
    assert found["verdict"] == "There are not two prompts to compare yet."
    assert_plots(tmp_path)


def assert_plots(folder: Path) -> None:
    assert sorted(path.stem for path in folder.glob("*.png")) == PLOTS
    for path in folder.glob("*.png"):
        with Image.open(path) as image:
            assert image.width > 600
            # Something is drawn: more than the paper.
            assert len(image.convert("L").getcolors() or ()) > 10
