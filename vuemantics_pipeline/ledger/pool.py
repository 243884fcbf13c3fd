"""Connections to the database of record that many threads share."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import BoundedSemaphore

import psycopg

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.ledger.connection import Connection, database_errors, open_connection

_WAIT_SECONDS = 5.0


class Pool:
    """Lends connections such as `ledger.connection.connect` opens, to one thread each.

    One is opened when nobody has left one behind, in the thread that asks: a server that is down
    is found out at once, and one that is back is used at once. (psycopg's own pool connects in the
    background and lets everybody wait meanwhile.)

    Args:
        size: how many there are at most.
    """

    def __init__(self, database_url: str, *, size: int) -> None:
        self._database_url = database_url
        self._places = BoundedSemaphore(size)
        self._idle: list[Connection] = []
        self._is_closed = False

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Lend a connection while the block runs.

        Raises:
            UsageError: the URL is not one of PostgreSQL.
            BackendUnavailable: the server cannot be reached, refuses, or goes away later; or all
                connections have been busy for 5 s.
        """
        if not self._places.acquire(timeout=_WAIT_SECONDS):
            raise BackendUnavailable(
                "database_busy", "All connections to the database are in use.", "Try again."
            )
        try:
            connection = self._left_behind() or open_connection(self._database_url)
            try:
                with database_errors(connection):
                    yield connection
            finally:
                self._take_back(connection)
        finally:
            self._places.release()

    def close(self) -> None:
        """Close the connections; those that are lent are closed when they come back."""
        self._is_closed = True
        while self._idle:
            self._idle.pop().close()

    def _left_behind(self) -> Connection | None:
        """The one last used, if it still works: all that a restart has cut off are thrown away."""
        while True:
            try:
                connection = self._idle.pop()
            except IndexError:
                return None
            try:
                connection.execute("")
            except psycopg.OperationalError:
                connection.close()
            else:
                return connection

    def _take_back(self, connection: Connection) -> None:
        is_idle = connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        if is_idle and not self._is_closed:
            self._idle.append(connection)
        else:
            connection.close()
