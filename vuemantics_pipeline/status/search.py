"""Finds uploads that show what a text says, or in which it is written."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from uuid import UUID

from psycopg.rows import class_row

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.records import FileType
from vuemantics_pipeline.ledger.vectors import check_space, literal

MAX_TEXT_LENGTH = 1000
"""Characters of a search; models read no more of it."""

_SQL = queries("status")
_LARGEST_EF_SEARCH = 1000  # pgvector's own limit
_CACHED_QUERIES = 256

# What a match adds to the cosine similarity: about as much as lies between a photo of a thing and
# one without it (see docs/search-quality.md), so that a match lifts, but not out of all meaning.
_TEXT_WEIGHT, _YEAR_WEIGHT = 0.3, 0.3
_YEAR = re.compile(r"(?<!\d)(?:18|19|20)\d\d(?!\d)")


@dataclass(frozen=True)
class SearchHit:
    """An upload that was found.

    Attributes:
        file_path, thumbnail_path: as stored, relative to UPLOAD_PATH.
        score: cosine similarity (-1 to 1), higher is closer, plus up to 0.3 for the share of the
            words that are written in the picture and 0.3 for its year; four decimals.
        matched: what was found besides the meaning: 'text', 'year'.
    """

    upload_id: UUID
    batch_id: UUID | None
    filename: str
    file_path: str
    file_type: str
    thumbnail_path: str | None
    score: float
    description: str | None
    matched: Sequence[str]


def search(
    connection: Connection,
    analyzer: Analyzer,
    text: str,
    *,
    application_model: str,
    limit: int = 10,
    user_id: UUID | None = None,
    file_type: FileType | None = None,
) -> list[SearchHit]:
    """Return the uploads nearest in meaning, best first, at most `limit`; hidden ones never.

    Words that can be read in a picture, and the year it was taken in, count besides the meaning.

    Args:
        application_model: the model that made vectors which were there before this pipeline.
        user_id: only uploads of this user.
        file_type: only images, or only videos.

    Raises:
        UsageError: code 'empty_query', 'long_query', or 'wrong_dimension' and
            'wrong_embedding_model' as `ledger.vectors.check_space`.
        BackendUnavailable: the model cannot be reached.
    """
    text = text.encode(errors="replace").decode().replace("\0", " ").strip()
    if not text:
        raise UsageError("empty_query", "There is nothing to search for.", "Give some words.")
    if len(text) > MAX_TEXT_LENGTH:
        raise UsageError(
            "long_query",
            f"The search is {len(text)} characters long; {MAX_TEXT_LENGTH} are read.",
            "Say it in fewer words.",
        )
    check_space(connection, analyzer.identity, application_model=application_model)
    parameters = {
        "embedding": _vector(analyzer, text),  # type: ignore[arg-type]  # any object has a hash
        "text": text,
        "years": [int(year) for year in _YEAR.findall(text)],
        "text_weight": _TEXT_WEIGHT,
        "year_weight": _YEAR_WEIGHT,
        "limit": limit,
        "ef_search": min(max(limit, 40), _LARGEST_EF_SEARCH),
        "user_id": user_id,
        "file_type": file_type,
    }
    with connection.transaction(), connection.cursor(row_factory=class_row(SearchHit)) as cursor:
        cursor.execute(_SQL["load_pgvector"])
        cursor.execute(_SQL["scan_on"], parameters)
        return cursor.execute(_SQL["search"], parameters).fetchall()


@lru_cache(_CACHED_QUERIES)
def _vector(analyzer: Analyzer, text: str) -> str:
    """The query's vector as pgvector takes it; people ask for the same things again."""
    return literal(analyzer.embed(text))
