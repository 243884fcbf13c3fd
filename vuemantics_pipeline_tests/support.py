"""What several test files need: users, batches with real files, a whole run, and what to expect."""

import atexit
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit
from uuid import UUID, uuid4

import psycopg
from PIL import Image
from psycopg import sql
from psycopg.rows import class_row

from vuemantics_pipeline.analysis.analyzer import Analyzer, AnalyzerIdentity
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.errors import UploadError
from vuemantics_pipeline.ledger import batches, leases
from vuemantics_pipeline.ledger.batches import BATCH_CHANNEL, Closed
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.counters import PROGRESS_CHANNEL
from vuemantics_pipeline.ledger.leases import Lease
from vuemantics_pipeline.ledger.records import Analysis, Outcome
from vuemantics_pipeline.media.decoder import Decoder
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.processing import Processed, Tools, Verdict, process_upload

DIMENSION = 8
"""Of the vectors in the databases that the `connection` fixture prepares."""

MIGRATIONS = (
    "0001_pipeline_schema.sql",
    "0002_media_facts.sql",
    "0003_progress.sql",
    "0004_analyst_views.sql",
)
MAX_PIXELS = 10_000_000
IDENTITY = AnalyzerIdentity("test", "a vision model", "an embedding model", DIMENSION, "v1")
TRUNCATED = UploadError("unreadable_media", "The file is damaged.", "Upload it again.")


@cache
def photo(width: int = 64, height: int = 48) -> bytes:
    """A JPEG with some structure in it."""
    image = Image.radial_gradient("L").resize((width, height)).convert("RGB")
    encoded = io.BytesIO()
    image.save(encoded, "JPEG")
    return encoded.getvalue()


@dataclass(frozen=True)
class NewBatch:
    """A batch as it was added: its uploads by file name, in the order they were added."""

    batch_id: UUID
    user_id: UUID
    uploads: Mapping[str, UUID]

    @property
    def first(self) -> UUID:
        return next(iter(self.uploads.values()))


def add_user(connection: Connection) -> UUID:
    """Add a user, in words that every variant of the application's tables understands."""
    user_id = uuid4()
    connection.execute(
        "INSERT INTO users (id, email, password_hash) VALUES (%s, %s, '!')",
        (user_id, f"{user_id}@example.com"),
    )
    return user_id


def add_batch(
    connection: Connection,
    user_id: UUID,
    *,
    files: Mapping[str, bytes] | Sequence[str] = ("a.jpg",),
    offered: int | None = None,
    uploads_root: Path | None = None,
) -> NewBatch:
    """Add a pending batch the way the application does, row by row.

    Args:
        files: name -> content, or names only: those are small photos.
        offered: how many files the batch announces, if not as many as it gets.
        uploads_root: the files are written below it; None: there are rows only.
    """
    batch_id = uuid4()
    connection.execute(
        "INSERT INTO upload_batches (id, user_id, status, total_uploads)"
        " VALUES (%s, %s, 'pending', %s)",
        (batch_id, user_id, len(files) if offered is None else offered),
    )
    contents = files if isinstance(files, Mapping) else dict.fromkeys(files, photo())
    uploads = {
        name: add_upload(connection, batch_id, user_id, name, content, uploads_root=uploads_root)
        for name, content in contents.items()
    }
    return NewBatch(batch_id, user_id, uploads)


def add_upload(
    connection: Connection,
    batch_id: UUID,
    user_id: UUID,
    name: str = "late.jpg",
    content: bytes | None = None,
    *,
    file_path: str | None = None,
    uploads_root: Path | None = None,
) -> UUID:
    """Add one pending upload to a batch, and its file where `uploads_root` is given."""
    upload_id = uuid4()
    stored = f"{user_id}/{upload_id}/original{Path(name).suffix}"
    if uploads_root is not None:
        path = uploads_root / stored
        path.parent.mkdir(parents=True)
        path.write_bytes(photo() if content is None else content)
    connection.execute(
        "INSERT INTO uploads (id, user_id, batch_id, filename, file_path, file_type, file_size,"
        " mime_type, processing_status) VALUES (%s, %s, %s, %s, %s, 'image', %s, 'image/jpeg',"
        " 'pending')",
        (upload_id, user_id, batch_id, name, file_path or stored, len(content or photo())),
    )
    return upload_id


