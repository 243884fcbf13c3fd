"""The bridge to the application's backend, on a real Redis."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from redis import Redis
from redis.client import PubSub
from redis.exceptions import RedisError

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline.ledger import batches, uploads
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.records import Stage
from vuemantics_pipeline.progress import bridge as module
from vuemantics_pipeline.progress.bridge import Bridge
from vuemantics_pipeline.progress.messages import Message
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.integration.gateway import Gateway, running_gateway
from vuemantics_pipeline_tests.support import IDENTITY, TRUNCATED

PASSWORD = "pass-word-of-redis"
WAIT_SECONDS = 30


@dataclass
class Server:
    """A Redis server of the test's own; it keeps nothing."""

    port: int
    folder: Path
    process: "subprocess.Popen[bytes] | None" = None

    @property
    def url(self) -> str:
        return f"redis://:{PASSWORD}@127.0.0.1:{self.port}/0"

    def start(self) -> None:
        command = ["redis-server", "--port", str(self.port), "--bind", "127.0.0.1"]
        command += ["--save", "", "--requirepass", PASSWORD, "--dir", str(self.folder)]
        with (self.folder / "log").open("a") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)
        deadline = time.monotonic() + WAIT_SECONDS
        while not self._answers():
            assert time.monotonic() < deadline, (self.folder / "log").read_text()
            time.sleep(0.05)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def _answers(self) -> bool:
        with Redis.from_url(self.url) as client:
            try:
                return bool(client.ping())
            except RedisError:
                return False


@dataclass
class Backend:
    """The application's backend, which listens to everything."""

    pubsub: PubSub

    def hear(self) -> tuple[str, dict[str, Any]]:
        """Channel and content of the next message."""
        deadline = time.monotonic() + WAIT_SECONDS
        while time.monotonic() < deadline:
            heard = self.pubsub.get_message(ignore_subscribe_messages=True, timeout=1)
            if heard is not None:
                return heard["channel"].decode(), json.loads(heard["data"])
        raise AssertionError("Nothing is published.")

    def hear_until(self, action: str, **payload: Any) -> list[tuple[str, dict[str, Any]]]:
        heard = []
        while True:
            heard.append(self.hear())
            body = heard[-1][1] | heard[-1][1].get("payload", {})
            if body["action"] == action and payload.items() <= body.items():
                return heard


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    if shutil.which("redis-server") is None:
        pytest.fail("redis-server is missing: run tools/install-debian-packages redis-server.")
    server = Server(free_port(), tmp_path)
    server.start()
    yield server
    server.stop()


@contextmanager
def listening(server: Server) -> Iterator[Backend]:
    with Redis.from_url(server.url) as client, client.pubsub() as pubsub:
        pubsub.psubscribe("user:*", "upload:*")
        pubsub.get_message(timeout=WAIT_SECONDS)
        pubsub.get_message(timeout=WAIT_SECONDS)
        yield Backend(pubsub)


@pytest.fixture
def backend(server: Server) -> Iterator[Backend]:
    with listening(server) as backend:
        yield backend


@pytest.fixture
def gateway(database_url: str, connection: Connection, server: Server) -> Iterator[Gateway]:
    with running_gateway(database_url, redis_url=server.url) as gateway:
        yield gateway


@pytest.fixture
def user_id(connection: Connection) -> UUID:
    return support.add_user(connection)


def message(number: int, text: str | None = None) -> Message:
    return Message("user:1", str(number), (text or json.dumps({"action": str(number)}),))


def test_a_run_is_published_though_nobody_follows_it_here(
    gateway: Gateway,
    backend: Backend,
    connection: Connection,
    worker: Connection,
    root: Path,
    user_id: UUID,
) -> None:
    files = {"good.jpg": support.photo(), "broken.jpg": b"no picture"}
    batch = support.add_batch(connection, user_id, files=files, uploads_root=root)
    good, broken = batch.uploads.values()
    lease = support.begin(worker, batch.batch_id)
    for upload_id in (good, broken, broken):
        support.process(lease, upload_id, root)
    batches.close_batch(lease)
    heard = backend.hear_until("batch_progress", status="completed")

    by_channel: dict[str, list[str]] = {}
    for channel, body in heard:
        by_channel.setdefault(channel, []).append(body["action"])
    assert set(by_channel) == {f"user:{user_id}", f"upload:{good}", f"upload:{broken}"}
    assert set(by_channel[f"user:{user_id}"]) == {"batch_progress", "file_progress"}
    assert by_channel[f"upload:{good}"][-2:] == ["upload_progress", "upload_completed"]
    assert by_channel[f"upload:{broken}"][-2:] == ["upload_progress", "upload_failed"]


