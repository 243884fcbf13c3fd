"""The gateway over HTTP: what is read and changed, who is let in, and what browsers are told."""

import base64
import http.client
import json
import mimetypes
import secrets
import socket
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from uuid import UUID, uuid4

import httpx
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from vuemantics_pipeline import gateway
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.gateway import inputs
from vuemantics_pipeline.gateway.tokens import issue_token
from vuemantics_pipeline.ledger import batches
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.settings import Settings, load_settings
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.integration.served import bearer, new_database, served, token

BATCH_FIELDS = {
    "batch_id",
    "user_id",
    "status",
    "total_uploads",
    "processed_uploads",
    "successful_uploads",
    "failed_uploads",
    "progress_percentage",
    "created_at",
    "started_at",
    "completed_at",
    "error_message",
    "seq",
    "seconds_to_finish",
}
COOKIE = "vuemantics_session"


# One gateway and one database for all of these, since everybody sees what is theirs.


@pytest.fixture(scope="module")
def database_url(postgres_server: str) -> Iterator[str]:
    with new_database(postgres_server) as url:
        yield url


@pytest.fixture(scope="module")
def settings(tmp_path_factory: pytest.TempPathFactory) -> Settings:
    return load_settings(
        home=tmp_path_factory.mktemp("home"), upload_path=tmp_path_factory.mktemp("uploads")
    )


@pytest.fixture
def root(settings: Settings) -> Path:
    return settings.uploads


@pytest.fixture(scope="module")
def url(settings: Settings, database_url: str) -> Iterator[str]:
    with served(settings, database_url) as url:
        yield url


@pytest.fixture
def owner(connection: Connection) -> UUID:
    return support.add_user(connection)


@pytest.fixture
def client(url: str, owner: UUID) -> Iterator[httpx.Client]:
    """A program with its owner's token."""
    with httpx.Client(base_url=url, headers=bearer(owner), timeout=30) as client:
        yield client


@pytest.fixture
def stranger(url: str, connection: Connection) -> Iterator[httpx.Client]:
    """Another user's program."""
    headers = bearer(support.add_user(connection))
    with httpx.Client(base_url=url, headers=headers, timeout=30) as client:
        yield client


@pytest.fixture
def browser(url: str) -> Iterator[httpx.Client]:
    """The page: a client without a token that keeps cookies and names its origin."""
    with httpx.Client(base_url=url, headers={"Origin": url}, timeout=30) as client:
        yield client


def somewhere() -> dict[str, str]:
    """Headers of a request from an address of its own: failures are counted by address."""
    return {"X-Forwarded-For": f"10.{'.'.join(str(part) for part in secrets.token_bytes(3))}"}


def refused(answer: httpx.Response, status: int, code: str) -> dict[str, Any]:
    """The problem document that an answer is."""
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = answer.json()
    assert set(document) == {"type", "title", "status", "detail", "code", "remedy"}
    assert (document["status"], document["code"]) == (status, code)
    assert document["title"] == http.client.responses[status]
    return document


# --- batches ---


def test_batches_are_listed_newest_first_and_in_pages(
    client: httpx.Client, connection: Connection, owner: UUID
) -> None:
    new = [support.add_batch(connection, owner) for _ in range(5)]
    batches.cancel(connection, new[2].batch_id, message="Enough.")
    expected = [str(batch.batch_id) for batch in reversed(new)]

    everything = client.get("/batches").json()
    assert [batch["batch_id"] for batch in everything["batches"]] == expected
    assert everything["next"] is None
    assert all(set(batch) == BATCH_FIELDS for batch in everything["batches"])

    found, after = [], None
    while True:
        page = client.get("/batches", params={"limit": 2} | ({"after": after} if after else {}))
        found.append([batch["batch_id"] for batch in page.json()["batches"]])
        after = page.json()["next"]
        if after is None:
            break
    assert found == [expected[:2], expected[2:4], expected[4:]]

    cancelled = client.get("/batches", params={"status": "cancelled"}).json()["batches"]
    assert [batch["batch_id"] for batch in cancelled] == [expected[2]]
    assert cancelled[0]["error_message"] == "Enough."


def test_a_cursor_in_a_zone_that_postgres_does_not_know(client: httpx.Client) -> None:
    far = cursor("2026-01-01T00:00:00+23:59")
    assert client.get("/batches", params={"after": far}).json() == {"batches": [], "next": None}