@dataclass(frozen=True)
class BatchRow:
    """A row of `upload_batches`; times as whether they are set."""

    status: str
    total: int
    processed: int
    successful: int
    failed: int
    message: str | None
    started: bool
    ended: bool


def batch_row(connection: Connection, batch_id: UUID) -> BatchRow:
    with connection.cursor(row_factory=class_row(BatchRow)) as cursor:
        row = cursor.execute(
            "SELECT status, total_uploads AS total, processed_uploads AS processed,"
            " successful_uploads AS successful, failed_uploads AS failed,"
            " error_message AS message, started_at IS NOT NULL AS started,"
            " completed_at IS NOT NULL AS ended FROM upload_batches WHERE id = %s",
            (batch_id,),
        ).fetchone()
    assert row is not None
    return row


def upload_state(connection: Connection, upload_id: UUID) -> tuple[str, str | None]:
    """`processing_status` and `error_message` of an upload."""
    row = connection.execute(
        "SELECT processing_status, error_message FROM uploads WHERE id = %s", (upload_id,)
    ).fetchone()
    assert row is not None
    return row[0], row[1]


def attempts(connection: Connection, upload_id: UUID) -> list[tuple[int, str | None, str | None]]:
    """(attempt_number, outcome, error_code) of an upload's attempts, oldest first."""
    return connection.execute(
        "SELECT attempt_number, outcome, error_code FROM vuemantics_pipeline.attempts"
        " WHERE upload_id = %s ORDER BY id",
        (upload_id,),
    ).fetchall()


def assert_counters_true(connection: Connection, batch_id: UUID) -> None:
    """Rule 5 of the ledger: the counters are what a GROUP BY over the uploads says."""
    counted: dict[str, int] = dict(
        connection.execute(
            "SELECT processing_status, count(*) FROM uploads WHERE batch_id = %s GROUP BY 1",
            (batch_id,),
        ).fetchall()
    )
    row = batch_row(connection, batch_id)
    assert (row.successful, row.failed) == (counted.get("completed", 0), counted.get("failed", 0))
    assert row.processed == row.successful + row.failed
    assert row.processed <= sum(counted.values())


def everything(connection: Connection, batch_id: UUID) -> list[object]:
    """Every row about a batch, and the version of each: equal only if nothing was written."""
    queries = (
        "SELECT xmin::text, b::text FROM upload_batches AS b WHERE id = %s",
        "SELECT xmin::text, u::text FROM uploads AS u WHERE batch_id = %s ORDER BY id",
        "SELECT xmin::text, s::text FROM vuemantics_pipeline.batch_states AS s WHERE batch_id = %s",
        "SELECT xmin::text, a::text FROM vuemantics_pipeline.attempts AS a WHERE batch_id = %s"
        " ORDER BY id",
    )
    return [connection.execute(query, (batch_id,)).fetchall() for query in queries]


def begin(
    connection: Connection, batch_id: UUID, run_id: str = "run-1", *, reopen: bool = False
) -> Lease:
    """Take the lease of a batch and open it."""
    lease = leases.acquire(connection, batch_id, run_id)
    batches.open_batch(lease, reopen=reopen)
    return lease


def outcome(
    dimension: int = DIMENSION,
    *,
    description: str = "A lake at dusk.",
    video_codec: str | None = None,
) -> Outcome:
    """What a good upload comes to."""
    vector = [1.0] + [0.0] * (dimension - 1)
    return Outcome(
        Analysis(description, 80, vector),
        MediaInfo("image", "JPEG", "image/jpeg", "jpg", 640, 480, video_codec=video_codec),
        "0" * 64,
        "u/i/thumb_256.jpg",
        {"indexing": 0.5},
    )


