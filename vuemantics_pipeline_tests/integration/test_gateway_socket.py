"""The WebSocket `/ws/uploads`, as the application's web client uses it."""

import json
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import jwt
import pytest
from websockets.exceptions import InvalidStatus

from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.gateway.guards import FailureLimit
from vuemantics_pipeline.gateway.socket import MAX_MESSAGE, Patience
from vuemantics_pipeline.ledger import batches, reruns, uploads
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.records import Scope, Stage
from vuemantics_pipeline.status.progress import batch_progress
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.integration.gateway import (
    WAIT_SECONDS,
    Client,
    Gateway,
    of,
    running_gateway,
)
from vuemantics_pipeline_tests.integration.served import SECRET, new_database, token
from vuemantics_pipeline_tests.support import IDENTITY, TRUNCATED, NewBatch


@pytest.fixture(scope="module")
def shared_url(postgres_server: str) -> Iterator[str]:
    """One database for all tests here: each has users of its own, and others are none of theirs."""
    with new_database(postgres_server) as url:
        yield url


@pytest.fixture
def database_url(shared_url: str) -> str:
    return shared_url


@pytest.fixture(scope="module")
def gateway(shared_url: str) -> Iterator[Gateway]:
    with running_gateway(shared_url, failures=FailureLimit(1000)) as gateway:
        yield gateway


@pytest.fixture
def user_id(connection: Connection) -> UUID:
    return support.add_user(connection)


def seqs(heard: Sequence[dict[str, Any]]) -> list[int]:
    return [payload["seq"] for payload in of(heard, "batch_progress")]


def closed(client: Client) -> tuple[int, str]:
    """Code and reason with which the gateway ends a connection, whatever it says before."""
    end = client.hear_the_end().rcvd
    assert end is not None
    return end.code, end.reason


def refused(gateway: Gateway, origin: str | None = None) -> int:
    """The HTTP status with which the gateway refuses a connection."""
    headers = {} if origin is None else {"Origin": origin}
    with pytest.raises(InvalidStatus) as refusal, gateway.opened(headers):
        pass
    return refusal.value.response.status_code


# What clients hear


def test_a_run_from_beginning_to_end(
    gateway: Gateway, connection: Connection, worker: Connection, root: Path, user_id: UUID
) -> None:
    files = {"good.jpg": support.photo(), "broken.jpg": b"no picture"}
    batch = support.add_batch(connection, user_id, files=files, uploads_root=root)
    good, broken = batch.uploads.values()
    with gateway.signed_in(user_id) as client:
        (first,) = client.hear_until("batch_progress", status="pending")
        assert (first["payload"]["total"], first["payload"]["processed"]) == (2, 0)
        lease = support.begin(worker, batch.batch_id)
        for upload_id in (good, broken, broken):
            support.process(lease, upload_id, root)
        batches.close_batch(lease)
        heard = client.hear_until("batch_progress", status="completed")

    numbers = seqs(heard)
    assert numbers == sorted(set(numbers))
    counted = [
        (payload["processed"], payload["successful"], payload["failed"])
        for payload in of(heard, "batch_progress")
    ]
    assert counted == sorted(counted)
    assert counted[-1] == (2, 1, 1)
    for upload_id, status in ((good, "completed"), (broken, "failed")):
        told = [f for f in of(heard, "file_progress") if f["upload_id"] == str(upload_id)]
        percents = [payload["progress_percentage"] for payload in told]
        assert percents == sorted(percents)
        assert {payload["status"] for payload in told[:-1]} <= {"processing"}
        assert (told[-1]["status"], told[-1]["stage"], percents[-1]) == (status, status, 100)
        numbers = [payload["seq"] for payload in told]
        assert numbers == sorted(set(numbers))
    assert told[-1]["error_message"]
    # What a batch's number covers was said before it.
    said = 0
    for message in heard:
        if message["action"] == "file_progress":
            said = max(said, message["payload"]["seq"])
        else:
            assert said <= message["payload"]["seq"]