def test_a_batch_as_it_moves(
    client: httpx.Client, connection: Connection, worker: Connection, owner: UUID, root: Path
) -> None:
    new = support.add_batch(connection, owner, files=["a.jpg", "b.jpg", "c.jpg"], uploads_root=root)

    def batch() -> dict[str, Any]:
        document: dict[str, Any] = client.get(f"/batches/{new.batch_id}").json()
        assert set(document) == BATCH_FIELDS
        return document

    waiting = batch()
    assert (waiting["status"], waiting["seq"], waiting["progress_percentage"]) == ("pending", 0, 0)
    assert waiting["seconds_to_finish"] is None

    lease = support.begin(worker, new.batch_id)
    support.process(lease, new.first, root)
    moved = batch()
    assert (moved["status"], moved["successful_uploads"]) == ("processing", 1)
    assert moved["progress_percentage"] == 33.3
    assert moved["seq"] > 0
    assert moved["seconds_to_finish"] >= 0  # known, and rounded to a tenth
    assert datetime.fromisoformat(moved["started_at"]).utcoffset() == timedelta(0)

    for upload_id in list(new.uploads.values())[1:]:
        support.process(lease, upload_id, root)
    batches.close_batch(lease)
    done = batch()
    assert (done["status"], done["progress_percentage"]) == ("completed", 100)
    assert done["seq"] > moved["seq"]


def test_the_uploads_of_a_batch(
    client: httpx.Client, connection: Connection, owner: UUID, root: Path, worker: Connection
) -> None:
    new = support.add_batch(
        connection,
        owner,
        files={"good.jpg": support.photo(), "bad.jpg": support.photo()[:100], "x.jpg": b"no"},
        uploads_root=root,
    )
    support.run_batch(worker, new.batch_id, root, ConstantAnalyzer(support.DIMENSION))
    uploads = client.get(f"/batches/{new.batch_id}/uploads").json()
    good, bad, _ = uploads["uploads"]

    assert uploads["next"] is None
    assert [upload["filename"] for upload in uploads["uploads"]] == ["good.jpg", "bad.jpg", "x.jpg"]
    assert good["upload_id"] == str(new.first)
    assert (good["file_type"], good["file_size"]) == ("image", len(support.photo()))
    assert (good["processing_status"], good["stage"]) == ("completed", "completed")
    assert (good["progress_percent"], good["attempts"]) == (100, 1)
    assert good["description"]
    assert good["description_audit_score"] == 100
    assert good["error_message"] is None
    assert (bad["processing_status"], bad["attempts"]) == ("failed", 2)
    assert bad["error_message"]
    assert bad["thumbnail_url"] is None

    def listed(**asked: str | int) -> list[str]:
        page = client.get(f"/batches/{new.batch_id}/uploads", params=asked).json()
        return [upload["filename"] for upload in page["uploads"]]

    assert listed(outcome="failed") == ["bad.jpg", "x.jpg"]
    assert listed(outcome="completed") == ["good.jpg"]
    assert listed(outcome="unfinished") == []
    first = client.get(f"/batches/{new.batch_id}/uploads", params={"limit": 2}).json()
    assert listed(limit=2, after=first["next"]) == ["x.jpg"]


def test_another_users_batch_is_as_one_that_does_not_exist(
    stranger: httpx.Client, connection: Connection, owner: UUID, worker: Connection, root: Path
) -> None:
    new = support.add_batch(connection, owner, uploads_root=root)
    support.run_batch(worker, new.batch_id, root, ConstantAnalyzer(support.DIMENSION))
    before = support.everything(connection, new.batch_id)
    nobodys = uuid4()

    assert stranger.get("/batches").json() == {"batches": [], "next": None}
    for method, path in (
        ("GET", ""),
        ("GET", "/uploads"),
        ("POST", "/cancel"),
        ("POST", "/retry"),
    ):
        theirs = stranger.request(method, f"/batches/{new.batch_id}{path}")
        unknown = stranger.request(method, f"/batches/{nobodys}{path}")
        refused(theirs, 404, "no_such_batch")
        assert theirs.text.replace(str(new.batch_id), str(nobodys)) == unknown.text
        assert theirs.headers.keys() == unknown.headers.keys()
    assert support.everything(connection, new.batch_id) == before

    theirs = stranger.get(f"/uploads/{new.first}/thumbnail")
    unknown = stranger.get(f"/uploads/{nobodys}/thumbnail")
    refused(theirs, 404, "no_such_upload")
    assert theirs.text.replace(str(new.first), str(nobodys)) == unknown.text


