"""An upload that hangs, in the decoder or in the model, ends: it fails, and the others complete."""

import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from vuemantics_pipeline.analysis.analyzer import Analyzer, Description, Label, OnFrame, unheard
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.ledger import batches
from vuemantics_pipeline.ledger.audit import audit
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.leases import Lease
from vuemantics_pipeline.media.decoder import Decoder
from vuemantics_pipeline.processing import Processed, Tools, Verdict, process_upload
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.support import DIMENSION, NewBatch
from vuemantics_pipeline_tests.unit import decoder_standin

FOR_EVER = 3600.0
STAGE_SECONDS = 1.0


class HangingAnalyzer(ConstantAnalyzer):
    """Never answers one kind of question."""

    def __init__(self, question: str) -> None:
        super().__init__(DIMENSION)
        self._question = question

    def describe(
        self,
        frames: Sequence[Any],
        info: Any,
        *,
        again: bool = False,
        on_frame: OnFrame = unheard,
    ) -> Description:
        if self._question == "describe":
            time.sleep(FOR_EVER)
        return super().describe(frames, info, again=again)

    def embed(self, text: str, labels: Sequence[Label] = ()) -> list[float]:
        if self._question == "embed":
            time.sleep(FOR_EVER)
        return super().embed(text, labels)


@pytest.fixture
def batch(connection: Connection, tmp_path: Path) -> NewBatch:
    return support.add_batch(
        connection, support.add_user(connection), files=("a.jpg", "b.jpg"), uploads_root=tmp_path
    )


@pytest.fixture
def lease(connection: Connection, database_url: str, batch: NewBatch) -> Iterator[Lease]:
    with connect(database_url) as worker:
        yield support.begin(worker, batch.batch_id)


@pytest.fixture
def hanging_decoder() -> Iterator[Decoder]:
    """A real child that answers no request; it has all the time in the world."""
    with Decoder(seconds=FOR_EVER, memory_bytes=2 << 30, command=_hanging()) as decoder:
        yield decoder


def _hanging() -> list[str]:
    return [sys.executable, "-P", decoder_standin.__file__, "hang"]


def attempt(
    lease: Lease,
    batch: NewBatch,
    uploads_root: Path,
    *,
    decoder: Decoder,
    analyzer: Analyzer | None = None,
    stage_seconds: float = STAGE_SECONDS,
) -> Processed:
    tools = Tools(
        decoder,
        analyzer or ConstantAnalyzer(DIMENSION),
        uploads_root,
        support.MAX_PIXELS,
        stage_seconds,
        reuse=False,
    )
    return process_upload(lease, batch.first, tools)


def assert_failed_alone(
    lease: Lease, batch: NewBatch, uploads_root: Path, ends: list[Processed], code: str
) -> None:
    """Both attempts failed with `code`; the batch's other upload is none the worse for it."""
    view = lease.connection
    assert [end.verdict for end in ends] == [Verdict.RETRY, Verdict.FAILED]
    assert {end.error.code for end in ends if end.error} == {code}
    assert support.attempts(view, batch.first) == [(1, "failed", code), (2, "failed", code)]
    status, message = support.upload_state(view, batch.first)
    assert status == "failed"
    assert message == str(ends[-1].error)
    assert support.process(lease, batch.uploads["b.jpg"], uploads_root).verdict is Verdict.COMPLETED
    assert batches.close_batch(lease) == batches.Closed(2, 1, 1, 0)
    assert audit(view).violations == []


@pytest.mark.parametrize(
    ("question", "stage"), [("describe", "vision_analysis"), ("embed", "embedding_generation")]
)
def test_a_model_that_hangs(
    lease: Lease, batch: NewBatch, tmp_path: Path, question: str, stage: str
) -> None:
    decoder = support.decoder()
    # Starts the decoder's child, which may take longer than a stage may here.
    support.run_batch(
        lease.connection,
        support.add_batch(
            lease.connection, batch.user_id, files=("warm.jpg",), uploads_root=tmp_path
        ).batch_id,
        tmp_path,
        ConstantAnalyzer(DIMENSION),
    )

    ends = [
        attempt(lease, batch, tmp_path, decoder=decoder, analyzer=HangingAnalyzer(question))
        for _ in range(2)
    ]

    assert {list(end.stage_seconds)[-1] for end in ends} == {stage}
    error = ends[-1].error
    assert error is not None
    assert stage in error.message
    assert "VUEMANTICS_STAGE_SECONDS" in error.remedy
    assert_failed_alone(lease, batch, tmp_path, ends, "stage_timeout")


def test_a_decoder_that_hangs_is_ended_with_its_stage(
    lease: Lease, batch: NewBatch, tmp_path: Path, hanging_decoder: Decoder
) -> None:
    ends = [attempt(lease, batch, tmp_path, decoder=hanging_decoder) for _ in range(2)]

    assert_failed_alone(lease, batch, tmp_path, ends, "stage_timeout")


def test_a_decode_that_hangs_is_stopped(lease: Lease, batch: NewBatch, tmp_path: Path) -> None:
    with Decoder(seconds=0.3, memory_bytes=2 << 30, command=_hanging()) as decoder:
        ends = [
            attempt(lease, batch, tmp_path, decoder=decoder, stage_seconds=FOR_EVER)
            for _ in range(2)
        ]

    assert_failed_alone(lease, batch, tmp_path, ends, "decode_timeout")
