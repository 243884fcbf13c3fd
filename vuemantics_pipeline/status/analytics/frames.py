"""Frames of the views `batch_facts`, `upload_facts`, `attempt_facts` and `stage_seconds`."""

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Unpack

import pandas as pd
import psycopg
from psycopg import sql

from vuemantics_pipeline.errors import BackendUnavailable, UsageError
from vuemantics_pipeline.ledger.connection import Connection, connect, database_errors
from vuemantics_pipeline.ledger.migrate import ANALYST_ROLE
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.status.analytics.columns import (
    ATTEMPTS,
    BATCHES,
    STAGES,
    UPLOADS,
    Columns,
    frame,
    joined,
)
from vuemantics_pipeline.status.analytics.selection import Conditions, Selection, select

PAGE_ROWS = 10_000
"""Rows that are in memory at once while a file is written."""

Database = Connection | str
"""An open connection, or a DATABASE_URL."""

_SQL = queries("analytics")


@dataclass(frozen=True)
class View:
    """One of the views.

    Attributes:
        moment, status: its columns that conditions of these names are about.
        order: its columns in which the rows differ, the first thing to sort by first.
    """

    name: str
    columns: Columns
    moment: str
    status: str
    order: tuple[str, ...]

    @property
    def rows(self) -> sql.Composed:
        """The query of a selection's rows, in a stable order."""
        return sql.SQL(_SQL["rows"]).format(
            view=sql.Identifier(self.name),
            moment=sql.Identifier(self.moment),
            status=sql.Identifier(self.status),
            order=sql.SQL(", ").join(sql.Identifier(column) for column in self.order),
        )


BATCH_FACTS = View("batch_facts", BATCHES, "created_at", "status", ("created_at", "batch_id"))
UPLOAD_FACTS = View("upload_facts", UPLOADS, "created_at", "status", ("created_at", "upload_id"))
ATTEMPT_FACTS = View("attempt_facts", ATTEMPTS, "started_at", "outcome", ("attempt_id",))
STAGE_SECONDS = View("stage_seconds", STAGES, "started_at", "outcome", ("attempt_id", "stage"))


def batches(database: Database, **conditions: Unpack[Conditions]) -> pd.DataFrame:
    """Return one row for each batch, the oldest first.

    Args:
        conditions: as `Conditions`; since and until of `created_at`, and of status 'pending',
            'processing', 'completed', 'failed' or 'cancelled'.

    Returns:
        Columns, times in UTC, missing values as NaT, <NA> or NaN:

        - batch_id (string), user_id (category), status (category)
        - created_at, started_at, completed_at
        - uploads_total, uploads_succeeded, uploads_failed, uploads_unfinished, uploads_reused
          (Int64): uploads
        - bytes_total (Int64): bytes of its files
        - duration_seconds: seconds in which a run was at work
        - seconds_waiting_in_queue: seconds from the last upload's arrival to the start
        - uploads_per_minute: succeeded and failed, per minute of duration_seconds
        - audit_score_mean: 0-100, of the uploads that succeeded
        - attempts_total, attempts_released (Int64): attempts used up, and given back
        - takeovers, runs_total (Int64): runs
        - run_id (string), analyzer, vision_model, embedding_model, prompt_version (category): of
          the newest attempt
        - error_message (string)

    Raises:
        UsageError: code 'not_a_time', 'not_an_id' or 'not_migrated'.
        BackendUnavailable: the database does not answer, or the role may not read the view.
    """
    return _whole(database, BATCH_FACTS, select(**conditions))


def uploads(database: Database, **conditions: Unpack[Conditions]) -> pd.DataFrame:
    """Return one row for each upload, the oldest first.

    Args:
        conditions: as `Conditions`; since and until of `created_at`, and of status 'pending',
            'analyzing', 'embedding', 'completed' or 'failed'.

    Returns:
        Columns, times in UTC, missing values as NaT, <NA> or NaN:

        - upload_id (string), batch_id, user_id (category)
        - filename (string), file_type, mime_type (category): as the client told it
        - file_size (Int64): bytes
        - format, detected_mime_type (category): as found in the bytes
        - width, height (Int64): pixels of the picture turned upright
        - taken_at: the camera's local time, without a zone
        - camera (category), has_gps (boolean)
        - duration_seconds, frame_rate, rotation (Int64), video_codec (category): of videos, in
          seconds, frames per second and degrees
        - status (category), audit_score (Int64): 0-100
        - attempts (Int64): used up
        - seconds: that its attempts took
        - error_code (category), error_message, remedy (string): of the last failure
        - run_id, analyzer, vision_model, embedding_model, prompt_version (category): of the
          newest attempt
        - reused_from (string): upload_id of the file with the same bytes that was described
        - created_at, started_at, ended_at, updated_at

    Raises:
        UsageError, BackendUnavailable: as `batches`.
    """
    return _whole(database, UPLOAD_FACTS, select(**conditions))


