"""Connections that many threads share."""

import threading

import pytest

from vuemantics_pipeline.errors import BackendUnavailable, UsageError
from vuemantics_pipeline.ledger import pool as module
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.pool import Pool
from vuemantics_pipeline_tests.support import backend_pid, kill


def test_a_connection_is_lent_again(database_url: str, connection: Connection) -> None:
    pool = Pool(database_url, size=2)
    with pool.connection() as first, pool.connection() as second:
        pids = {backend_pid(first), backend_pid(second)}
        assert len(pids) == 2
        [limit] = first.execute("SHOW lock_timeout").fetchone() or [None]
        assert (first.autocommit, limit) == (True, "30s")
    for _ in range(3):
        with pool.connection() as lent:
            assert backend_pid(lent) in pids
    pool.close()


def test_one_that_was_cut_off_is_not(database_url: str, connection: Connection) -> None:
    pool = Pool(database_url, size=2)
    with pool.connection() as first, pool.connection() as second:
        victims = [first, second]
    for victim in victims:
        kill(connection, victim)
    with pool.connection() as lent:
        assert lent.execute("SELECT 1").fetchone() == (1,)

    def cut_off_in_use() -> None:
        with pool.connection() as lent:
            kill(connection, lent)
            lent.execute("SELECT 1")

    with pytest.raises(BackendUnavailable):
        cut_off_in_use()
    with pool.connection() as lent:
        assert lent.execute("SELECT 1").fetchone() == (1,)
    pool.close()


def test_one_that_is_left_in_a_transaction_is_not(
    database_url: str, connection: Connection
) -> None:
    pool = Pool(database_url, size=1)
    with pool.connection() as lent:
        lent.execute("BEGIN")
        pid = backend_pid(lent)
    with pool.connection() as lent:
        assert backend_pid(lent) != pid
    pool.close()


def test_no_more_than_there_are(
    database_url: str, connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_WAIT_SECONDS", 0.1)
    pool = Pool(database_url, size=1)
    with pool.connection(), pytest.raises(BackendUnavailable) as busy, pool.connection():
        pass
    assert busy.value.code == "database_busy"

    monkeypatch.setattr(module, "_WAIT_SECONDS", 30)
    lent, was_lent = threading.Event(), []

    def borrow() -> None:
        lent.set()
        with pool.connection() as connection:
            was_lent.append(connection.execute("SELECT 1").fetchone())

    with pool.connection():
        thread = threading.Thread(target=borrow)
        thread.start()
        lent.wait()
    thread.join()
    assert was_lent == [(1,)]
    pool.close()


def test_a_pool_that_is_closed_keeps_none(database_url: str, connection: Connection) -> None:
    pool = Pool(database_url, size=2)
    with pool.connection() as idle:
        pass
    with pool.connection() as lent:
        pool.close()
    assert lent is idle
    assert lent.closed


@pytest.mark.parametrize(
    ("url", "error", "code"),
    [
        ("postgresql://ada:s3cret@127.0.0.1:1/x", BackendUnavailable, "database_unavailable"),
        ("mysql://x", UsageError, "wrong_database_url"),
    ],
)
def test_a_database_nobody_serves(url: str, error: type[BackendUnavailable], code: str) -> None:
    pool = Pool(url, size=1)
    for _ in range(3):  # a failure leaves its place to the next
        with pytest.raises(error) as caught, pool.connection():
            pass
        assert caught.value.code == code
        assert "s3cret" not in str(caught.value)