@cache
def decoder() -> Decoder:
    """The real decoder, one for all tests of a process."""
    shared = Decoder(seconds=60, memory_bytes=2 << 30)
    atexit.register(shared.close)
    return shared


def process(
    lease: Lease, upload_id: UUID, uploads_root: Path, analyzer: Analyzer | None = None
) -> Processed:
    """One attempt at an upload, by an analyzer that looks at nothing unless another is given."""
    analyzer = analyzer or ConstantAnalyzer(DIMENSION)
    tools = Tools(decoder(), analyzer, uploads_root, MAX_PIXELS, reuse=False)
    return process_upload(lease, upload_id, tools)


def run_batch(
    connection: Connection, batch_id: UUID, uploads_root: Path, analyzer: Analyzer
) -> Closed:
    """A whole run of a batch: every upload until it is finished, a second attempt included."""
    lease = leases.acquire(connection, batch_id, "a-run")
    for upload in batches.open_batch(lease, reopen=False):
        while process(lease, upload.upload_id, uploads_root, analyzer).verdict is Verdict.RETRY:
            pass
    closed = batches.close_batch(lease)
    leases.release(lease)
    return closed


class Listener:
    """Hears what Postgres announces on the pipeline's channels, none of it twice."""

    _marks = itertools.count()

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        for channel in (BATCH_CHANNEL, PROGRESS_CHANNEL, "mark"):
            connection.execute(sql.SQL("LISTEN {}").format(sql.Identifier(channel)))

    def heard(self) -> list[tuple[str, str]]:
        """(channel, payload) of every announcement committed since the last call, in order."""
        mark = str(next(self._marks))
        # Announcements arrive in the order of their commits, so all of them are in before this.
        self._connection.execute("SELECT pg_notify('mark', %s)", (mark,))
        found: list[tuple[str, str]] = []
        for notify in self._connection.notifies(timeout=30):
            if notify.channel == "mark":
                if notify.payload == mark:
                    return found
            else:
                found.append((notify.channel, notify.payload))
        raise AssertionError("Postgres announced nothing in 30 s, not even the mark.")


@contextmanager
def empty_database(server_url: str) -> Iterator[str]:
    """The URL of a database without tables, gone afterwards."""
    database = f"test_{uuid4().hex}"
    name = sql.Identifier(database)
    with psycopg.connect(server_url, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        try:
            yield urlsplit(server_url)._replace(path=f"/{database}").geturl()
        finally:
            connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


@contextmanager
def connections(database_url: str, count: int) -> Iterator[list[Connection]]:
    """Several sessions on the same database."""
    with ExitStack() as stack:
        yield [stack.enter_context(connect(database_url)) for _ in range(count)]


def backend_pid(connection: Connection) -> int:
    return connection.info.backend_pid


def kill(connection: Connection, victim: Connection) -> None:
    """End another session the hard way, and wait until its server process is gone."""
    pid = backend_pid(victim)
    row = connection.execute("SELECT pg_terminate_backend(%s, 10000)", (pid,)).fetchone()
    assert row == (True,)


def as_role(database_url: str, role: str) -> str:
    """The same database for another role, which needs no password."""
    parts = urlsplit(database_url)
    host = parts.netloc.rpartition("@")[2]
    return urlunsplit(parts._replace(netloc=f"{quote(role)}@{host}"))


@contextmanager
def new_role(connection: Connection) -> Iterator[str]:
    """A role that may do nothing but connect; gone afterwards with all it was granted."""
    role = f"role_{uuid4().hex}"
    name = sql.Identifier(role)
    connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(name))
    try:
        yield role
    finally:
        connection.execute(sql.SQL("DROP OWNED BY {} CASCADE; DROP ROLE {}").format(name, name))
