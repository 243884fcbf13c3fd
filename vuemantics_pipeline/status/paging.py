"""Long lists in pages: where the next page begins, as a text that a client hands back."""

import base64
import binascii
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar
from uuid import UUID

from vuemantics_pipeline.errors import UsageError

_Row = TypeVar("_Row")


@dataclass(frozen=True)
class Position:
    """A row in a list that is ordered by `created_at` and `id`; the next page begins after it.

    Unlike a number of rows to leave out, it stays right while rows are added.
    """

    created_at: datetime
    row_id: UUID

    @property
    def cursor(self) -> str:
        """The position as a text that means nothing to a client."""
        text = f"{self.created_at.isoformat()} {self.row_id}"
        return base64.urlsafe_b64encode(text.encode()).decode()


def parse_cursor(cursor: str) -> Position:
    """Read a cursor that a client hands back.

    Raises:
        UsageError: code 'bad_cursor'.
    """
    try:
        moment, row_id = base64.b64decode(cursor, altchars=b"-_", validate=True).decode().split(" ")
        created_at = datetime.fromisoformat(moment)
        if created_at.tzinfo is None:
            raise ValueError("a time without a zone")
        # Postgres does not know every zone that Python can think of.
        position = Position(created_at.astimezone(UTC), UUID(row_id))
    except (ValueError, OverflowError, binascii.Error):
        raise UsageError(
            "bad_cursor",
            "That is no cursor of this list.",
            "Give `next_cursor` of the page before unchanged, or none for the first page.",
        ) from None
    return position


def page_of(
    rows: Sequence[_Row], limit: int, position: Callable[[_Row], Position]
) -> tuple[Sequence[_Row], str | None]:
    """Return a page of at most `limit` rows, and the cursor of the next one.

    Args:
        rows: one more than `limit` where there is a next page.
        position: of a row.
    """
    page = rows[:limit]
    return page, position(page[-1]).cursor if len(rows) > limit else None


def after(position: Position | None) -> dict[str, object]:
    """The parameters of a query that begins after a position, or at the beginning."""
    return {
        "after_time": position and position.created_at,
        "after_id": position and position.row_id,
    }
