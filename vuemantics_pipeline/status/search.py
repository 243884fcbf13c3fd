"""Finds uploads whose descriptions mean what a text says."""

from dataclasses import dataclass
from uuid import UUID

from psycopg.rows import class_row

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.vectors import check_space, literal

_SQL = queries("status")
_LARGEST_EF_SEARCH = 1000  # pgvector's own limit


@dataclass(frozen=True)
class SearchHit:
    """An upload that was found.

    Attributes:
        file_path: as stored, relative to UPLOAD_PATH.
        score: cosine similarity, -1 to 1, higher is closer; four decimals.
    """

    upload_id: UUID
    batch_id: UUID | None
    filename: str
    file_path: str
    score: float
    description: str | None


def search(
    connection: Connection,
    analyzer: Analyzer,
    text: str,
    *,
    application_model: str,
    limit: int = 10,
    user_id: UUID | None = None,
) -> list[SearchHit]:
    """Return the uploads nearest in meaning, best first, at most `limit`; hidden ones never.

    Args:
        application_model: the model that made vectors which were there before this pipeline.
        user_id: only uploads of this user.

    Raises:
        UsageError: code 'empty_query', or 'wrong_dimension' and 'wrong_embedding_model' as
            `ledger.vectors.check_space`.
        BackendUnavailable: the model cannot be reached.
    """
    text = text.encode(errors="replace").decode().replace("\0", " ").strip()
    if not text:
        raise UsageError("empty_query", "There is nothing to search for.", "Give some words.")
    check_space(connection, analyzer.identity, application_model=application_model)
    parameters = {
        "embedding": literal(analyzer.embed(text)),
        "limit": limit,
        "ef_search": min(max(limit, 40), _LARGEST_EF_SEARCH),
        "user_id": user_id,
    }
    with connection.transaction(), connection.cursor(row_factory=class_row(SearchHit)) as cursor:
        cursor.execute(_SQL["load_pgvector"])
        cursor.execute(_SQL["scan_on"], parameters)
        return cursor.execute(_SQL["search"], parameters).fetchall()
