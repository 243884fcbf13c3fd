"""Which database is the one of record, and a connection to it that is ready for use."""

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg

from vuemantics_pipeline.errors import BackendUnavailable, UsageError
from vuemantics_pipeline.home.postgres import embedded_postgres
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.migrate import Migration, is_migrated, migrate
from vuemantics_pipeline.settings import Settings


@contextmanager
def database(settings: Settings) -> Iterator[str]:
    """Give the URL of DATABASE_URL's server, or of the embedded one while the block runs.

    Raises:
        BackendUnavailable: the embedded server does not start.
    """
    if settings.database_url is not None:
        yield settings.database_url.get_secret_value()
    else:
        with embedded_postgres(settings.home) as url:
            yield url


@contextmanager
def ready_database(settings: Settings) -> Iterator[tuple[str, Connection]]:
    """Give the database's URL and an open connection, its tables in place.

    An embedded database is migrated when that is due. Someone else's is not touched before they
    say so with `vuemantics migrate` or `vuemantics up`.

    Raises:
        UsageError: code 'not_migrated', or the URL is not one of PostgreSQL.
        BackendUnavailable: the server cannot be reached, or the role may not read the tables.
    """
    with database(settings) as url, connect(url) as connection, _privileges(connection):
        if not is_migrated(connection):
            if settings.database_url is not None:
                raise UsageError(
                    "not_migrated",
                    "The database has not been prepared for this version of the pipeline.",
                    "Run `vuemantics migrate`; it alters nothing of the application's.",
                )
            migrate_for(settings, connection)
        yield url, connection


def migrate_for(settings: Settings, connection: Connection) -> Migration:
    """Migrate a database for the analyzer in use.

    Raises:
        UsageError, BackendUnavailable: as `ledger.migrate.migrate`.
    """
    # Imported here because models take a while to load and most commands need none.
    from vuemantics_pipeline.analysis.build import build_analyzer

    return migrate(connection, dimension=build_analyzer(settings).identity.dimension)


@contextmanager
def _privileges(connection: Connection) -> Iterator[None]:
    try:
        yield
    except psycopg.errors.InsufficientPrivilege as error:
        raise BackendUnavailable(
            "missing_privilege",
            f"The role {connection.info.user} may not do this: {error.diag.message_primary}.",
            "Grant it the application's tables and the schema vuemantics_pipeline.",
        ) from error