def test_an_upload_in_all_its_stages(
    gateway: Gateway, connection: Connection, worker: Connection, user_id: UUID
) -> None:
    batch = support.add_batch(connection, user_id)
    lease = support.begin(worker, batch.batch_id)
    with gateway.signed_in(user_id) as client:
        client.say(action="subscribe_upload", upload_id=str(batch.first))
        heard = client.hear_until("upload_progress", stage="queued")
        attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
        assert attempt is not None
        for stage in list(Stage)[1:3]:
            uploads.reach_stage(lease, attempt, stage)
            heard += client.hear_until("upload_progress", stage=stage)
        for done in (1, 2):
            uploads.describe_frame(lease, attempt, done, 4)
            heard += client.hear_until("upload_progress", progress_percent=15 + 15 * done)
        for stage in list(Stage)[3:]:
            uploads.reach_stage(lease, attempt, stage)
            heard += client.hear_until("upload_progress", stage=stage)
        uploads.complete(lease, attempt, support.outcome())
        heard += client.hear_until("upload_completed", upload_id=str(batch.first))

    told = of(heard, "upload_progress")
    assert [payload["progress_percent"] for payload in told] == [0, 5, 15, 30, 45, 75, 80, 95, 100]
    assert told[4] == {
        "upload_id": str(batch.first),
        "status": "analyzing",
        "stage": "vision_analysis",
        "progress_percent": 45,
        "message": "Looking at it: frame 2 of 4 described",
        "error_message": None,
        "description_audit_score": None,
    }
    assert (told[-1]["status"], told[-1]["description_audit_score"]) == ("completed", 80)
    assert (heard[-1]["description"], heard[-1]["audit_score"]) == ("A lake at dusk.", 80)


def test_an_upload_that_fails_twice(
    gateway: Gateway, connection: Connection, worker: Connection, user_id: UUID
) -> None:
    batch = support.add_batch(connection, user_id)
    lease = support.begin(worker, batch.batch_id)
    with gateway.signed_in(user_id) as client:
        client.say(action="subscribe_upload", upload_id=str(batch.first))
        client.hear_until("upload_progress", stage="queued")
        attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
        assert attempt is not None
        uploads.reach_stage(lease, attempt, Stage.EMBEDDING_GENERATION)
        uploads.fail(lease, attempt, TRUNCATED, {})
        # It waits for its second attempt, as far on as the first has got.
        client.hear_until("upload_progress", stage="queued", progress_percent=80)
        attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
        assert attempt is not None
        uploads.reach_stage(lease, attempt, Stage.EXTRACTING_FRAMES)
        client.hear_until("upload_progress", stage="extracting_frames", progress_percent=80)
        uploads.fail(lease, attempt, TRUNCATED, {})
        *_, failed = client.hear_until("upload_failed", upload_id=str(batch.first))
    assert failed["error_message"] == str(TRUNCATED)


def test_what_does_not_commit_is_not_said(
    gateway: Gateway, connection: Connection, worker: Connection, user_id: UUID
) -> None:
    batch = support.add_batch(connection, user_id)
    lease = support.begin(worker, batch.batch_id)
    with gateway.signed_in(user_id) as client:
        (before,) = client.hear_until("batch_progress", status="processing")
        with worker.transaction(force_rollback=True):
            complete(lease, batch.first)
        client.hear_nothing(1.5)
        complete(lease, batch.first)
        heard = client.hear_until("batch_progress", processed=1)
    assert seqs(heard)[-1] == before["payload"]["seq"] + 2
    assert {file["error_message"] for file in of(heard, "file_progress")} == {None}


