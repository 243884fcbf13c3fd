"""Origins, and limits on how often something may be done."""

import pytest
from starlette.requests import HTTPConnection

from vuemantics_pipeline.gateway.guards import Bucket, FailureLimit, origin_allowed


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def connection(
    address: str = "192.0.2.1", *, origin: str | None = None, host: str = "127.0.0.1:3001"
) -> HTTPConnection:
    headers = [(b"host", host.encode())]
    if origin is not None:
        headers.append((b"origin", origin.encode()))
    return HTTPConnection({"type": "http", "headers": headers, "client": (address, 5000)})


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        (None, "127.0.0.1:3001", True),
        ("http://127.0.0.1:3001", "127.0.0.1:3001", True),
        ("https://gateway.example", "gateway.example", True),
        ("https://gateway.example", "gateway.example:443", True),
        ("https://GATEWAY.example", "gateway.EXAMPLE", True),
        ("https://gateway.example:8443", "gateway.example", False),
        ("http://127.0.0.1:3002", "127.0.0.1:3001", False),
        ("https://evil.example", "gateway.example", False),
        ("https://gateway.example.evil.example", "gateway.example", False),
        ("null", "127.0.0.1:3001", False),
        ("", "127.0.0.1:3001", False),
        ("http://127.0.0.1:port", "127.0.0.1:3001", False),
        ("http://[::1", "127.0.0.1:3001", False),
        ("https://photos.example", "127.0.0.1:3001", True),
        ("https://photos.example:443", "127.0.0.1:3001", True),
        ("http://photos.example", "127.0.0.1:3001", False),
        ("http://localhost:5173", "127.0.0.1:3001", True),
        ("http://localhost:5174", "127.0.0.1:3001", False),
    ],
)
def test_origins(origin: str | None, host: str, allowed: bool) -> None:
    listed = ("https://photos.example", "http://localhost:5173")
    assert origin_allowed(connection(origin=origin, host=host), listed) is allowed


def test_a_bucket_fills_up_again() -> None:
    clock = Clock()
    bucket = Bucket(2, 0.5, clock)
    assert [bucket.take(), bucket.take(), bucket.take(), bucket.take()] == [0, 0, 2, 4]
    clock.now += 4
    assert bucket.is_empty
    clock.now += 2
    assert not bucket.is_empty
    clock.now += 1000
    assert [bucket.take(), bucket.take(), bucket.take()] == [0, 0, 2]


def test_failures_of_an_address_and_of_no_other() -> None:
    clock = Clock()
    limit = FailureLimit(3, 0.1, clock=clock)
    for _ in range(3):
        assert not limit.is_exhausted(connection())
        limit.record(connection())
    assert limit.is_exhausted(connection())
    assert not limit.is_exhausted(connection("192.0.2.2"))
    clock.now += 10
    assert not limit.is_exhausted(connection())
    limit.record(connection())
    assert limit.is_exhausted(connection())


def test_whoever_fails_on_and_on_waits_no_longer_for_it() -> None:
    clock = Clock()
    limit = FailureLimit(3, 0.1, clock=clock)
    for _ in range(1000):
        limit.record(connection())
    clock.now += 10
    assert not limit.is_exhausted(connection())


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("a-socket", "a-socket", True),
    ],
)
def test_whose_failures_count_together(one: str, other: str, same: bool) -> None:
    limit = FailureLimit(1)
    limit.record(connection(one))
    assert limit.is_exhausted(connection(other)) is same


def test_it_remembers_those_who_failed_last() -> None:
    limit = FailureLimit(1, 0.001, addresses=2)
    for number in (1, 2, 1, 3):
        limit.record(connection(f"192.0.2.{number}"))
    exhausted = [limit.is_exhausted(connection(f"192.0.2.{number}")) for number in (1, 2, 3)]
    assert exhausted == [True, False, True]


def test_a_client_without_an_address() -> None:
    limit = FailureLimit(1)
    nobody = HTTPConnection({"type": "http", "headers": [], "client": None})
    limit.record(nobody)
    assert limit.is_exhausted(nobody)
