"""A backend that is down is nobody's failed upload; an answer that blames one file is that file's.

The analyzer is the real one, against a server that speaks Ollama's language.
"""

import base64
import errno
import io
import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import pytest
from PIL import Image

from vuemantics_pipeline.ledger.audit import audit
from vuemantics_pipeline.ledger.batches import ready_batches
from vuemantics_pipeline.orchestration.build import build_definitions
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.dagster.conftest import DIMENSION, World
from vuemantics_pipeline_tests.standins.ollama import DESCRIPTION, Failure, OllamaStandIn

ODD = (196, 112)
"""Size of the one picture that a model stumbles over; others are smaller."""
ODD_DESCRIPTION = "An odd picture, and words that an embedding model stumbles over."


class Ollama(OllamaStandIn):
    """A stand-in that may be well but for one picture.

    Attributes:
        odd_chat: status and error when asked about that picture.
        odd_embed: status and error when asked to embed its description.
        busy_after: how many texts it embeds before it is too busy for any more.
        asked_about: size of each picture it was asked about.
    """

    odd_chat: tuple[int, str] | None = None
    odd_embed: tuple[int, str] | None = None
    busy_after: int | None = None

    def __init__(self) -> None:
        super().__init__(dimension=DIMENSION)
        self.asked_about: list[tuple[int, int]] = []

    def answer(self, path: str, body: dict[str, Any]) -> tuple[int, dict[str, Any]]:
        status, found = super().answer(path, body)
        odd = None
        if path == "/api/chat":
            data = base64.b64decode(body["messages"][0]["images"][0])
            with Image.open(io.BytesIO(data)) as image:
                self.asked_about.append(image.size)
            if self.asked_about[-1] == ODD:
                odd = self.odd_chat
                if status == 200:
                    found["message"]["content"] = ODD_DESCRIPTION
        elif path == "/api/embed" and ODD_DESCRIPTION in str(body["input"]):
            odd = self.odd_embed
        if path == "/api/embed" and self.busy_after is not None:
            odd = (503, "server busy") if self.asked(path) > self.busy_after else None
        return (status, found) if odd is None else (odd[0], {"error": odd[1]})

    def asked(self, path: str) -> int:
        return sum(request.path == path for request in self.requests)


@pytest.fixture
def server(world: World, monkeypatch: pytest.MonkeyPatch) -> Iterator[Ollama]:
    with Ollama() as standin:
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("VUEMANTICS_ANALYZER", "ollama")
        monkeypatch.setenv("OLLAMA_HOST", standin.url)
        yield standin


def run(world: World, batch_id: UUID, try_number: int, **resources: Any) -> dg.DagsterRunStatus:
    """A run as the sensor starts it, with the analyzer of the settings."""
    result = execute(world, batch_id, try_number, **resources)
    return world.status_of(result)


def execute(
    world: World, batch_id: UUID, try_number: int, **resources: Any
) -> dg.ExecuteInProcessResult:
    world.instance.add_dynamic_partitions("upload_batch", [str(batch_id)])
    definitions = build_definitions(**{"decoder": support.decoder(), **resources})
    return definitions.resolve_job_def("process_batch").execute_in_process(
        partition_key=str(batch_id),
        instance=world.instance,
        raise_on_error=False,
        tags={"vuemantics/try": str(try_number)},
    )


def first_failure(result: dg.ExecuteInProcessResult) -> str:
    event = next(event for event in result.all_events if event.is_step_failure)
    return str(event.step_failure_data.error_display_string)


def assert_given_back(world: World, batch_id: UUID, *, releases: int, done: int = 0) -> str:
    """Nothing was failed and no attempt used; returns what the batch says."""
    batch = world.batch(batch_id)
    assert (batch.status, batch.failed_uploads) == ("pending", 0)
    assert (batch.processed_uploads, batch.successful_uploads) == (done, done)
    assert world.attempts().count((1, "released")) == releases
    assert world.attempts().count((1, "completed")) == done
    assert len(world.attempts()) == releases + done
    assert audit(world.connection).violations == []
    return batch.error_message or ""