def test_others_hear_nothing(
    gateway: Gateway, connection: Connection, worker: Connection, root: Path, user_id: UUID
) -> None:
    batch = support.add_batch(connection, user_id, uploads_root=root)
    stranger = support.add_user(connection)
    with gateway.signed_in(stranger) as other, gateway.signed_in(user_id) as owner:
        other.say(action="subscribe_batch", batch_id=str(batch.batch_id))
        assert other.hear()["action"] == "no_such_batch"
        other.say(action="subscribe_upload", upload_id=str(batch.first))
        assert other.hear()["action"] == "no_such_upload"
        unknown = str(uuid4())
        other.say(action="subscribe_batch", batch_id=unknown)
        answer = other.hear()
        assert (answer["action"], answer["batch_id"]) == ("no_such_batch", unknown)
        lease = support.begin(worker, batch.batch_id)
        support.process(lease, batch.first, root)
        batches.close_batch(lease)
        owner.hear_until("batch_progress", status="completed")
        other.hear_nothing()


def test_whoever_comes_late_sees_what_is_running(
    gateway: Gateway, connection: Connection, worker: Connection, root: Path, user_id: UUID
) -> None:
    finished = support.add_batch(connection, user_id, uploads_root=root)
    support.run_batch(worker, finished.batch_id, root, ConstantAnalyzer(support.DIMENSION))
    running = support.add_batch(connection, user_id, files=["a.jpg", "b.jpg", "c.jpg"])
    lease = support.begin(worker, running.batch_id)
    attempt = uploads.start_attempt(lease, running.first, IDENTITY)
    assert attempt is not None
    uploads.reach_stage(lease, attempt, Stage.VISION_ANALYSIS)
    waiting = support.add_batch(connection, user_id)
    for _ in range(2):
        with gateway.signed_in(user_id) as client:
            heard = client.hear_until("batch_progress", batch_id=str(waiting.batch_id))
        (file,) = of(heard, "file_progress")
        assert (file["upload_id"], file["progress_percentage"]) == (str(running.first), 15)
        told = [(payload["batch_id"], payload["status"]) for payload in of(heard, "batch_progress")]
        assert told == [
            (str(running.batch_id), "processing"),
            (str(waiting.batch_id), "pending"),
        ]


def test_all_of_a_users_clients_hear_the_same(
    gateway: Gateway, connection: Connection, worker: Connection, root: Path, user_id: UUID
) -> None:
    batch = support.add_batch(connection, user_id, uploads_root=root)
    with gateway.signed_in(user_id) as one, gateway.signed_in(user_id) as two:
        for client in (one, two):
            client.hear_until("batch_progress", status="pending")
        lease = support.begin(worker, batch.batch_id)
        support.process(lease, batch.first, root)
        batches.close_batch(lease)
        heard = [client.hear_until("batch_progress", status="completed") for client in (one, two)]
    assert heard[0] == heard[1]


def test_what_the_application_changes(
    gateway: Gateway, connection: Connection, user_id: UUID
) -> None:
    batch = support.add_batch(connection, user_id)
    with gateway.signed_in(user_id) as client:
        client.hear_until("batch_progress", status="pending")
        connection.execute(
            "UPDATE upload_batches SET status = 'cancelled' WHERE id = %s", (batch.batch_id,)
        )
        client.hear_until("batch_progress", status="cancelled")


def test_what_the_application_changes_where_no_trigger_tells(postgres_server: str) -> None:
    with (
        new_database(postgres_server) as url,
        connect(url) as connection,
        running_gateway(url) as gateway,
    ):
        connection.execute("DROP TRIGGER vuemantics_pipeline_notify ON upload_batches")
        user_id = support.add_user(connection)
        batch = support.add_batch(connection, user_id)
        with gateway.signed_in(user_id) as client:
            client.hear_until("batch_progress", batch_id=str(batch.batch_id), status="pending")
            new = support.add_batch(connection, user_id)
            client.hear_until("batch_progress", batch_id=str(new.batch_id), status="pending")
            connection.execute("UPDATE upload_batches SET status = 'cancelled'")
            heard = client.hear_until("batch_progress", status="cancelled")
            heard += client.hear_until("batch_progress", status="cancelled")
    told = {payload["batch_id"] for payload in of(heard, "batch_progress")}
    assert told == {str(batch.batch_id), str(new.batch_id)}


