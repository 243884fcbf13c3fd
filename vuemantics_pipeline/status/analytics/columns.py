"""The columns of each frame and what is in them, for pandas and for Parquet."""

from collections.abc import Mapping, Sequence
from enum import Enum
from typing import Any

import pandas as pd
import pyarrow as pa

from vuemantics_pipeline.status.timing import TIMED_STAGES


class Kind(Enum):
    """What a column holds: its pandas dtype, and its type in a Parquet file."""

    TEXT = ("string", pa.string())
    CATEGORY = ("category", pa.dictionary(pa.int32(), pa.string()))
    INTEGER = ("Int64", pa.int64())
    NUMBER = ("float64", pa.float64())
    FLAG = ("boolean", pa.bool_())
    MOMENT = ("datetime64[us, UTC]", pa.timestamp("us", tz="UTC"))
    LOCAL_TIME = ("datetime64[us]", pa.timestamp("us"))

    @property
    def dtype(self) -> Any:
        return self.value[0]

    @property
    def arrow(self) -> Any:
        return self.value[1]


Columns = Mapping[str, Kind]
"""By name, in their order."""

_MODEL: Columns = {
    "analyzer": Kind.CATEGORY,
    "vision_model": Kind.CATEGORY,
    "embedding_model": Kind.CATEGORY,
    "prompt_version": Kind.CATEGORY,
}
_ERROR: Columns = {
    "error_code": Kind.CATEGORY,
    "error_message": Kind.TEXT,
    "remedy": Kind.TEXT,
}
_TOTALS: Columns = {
    "uploads_total": Kind.INTEGER,
    "uploads_succeeded": Kind.INTEGER,
    "uploads_failed": Kind.INTEGER,
}
_PACE: Columns = {
    "uploads_reused": Kind.INTEGER,
    "bytes_total": Kind.INTEGER,
    "duration_seconds": Kind.NUMBER,
    "seconds_waiting_in_queue": Kind.NUMBER,
    "uploads_per_minute": Kind.NUMBER,
    "audit_score_mean": Kind.NUMBER,
    "attempts_total": Kind.INTEGER,
}

BATCHES: Columns = {
    "batch_id": Kind.TEXT,
    "user_id": Kind.CATEGORY,
    "status": Kind.CATEGORY,
    "created_at": Kind.MOMENT,
    "started_at": Kind.MOMENT,
    "completed_at": Kind.MOMENT,
    **_TOTALS,
    "uploads_unfinished": Kind.INTEGER,
    **_PACE,
    "attempts_released": Kind.INTEGER,
    "takeovers": Kind.INTEGER,
    "runs_total": Kind.INTEGER,
    "run_id": Kind.TEXT,
    **_MODEL,
    "error_message": Kind.TEXT,
}
UPLOADS: Columns = {
    "upload_id": Kind.TEXT,
    "batch_id": Kind.CATEGORY,
    "user_id": Kind.CATEGORY,
    "filename": Kind.TEXT,
    "file_type": Kind.CATEGORY,
    "mime_type": Kind.CATEGORY,
    "file_size": Kind.INTEGER,
    "format": Kind.CATEGORY,
    "detected_mime_type": Kind.CATEGORY,
    "width": Kind.INTEGER,
    "height": Kind.INTEGER,
    "taken_at": Kind.LOCAL_TIME,
    "camera": Kind.CATEGORY,
    "has_gps": Kind.FLAG,
    "duration_seconds": Kind.NUMBER,
    "frame_rate": Kind.NUMBER,
    "rotation": Kind.INTEGER,
    "video_codec": Kind.CATEGORY,
    "status": Kind.CATEGORY,
    "audit_score": Kind.INTEGER,
    "attempts": Kind.INTEGER,
    "seconds": Kind.NUMBER,
    **_ERROR,
    "run_id": Kind.CATEGORY,
    **_MODEL,
    "reused_from": Kind.TEXT,
    "created_at": Kind.MOMENT,
    "started_at": Kind.MOMENT,
    "ended_at": Kind.MOMENT,
    "updated_at": Kind.MOMENT,
}
ATTEMPTS: Columns = {
    "attempt_id": Kind.INTEGER,
    "upload_id": Kind.TEXT,
    "batch_id": Kind.CATEGORY,
    "user_id": Kind.CATEGORY,
    "filename": Kind.TEXT,
    "file_type": Kind.CATEGORY,
    "attempt_number": Kind.INTEGER,
    "run_id": Kind.CATEGORY,
    "started_at": Kind.MOMENT,
    "ended_at": Kind.MOMENT,
    "seconds": Kind.NUMBER,
    "outcome": Kind.CATEGORY,
    "stage": Kind.CATEGORY,
    "superseded": Kind.FLAG,
    **_ERROR,
    **_MODEL,
    "model_digest": Kind.CATEGORY,
    "reused_from": Kind.TEXT,
    "frames_done": Kind.INTEGER,
    "frames_total": Kind.INTEGER,
}
STAGES: Columns = {
    "attempt_id": Kind.INTEGER,
    "upload_id": Kind.TEXT,
    "batch_id": Kind.CATEGORY,
    "user_id": Kind.CATEGORY,
    "file_type": Kind.CATEGORY,
    "run_id": Kind.CATEGORY,
    "started_at": Kind.MOMENT,
    "outcome": Kind.CATEGORY,
    "superseded": Kind.FLAG,
    "analyzer": Kind.CATEGORY,
    "vision_model": Kind.CATEGORY,
    "prompt_version": Kind.CATEGORY,
    "stage": Kind.CATEGORY,
    "seconds": Kind.NUMBER,
}
MATERIALIZATIONS: Columns = {
    "batch_id": Kind.TEXT,
    "run_id": Kind.TEXT,
    "materialized_at": Kind.MOMENT,
    "user_id": Kind.CATEGORY,
    **_TOTALS,
    **_PACE,
    "takeovers": Kind.INTEGER,
    **{
        f"{stage}_seconds_{percentile}": Kind.NUMBER
        for stage in TIMED_STAGES
        for percentile in ("p50", "p95")
    },
    **_MODEL,
}