# --- changes ---


def test_cancelling(
    client: httpx.Client, connection: Connection, worker: Connection, owner: UUID, root: Path
) -> None:
    new = support.add_batch(connection, owner, files=["a.jpg", "b.jpg"], uploads_root=root)
    support.process(support.begin(worker, new.batch_id), new.first, root)

    cancelled = client.post(f"/batches/{new.batch_id}/cancel")
    assert cancelled.status_code == 200
    assert set(cancelled.json()) == BATCH_FIELDS
    assert (cancelled.json()["status"], cancelled.json()["successful_uploads"]) == ("cancelled", 1)
    assert support.batch_row(connection, new.batch_id).status == "cancelled"

    before = support.everything(connection, new.batch_id)
    again = client.post(f"/batches/{new.batch_id}/cancel")
    assert again.json() == cancelled.json()
    assert support.everything(connection, new.batch_id) == before


def test_what_has_ended_cannot_be_cancelled(
    client: httpx.Client, connection: Connection, owner: UUID, root: Path, worker: Connection
) -> None:
    new = support.add_batch(connection, owner, uploads_root=root)
    support.run_batch(worker, new.batch_id, root, ConstantAnalyzer(support.DIMENSION))
    before = support.everything(connection, new.batch_id)

    refused(client.post(f"/batches/{new.batch_id}/cancel"), 409, "batch_has_ended")
    assert support.everything(connection, new.batch_id) == before


@pytest.mark.parametrize(
    ("body", "scope", "uploads"),
    [
        (None, "unfinished", 0),
        ({}, "unfinished", 0),
        ({"scope": "unfinished"}, "unfinished", 0),
        ({"scope": "failed"}, "failed", 1),
        ({"scope": "all"}, "all", 2),
    ],
)
def test_running_again(
    client: httpx.Client,
    connection: Connection,
    owner: UUID,
    root: Path,
    worker: Connection,
    body: object,
    scope: str,
    uploads: int,
) -> None:
    files = {"good.jpg": support.photo(), "bad.jpg": b"no"}
    new = support.add_batch(connection, owner, files=files, uploads_root=root)
    support.run_batch(worker, new.batch_id, root, ConstantAnalyzer(support.DIMENSION))

    path = f"/batches/{new.batch_id}/retry"
    answer = client.post(path) if body is None else client.post(path, json=body)

    assert answer.json() == {"batch_id": str(new.batch_id), "scope": scope, "uploads": uploads}
    assert support.batch_row(connection, new.batch_id).status == (
        "pending" if uploads else "completed"
    )


def test_a_batch_in_the_hands_of_a_run_is_not_run_again(
    client: httpx.Client, connection: Connection, worker: Connection, owner: UUID
) -> None:
    new = support.add_batch(connection, owner)
    support.begin(worker, new.batch_id)
    before = support.everything(connection, new.batch_id)

    problem = refused(client.post(f"/batches/{new.batch_id}/retry"), 409, "batch_is_processed")
    assert "cancel" in problem["remedy"]
    assert support.everything(connection, new.batch_id) == before


# --- requests that cannot be ---


def cursor(moment: str) -> str:
    return base64.urlsafe_b64encode(f"{moment} {UUID(int=1)}".encode()).decode()


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/batches?status=lost", "bad_request"),
        ("/batches?limit=0", "bad_request"),
        ("/batches?limit=201", "bad_request"),
        ("/batches?limit=many", "bad_request"),
        ("/batches?statsu=failed", "bad_request"),
        ("/batches?after=x", "bad_cursor"),
        ("/batches?after=MjAyNg==", "bad_cursor"),
        (f"/batches?after={cursor('2026-01-01T00:00:00')}", "bad_cursor"),
        (f"/batches?after={cursor('0001-01-01T00:00:00+14:00')}", "bad_cursor"),
        (f"/batches?after={'x' * 300}", "bad_request"),
    ],
)
def test_queries_that_cannot_be(client: httpx.Client, path: str, code: str) -> None:
    problem = refused(client.get(path), 422, code)
    assert "lost" not in problem["detail"]


