"""Whose vectors the database holds. Vectors of two models cannot be compared, so it is one."""

from vuemantics_pipeline.analysis.analyzer import AnalyzerIdentity
from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.migrate import column_dimension
from vuemantics_pipeline.ledger.queries import queries

_SQL = queries("vectors")


def check_space(
    connection: Connection, identity: AnalyzerIdentity, *, application_model: str
) -> None:
    """Refuse an analyzer whose vectors do not fit those in the database.

    Args:
        application_model: the model that made vectors which were there before this pipeline.

    Raises:
        UsageError: code 'wrong_dimension' or 'wrong_embedding_model'.
    """
    check_dimension(connection, identity)
    present = present_model(connection, application_model)
    if present is not None and present != (identity.embedding_model, identity.dimension):
        raise _wrong_model(present[0], identity.embedding_model)


def check_dimension(connection: Connection, identity: AnalyzerIdentity) -> None:
    """Refuse an analyzer whose vectors the column cannot hold.

    Raises:
        UsageError: code 'wrong_dimension'.
    """
    dimension = column_dimension(connection)
    if dimension is not None and dimension != identity.dimension:
        raise UsageError(
            "wrong_dimension",
            f"The analyzer {identity.analyzer} makes vectors of {identity.dimension} dimensions "
            f"({identity.embedding_model}), but uploads.embedding_local holds {dimension}.",
            f"{_REMEDY}.",
        )


def present_model(connection: Connection, application_model: str) -> tuple[str, int] | None:
    """Return the model whose vectors the database holds and their dimension; None without any."""
    row = connection.execute(_SQL["space"]).fetchone()
    if row is not None:
        return row[0], row[1]
    row = connection.execute(_SQL["dimension_present"]).fetchone()
    return None if row is None else (application_model, row[0])


def claim_space(
    connection: Connection, identity: AnalyzerIdentity, *, application_model: str
) -> None:
    """Check as `check_space` does, and make the database this model's if it holds no vectors.

    Raises:
        UsageError: as `check_space`.
    """
    check_space(connection, identity, application_model=application_model)
    connection.execute(
        _SQL["claim_space"],
        {"embedding_model": identity.embedding_model, "dimension": identity.dimension},
    )
    check_space(connection, identity, application_model=application_model)


def hold_space(connection: Connection, embedding_model: str) -> None:
    """Make sure, until the transaction ends, that the vectors in the database are this model's.

    Raises:
        UsageError: code 'wrong_embedding_model', they were given to another since the run began.
    """
    row = connection.execute(_SQL["hold_space"]).fetchone()
    if row is not None and row[0] != embedding_model:
        raise _wrong_model(row[0], embedding_model)


def literal(values: list[float]) -> str:
    """Return a vector as pgvector's text input takes it."""
    return "[" + ",".join(map(repr, values)) + "]"


_REMEDY = (
    "Set VUEMANTICS_ANALYZER (and LOCAL_EMBEDDING_MODEL) to what made them, "
    "or use a database of its own for this analyzer"
)


def _wrong_model(present: str, wanted: str) -> UsageError:
    return UsageError(
        "wrong_embedding_model",
        f"The vectors in the database were made by {present}; those of {wanted} cannot be "
        "compared with them.",
        f"{_REMEDY}, or let `vuemantics reanalyze` make all of them anew.",
    )