def test_a_retry_sends_back_what_had_failed(
    gateway: Gateway, connection: Connection, worker: Connection, root: Path, user_id: UUID
) -> None:
    files = {"good.jpg": support.photo(), "broken.jpg": b"no picture"}
    batch = support.add_batch(connection, user_id, files=files, uploads_root=root)
    with gateway.signed_in(user_id) as client:
        client.hear_until("batch_progress", status="pending")
        analyzer = ConstantAnalyzer(support.DIMENSION)
        support.run_batch(worker, batch.batch_id, root, analyzer)
        client.hear_until("batch_progress", status="completed")
        reruns.retry(connection, batch.batch_id, Scope.FAILED)
        heard = client.hear_until("batch_progress", status="pending", processed=1)
    (file,) = of(heard, "file_progress")
    assert (file["file_name"], file["status"], file["stage"]) == (
        "broken.jpg",
        "processing",
        "queued",
    )
    assert file["progress_percentage"] == 0


def test_the_time_to_finish_is_measured(
    gateway: Gateway, connection: Connection, worker: Connection, user_id: UUID
) -> None:
    batch = support.add_batch(connection, user_id, files=["a.jpg", "b.jpg", "c.jpg"])
    lease = support.begin(worker, batch.batch_id)
    attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
    assert attempt is not None
    connection.execute(
        "UPDATE vuemantics_pipeline.attempts SET started_at = clock_timestamp() - interval '20 s'"
        " WHERE batch_id = %s",
        (batch.batch_id,),
    )
    uploads.complete(lease, attempt, support.outcome())
    with gateway.signed_in(user_id) as client:
        (told,) = of(client.hear_until("batch_progress"), "batch_progress")
    assert 40 <= told["seconds_to_finish"] < 60


# What a client missed


def completed(
    connection: Connection, worker: Connection, user_id: UUID, count: int
) -> tuple[NewBatch, Any]:
    """A batch at work, with so many uploads, none of them begun."""
    batch = support.add_batch(connection, user_id, files=[f"{n}.jpg" for n in range(count)])
    return batch, support.begin(worker, batch.batch_id)


def complete(lease: Any, upload_id: UUID) -> None:
    attempt = uploads.start_attempt(lease, upload_id, IDENTITY)
    assert attempt is not None
    uploads.complete(lease, attempt, support.outcome())


def test_a_client_comes_back_and_hears_what_it_missed(
    gateway: Gateway, connection: Connection, worker: Connection, user_id: UUID
) -> None:
    batch, lease = completed(connection, worker, user_id, 5)
    first, second, third, *_ = batch.uploads.values()
    with gateway.signed_in(user_id) as client:
        complete(lease, first)
        (seen,) = seqs(client.hear_until("batch_progress", processed=1)[-1:])
    complete(lease, second)
    complete(lease, third)
    with gateway.signed_in(user_id) as client:
        client.hear_until("batch_progress")
        client.say(action="subscribe_batch", batch_id=str(batch.batch_id), after=seen)
        heard = client.hear_until("batch_progress")
    assert [file["upload_id"] for file in of(heard, "file_progress")] == [str(second), str(third)]
    numbers = [message["payload"]["seq"] for message in heard]
    assert numbers == [seen + 2, seen + 4, seen + 4]


def test_a_client_that_missed_nothing(
    gateway: Gateway, connection: Connection, worker: Connection, user_id: UUID
) -> None:
    batch, lease = completed(connection, worker, user_id, 2)
    complete(lease, batch.first)
    with gateway.signed_in(user_id) as client:
        (seen,) = seqs(client.hear_until("batch_progress"))
        client.say(action="subscribe_batch", batch_id=str(batch.batch_id), after=seen)
        (again,) = client.hear_until("batch_progress")
    assert again["payload"]["seq"] == seen