@pytest.mark.parametrize(
    ("content", "media_type", "status", "code"),
    [
        (b"{", "application/json", 400, "bad_json"),
        (b"\xff\xfe", "application/json", 400, "bad_json"),
        (b"[" * 5000, "application/json", 400, "bad_json"),
        (b"[]", "application/json", 422, "bad_request"),
        (b"null", "application/json", 422, "bad_request"),
        (b'{"scope": "everything"}', "application/json", 422, "bad_request"),
        (b'{"scope": null}', "application/json", 422, "bad_request"),
        (b'{"scop": "all"}', "application/json", 422, "bad_request"),
        (b"scope=all", "application/x-www-form-urlencoded", 415, "not_json"),
        (b'{"scope": "all"}', "text/plain", 415, "not_json"),
        (b'{"scope": "all"}', None, 415, "not_json"),
        (b" " * (inputs.BODY_BYTES + 1), "application/json", 413, "body_too_large"),
    ],
)
def test_bodies_that_cannot_be(
    client: httpx.Client,
    connection: Connection,
    owner: UUID,
    content: bytes,
    media_type: str | None,
    status: int,
    code: str,
) -> None:
    new = support.add_batch(connection, owner)
    before = support.everything(connection, new.batch_id)
    headers = {"Content-Type": media_type} if media_type else {}

    answer = client.post(f"/batches/{new.batch_id}/retry", content=content, headers=headers)

    refused(answer, status, code)
    assert support.everything(connection, new.batch_id) == before


def test_a_body_in_pieces_is_measured_as_it_comes(client: httpx.Client) -> None:
    def endless() -> Iterator[bytes]:
        while True:
            yield b" " * 1024

    try:
        answer = client.post(f"/batches/{uuid4()}/retry", content=endless())
    except httpx.TransportError:
        return  # it hung up while the body was still coming
    refused(answer, 413, "body_too_large")


def test_a_body_that_does_not_arrive(
    url: str, owner: UUID, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inputs, "_BODY_SECONDS", 0.2)
    waiting = http.client.HTTPConnection("127.0.0.1", urlsplit(url).port or 0, timeout=30)
    waiting.putrequest("POST", f"/batches/{uuid4()}/retry")
    for name, value in (bearer(owner) | {"Content-Length": "10"}).items():
        waiting.putheader(name, value)
    waiting.endheaders(b"{")
    answer = waiting.getresponse()
    assert (answer.status, json.loads(answer.read())["code"]) == (408, "body_incomplete")
    waiting.close()


def test_addresses_and_methods_there_are_not(client: httpx.Client) -> None:
    for path in ("/nothing", "/batches/", "/batches/no-uuid", "/static/", "/static/../app.py"):
        refused(client.get(path), 404, "not_found")
    for method, path, allowed in (
        ("DELETE", "/batches", {"GET", "HEAD"}),
        ("GET", f"/batches/{uuid4()}/cancel", {"POST"}),
        ("PUT", "/session", {"GET", "HEAD", "POST", "DELETE"}),
        ("POST", "/static/app.js", {"GET", "HEAD"}),
    ):
        answer = client.request(method, path)
        refused(answer, 405, "method_not_allowed")
        assert set(answer.headers["allow"].split(", ")) == allowed


# --- who is let in ---


def test_without_a_token_nothing_is_told(url: str, connection: Connection, owner: UUID) -> None:
    new = support.add_batch(connection, owner)
    for method, path in (
        ("GET", "/batches"),
        ("GET", f"/batches/{new.batch_id}"),
        ("GET", f"/batches/{new.batch_id}/uploads"),
        ("POST", f"/batches/{new.batch_id}/cancel"),
        ("POST", f"/batches/{new.batch_id}/retry"),
        ("GET", f"/uploads/{new.first}/thumbnail"),
        ("GET", "/session"),
    ):
        answer = httpx.request(method, f"{url}{path}")
        refused(answer, 401, "no_token")
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["cache-control"] == "no-store"


def test_tokens_that_do_not_hold(url: str, connection: Connection, owner: UUID) -> None:
    good = token(owner)
    inactive, revoked = support.add_user(connection), support.add_user(connection)
    connection.execute("UPDATE users SET is_active = false WHERE id = %s", (inactive,))
    connection.execute("UPDATE users SET token_version = 1 WHERE id = %s", (revoked,))
    for wrong in (
        "nonsense",
        good[:-2],
        token(owner, seconds=-1),
        issue_token("x" * 32, owner, token_version=0, lifetime=timedelta(minutes=1)),
        token(uuid4()),
        token(inactive),
        token(revoked),
    ):
        answer = httpx.get(
            f"{url}/batches", headers={"Authorization": f"Bearer {wrong}"} | somewhere()
        )
        refused(answer, 401, "token_refused")
        assert 'error="invalid_token"' in answer.headers["www-authenticate"]
        assert wrong not in answer.text
    assert httpx.get(f"{url}/batches", headers=bearer(revoked, token_version=1)).is_success


