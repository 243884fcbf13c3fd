"""The next upload is decoded while the model works on one, and nothing is recorded before."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from vuemantics_pipeline.media.decode import Decoded
from vuemantics_pipeline.media.decoder import Decoder
from vuemantics_pipeline.orchestration.build import build_definitions
from vuemantics_pipeline_tests.dagster.conftest import World

Call = tuple[str, str]


class RecordingDecoder(Decoder):
    """Writes down what it is asked, by the upload's folder."""

    def __init__(self, calls: list[Call]) -> None:
        super().__init__(seconds=60, memory_bytes=2 << 30)
        self._calls = calls

    def begin(self, path: Path, *, max_pixels: int, max_side: int) -> None:
        self._calls.append(("begin", path.parent.name))
        super().begin(path, max_pixels=max_pixels, max_side=max_side)

    def decode(self, path: Path, *, max_pixels: int, max_side: int) -> Decoded:
        self._calls.append(("decode", path.parent.name))
        return super().decode(path, max_pixels=max_pixels, max_side=max_side)


@pytest.fixture
def calls(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Call]]:
    """What decoder and model were asked, in order; the model's are ('describe', '')."""
    calls: list[Call] = []
    world.analyzer.before = lambda call: calls.append(("describe", ""))
    with RecordingDecoder(calls) as decoder:
        definitions = build_definitions(
            analyzer=world.analyzer,
            decoder=dg.ResourceDefinition.hardcoded_resource(decoder),
        )
        monkeypatch.setattr(World, "definitions", definitions)
        yield calls


def folders(world: World) -> list[str]:
    rows = world.connection.execute("SELECT id FROM uploads ORDER BY created_at, id").fetchall()
    return [str(upload_id) for (upload_id,) in rows]


def test_the_decoder_is_one_file_ahead_of_the_model(world: World, calls: list[Call]) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg", "c.jpg")
    a, b, c = folders(world)

    world.run_as_sensor(batch_id)

    assert calls == [
        ("decode", a),
        ("begin", b),
        ("describe", ""),
        ("decode", b),
        ("begin", c),
        ("describe", ""),
        ("decode", c),
        ("describe", ""),
    ]
    assert world.batch(batch_id).successful_uploads == 3


def test_a_bad_file_fails_in_its_own_turn(world: World, calls: list[Call]) -> None:
    batch_id = world.add_batch("a.jpg", "bad.jpg", "c.jpg")

    def nothing_recorded(call: int) -> None:
        if call == 1:
            assert world.attempts() == [(1, None)], "something was recorded before its turn"

    world.analyzer.before = nothing_recorded
    world.run_as_sensor(batch_id)

    batch = world.batch(batch_id)
    assert (batch.successful_uploads, batch.failed_uploads) == (2, 1)
    assert world.attempts() == [
        (1, "completed"),
        (1, "failed"),
        (1, "completed"),
        (2, "failed"),
    ]


def test_a_file_that_is_not_where_it_should_be(world: World, calls: list[Call]) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg", "c.jpg")
    world.connection.execute(
        "UPDATE uploads SET file_path = '../outside.jpg' WHERE filename = 'b.jpg'"
    )

    world.run_as_sensor(batch_id)

    batch = world.batch(batch_id)
    assert (batch.successful_uploads, batch.failed_uploads) == (2, 1)
    assert "outside" not in str(calls)


def test_the_same_photo_twice_is_described_once(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("VUEMANTICS_REUSE")
    batch_id = world.add_batch("a.jpg", "b.jpg", "c.jpg")

    result = world.run_as_sensor(batch_id)

    assert world.analyzer.calls == 1
    assert world.batch(batch_id).successful_uploads == 3
    reused = [
        event.step_output_data.metadata["reused_from"].value
        for event in result.all_events
        if event.is_successful_output and "reused_from" in event.step_output_data.metadata
    ]
    assert reused == [folders(world)[0]] * 2