def frame(columns: Columns, rows: Sequence[Sequence[Any]]) -> pd.DataFrame:
    """Make a frame of rows, the dtypes of which do not depend on what is in them."""
    values = zip(*rows, strict=True) if rows else ((),) * len(columns)
    return pd.DataFrame(
        {
            name: _series(kind, column)
            for (name, kind), column in zip(columns.items(), values, strict=True)
        }
    )


def joined(columns: Columns, frames: Sequence[pd.DataFrame]) -> pd.DataFrame:
    """Put frames of the same columns below each other."""
    if not frames:
        return frame(columns, [])
    # Categories of two frames differ, and what is put together of them is no category any more.
    return pd.concat(frames, ignore_index=True).astype(
        {name: kind.dtype for name, kind in columns.items() if kind is Kind.CATEGORY}
    )


def to_arrow(columns: Columns, rows: pd.DataFrame) -> Any:
    """Make an Arrow table from which pandas reads the dtypes that the rows have.

    Its schema is the same for all rows of these columns.
    """
    # pyarrow asks for times with a zone in a way that pandas 3.1 warns of: they get theirs after.
    moments = [name for name, kind in columns.items() if kind is Kind.MOMENT]
    naive = {name: Kind.LOCAL_TIME if name in moments else columns[name] for name in columns}
    table = pa.Table.from_pandas(
        rows.assign(**{name: rows[name].dt.tz_localize(None) for name in moments}),
        schema=pa.schema([(name, kind.arrow) for name, kind in naive.items()]),
        preserve_index=False,
    )
    types = [(name, kind.arrow) for name, kind in columns.items()]
    return table.cast(pa.schema(types, metadata=table.schema.metadata))


def _series(kind: Kind, values: Sequence[Any]) -> "pd.Series[Any]":
    column: Any = list(values)
    if kind in (Kind.TEXT, Kind.CATEGORY):
        column = pd.array([None if value is None else str(value) for value in values], "string")
    elif kind is Kind.MOMENT:
        column = pd.to_datetime(column, utc=True)
    series: pd.Series[Any] = pd.Series(column, dtype=kind.dtype)
    return series
