"""The same bytes of the same user are described once."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from PIL import Image

from vuemantics_pipeline.analysis.analyzer import (
    AnalyzerIdentity,
    Description,
    Label,
    OnFrame,
    unheard,
)
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.leases import Lease
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.processing import Processed, Tools, Verdict, process_upload
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.support import DIMENSION, MAX_PIXELS, NewBatch

TEXT = "A small wooden boat drifts on a quiet lake at dusk, far from both of its shores."


class CountingAnalyzer(ConstantAnalyzer):
    """Counts how often it is asked; every description has its number."""

    def __init__(self, **identity: Any) -> None:
        super().__init__(DIMENSION)
        self._identity = replace(self._identity, **identity)
        self.calls = 0

    @property
    def identity(self) -> AnalyzerIdentity:
        return self._identity

    def describe(
        self,
        frames: Sequence[Image.Image],
        info: MediaInfo,
        *,
        again: bool = False,
        on_frame: OnFrame = unheard,
    ) -> Description:
        self.calls += 1
        return Description(
            f"{TEXT} ({self.calls})",
            visible_text="STOP",
            model_digest="sha256:abc",
            options={"seed": self.calls},
        )

    def embed(self, text: str, labels: Sequence[Label] = ()) -> list[float]:
        self.calls += 1
        vector = [0.0] * DIMENSION
        vector[self.calls % DIMENSION] = 1.0
        return vector


@pytest.fixture
def analyzer() -> CountingAnalyzer:
    return CountingAnalyzer()


@pytest.fixture
def batch(connection: Connection, root: Path) -> NewBatch:
    """Two names for the same photo, and another photo."""
    files = {"a.jpg": support.photo(), "b.jpg": support.photo(), "c.jpg": support.photo(80, 60)}
    user_id = support.add_user(connection)
    return support.add_batch(connection, user_id, files=files, uploads_root=root)


@pytest.fixture
def lease(worker: Connection, batch: NewBatch) -> Lease:
    return support.begin(worker, batch.batch_id)


def process(
    lease: Lease, upload_id: UUID, root: Path, analyzer: CountingAnalyzer, *, reuse: bool = True
) -> Processed:
    tools = Tools(support.decoder(), analyzer, root, MAX_PIXELS, reuse=reuse)
    return process_upload(lease, upload_id, tools)


def result(connection: Connection, upload_id: UUID) -> object:
    """What search and the application see of an upload."""
    return connection.execute(
        "SELECT processing_status, description, description_audit_score, embedding_local::text,"
        " visible_text FROM uploads AS u"
        " JOIN vuemantics_pipeline.media_facts AS m ON m.upload_id = u.id WHERE u.id = %s",
        (upload_id,),
    ).fetchone()


def test_the_second_of_two_asks_no_model(
    connection: Connection,
    lease: Lease,
    batch: NewBatch,
    root: Path,
    analyzer: CountingAnalyzer,
) -> None:
    a, b, c = batch.uploads.values()
    process(lease, a, root, analyzer)
    calls = analyzer.calls

    processed = process(lease, b, root, analyzer)

    assert analyzer.calls == calls
    assert processed.verdict is Verdict.COMPLETED
    assert list(processed.stage_seconds) == ["extracting_frames"], "no model's time may be claimed"
    assert result(connection, b) == result(connection, a)
    assert (root / f"{batch.user_id}/{b}/thumb_256.jpg").exists()
    rows = connection.execute(
        "SELECT reused_from, model_digest, model_options FROM vuemantics_pipeline.attempts"
        " WHERE batch_id = %s ORDER BY id",
        (batch.batch_id,),
    ).fetchall()
    assert rows == [(None, "sha256:abc", {"seed": 1}), (a, "sha256:abc", {"seed": 1})]

    process(lease, c, root, analyzer)
    assert analyzer.calls > calls, "another photo was taken for the same"


def test_off_by_a_setting(
    lease: Lease, batch: NewBatch, root: Path, analyzer: CountingAnalyzer
) -> None:
    a, b, _ = batch.uploads.values()
    process(lease, a, root, analyzer)
    calls = analyzer.calls
    process(lease, b, root, analyzer, reuse=False)
    assert analyzer.calls > calls


@pytest.mark.parametrize("other", ["analyzer", "vision_model", "embedding_model", "prompt_version"])
def test_what_another_analyzer_made_is_not_taken_over(
    lease: Lease, batch: NewBatch, root: Path, analyzer: CountingAnalyzer, other: str
) -> None:
    a, b, _ = batch.uploads.values()
    process(lease, a, root, CountingAnalyzer(**{other: "another"}))
    process(lease, b, root, analyzer)
    assert analyzer.calls > 0


def test_what_another_user_uploaded_is_not_taken_over(
    connection: Connection,
    worker: Connection,
    lease: Lease,
    batch: NewBatch,
    root: Path,
    analyzer: CountingAnalyzer,
) -> None:
    process(lease, batch.first, root, analyzer)
    calls = analyzer.calls
    theirs = support.add_batch(connection, support.add_user(connection), uploads_root=root)
    process(support.begin(worker, theirs.batch_id), theirs.first, root, analyzer)
    assert analyzer.calls > calls


@pytest.mark.parametrize(
    "change",
    [
        "processing_status = 'failed'",
        "processing_status = 'pending'",
        "embedding_local = NULL",
        "description = NULL",
        "description_audit_score = 59",
        "last_regenerated_at = now() + interval '1 second'",
    ],
)
def test_what_does_not_hold_any_more_is_not_taken_over(
    connection: Connection,
    lease: Lease,
    batch: NewBatch,
    root: Path,
    analyzer: CountingAnalyzer,
    change: str,
) -> None:
    a, b, _ = batch.uploads.values()
    process(lease, a, root, analyzer)
    calls = analyzer.calls
    connection.execute(f"UPDATE uploads SET {change} WHERE id = %s", (a,))
    process(lease, b, root, analyzer)
    assert analyzer.calls > calls
