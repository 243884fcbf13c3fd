"""What a client missed of a batch, in pages: nothing is kept for it, the rows know."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.progress.messages import (
    Message,
    batch_message,
    file_message,
    upload_message,
)
from vuemantics_pipeline.status.paging import Position
from vuemantics_pipeline.status.progress import (
    batch_progress,
    upload_progress,
    uploads_moved,
    uploads_page,
)

PAGE = 200
"""Uploads read and told at a time."""

From = int | Position | None
"""Where a page begins: after a change, by its number, or in the whole batch after an upload.

None: with the batch's first upload.
"""


@dataclass(frozen=True)
class Page:
    """Some of the messages; the last page ends with the batch itself.

    Attributes:
        more: where the next page begins, None after the last.
    """

    messages: Sequence[Message]
    more: From


def read_page(connection: Connection, user_id: UUID, batch_id: UUID, begin: From) -> Page | None:
    """Read what moved in a batch after a change, or the whole batch where that cannot be told.

    Returns:
        None where the user has no such batch.
    """
    with connection.transaction():
        found = batch_progress(connection, [batch_id])
        if not found or found[0].batch.user_id != user_id:
            return None
        progress = found[0]
        more: From
        if isinstance(begin, int) and progress.sweeping_seq <= begin <= progress.seq:
            uploads = uploads_moved(connection, {batch_id: begin}, limit=PAGE)
            more = uploads[-1].seq if uploads else None
        else:
            position = begin if isinstance(begin, Position) else None
            uploads = uploads_page(connection, batch_id, position=position, limit=PAGE)
            more = uploads[-1].position if uploads else None
    messages = [file_message(upload) for upload in uploads]
    if len(uploads) == PAGE:
        return Page(messages, more)
    return Page([*messages, batch_message(progress)], None)


def read_upload(connection: Connection, user_id: UUID, upload_id: UUID) -> Message | None:
    """Read how an upload stands; None where the user has no such upload."""
    found = upload_progress(connection, [upload_id])
    if not found or found[0].user_id != user_id:
        return None
    return upload_message(found[0])
