"""How soon those who follow hear of a commit: thousands of WebSockets on the real gateway.

    python benchmarks/gateway.py [--clients 2000] [--users 400] [--rate 100] [--stalled 20]

Starts Postgres and `vuemantics gateway` on a home of its own and connects the clients, spread over
the users, each of whom has a batch. Then uploads go through their stages by the ledger's own
transactions, eight batches at a time. Each client notes when it first hears of each change; a
change counts as heard when a `batch_progress` with its `seq`, or a later one, is there.

Stalled clients follow, too, ask for a whole large batch over and over, and read nothing.
"""

import argparse
import asyncio
import json
import multiprocessing as mp
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.connection import Connection as Pipe
from pathlib import Path
from queue import Empty, SimpleQueue
from uuid import UUID, uuid4

import httpx
import psutil
from websockets.asyncio.client import connect as connect_socket
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection
from websockets.sync.client import connect as connect_stalled

from vuemantics_pipeline.analysis.analyzer import AnalyzerIdentity
from vuemantics_pipeline.errors import UploadError
from vuemantics_pipeline.gateway.tokens import issue_token
from vuemantics_pipeline.home.postgres import embedded_postgres
from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline.ledger import leases, uploads
from vuemantics_pipeline.ledger.batches import close_batch, open_batch
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.migrate import migrate
from vuemantics_pipeline.ledger.records import Stage

_SECRET = "of the benchmark, and of nothing else there is"
_DIMENSION = 8
_IDENTITY = AnalyzerIdentity("none", "none", "none", _DIMENSION, "1")
_BROKEN = UploadError("unreadable_media", "The file is damaged.")
_STAGES = [stage for stage in Stage if stage is not Stage.QUEUED]
_UPLOADS = 12
_LARGE = 2000
_WRITERS = 8
_CLIENT_PROCESSES = 2

Moment = tuple[str, int, float]
"""A batch, the number of a change in it, and seconds of the machine's monotonic clock."""


@dataclass(frozen=True)
class Ask:
    """What was asked for on the command line."""

    clients: int
    users: int
    rate: float
    seconds: float
    stalled: int


def main(ask: Ask) -> None:
    with tempfile.TemporaryDirectory() as folder, embedded_postgres(Path(folder)) as url:
        with connect(url) as connection:
            migrate(connection, dimension=_DIMENSION)
            users = [_add_user(connection) for _ in range(ask.users)]
            batches = [_add_batch(connection, user_id, _UPLOADS) for user_id in users]
            stalled_user = _add_user(connection)
            large = _add_batch(connection, stalled_user, _LARGE)
        port = free_port()
        gateway = _start_gateway(url, port, Path(folder))
        try:
            _measure(
                ask, url, port, psutil.Process(gateway.pid), users, batches, stalled_user, large
            )
        finally:
            gateway.send_signal(signal.SIGTERM)
            gateway.wait(30)