def attempts(database: Database, **conditions: Unpack[Conditions]) -> pd.DataFrame:
    """Return one row for each time a worker began an upload, in that order.

    Args:
        conditions: as `Conditions`; since and until of `started_at`, and of status 'completed',
            'failed', 'died' or 'released', which is the outcome.

    Returns:
        Columns, times in UTC, missing values as NaT, <NA> or NaN:

        - attempt_id (Int64), upload_id (string), batch_id, user_id (category)
        - filename (string), file_type (category)
        - attempt_number (Int64): 1 or 2; one given back leaves its number to the next
        - run_id (category), started_at, ended_at
        - seconds: from start to end
        - outcome, stage (category): none while it runs, and the last stage it reached
        - superseded (boolean): the upload was asked for again since
        - error_code (category), error_message, remedy (string)
        - analyzer, vision_model, embedding_model, prompt_version, model_digest (category)
        - reused_from (string): upload_id of the file with the same bytes that was described
        - frames_done, frames_total (Int64): frames of a video

    Raises:
        UsageError, BackendUnavailable: as `batches`.
    """
    return _whole(database, ATTEMPT_FACTS, select(**conditions))


def stages(database: Database, **conditions: Unpack[Conditions]) -> pd.DataFrame:
    """Return one row for each attempt and each stage that it has ended.

    Args:
        conditions: as `attempts`.

    Returns:
        Columns, times in UTC, missing values as NaT, <NA> or NaN:

        - attempt_id (Int64), upload_id (string), batch_id, user_id, file_type, run_id (category)
        - started_at: of the attempt
        - outcome (category), superseded (boolean): of the attempt
        - analyzer, vision_model, prompt_version (category)
        - stage (category): 'queued', 'extracting_frames', 'vision_analysis', 'description_audit',
          'embedding_generation' or 'indexing'
        - seconds: wall-clock seconds in that stage

    Raises:
        UsageError, BackendUnavailable: as `batches`.
    """
    return _whole(database, STAGE_SECONDS, select(**conditions))


def pages(
    connection: Connection, view: View, selection: Selection
) -> Generator[pd.DataFrame, None, None]:
    """Give the rows of one moment in frames of PAGE_ROWS, none of them empty.

    Raises:
        UsageError, BackendUnavailable: as `batches`.
    """
    with _explained(connection), connection.transaction():
        connection.execute(_SQL["to_the_last_row"])
        with connection.cursor(name="vuemantics_analytics") as cursor:
            cursor.execute(view.rows, asdict(selection))
            while rows := cursor.fetchmany(PAGE_ROWS):
                yield frame(view.columns, rows)


def count(connection: Connection, view: View, selection: Selection) -> int:
    """Count the rows that `pages` gives.

    Raises:
        UsageError, BackendUnavailable: as `batches`.
    """
    query = sql.SQL(_SQL["count"]).format(rows=view.rows)
    with _explained(connection), connection.transaction():
        connection.execute(_SQL["to_the_last_row"])
        row = connection.execute(query, asdict(selection)).fetchone()
    assert row is not None
    counted: int = row[0]
    return counted


def _whole(database: Database, view: View, selection: Selection) -> pd.DataFrame:
    with _connected(database) as connection:
        return joined(view.columns, list(pages(connection, view, selection)))


@contextmanager
def _connected(database: Database) -> Iterator[Connection]:
    if isinstance(database, str):
        with connect(database) as connection:
            yield connection
    else:
        yield database


@contextmanager
def _explained(connection: Connection) -> Iterator[None]:
    """Turn what keeps an analyst from the views into an error with a remedy."""
    role = connection.info.user
    try:
        with database_errors(connection):
            yield
    except (psycopg.errors.UndefinedTable, psycopg.errors.InvalidSchemaName) as error:
        raise UsageError(
            "not_migrated",
            "The database has no views for analysts.",
            "Let its owner run `vuemantics migrate`.",
        ) from error
    except psycopg.errors.InsufficientPrivilege as error:
        raise BackendUnavailable(
            "missing_privilege",
            f"The role {role} may not do this: {error.diag.message_primary}.",
            f"GRANT {ANALYST_ROLE} TO {role}.",
        ) from error