def test_whoever_tries_many_tokens_has_to_wait(client: httpx.Client) -> None:
    address = somewhere()
    answers = [
        client.get("/batches", headers={"Authorization": f"Bearer {number}"} | address)
        for number in range(25)
    ]
    assert {answer.status_code for answer in answers} == {401, 429}
    refused(answers[-1], 429, "too_many_failures")
    assert int(answers[-1].headers["retry-after"]) > 0
    refused(client.get("/batches", headers=address), 429, "too_many_failures")
    assert client.get("/batches", headers=somewhere()).is_success


def test_a_host_that_is_not_this_gateway(url: str, settings: Settings, database_url: str) -> None:
    """A page whose name leads to this address is not this gateway's page."""

    def status(where: str, host: str, path: str = "/healthz") -> int:
        return httpx.get(f"{where}{path}", headers={"Host": host}).status_code

    port = urlsplit(url).port
    for host in (
        f"127.0.0.1:{port}",
        "localhost",
        f"LOCALHOST:{port}",
        f"[::1]:{port}",
        "10.0.0.7",
    ):
        assert status(url, host) == 200, host
    for host in ("evil.example", f"127.0.0.1.evil.example:{port}", "", "]", "localhost.evil"):
        assert status(url, host) == 421, host
        assert status(url, host, "/?token=x") == 421
    refused(httpx.get(url, headers={"Host": "evil.example"}), 421, "unknown_host")
    with (
        pytest.raises(InvalidStatus),
        connect(
            f"ws://evil.example:{port}/ws/uploads",
            sock=socket.create_connection(("127.0.0.1", port)),
        ),
    ):
        pass

    named = settings.model_copy(update={"gateway_origins": ("https://photos.example",)})
    with served(named, database_url) as behind_a_proxy:
        assert status(behind_a_proxy, "photos.example") == 200
        assert status(behind_a_proxy, "evil.example") == 421


# --- the page's session ---


def test_a_session_from_beginning_to_end(browser: httpx.Client, owner: UUID) -> None:
    refused(browser.get("/session"), 401, "no_token")

    signed_in = browser.post("/session", json={"token": token(owner, seconds=600)})
    assert signed_in.json()["user_id"] == str(owner)
    [cookie] = signed_in.headers.get_list("set-cookie")
    attributes = {part.strip().partition("=")[0].lower() for part in cookie.split(";")}
    assert {"httponly", "samesite", "path", "max-age"} <= attributes
    assert "samesite=strict" in cookie.lower()
    assert "path=/;" in f"{cookie.lower()};"
    assert "secure" not in attributes
    [age] = [part for part in cookie.split("; ") if part.startswith("Max-Age=")]
    assert 590 <= int(age.removeprefix("Max-Age=")) <= 600

    assert browser.get("/session").json() == signed_in.json()
    assert browser.get("/batches").is_success

    assert browser.delete("/session").status_code == 204
    assert COOKIE not in browser.cookies
    refused(browser.get("/session"), 401, "no_token")
    assert browser.delete("/session").status_code == 204


def test_over_https_the_cookie_stays_there(browser: httpx.Client, owner: UUID) -> None:
    signed_in = browser.post(
        "/session", json={"token": token(owner)}, headers={"X-Forwarded-Proto": "https"}
    )
    assert "; Secure" in signed_in.headers["set-cookie"]


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({}, 422, "bad_request"),
        ({"token": ""}, 422, "bad_request"),
        ({"token": "a b"}, 422, "bad_request"),
        ({"token": "a\n"}, 422, "bad_request"),
        ({"token": "x" * 4001}, 422, "bad_request"),
        ({"token": 7}, 422, "bad_request"),
        ({"token": "nonsense"}, 401, "token_refused"),
    ],
)
def test_signing_in_with_what_is_no_token(
    browser: httpx.Client, body: object, status: int, code: str
) -> None:
    answer = browser.post("/session", json=body, headers=somewhere())
    refused(answer, status, code)
    assert "set-cookie" not in answer.headers


def test_a_link_signs_in_and_leaves_no_token_behind(url: str, owner: UUID) -> None:
    given = token(owner)
    with httpx.Client(base_url=url) as browser:
        answer = browser.get("/", params={"token": given})
        assert (answer.status_code, answer.headers["location"]) == (303, "/")
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["referrer-policy"] == "no-referrer"
        assert given not in answer.text
        assert browser.get("/session").json()["user_id"] == str(owner)