def _measure(
    ask: Ask,
    url: str,
    port: int,
    gateway: psutil.Process,
    users: Sequence[UUID],
    batches: Sequence[UUID],
    stalled_user: UUID,
    large: UUID,
) -> None:
    before = gateway.memory_info().rss
    began = time.monotonic()
    followers = [users[number % len(users)] for number in range(ask.clients)]
    processes = [
        _Clients(port, followers[number::_CLIENT_PROCESSES]) for number in range(_CLIENT_PROCESSES)
    ]
    for process in processes:
        process.wait_until_ready()
    print(f"{ask.clients} clients signed in after {time.monotonic() - began:.1f} s")
    time.sleep(2)
    each = (gateway.memory_info().rss - before) / ask.clients / 1024
    print(f"idle: {before >> 20} MiB, and {each:.1f} KiB for each client")
    stalled = threading.Thread(target=_stall, args=(port, stalled_user, large, ask.stalled))
    stalled.start()
    busy = gateway.cpu_times().user + gateway.cpu_times().system
    committed = _write(url, batches, rate=ask.rate, seconds=ask.seconds)
    busy = gateway.cpu_times().user + gateway.cpu_times().system - busy
    time.sleep(2)
    heard = [moments for process in processes for moments in process.finish()]
    stalled.join()
    rate = len(committed) / ask.seconds
    print(f"{len(committed)} changes, {rate:.0f} a second; gateway busy {busy / ask.seconds:.0%}")
    _report(committed, heard, ask.clients // ask.users)


def _report(committed: Sequence[Moment], heard: Sequence[Sequence[Moment]], followers: int) -> None:
    """Milliseconds from each commit to each socket of the batch's owner."""
    at: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for batch_id, seq, moment in committed:
        at[batch_id].append((seq, moment))
    delays = []
    for moments in heard:
        by_batch: dict[str, list[tuple[int, float]]] = defaultdict(list)
        for batch_id, seq, moment in moments:
            by_batch[batch_id].append((seq, moment))
        for batch_id, told in by_batch.items():
            assert [seq for seq, _ in told] == sorted(seq for seq, _ in told), "It ran backwards."
            waiting = iter(at[batch_id])
            commit = next(waiting, None)
            for seq, moment in told:
                while commit is not None and commit[0] <= seq:
                    delays.append(1000 * (moment - commit[1]))
                    commit = next(waiting, None)
    missing = len(committed) * followers - len(delays)
    delays.sort()
    p50, p99 = statistics.median(delays), delays[int(len(delays) * 0.99)]
    print(f"{len(delays)} deliveries, {missing} missing")
    print(f"commit to socket: p50 {p50:.0f} ms, p99 {p99:.0f} ms, longest {delays[-1]:.0f} ms")


def _start_gateway(url: str, port: int, home: Path) -> "subprocess.Popen[bytes]":
    environment = {"DATABASE_URL": url, "SECRET_KEY": _SECRET, "VUEMANTICS_HOME": str(home)}
    gateway = subprocess.Popen(
        [sys.executable, "-m", "vuemantics_pipeline", "gateway", "--port", str(port)],
        env=os.environ | environment,
    )
    while True:
        with suppress(httpx.HTTPError):
            if httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == httpx.codes.OK:
                return gateway
        if gateway.poll() is not None:
            sys.exit("The gateway does not start.")
        time.sleep(0.1)


def _add_user(connection: Connection) -> UUID:
    user_id = uuid4()
    connection.execute(
        "INSERT INTO users (id, email, password_hash) VALUES (%s, %s, '!')",
        (user_id, f"{user_id}@example.com"),
    )
    return user_id


def _add_batch(connection: Connection, user_id: UUID, size: int) -> UUID:
    batch_id = uuid4()
    connection.execute(
        "INSERT INTO upload_batches (id, user_id, total_uploads) VALUES (%s, %s, %s)",
        (batch_id, user_id, size),
    )
    connection.execute(
        "INSERT INTO uploads (user_id, batch_id, filename, file_path, file_type, file_size,"
        " mime_type) SELECT %s, %s, 'photo ' || n || '.jpg', 'none', 'image', 1, 'image/jpeg'"
        " FROM generate_series(1, %s) AS n",
        (user_id, batch_id, size),
    )
    return batch_id


def _write(url: str, batches: Sequence[UUID], *, rate: float, seconds: float) -> list[Moment]:
    """Take batches through the ledger, so many changes a second; return when each committed."""
    waiting: SimpleQueue[UUID] = SimpleQueue()
    for batch_id in batches:
        waiting.put(batch_id)
    committed: list[Moment] = []
    end = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_writer, args=(url, waiting, committed, _WRITERS / rate, end))
        for _ in range(_WRITERS)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    committed.sort(key=lambda moment: moment[1])
    return committed


def _writer(
    url: str,
    waiting: "SimpleQueue[UUID]",
    committed: list[Moment],
    pause: float,
    end: float,
) -> None:
    with connect(url) as connection:
        due = time.monotonic()
        while time.monotonic() < end:
            try:
                batch_id = waiting.get_nowait()
            except Empty:
                sys.exit("There are too few users for so many changes.")
            lease = leases.acquire(connection, batch_id, "benchmark")
            seq = 0
            for upload in open_batch(lease, reopen=False):
                for step in range(len(_STAGES) + 2):
                    # The first commit of all is the opening of the batch.
                    if step == 0:
                        attempt = uploads.start_attempt(lease, upload.upload_id, _IDENTITY)
                        assert attempt is not None
                        seq += 1 if seq else 2
                    elif step <= len(_STAGES):
                        uploads.reach_stage(lease, attempt, _STAGES[step - 1])
                        seq += 1
                    else:
                        uploads.fail(lease, attempt, _BROKEN, {})
                        seq += 1
                    committed.append((str(batch_id), seq, time.monotonic()))
                    due += pause
                    time.sleep(max(0.0, due - time.monotonic()))
                if time.monotonic() >= end:
                    break
            close_batch(lease)
            leases.release(lease)


