"""The report of a day: what the batches that ended on it came to, for each analyzer.

A batch belongs to the day, in UTC, on which it was completed, failed or cancelled. One that is run
again moves to the day of its new end, so a report that is made anew may differ from the old one.

Not imported before a report is made: pandas takes a while to load.
"""

import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pandas as pd
import pyarrow as pa
from psycopg.rows import dict_row

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries

_SQL = queries("daily_report")

SCHEMA = pa.schema(
    {
        "day": pa.date32(),
        "analyzer": pa.string(),
        "batches": pa.int64(),
        "batches_completed": pa.int64(),
        "batches_failed": pa.int64(),
        "batches_cancelled": pa.int64(),
        "uploads_total": pa.int64(),
        "uploads_succeeded": pa.int64(),
        "uploads_failed": pa.int64(),
        "uploads_reused": pa.int64(),
        "success_rate": pa.float64(),
        "bytes_total": pa.int64(),
        "duration_seconds": pa.float64(),
        "uploads_per_minute": pa.float64(),
        "seconds_waiting_in_queue_p50": pa.float64(),
        "seconds_waiting_in_queue_p95": pa.float64(),
        "failures": pa.list_(pa.struct({"error_code": pa.string(), "uploads": pa.int64()})),
    }
)
"""Columns of the Parquet files, one row for each analyzer; no row on a day without batches.

- `day`: in UTC.
- `analyzer`: of the batch's newest attempt; null where none was ever begun.
- `batches`, `batches_<status>`: those that ended on the day, and how.
- `uploads_...`: uploads in them. `uploads_reused` took over what was made of the same bytes.
- `success_rate`: succeeded / (succeeded + failed), 0-1; null where that would divide by 0, as
  in the columns below.
- `bytes_total`: size of the files, in bytes.
- `duration_seconds`: in which a run was at work, summed.
- `uploads_per_minute`: uploads succeeded and failed, per minute of `duration_seconds`.
- `seconds_waiting_in_queue_p50`, `..._p95`: percentiles over the batches, from the last upload's
  arrival to the start of the first run.
- `failures`: how many uploads failed with which code, the most frequent first.
"""

Measures = dict[str, Any]

_STATUSES = ("completed", "failed", "cancelled")
_SUMS = (
    *("uploads_total", "uploads_succeeded", "uploads_failed", "uploads_reused"),
    *("bytes_total", "duration_seconds"),
)
_BATCH_COLUMNS = {
    "batch_id": "object",
    "status": "object",
    "ended_at": "datetime64[us, UTC]",
    "analyzer": "object",
    **dict.fromkeys(_SUMS, "float64"),
    "seconds_waiting_in_queue": "float64",
}


@dataclass(frozen=True)
class DailyReport:
    """What happened on a day.

    Attributes:
        batches: one row for each batch that ended on it, by time.
        failures: `batch_id`, `error_code` and the number of `uploads` with it.
    """

    day: date
    batches: pd.DataFrame
    failures: pd.DataFrame

    @property
    def totals(self) -> Measures:
        """The columns of `SCHEMA` from `batches` on, over all analyzers."""
        return _measures(self.batches, self.failures)

    @property
    def by_analyzer(self) -> pd.DataFrame:
        """The columns of `SCHEMA`."""
        groups = self.batches.groupby("analyzer", dropna=False, sort=True)
        rows = [
            {
                "day": self.day,
                "analyzer": None if pd.isna(analyzer) else analyzer,
                **_measures(batches, self.failures[self.failures.batch_id.isin(batches.batch_id)]),
            }
            for analyzer, batches in groups
        ]
        return pd.DataFrame(rows, columns=SCHEMA.names)


def daily_report(connection: Connection, day: date) -> DailyReport:
    """Read what there is to say about a day, as of now."""
    since = datetime.combine(day, time(), UTC)
    parameters = {"since": since, "until": since + timedelta(days=1)}
    with connection.cursor(row_factory=dict_row) as cursor:
        rows = cursor.execute(_SQL["batches"], parameters).fetchall()
        batch_ids: list[UUID] = [row["batch_id"] for row in rows]
        failures = cursor.execute(_SQL["failures"], {"batch_ids": batch_ids}).fetchall()
    return DailyReport(
        day,
        pd.DataFrame(rows, columns=list(_BATCH_COLUMNS)).astype(_BATCH_COLUMNS),
        pd.DataFrame(failures, columns=["batch_id", "error_code", "uploads"]),
    )


def write_report(report: DailyReport, folder: Path) -> Path:
    """Write `<folder>/<day>.parquet` at one stroke, in place of one that is there; return its path.

    Raises:
        BackendUnavailable: code 'reports_unwritable'.
    """
    path = folder / f"{report.day}.parquet"
    # Readers of the whole folder leave out what begins with a dot.
    part = folder / f".{report.day}.{os.getpid()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        report.by_analyzer.to_parquet(part, engine="pyarrow", index=False, schema=SCHEMA)
        part.replace(path)
    except OSError as error:
        with suppress(OSError):
            part.unlink()
        raise BackendUnavailable(
            "reports_unwritable",
            f"The folder {folder} cannot be written: {error.strerror}.",
            "Let VUEMANTICS_REPORTS_PATH name one that the pipeline may write to.",
        ) from error
    return path


def _measures(batches: pd.DataFrame, failures: pd.DataFrame) -> Measures:
    statuses = batches.status.value_counts()
    sums = batches[list(_SUMS)].sum()
    finished = sums.uploads_succeeded + sums.uploads_failed
    waits = batches.seconds_waiting_in_queue
    codes = failures.groupby("error_code").uploads.sum().sort_index()
    codes = codes.sort_values(ascending=False, kind="stable")
    return {
        "batches": len(batches),
        **{f"batches_{status}": int(statuses.get(status, 0)) for status in _STATUSES},
        **{name: int(sums[name]) for name in _SUMS if name != "duration_seconds"},
        "success_rate": _ratio(sums.uploads_succeeded, finished),
        "duration_seconds": float(sums.duration_seconds),
        "uploads_per_minute": _ratio(60 * finished, sums.duration_seconds),
        "seconds_waiting_in_queue_p50": _quantile(waits, 0.5),
        "seconds_waiting_in_queue_p95": _quantile(waits, 0.95),
        "failures": [
            {"error_code": str(code), "uploads": int(uploads)} for code, uploads in codes.items()
        ],
    }


def _ratio(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def _quantile(values: "pd.Series[float]", share: float) -> float | None:
    return None if values.dropna().empty else float(values.quantile(share))
