"""Whether the rows keep what the ledger promises, read from the rows alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries

_SQL = queries("audit")


@dataclass(frozen=True)
class Violation:
    """One thing about a batch that must not be.

    Attributes:
        rule: stable snake_case name of the promise that is broken.
        detail: what the rows say, as the rest of a sentence that begins with the batch.
    """

    batch_id: UUID
    rule: str
    detail: str


@dataclass(frozen=True)
class Audit:
    """What an audit looked at and found."""

    batches: int
    violations: Sequence[Violation]


def audit(connection: Connection, batch_id: UUID | None = None) -> Audit:
    """Check every batch, or one, as of one moment.

    Counters equal a GROUP BY over uploads; processed = successful + failed <= total; nothing is
    completed with work left, without a result or twice; no upload has used up a third attempt;
    and uploads and their attempts agree.
    """
    rows = connection.execute(_SQL["violations"], {"batch_id": batch_id}).fetchall()
    violations = [Violation(*row[:3]) for row in rows if row[0] is not None]
    return Audit(rows[0][3], violations)