class _Clients:
    """Clients in a process of their own."""

    def __init__(self, port: int, followers: Sequence[UUID]) -> None:
        self._pipe, theirs = mp.get_context("spawn").Pipe()
        tokens = [_token(user_id) for user_id in followers]
        self._process = mp.get_context("spawn").Process(
            target=_follow, args=(port, tokens, theirs), daemon=True
        )
        self._process.start()

    def wait_until_ready(self) -> None:
        assert self._pipe.recv() == "ready"

    def finish(self) -> list[list[Moment]]:
        self._pipe.send("finish")
        heard: list[list[Moment]] = self._pipe.recv()
        self._process.join()
        return heard


def _token(user_id: UUID) -> str:
    return issue_token(_SECRET, user_id, token_version=0, lifetime=timedelta(hours=1))


def _follow(port: int, tokens: Sequence[str], pipe: Pipe) -> None:
    heard = asyncio.run(_follow_all(port, tokens, pipe))
    pipe.send(heard)


async def _follow_all(port: int, tokens: Sequence[str], pipe: Pipe) -> list[list[Moment]]:
    heard: list[list[Moment]] = [[] for _ in tokens]
    signed_in = asyncio.Semaphore(0)
    at_once = asyncio.Semaphore(50)
    tasks = [
        asyncio.create_task(_one(port, token, moments, at_once, signed_in))
        for token, moments in zip(tokens, heard, strict=True)
    ]
    for _ in tasks:
        await signed_in.acquire()
    pipe.send("ready")
    await asyncio.to_thread(pipe.recv)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return heard


async def _one(
    port: int,
    token: str,
    moments: list[Moment],
    at_once: asyncio.Semaphore,
    signed_in: asyncio.Semaphore,
) -> None:
    await at_once.acquire()
    async with connect_socket(
        f"ws://127.0.0.1:{port}/ws/uploads", compression=None, ping_interval=None, open_timeout=60
    ) as client:
        await client.send(json.dumps({"type": "auth", "token": token}))
        async for text in client:
            now = time.monotonic()
            message = json.loads(text)
            match message["action"]:
                case "auth_success":
                    at_once.release()
                    signed_in.release()
                case "ping":
                    await client.send('{"action": "pong"}')
                case "batch_progress":
                    payload = message["payload"]
                    moments.append((payload["batch_id"], payload["seq"], now))


def _stall(port: int, user_id: UUID, batch_id: UUID, count: int) -> None:
    """Ask for much, and read nothing, until the gateway has had enough."""
    with ExitStack() as stack:
        clients = []
        for _ in range(count):
            stalled = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            stalled.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            client = stack.enter_context(
                connect_stalled(
                    f"ws://127.0.0.1:{port}/ws/uploads",
                    sock=stalled,
                    compression=None,
                    ping_interval=None,
                    max_queue=1,
                    close_timeout=1,
                )
            )
            client.send(json.dumps({"type": "auth", "token": _token(user_id)}))
            for _ in range(20):
                client.send(json.dumps({"action": "subscribe_batch", "batch_id": str(batch_id)}))
            clients.append(client)
        if clients:
            time.sleep(20)
            print(f"stalled clients disconnected: {sum(map(_is_cut_off, clients))} of {count}")


def _is_cut_off(client: ClientConnection) -> bool:
    """Whether a client that reads at last finds the connection ended."""
    try:
        while True:
            client.recv(5)
    except ConnectionClosed:
        return True
    except TimeoutError:
        return False


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--clients", type=int, default=2000)
    parser.add_argument("--users", type=int, default=400)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--stalled", type=int, default=20)
    main(Ask(**vars(parser.parse_args())))