def test_the_texts_are_those_of_the_sockets(
    gateway: Gateway,
    backend: Backend,
    connection: Connection,
    worker: Connection,
    user_id: UUID,
) -> None:
    batch = support.add_batch(connection, user_id)
    with gateway.signed_in(user_id) as client:
        client.hear_until("batch_progress", status="pending")
        backend.hear_until("batch_progress", status="pending")
        lease = support.begin(worker, batch.batch_id)
        attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
        assert attempt is not None
        uploads.fail(lease, attempt, TRUNCATED, {})
        uploads.start_attempt(lease, batch.first, IDENTITY)
        batches.cancel(connection, batch.batch_id, message="Enough.")
        told = client.hear_until("batch_progress", status="cancelled")
        heard = backend.hear_until("batch_progress", status="cancelled")
    assert [body for channel, body in heard if channel == f"user:{user_id}"] == told


def test_redis_goes_away_and_comes_back(
    gateway: Gateway,
    server: Server,
    connection: Connection,
    worker: Connection,
    user_id: UUID,
) -> None:
    batch = support.add_batch(connection, user_id)
    lease = support.begin(worker, batch.batch_id)
    with gateway.signed_in(user_id) as client:
        client.hear_until("batch_progress", status="processing")
        server.stop()
        attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
        assert attempt is not None
        # Sockets are told, whatever Redis does.
        uploads.reach_stage(lease, attempt, Stage.VISION_ANALYSIS)
        client.hear_until("file_progress", stage="vision_analysis")
        server.start()
        with listening(server) as backend:
            deadline = time.monotonic() + WAIT_SECONDS
            done = 0
            # Redis forgets what it published while nobody had subscribed.
            while backend.pubsub.get_message(True, timeout=0.2) is None:
                assert time.monotonic() < deadline, "Nothing is published any more."
                done += 1
                uploads.describe_frame(lease, attempt, done, 1000)


def test_what_waits_for_redis_is_the_newest_and_not_too_much(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_MAX_WAITING", 3)
    bridge = Bridge(server.url)
    bridge.tell([message(number) for number in range(5)])
    bridge.tell([message(3, '{"action": "newer"}')])
    with listening(server) as backend, bridge.running():
        heard = [backend.hear()[1]["action"] for _ in range(3)]
    assert heard == ["2", "newer", "4"]


def test_nobody_is_held_up_by_a_redis_that_hangs(server: Server) -> None:
    assert server.process is not None
    bridge = Bridge(server.url)
    with listening(server) as backend, bridge.running():
        server.process.send_signal(19)  # SIGSTOP
        for number in range(1000):
            bridge.tell([message(number)])
        server.process.send_signal(18)  # SIGCONT
        heard = {backend.hear()[1]["action"] for _ in range(1000)}
    assert heard == {str(number) for number in range(1000)}


def test_a_redis_that_is_not_there_keeps_nothing_from_ending() -> None:
    bridge = Bridge(f"redis://:{PASSWORD}@127.0.0.1:{free_port()}/0")
    with bridge.running():
        bridge.tell([message(1)])


def test_the_password_is_not_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    wrong = server.url.replace(PASSWORD, "another-secret")
    bridge = Bridge(wrong)
    deadline = time.monotonic() + WAIT_SECONDS
    with bridge.running():
        bridge.tell([message(1)])
        while "Redis does not take messages" not in caplog.text:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert "another-secret" not in caplog.text


@pytest.mark.parametrize(
    "url", ["http://:hidden@127.0.0.1", "redis://:hidden@127.0.0.1:port/0", "hidden"]
)
def test_a_url_that_cannot_be_read(url: str) -> None:
    with pytest.raises(UsageError) as refused:
        Bridge(url)
    assert refused.value.code == "wrong_redis_url"
    assert "hidden" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_without_the_redis_client(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    with pytest.raises(UsageError) as refused:
        Bridge("redis://127.0.0.1")
    assert refused.value.code == "redis_missing"
    assert "[redis]" in refused.value.remedy


def test_the_redis_client_is_loaded_only_when_it_is_needed() -> None:
    code = "import sys, vuemantics_pipeline.gateway.live; sys.exit('redis' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, env=dict(os.environ))
