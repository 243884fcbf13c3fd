"""How a batch comes into being: its row first, then its uploads, and at the end its true total.

The order is the application's own. Until the last step a batch announces more uploads than it
has, so that nobody takes it for complete.
"""

from dataclasses import asdict, dataclass
from uuid import UUID, uuid4

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.connection import Connection, database_errors
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.transactions import transaction

DEMO_USER = "demo@vuemantics.local"
"""Owner of what is ingested into a database of our own that has no user yet."""

_SQL = queries("ingest")


@dataclass(frozen=True)
class NewUpload:
    """A row of `uploads` before anything was done about it.

    Attributes:
        filename: as a person sees it; never used as a path.
        file_path: relative to UPLOAD_PATH.
        file_type: 'image' or 'video'.
        file_size: bytes.
        mime_type: of the content.
        video_codec: None for images.
    """

    upload_id: UUID
    filename: str
    file_path: str
    file_type: str
    file_size: int
    mime_type: str
    video_codec: str | None


def find_user(connection: Connection, user: str) -> UUID:
    """Return the id of the user with this id or e-mail address.

    Raises:
        UsageError: code 'no_such_user'.
    """
    try:
        row = connection.execute(_SQL["user_by_id"], {"user_id": UUID(user)}).fetchone()
    except ValueError:
        row = connection.execute(_SQL["user_by_email"], {"email": user}).fetchone()
    if row is None:
        raise UsageError(
            "no_such_user",
            f"There is no user {user!r}.",
            "Give the e-mail address or the id of a user of the application.",
        )
    user_id: UUID = row[0]
    return user_id


def default_user(connection: Connection) -> UUID:
    """Return the only user there is; on a database of our own without one, a demo user.

    Raises:
        UsageError: code 'which_user' or 'no_user'.
    """
    users = connection.execute(_SQL["first_users"]).fetchall()
    if len(users) > 1:
        raise UsageError(
            "which_user",
            "The database has more than one user.",
            "Name the owner of the files by e-mail address or id with --user.",
        )
    if users:
        user_id: UUID = users[0][0]
        return user_id
    if connection.execute(_SQL["tables_are_ours"]).fetchone() is None:
        raise UsageError(
            "no_user",
            "The application's database has no user yet, and every upload needs one.",
            "Register one in the application first.",
        )
    connection.execute(_SQL["add_user"], {"email": DEMO_USER})
    return find_user(connection, DEMO_USER)


def add_batch(connection: Connection, user_id: UUID, *, offered: int) -> UUID:
    """Add a pending batch that announces `offered` uploads, and return its id.

    Raises:
        BackendUnavailable: the connection is lost.
    """
    batch_id = uuid4()
    with database_errors(connection):
        connection.execute(
            _SQL["add_batch"], {"batch_id": batch_id, "user_id": user_id, "total": offered}
        )
    return batch_id


def add_upload(connection: Connection, batch_id: UUID, user_id: UUID, upload: NewUpload) -> None:
    """Add one pending upload to a batch.

    Raises:
        BackendUnavailable: the connection is lost.
    """
    with transaction(connection):
        # Waiting for the disk once, in `settle_total`, makes all of them durable.
        connection.execute(_SQL["commit_without_waiting"])
        connection.execute(
            _SQL["add_upload"], asdict(upload) | {"batch_id": batch_id, "user_id": user_id}
        )


def settle_total(connection: Connection, batch_id: UUID) -> int:
    """Lower a batch's total to the uploads it has, which makes it ready, and return that.

    Raises:
        BackendUnavailable: the connection is lost.
    """
    with transaction(connection):
        row = connection.execute(_SQL["settle_total"], {"batch_id": batch_id}).fetchone()
    return row[0] if row else 0