@pytest.mark.parametrize("after", [None, 0, 10**9, 10**30])
def test_a_client_that_cannot_tell_what_it_missed_hears_all(
    gateway: Gateway,
    connection: Connection,
    worker: Connection,
    user_id: UUID,
    after: int | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vuemantics_pipeline.progress.replay.PAGE", 2)
    batch, lease = completed(connection, worker, user_id, 5)
    complete(lease, batch.first)
    with gateway.signed_in(user_id) as client:
        client.hear_until("batch_progress")
        client.say(action="subscribe_batch", batch_id=str(batch.batch_id), after=after)
        heard = client.hear_until("batch_progress")
    told = {file["file_name"]: file["status"] for file in of(heard, "file_progress")}
    assert told == {"0.jpg": "completed"} | {f"{n}.jpg": "processing" for n in range(1, 5)}
    assert len(heard) == 6


def test_what_was_missed_in_pages(
    gateway: Gateway,
    connection: Connection,
    worker: Connection,
    user_id: UUID,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("vuemantics_pipeline.progress.replay.PAGE", 2)
    batch, lease = completed(connection, worker, user_id, 6)
    ids = list(batch.uploads.values())
    with gateway.signed_in(user_id) as client:
        (seen,) = seqs(client.hear_until("batch_progress"))
        for upload_id in ids[:4]:
            complete(lease, upload_id)
        # Once the feed has told of all of it, nothing of it comes by itself.
        (last,) = batch_progress(connection, [batch.batch_id])
        while last.seq not in seqs(client.hear_until("batch_progress")):
            pass
    with gateway.signed_in(user_id) as client:
        client.hear_until("batch_progress")
        client.say(action="subscribe_batch", batch_id=str(batch.batch_id), after=seen)
        heard = client.hear_until("batch_progress")
    told = [file["upload_id"] for file in of(heard, "file_progress")]
    assert told == [str(upload_id) for upload_id in ids[:4]]


def test_a_batch_begun_anew_meanwhile_is_heard_as_a_whole(
    gateway: Gateway, connection: Connection, worker: Connection, user_id: UUID
) -> None:
    batch, lease = completed(connection, worker, user_id, 3)
    complete(lease, batch.first)
    with gateway.signed_in(user_id) as client:
        (seen,) = seqs(client.hear_until("batch_progress"))
    batches.open_batch(lease, reopen=True)
    with gateway.signed_in(user_id) as client:
        client.hear_until("batch_progress")
        client.say(action="subscribe_batch", batch_id=str(batch.batch_id), after=seen)
        heard = client.hear_until("batch_progress")
    assert len(of(heard, "file_progress")) == 3


def test_an_upload_followed_no_more(
    gateway: Gateway, connection: Connection, worker: Connection, user_id: UUID
) -> None:
    batch, lease = completed(connection, worker, user_id, 2)
    with gateway.signed_in(user_id) as client:
        client.say(action="subscribe_upload", upload_id=str(batch.first))
        client.hear_until("upload_progress", stage="queued")
        client.say(action="unsubscribe_upload", upload_id=str(batch.first))
        client.say(action="subscribe_batch", batch_id=str(uuid4()))
        client.hear_until("no_such_batch")
        complete(lease, batch.first)
        heard = client.hear_until("batch_progress", processed=1)
    assert not of(heard, "upload_progress")


def test_only_so_many_uploads_are_followed(
    gateway: Gateway, connection: Connection, user_id: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vuemantics_pipeline.gateway.client.MAX_SUBSCRIPTIONS", 1)
    one, two = support.add_batch(connection, user_id, files=["a.jpg", "b.jpg"]).uploads.values()
    with gateway.signed_in(user_id) as client:
        for upload_id in (one, one, two):
            client.say(action="subscribe_upload", upload_id=str(upload_id))
        client.hear_until("too_many_subscriptions", upload_id=str(two))


# Who is let in


def test_a_client_that_says_nothing(database_url: str, connection: Connection) -> None:
    with (
        running_gateway(database_url, patience=Patience(sign_in=0.2)) as gateway,
        gateway.opened() as client,
    ):
        assert closed(client)[0] == 4001


@pytest.mark.parametrize(
    ("message", "code"),
    [
        ({"action": "subscribe_upload", "upload_id": str(uuid4())}, 4002),
        ({"type": "auth"}, 4002),
        ({"type": "auth", "token": ""}, 4002),
        ({"type": "auth", "token": "no token"}, 4003),
        ({"type": "auth", "token": 7}, 4004),
        (["auth"], 4004),
        ("auth", 4004),
    ],
)
def test_first_messages_that_let_nobody_in(gateway: Gateway, message: Any, code: int) -> None:
    with gateway.opened() as client:
        client.connection.send(json.dumps(message))
        assert closed(client)[0] == code


@pytest.mark.parametrize("message", ["{", "", "nonsense", "[" * 4000, b'{"type": "auth"}'])
@pytest.mark.parametrize("is_in", [False, True])
def test_messages_that_are_no_json(
    gateway: Gateway, user_id: UUID, message: str | bytes, is_in: bool
) -> None:
    with gateway.signed_in(user_id) if is_in else gateway.opened() as client:
        client.connection.send(message)
        assert closed(client)[0] == 4004


@pytest.mark.parametrize(
    "message",
    [
        {"action": "subscribe_upload"},
        {"action": "subscribe_upload", "upload_id": "no id"},
        {"action": "subscribe_upload", "upload_id": 7},
        {"action": "unsubscribe_upload", "upload_id": None},
        {"action": "subscribe_batch", "batch_id": ["no id"]},
        {"action": "subscribe_batch", "batch_id": str(uuid4()), "after": -1},
        {"action": "subscribe_batch", "batch_id": str(uuid4()), "after": "7"},
        {"action": "subscribe_batch", "batch_id": str(uuid4()), "after": True},
        {"action": "subscribe_batch", "batch_id": str(uuid4()), "after": 1.5},
        [],
    ],
)
def test_messages_that_cannot_be_understood(gateway: Gateway, user_id: UUID, message: Any) -> None:
    with gateway.signed_in(user_id) as client:
        client.connection.send(json.dumps(message))
        assert closed(client)[0] == 4004


def test_messages_that_are_none_of_ours(gateway: Gateway, user_id: UUID) -> None:
    with gateway.signed_in(user_id) as client:
        for message in ({}, {"action": "pong"}, {"action": "new"}, {"action": ["pong"]}):
            client.say(**message)
        client.say(action="subscribe_batch", batch_id=str(uuid4()))
        assert client.hear()["action"] == "no_such_batch"


@pytest.mark.parametrize("size", [MAX_MESSAGE + 1, 10 * MAX_MESSAGE])
def test_a_message_that_is_too_long(gateway: Gateway, user_id: UUID, size: int) -> None:
    with gateway.signed_in(user_id) as client:
        client.connection.send(json.dumps({"action": "x" * size}))
        assert closed(client)[0] == 1009


def test_a_message_of_few_bytes_per_character(gateway: Gateway, user_id: UUID) -> None:
    with gateway.signed_in(user_id) as client:
        client.connection.send(json.dumps({"action": "🚤" * 900}, ensure_ascii=False))
        client.hear_nothing(0.2)


def test_a_flood_is_read_slowly_and_nobody_is_thrown_out(
    gateway: Gateway, connection: Connection, user_id: UUID
) -> None:
    with gateway.signed_in(user_id) as client:
        for _ in range(150):
            client.say(action="subscribe_batch", batch_id=str(uuid4()))
        assert [client.hear()["action"] for _ in range(150)] == ["no_such_batch"] * 150


def token_of_kind(kind: str, user_id: UUID) -> str:
    claims = {
        "sub": str(user_id),
        "exp": int(time.time()) + 600,
        "type": "access",
        "token_version": 0,
    }
    match kind:
        case "unsigned":
            return jwt.encode(claims, "", algorithm="none")
        case "wrong secret":
            return jwt.encode(claims, SECRET[::-1], algorithm="HS256")
        case "HS512":
            return jwt.encode(claims, SECRET * 2, algorithm="HS512")
        case "expired":
            return token(user_id, seconds=-1)
        case "no expiry":
            del claims["exp"]
        case "refresh token":
            claims["type"] = "refresh"
        case "revoked":
            claims["token_version"] = 1
        case "nobody":
            claims["sub"] = str(uuid4())
    return jwt.encode(claims, SECRET, algorithm="HS256")


@pytest.mark.parametrize(
    "kind",
    [
        "unsigned",
        "wrong secret",
        "HS512",
        "expired",
        "no expiry",
        "refresh token",
        "revoked",
        "nobody",
    ],
)
def test_tokens_that_let_nobody_in(gateway: Gateway, user_id: UUID, kind: str) -> None:
    false = token_of_kind(kind, user_id)
    with gateway.opened() as client:
        client.say(type="auth", token=false)
        code, reason = closed(client)
    assert code == 4003
    assert false not in reason


def test_a_user_who_is_not_active(gateway: Gateway, connection: Connection, user_id: UUID) -> None:
    connection.execute("UPDATE users SET is_active = false WHERE id = %s", (user_id,))
    with gateway.opened() as client:
        client.say(type="auth", token=token(user_id))
        assert closed(client)[0] == 4003


@pytest.mark.parametrize("header", ["cookie", "bearer"])
def test_a_token_that_came_with_the_request(gateway: Gateway, user_id: UUID, header: str) -> None:
    headers = {
        "cookie": {"Cookie": f"vuemantics_session={token(user_id)}"},
        "bearer": {"Authorization": f"Bearer {token(user_id)}"},
    }[header]
    with gateway.opened(headers) as client:
        client.say(type="auth")
        assert client.hear()["user_id"] == str(user_id)


def test_origins(database_url: str, connection: Connection, user_id: UUID) -> None:
    with running_gateway(database_url, gateway_origins="https://photos.example") as gateway:
        assert refused(gateway, "https://evil.example") == 403
        for origin in ("https://photos.example", f"http://127.0.0.1:{gateway.port}"):
            with gateway.opened({"Origin": origin}) as client:
                client.say(type="auth", token=token(user_id))
                assert client.hear()["action"] == "auth_success"


def test_a_limit_on_failures(database_url: str, connection: Connection, user_id: UUID) -> None:
    failures = FailureLimit(3, 0.001)
    with (
        running_gateway(database_url, failures=failures) as gateway,
        gateway.signed_in(user_id) as inside,
    ):
        for message in ({"type": "auth", "token": "x"}, {"type": "auth"}, {"no": "auth"}):
            with gateway.opened() as client:
                client.say(**message)
                assert closed(client)[0] in (4002, 4003)
        assert refused(gateway) == 429
        support.add_batch(connection, user_id)
        inside.hear_until("batch_progress")


def test_a_limit_on_connections(database_url: str, connection: Connection, user_id: UUID) -> None:
    with running_gateway(database_url, gateway_sockets=2) as gateway:
        with gateway.signed_in(user_id), gateway.opened():
            assert gateway.live.sockets == 2
            assert refused(gateway) == 503
        with gateway.signed_in(user_id):
            pass


def test_a_limit_on_connections_of_a_user(
    database_url: str, connection: Connection, user_id: UUID
) -> None:
    other = support.add_user(connection)
    with running_gateway(database_url, gateway_sockets_per_user=1) as gateway:
        with gateway.signed_in(user_id), gateway.signed_in(other), gateway.opened() as second:
            second.say(type="auth", token=token(user_id))
            assert closed(second)[0] == 1013
        with gateway.signed_in(user_id):
            pass


# When it is over


def test_heartbeats(database_url: str, connection: Connection, user_id: UUID) -> None:
    patience = Patience(heartbeat=0.1, silence=2)
    with (
        running_gateway(database_url, patience=patience) as gateway,
        gateway.signed_in(user_id) as client,
    ):
        for _ in range(25):
            assert client.hear()["action"] == "ping"
            client.say(action="pong")
        assert closed(client) == (1013, "The client does not answer.")


def test_a_token_that_expires(gateway: Gateway, user_id: UUID) -> None:
    with gateway.signed_in(user_id, seconds=3) as client:
        assert closed(client) == (4003, "The token has expired.")


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE users SET is_active = false WHERE id = %s",
        "UPDATE users SET token_version = token_version + 1 WHERE id = %s",
        "DELETE FROM users WHERE id = %s",
    ],
)
def test_a_user_who_may_not_be_in_any_more(
    database_url: str, connection: Connection, user_id: UUID, change: str
) -> None:
    other = support.add_user(connection)
    with (
        running_gateway(database_url, patience=Patience(recheck=0.1)) as gateway,
        gateway.signed_in(user_id) as client,
        gateway.signed_in(other) as stays,
    ):
        client.hear_nothing(0.3)
        connection.execute(change, (user_id,))
        assert closed(client) == (4003, "The token has been revoked.")
        support.add_batch(connection, other)
        stays.hear_until("batch_progress")


def test_clients_that_leave_are_forgotten(
    gateway: Gateway, connection: Connection, user_id: UUID
) -> None:
    batch = support.add_batch(connection, user_id)
    with ExitStack() as stack:
        for _ in range(5):
            client = stack.enter_context(gateway.signed_in(user_id))
            client.say(action="subscribe_upload", upload_id=str(batch.first))
            client.hear_until("upload_progress")
        client.connection.socket.shutdown(socket.SHUT_RDWR)
    deadline = time.monotonic() + WAIT_SECONDS
    while gateway.live.sockets or gateway.live._hub.follows(f"upload:{batch.first}"):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def stalled(gateway: Gateway, stack: ExitStack, user_id: UUID, batch: NewBatch) -> Client:
    """A client that asks for a large batch, and reads nothing."""
    own = socket.socket()
    own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    own.connect(("127.0.0.1", gateway.port))
    client = stack.enter_context(gateway.signed_in(user_id, sock=own))
    for _ in range(5):
        client.say(action="subscribe_batch", batch_id=str(batch.batch_id))
    return client


@pytest.fixture
def large(connection: Connection, user_id: UUID) -> NewBatch:
    """A batch that is too much for the buffers between gateway and client."""
    batch = support.add_batch(connection, user_id)
    connection.execute(
        "INSERT INTO uploads (user_id, batch_id, filename, file_path, file_type, file_size,"
        " mime_type) SELECT %s, %s, repeat('x', 2000) || n, 'none', 'image', 1, 'image/jpeg'"
        " FROM generate_series(1, 1000) AS n",
        (user_id, batch.batch_id),
    )
    return batch


def test_a_client_that_does_not_read_holds_up_nobody(
    gateway: Gateway, connection: Connection, worker: Connection, user_id: UUID, large: NewBatch
) -> None:
    with ExitStack() as stack:
        for _ in range(3):
            stalled(gateway, stack, user_id, large)
        client = stack.enter_context(gateway.signed_in(user_id))
        client.hear_until("batch_progress", status="pending")
        lease = support.begin(worker, large.batch_id)
        for number, upload_id in enumerate(batches.open_batch(lease, reopen=False)[:20], 1):
            complete(lease, upload_id.upload_id)
            client.hear_until("batch_progress", processed=number)
        assert gateway.live.sockets == 4


def test_a_client_that_does_not_read_is_disconnected(
    database_url: str, connection: Connection, user_id: UUID, large: NewBatch
) -> None:
    with (
        running_gateway(database_url, patience=Patience(stall=0.3)) as gateway,
        ExitStack() as stack,
        gateway.signed_in(user_id) as client,
    ):
        client.hear_until("batch_progress")
        slow = stalled(gateway, stack, user_id, large)
        deadline = time.monotonic() + WAIT_SECONDS
        while gateway.live.sockets > 1:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        slow.hear_the_end()
        support.add_batch(connection, user_id)
        client.hear_until("batch_progress")
