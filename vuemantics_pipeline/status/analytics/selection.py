"""Which rows an analyst wants."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypedDict, Unpack
from uuid import UUID

from vuemantics_pipeline.errors import UsageError


@dataclass(frozen=True)
class Selection:
    """Conditions that all hold; None is none.

    Attributes:
        since: no row of before this moment.
        until: no row of this moment or after.
        status: of attempts, the outcome.
    """

    since: datetime | None = None
    until: datetime | None = None
    user_id: UUID | None = None
    batch_id: UUID | None = None
    status: str | None = None
    analyzer: str | None = None


class Conditions(TypedDict, total=False):
    """Conditions as a person gives them; all of those given hold.

    - since: not before this time
    - until: before this time
    - user, batch: of this id
    - status: with this status
    - analyzer: of the newest attempt

    A time is a datetime, or a text in ISO 8601 such as '2026-11-24' or '2026-11-24T09:00+01:00'; it
    is in UTC where it names no zone.
    """

    since: datetime | str | None
    until: datetime | str | None
    user: UUID | str | None
    batch: UUID | str | None
    status: str | None
    analyzer: str | None


def select(**conditions: Unpack[Conditions]) -> Selection:
    """Read conditions.

    Raises:
        UsageError: code 'not_a_time' or 'not_an_id'.
    """
    return Selection(
        since=_moment(conditions.get("since")),
        until=_moment(conditions.get("until")),
        user_id=_id(conditions.get("user")),
        batch_id=_id(conditions.get("batch")),
        status=conditions.get("status"),
        analyzer=conditions.get("analyzer"),
    )


def _moment(value: datetime | str | None) -> datetime | None:
    if value is None:
        return None
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        raise UsageError(
            "not_a_time",
            f"That is not a time: {value!r}.",
            "Give it as 2026-11-24 or 2026-11-24T09:30+00:00.",
        ) from None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _id(value: UUID | str | None) -> UUID | None:
    if value is None or isinstance(value, UUID):
        return value
    try:
        return UUID(value.strip())
    except ValueError:
        raise UsageError(
            "not_an_id",
            f"That is not an id: {value!r}.",
            "Ids of users and batches are in the columns user_id and batch_id.",
        ) from None