@pytest.mark.parametrize("given", ["nonsense", "", "a\r\nSet-Cookie: x=y", "https://evil.example"])
def test_a_link_with_a_bad_token(url: str, given: str) -> None:
    answer = httpx.get(url, params={"token": given}, headers=somewhere())
    assert (answer.status_code, answer.headers["location"]) == (303, "/#refused")
    assert "set-cookie" not in answer.headers
    assert answer.text == ""


def test_another_sites_page_changes_nothing(
    browser: httpx.Client, url: str, connection: Connection, owner: UUID
) -> None:
    """The browser would send the cookie along, were it not for SameSite."""
    new = support.add_batch(connection, owner)
    browser.post("/session", json={"token": token(owner)}).raise_for_status()
    before = support.everything(connection, new.batch_id)
    cookie = {"Cookie": f"{COOKIE}={browser.cookies[COOKIE]}"}

    for origin in (
        "http://evil.example",
        "null",
        f"{url}.evil.example",
        "http://127.0.0.1:1",
        None,
    ):
        headers = cookie | ({"Origin": origin} if origin else {})
        for method, path in (
            ("POST", f"/batches/{new.batch_id}/cancel"),
            ("POST", f"/batches/{new.batch_id}/retry"),
            ("DELETE", "/session"),
        ):
            answer = httpx.request(method, f"{url}{path}", headers=headers)
            refused(answer, 403, "foreign_origin")
            assert "set-cookie" not in answer.headers
    foreign = httpx.post(
        f"{url}/session", json={"token": token(owner)}, headers={"Origin": "http://evil.example"}
    )
    refused(foreign, 403, "foreign_origin")
    assert support.everything(connection, new.batch_id) == before

    assert browser.post(f"/batches/{new.batch_id}/cancel").is_success


# --- thumbnails ---


def test_a_thumbnail_is_its_owners(
    client: httpx.Client, connection: Connection, owner: UUID, root: Path, worker: Connection
) -> None:
    new = support.add_batch(connection, owner, files=["a.jpg", "b.jpg"], uploads_root=root)
    support.run_batch(worker, new.batch_id, root, ConstantAnalyzer(support.DIMENSION))
    [upload, _] = client.get(f"/batches/{new.batch_id}/uploads").json()["uploads"]

    answer = client.get(upload["thumbnail_url"])
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.content == (root / f"{owner}/{new.first}/thumb_256.jpg").read_bytes()
    assert answer.headers["cache-control"] == "private, no-cache"
    unchanged = client.get(
        upload["thumbnail_url"], headers={"If-None-Match": answer.headers["etag"]}
    )
    assert (unchanged.status_code, unchanged.content) == (304, b"")

    theirs = root / str(uuid4()) / "thumb_256.jpg"
    theirs.parent.mkdir()
    theirs.write_bytes(support.photo())
    other = list(new.uploads.values())[1]
    for path in (str(theirs.relative_to(root)), f"{owner}/../{theirs.parent.name}/thumb_256.jpg"):
        connection.execute("UPDATE uploads SET thumbnail_path = %s WHERE id = %s", (path, other))
        refused(client.get(f"/uploads/{other}/thumbnail"), 404, "no_thumbnail")


# --- page and document ---


def test_what_browsers_are_told(client: httpx.Client) -> None:
    for path in ("/", "/batches", "/nothing", "/openapi.json"):
        headers = client.get(path).headers
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert policy["frame-ancestors"] == "'none'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_the_page_and_its_files(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # As Python has it before 3.12, and Dagster's webserver whatever the version.
    monkeypatch.setitem(mimetypes.types_map, ".js", "application/javascript")
    page = httpx.get(url)
    assert page.headers["content-type"] == "text/html; charset=utf-8"
    assert page.headers["cache-control"] == "no-cache"
    kept = httpx.get(url, headers={"If-None-Match": page.headers["etag"]})
    assert kept.status_code == 304

    types = {".js": "text/javascript", ".css": "text/css", ".svg": "image/svg+xml"}
    files = [path for path in (Path(gateway.__file__).parent / "page").iterdir() if path.is_file()]
    assert files
    for path in files:
        answer = httpx.get(f"{url}/static/{path.name}")
        assert answer.content == path.read_bytes()
        assert answer.headers["etag"]
        if path.suffix in types:
            assert answer.headers["content-type"].startswith(types[path.suffix])