def assert_completed(world: World, batch_id: UUID, *, successful: int, failed: int = 0) -> None:
    batch = world.batch(batch_id)
    assert batch.status == "completed"
    assert (batch.successful_uploads, batch.failed_uploads) == (successful, failed)
    assert audit(world.connection).violations == []


def failures(world: World) -> list[tuple[Any, ...]]:
    """(file name, attempt, error code) of every attempt that failed."""
    return world.connection.execute(
        "SELECT u.filename, a.attempt_number, a.error_code FROM vuemantics_pipeline.attempts AS a"
        " JOIN uploads AS u ON u.id = a.upload_id WHERE a.outcome = 'failed' ORDER BY a.id"
    ).fetchall()


def add_batch_with_an_odd_one(world: World) -> UUID:
    """Three photos, the first of which is the odd one."""
    files = {"odd.jpg": support.photo(*ODD), "b.jpg": support.photo(), "c.jpg": support.photo()}
    return support.add_batch(
        world.connection, world.user_id, files=files, uploads_root=world.uploads_root
    ).batch_id


@dataclass(frozen=True)
class Outage:
    """A way for a server to be down, and what a person is told about it."""

    begin: Callable[[OllamaStandIn], object]
    end: Callable[[OllamaStandIn], object]
    told: tuple[str, ...]


def having(**attributes: Any) -> Callable[[OllamaStandIn], object]:
    def change(server: OllamaStandIn) -> None:
        for name, value in attributes.items():
            setattr(server, name, value)

    return change


ALL_MODELS = ("qwen2.5vl:3b", "bge-m3:latest")
OUTAGES = {
    "refused": Outage(
        OllamaStandIn.down, OllamaStandIn.up, ("cannot be reached", "Start it with `ollama serve`")
    ),
    "status 500": Outage(
        having(failure=Failure(500, "model runner has unexpectedly stopped")),
        having(failure=None),
        ("failed with status 500: model runner has unexpectedly stopped", "restart it"),
    ),
    "status 503": Outage(
        having(failure=Failure(503, "server busy, please try again")),
        having(failure=None),
        ("failed with status 503: server busy, please try again", "restart it"),
    ),
    "embedding fails": Outage(
        having(failure=Failure(500, "out of memory", path="/api/embed")),
        having(failure=None),
        ("failed with status 500: out of memory", "restart it"),
    ),
    "no vision model": Outage(
        having(models=("bge-m3:latest",)),
        having(models=ALL_MODELS),
        ("does not have the model qwen2.5vl:3b", "`ollama pull qwen2.5vl:3b`"),
    ),
    "no embedding model": Outage(
        having(models=("qwen2.5vl:3b",)),
        having(models=ALL_MODELS),
        ("does not have the model bge-m3", "`ollama pull bge-m3`"),
    ),
    "wrong dimension": Outage(
        having(dimension=DIMENSION + 1),
        having(dimension=DIMENSION),
        (f"vectors of {DIMENSION + 1} numbers, not {DIMENSION}", "LOCAL_EMBEDDING_DIMENSIONS"),
    ),
}


@pytest.mark.parametrize("outage", OUTAGES.values(), ids=OUTAGES.keys())
def test_an_outage_stops_the_run_and_costs_no_attempt(
    world: World, server: Ollama, outage: Outage
) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg", "c.jpg")
    outage.begin(server)

    result = execute(world, batch_id, 1)

    assert world.status_of(result) is dg.DagsterRunStatus.FAILURE
    message = assert_given_back(world, batch_id, releases=1)
    for words in (server.url, *outage.told):
        assert words in message
        assert words in first_failure(result)

    outage.end(server)
    server.requests.clear()
    assert run(world, batch_id, 2) is dg.DagsterRunStatus.SUCCESS
    assert_completed(world, batch_id, successful=3)
    assert (server.asked("/api/chat"), server.asked("/api/embed")) == (3, 3)
    assert world.attempts() == [(1, "released")] + [(1, "completed")] * 3
    assert world.batch(batch_id).error_message is None


