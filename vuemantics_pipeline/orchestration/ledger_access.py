"""The ledger for whatever reads it or asks it for something: a connection without a lease."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from vuemantics_pipeline.errors import PipelineError
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.settings import Settings, load_settings


@contextmanager
def open_ledger() -> Iterator[tuple[Connection, Settings]]:
    """Connect to the database of record.

    Raises:
        Failure: whatever was expected to go wrong in the block, with its message and remedy and
            no more stack than Dagster adds by itself.
    """
    settings = load_settings()
    try:
        with connect(settings.require_database_url()) as connection:
            yield connection, settings
    except PipelineError as error:
        raise dg.Failure(
            str(error), {"code": error.code, "remedy": error.remedy}, allow_retries=False
        ) from None
