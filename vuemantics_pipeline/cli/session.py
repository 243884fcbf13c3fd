"""What most commands begin with: the settings, and a database that is ready."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from vuemantics_pipeline.home.database import ready_database
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.settings import Settings, load_settings


@dataclass(frozen=True)
class Session:
    """One command at work."""

    settings: Settings
    connection: Connection


def settings_for(home: Path | None) -> Settings:
    """Read the environment; a `--home` wins over VUEMANTICS_HOME.

    Raises:
        UsageError: a variable has a value that cannot be used.
    """
    return load_settings() if home is None else load_settings(home=home)


@contextmanager
def open_session(home: Path | None) -> Iterator[Session]:
    """Connect to DATABASE_URL, or to the embedded server, which is started unless it runs.

    Raises:
        UsageError, BackendUnavailable: as `load_settings` and `ready_database`.
    """
    settings = settings_for(home)
    with ready_database(settings) as (_, connection):
        yield Session(settings, connection)