def test_a_server_that_does_not_answer_in_time(
    world: World, server: Ollama, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg")
    server.delay_seconds = 5
    with monkeypatch.context() as impatient:
        impatient.setenv("VUEMANTICS_OLLAMA_TIMEOUT_SECONDS", "0.2")
        assert run(world, batch_id, 1) is dg.DagsterRunStatus.FAILURE

    message = assert_given_back(world, batch_id, releases=1)
    assert f"Ollama at {server.url} did not answer within 0.2 s" in message
    assert "VUEMANTICS_OLLAMA_TIMEOUT_SECONDS" in message
    server.delay_seconds = 0
    server.requests.clear()
    assert run(world, batch_id, 2) is dg.DagsterRunStatus.SUCCESS
    assert_completed(world, batch_id, successful=2)
    assert server.asked("/api/chat") == 2


def test_an_outage_in_the_middle_keeps_what_is_done(world: World, server: Ollama) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg", "c.jpg")
    server.down()
    assert run(world, batch_id, 1) is dg.DagsterRunStatus.FAILURE
    server.up()
    server.busy_after = 1

    assert run(world, batch_id, 2) is dg.DagsterRunStatus.FAILURE
    assert_given_back(world, batch_id, releases=2, done=1)
    assert waiting_seconds(world, batch_id) == 0, "a run that got something done is held back"

    server.busy_after = None
    assert run(world, batch_id, 3) is dg.DagsterRunStatus.SUCCESS
    assert_completed(world, batch_id, successful=3)
    # The second was described, and lost its embedding to the outage.
    assert (server.asked("/api/chat"), server.asked("/api/embed")) == (4, 4)


def waiting_seconds(world: World, batch_id: UUID) -> float:
    """How long the batch waits, from the transaction that gave it back."""
    row = world.connection.execute(
        "SELECT extract(epoch FROM s.not_before - b.updated_at)::float8"
        " FROM vuemantics_pipeline.batch_states AS s JOIN upload_batches AS b ON b.id = s.batch_id"
        " WHERE b.id = %s",
        (batch_id,),
    ).fetchone()
    assert row is not None
    return float(row[0])


def offered(world: World) -> list[UUID]:
    ready = ready_batches(world.connection, limit=10, grace_seconds=900)
    return [request.batch_id for request in ready]


def test_the_back_off_grows_up_to_its_limit(
    world: World, server: Ollama, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VUEMANTICS_BACKOFF_SECONDS", "1000")
    monkeypatch.setenv("VUEMANTICS_BACKOFF_MAX_SECONDS", "3500")
    monkeypatch.setenv("VUEMANTICS_MAX_TRIES", "2")  # which is for faults of the batch
    batch_id = world.add_batch("a.jpg", "b.jpg")
    server.down()

    waits = []
    for try_number in range(1, 6):
        assert run(world, batch_id, try_number) is dg.DagsterRunStatus.FAILURE
        waits.append(waiting_seconds(world, batch_id))
        assert offered(world) == ([] if waits[-1] else [batch_id])

    assert waits == [0, 1000, 2000, 3500, 3500]
    assert_given_back(world, batch_id, releases=5)
    world.connection.execute("UPDATE vuemantics_pipeline.batch_states SET not_before = now()")
    assert offered(world) == [batch_id]
    server.up()
    assert run(world, batch_id, 6) is dg.DagsterRunStatus.SUCCESS
    assert_completed(world, batch_id, successful=2)
    assert server.asked("/api/chat") == 2


@pytest.mark.parametrize(
    "outage",
    [
        having(failure=Failure(500, "CUDA error: out of memory", path="/api/chat")),
        having(failure=Failure(503, "server busy", path="/api/chat")),
        having(failure=Failure(500, "out of memory", path="/api/embed")),
        having(dimension=DIMENSION + 1),
    ],
    ids=["chat 500", "chat 503", "embed 500", "dimension"],
)
def test_a_model_that_is_down_for_long_is_never_a_files_fault(
    world: World, server: Ollama, outage: Callable[[OllamaStandIn], object]
) -> None:
    """The server lists its models all the while, as one does whose GPU is full."""
    batch_id = world.add_batch("a.jpg", "b.jpg")
    outage(server)

    for try_number in range(1, 6):
        assert run(world, batch_id, try_number) is dg.DagsterRunStatus.FAILURE
        assert_given_back(world, batch_id, releases=try_number)

    server.failure, server.dimension = None, DIMENSION
    assert run(world, batch_id, 6) is dg.DagsterRunStatus.SUCCESS
    assert_completed(world, batch_id, successful=2)


@pytest.mark.parametrize(
    ("status", "error", "asked"),
    [
        (400, "Failed to load image or audio file", {ODD: 2, (56, 56): 2}),
        # Whether it is the picture or the model, a sound picture tells.
        (500, "model runner has unexpectedly stopped", {ODD: 2, (56, 56): 2, (112, 112): 2}),
    ],
)
def test_an_answer_that_blames_one_file_fails_that_file_alone(
    world: World,
    server: Ollama,
    status: int,
    error: str,
    asked: dict[tuple[int, int], int],
) -> None:
    batch_id = add_batch_with_an_odd_one(world)
    server.odd_chat = status, error

    assert run(world, batch_id, 1) is dg.DagsterRunStatus.SUCCESS

    assert_completed(world, batch_id, successful=2, failed=1)
    assert failures(world) == [
        ("odd.jpg", 1, "rejected_by_model"),
        ("odd.jpg", 2, "rejected_by_model"),
    ]
    assert {size: server.asked_about.count(size) for size in server.asked_about} == asked


@pytest.mark.parametrize("question", ["chat", "embed"])
def test_a_model_that_fails_on_one_file_again_and_again(
    world: World, server: Ollama, question: str
) -> None:
    """Two runs give it back, because the model may be down; the third finds it well otherwise."""
    batch_id = add_batch_with_an_odd_one(world)
    if question == "chat":
        server.odd_chat = 503, "server busy"
    else:
        server.odd_embed = 500, "do embedding request: unexpected EOF"

    for try_number in (1, 2):
        assert run(world, batch_id, try_number) is dg.DagsterRunStatus.FAILURE
        assert_given_back(world, batch_id, releases=try_number)
    assert run(world, batch_id, 3) is dg.DagsterRunStatus.SUCCESS

    assert_completed(world, batch_id, successful=2, failed=1)
    assert failures(world) == [
        ("odd.jpg", 1, "model_fails_on_file"),
        ("odd.jpg", 2, "model_fails_on_file"),
    ]
    described = world.connection.execute("SELECT description FROM uploads ORDER BY 1").fetchall()
    assert described == [(DESCRIPTION,), (DESCRIPTION,), (None,)]


def test_a_stage_has_the_time_of_the_settings(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_once = world.add_batch("warm.jpg")  # The decoder's child takes its time to start.
    assert run(world, run_once, 1, analyzer=world.analyzer) is dg.DagsterRunStatus.SUCCESS
    monkeypatch.setenv("VUEMANTICS_STAGE_SECONDS", "1")
    batch_id = world.add_batch("a.jpg", "b.jpg")
    world.analyzer.before = lambda call: time.sleep(3600) if call in (2, 4) else None

    assert run(world, batch_id, 1, analyzer=world.analyzer) is dg.DagsterRunStatus.SUCCESS

    assert_completed(world, batch_id, successful=1, failed=1)
    assert failures(world) == [("a.jpg", 1, "stage_timeout"), ("a.jpg", 2, "stage_timeout")]


# --- storage ---


@dataclass(frozen=True)
class Disk:
    """A disk under UPLOAD_PATH that a test fills."""

    fill: Callable[[], object]
    free: Callable[[], object]


def _no_space_for_thumbnails(monkeypatch: pytest.MonkeyPatch) -> Disk:
    """No thumbnail comes to its place, for want of space."""
    is_full = False
    replace = Path.replace

    def unless_full(path: Path, target: Path) -> Path:
        if is_full and path.name == ".thumb_256.jpg.part":
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return replace(path, target)

    def set_full(*, full: bool) -> None:
        nonlocal is_full
        is_full = full

    monkeypatch.setattr(Path, "replace", unless_full)
    return Disk(lambda: set_full(full=True), lambda: set_full(full=False))


def _small_disk(root: Path) -> Disk:
    filler = root / "filler"

    def fill() -> None:
        with filler.open("wb", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    return Disk(fill, filler.unlink)


@pytest.fixture(params=["no space", "full disk"])
def disk(
    world: World, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Disk]:
    root = world.uploads_root
    root.mkdir()
    if request.param == "no space":
        yield _no_space_for_thumbnails(monkeypatch)
        return
    mount, unmount = shutil.which("mount"), shutil.which("umount")
    command = [mount or "mount", "-t", "tmpfs", "-o", "size=128k", "tmpfs", str(root)]
    if not mount or not unmount or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("needs the right to mount a disk")
    try:
        yield _small_disk(root)
    finally:
        subprocess.run([unmount, "--lazy", str(root)], check=True)


def test_a_full_disk_is_nobodys_failed_upload(world: World, disk: Disk) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg")
    disk.fill()

    result = world.run_as_sensor(batch_id)

    assert world.status_of(result) is dg.DagsterRunStatus.FAILURE
    message = assert_given_back(world, batch_id, releases=1)
    assert "No space left on device" in message
    assert str(world.uploads_root) in message
    assert "No space left on device" in first_failure(result)
    assert codes(world) == {"storage_unavailable"}
    assert world.analyzer.calls == 0
    assert not list(world.uploads_root.glob("*/*/thumb_256.jpg"))

    disk.free()
    assert world.status_of(world.run_as_sensor(batch_id, 2)) is dg.DagsterRunStatus.SUCCESS
    assert_completed(world, batch_id, successful=2)
    assert world.analyzer.calls == 2
    assert len(list(world.uploads_root.glob("*/*/thumb_256.jpg"))) == 2
    assert not list(world.uploads_root.glob("*/*/.thumb*"))


def test_a_disk_that_stays_full_never_fails_a_file(world: World, disk: Disk) -> None:
    batch_id = world.add_batch("a.jpg")
    for try_number in range(1, 5):
        disk.fill()
        world.run_as_sensor(batch_id, try_number)
        assert_given_back(world, batch_id, releases=try_number)
    disk.free()
    world.run_as_sensor(batch_id, 5)
    assert_completed(world, batch_id, successful=1)


def test_an_upload_folder_that_is_missing_is_nobodys_failed_upload(world: World) -> None:
    batch_id = world.add_batch("a.jpg", "b.jpg")
    elsewhere = world.uploads_root.rename(world.uploads_root.with_name("not mounted"))

    result = world.run_as_sensor(batch_id)

    assert world.status_of(result) is dg.DagsterRunStatus.FAILURE
    message = assert_given_back(world, batch_id, releases=1)
    assert f"The upload folder {world.uploads_root} is not there." in message
    assert "UPLOAD_PATH" in message
    assert codes(world) == {"storage_unavailable"}
    elsewhere.rename(world.uploads_root)
    assert world.status_of(world.run_as_sensor(batch_id, 2)) is dg.DagsterRunStatus.SUCCESS
    assert_completed(world, batch_id, successful=2)


def codes(world: World) -> set[str]:
    """Error codes of the attempts that were given back."""
    rows = world.connection.execute(
        "SELECT error_code FROM vuemantics_pipeline.attempts WHERE outcome = 'released'"
    ).fetchall()
    return {row[0] for row in rows}
