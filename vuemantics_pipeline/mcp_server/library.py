"""What the tools work on: a database that may come and go, one user's share of it, a model."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Lock
from uuid import UUID

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.home.database import ready_database
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.settings import Settings


@dataclass
class Library:
    """The batches and media that a server shows.

    Attributes:
        user_id: whose they are; None: everybody's.
        dagster_url: of the Dagster UI, without a slash at its end.
    """

    settings: Settings
    user_id: UUID | None
    dagster_url: str
    _analyzer: Analyzer | None = None
    _one_at_a_time: Lock = field(default_factory=Lock)

    @contextmanager
    def connection(self) -> Iterator[Connection]:
        """Open a connection for one call: a database that was restarted is simply met again.

        Raises:
            UsageError: code 'not_migrated'.
            BackendUnavailable: the database cannot be reached.
        """
        with ready_database(self.settings) as (_, connection):
            yield connection

    @contextmanager
    def analyzer(self) -> Iterator[Analyzer]:
        """Give the analyzer, loaded by the first call that needs it, to one call at a time."""
        # Imported here because models take a while to load and most calls need none.
        from vuemantics_pipeline.analysis.build import build_analyzer

        with self._one_at_a_time:
            if self._analyzer is None:
                self._analyzer = build_analyzer(self.settings)
            yield self._analyzer

    def run_url(self, run_id: str | None) -> str | None:
        """The page of a run in the Dagster UI."""
        return None if run_id is None else f"{self.dagster_url}/runs/{run_id}"
