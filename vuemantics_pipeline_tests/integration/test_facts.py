"""What is told of a batch at its end, on a real Postgres."""

from datetime import timedelta
from pathlib import Path
from uuid import UUID, uuid4

import pytest

from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.status.facts import (
    batch_facts,
    first_error,
    list_poor_descriptions,
    list_thumbnails,
    usual_pace,
)
from vuemantics_pipeline_tests.support import (
    DIMENSION,
    NewBatch,
    add_batch,
    add_user,
    photo,
    run_batch,
)


def processed(connection: Connection, root: Path, *names: str) -> NewBatch:
    """A completed batch; a file whose name begins with 'bad' is no photo."""
    files = {name: b"no photo" if name.startswith("bad") else photo() for name in names}
    batch = add_batch(connection, add_user(connection), files=files, uploads_root=root)
    run_batch(connection, batch.batch_id, root, ConstantAnalyzer(DIMENSION))
    return batch


def last(connection: Connection, batch: NewBatch, seconds: float) -> None:
    """Let the batch have taken so long, from its first attempt's start to the end of its last."""
    connection.execute(
        "UPDATE vuemantics_pipeline.attempts SET started_at = b.completed_at - %s,"
        " ended_at = b.completed_at FROM upload_batches AS b"
        " WHERE b.id = batch_id AND batch_id = %s",
        (timedelta(seconds=seconds), batch.batch_id),
    )


def test_the_facts_of_a_batch(connection: Connection, root: Path) -> None:
    batch = processed(connection, root, "a.jpg", "bad.jpg", "c.jpg")
    last(connection, batch, 30)

    facts = batch_facts(connection, batch.batch_id)

    assert (facts.batch_id, facts.user_id, facts.status) == (
        batch.batch_id,
        batch.user_id,
        "completed",
    )
    assert (facts.uploads_total, facts.uploads_succeeded, facts.uploads_failed) == (3, 2, 1)
    assert facts.uploads_reused == 0
    assert facts.bytes_total == 2 * len(photo()) + len(b"no photo")
    assert facts.duration_seconds == pytest.approx(30)
    assert facts.uploads_per_minute == pytest.approx(6)
    assert facts.seconds_per_upload == pytest.approx(10)
    assert facts.seconds_waiting_in_queue is not None
    assert facts.seconds_waiting_in_queue >= 0
    assert (facts.attempts_total, facts.takeovers) == (4, 0)
    identity = ConstantAnalyzer(DIMENSION).identity
    assert (facts.analyzer, facts.vision_model) == (identity.analyzer, identity.vision_model)
    assert (facts.embedding_model, facts.prompt_version) == (
        identity.embedding_model,
        identity.prompt_version,
    )


def test_a_batch_that_nothing_was_done_for(connection: Connection, root: Path) -> None:
    batch = processed(connection, root)

    facts = batch_facts(connection, batch.batch_id)

    assert (facts.uploads_total, facts.bytes_total, facts.attempts_total) == (0, 0, 0)
    assert facts.duration_seconds is None
    assert facts.seconds_per_upload is None
    assert facts.uploads_per_minute is None
    assert facts.audit_score_mean is None
    assert facts.analyzer is None


def test_no_such_batch(connection: Connection) -> None:
    with pytest.raises(UsageError, match="There is no batch"):
        batch_facts(connection, uuid4())


def test_the_usual_pace_is_the_median_of_the_last_batches_like_it(
    connection: Connection, root: Path
) -> None:
    # Seconds per upload, oldest first.
    for seconds in (500, 2, 4, 9):
        last(connection, processed(connection, root, "a.jpg", "b.jpg"), 2 * seconds)
    other = processed(connection, root, "a.jpg")
    connection.execute(
        "UPDATE vuemantics_pipeline.attempts SET vision_model = 'another' WHERE batch_id = %s",
        (other.batch_id,),
    )
    processed(connection, root)  # Nothing in it, so it took no time.
    this = processed(connection, root, "a.jpg")
    facts = batch_facts(connection, this.batch_id)

    usual = usual_pace(connection, facts, batches=5)

    assert usual.batches == 3
    assert usual.seconds_per_upload == pytest.approx(4)
    longer_ago = usual_pace(connection, facts, batches=50)
    assert longer_ago.batches == 4
    assert longer_ago.seconds_per_upload == pytest.approx(6.5)
    alone = usual_pace(connection, batch_facts(connection, other.batch_id), batches=50)
    assert (alone.batches, alone.seconds_per_upload) == (0, None)


def test_thumbnails_in_the_order_of_the_uploads(connection: Connection, root: Path) -> None:
    batch = processed(connection, root, "a.jpg", "bad.jpg", "c.jpg")

    listed = list_thumbnails(connection, batch.batch_id, limit=10)

    assert [one.user_id for one in listed] == [batch.user_id] * 2
    assert [UUID(Path(one.thumbnail_path).parts[1]) for one in listed] == [
        batch.uploads["a.jpg"],
        batch.uploads["c.jpg"],
    ]
    assert len(list_thumbnails(connection, batch.batch_id, limit=1)) == 1


def test_poor_descriptions_the_worst_first(connection: Connection, root: Path) -> None:
    batch = processed(connection, root, "a.jpg", "b.jpg", "c.jpg", "bad.jpg")
    for name, score in {"a.jpg": 59, "b.jpg": 60, "c.jpg": 10}.items():
        connection.execute(
            "UPDATE uploads SET description_audit_score = %s WHERE id = %s",
            (score, batch.uploads[name]),
        )

    poor = list_poor_descriptions(connection, batch.batch_id, pass_mark=60)

    assert [(one.filename, one.audit_score) for one in poor] == [("c.jpg", 10), ("a.jpg", 59)]
    assert all(one.description for one in poor)


def test_the_first_error_of_an_upload(connection: Connection, root: Path) -> None:
    batch = processed(connection, root, "a.jpg", "bad.jpg")
    connection.execute(
        "UPDATE vuemantics_pipeline.attempts SET error_message = 'The second.'"
        " WHERE attempt_number = 2"
    )

    assert first_error(connection, batch.uploads["a.jpg"]) is None
    reason = first_error(connection, batch.uploads["bad.jpg"])
    assert reason
    assert reason != "The second."
    connection.execute("UPDATE vuemantics_pipeline.attempts SET superseded = true")
    assert first_error(connection, batch.uploads["bad.jpg"]) is None
