"""Frames written to files page by page, so that no more than one is in memory.

CSV is read by spreadsheets, and those run a cell that begins like a formula. File names come from
strangers, so a text that begins that way gets an apostrophe in front, as OWASP's page "CSV
Injection" has it, and one that begins with an apostrophe a second one: leaving out the first
character of every text that begins with an apostrophe restores what was there. Parquet has the
texts as they are.
"""

from collections.abc import Iterable
from typing import IO

import pandas as pd
import pyarrow.parquet as pq

from vuemantics_pipeline.status.analytics.columns import Columns, Kind, frame, to_arrow

# The last four are the full-width forms, which East Asian versions take for the others.
_RISKY = ("=", "+", "-", "@", "\t", "\r", "\n", "'", "＝", "＋", "－", "＠")  # noqa: RUF001


def write_parquet(columns: Columns, pages: Iterable[pd.DataFrame], file: IO[bytes]) -> None:
    """Write pages as Parquet, from which pandas reads the dtypes they had."""
    with pq.ParquetWriter(file, to_arrow(columns, frame(columns, [])).schema) as writer:
        for page in pages:
            writer.write_table(to_arrow(columns, page))


def write_csv(columns: Columns, pages: Iterable[pd.DataFrame], file: IO[bytes]) -> None:
    """Write pages as CSV: UTF-8, a line of names, times in ISO 8601, empty where there is nothing.

    Texts that a spreadsheet would take for a formula are guarded by an apostrophe.
    """
    texts = [name for name, kind in columns.items() if kind in (Kind.TEXT, Kind.CATEGORY)]
    frame(columns, []).to_csv(file, index=False, lineterminator="\n")
    for page in pages:
        guarded = page.assign(**{name: _guarded(page[name]) for name in texts})
        guarded.to_csv(
            file,
            index=False,
            header=False,
            lineterminator="\n",
            date_format="%Y-%m-%dT%H:%M:%S.%f%z",
        )


def _guarded(texts: "pd.Series[str]") -> "pd.Series[str]":
    plain = texts.astype("string")
    return plain.mask(plain.str.startswith(_RISKY).fillna(False), "'" + plain)
