"""The report of a day as a person sees it: Markdown with a table, the failures, and plots."""

import base64
import io
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import pandas as pd

from vuemantics_pipeline.status.reports import DailyReport, Measures

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_CODES_SHOWN = 10
_NOTHING = "n/a"
_SUCCEEDED, _FAILED, _WAITED = "#3a7ca5", "#c8553d", "#6c757d"
_DOTS_PER_INCH = 80


def as_markdown(report: DailyReport) -> str:
    """Show a report as a person reads it: a table, the failures, and plots."""
    totals = report.totals
    if not totals["batches"]:
        return f"No batch ended on {report.day} (UTC)."
    analyzers: list[Measures] = report.by_analyzer.to_dict("records")  # type: ignore[assignment]
    columns = [(str(row["analyzer"] or "never begun"), row) for row in analyzers]
    if len(columns) > 1:
        columns.append(("all", totals))
    parts = [_table(columns)]
    if totals["failures"]:
        parts.append(_failures_table(totals["failures"]))
    plot = base64.b64encode(draw(report)).decode()
    parts.append(f"![Uploads and waiting by hour](data:image/png;base64,{plot})")
    return "\n\n".join(parts)


def draw(report: DailyReport) -> bytes:
    """Plot uploads and waiting by the hour, as a PNG of some 20 kB."""
    # The figure's own canvas: pyplot would keep state between the reports of a backfill.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5), dpi=_DOTS_PER_INCH, layout="constrained")
    FigureCanvasAgg(figure)
    uploads, waiting = figure.subplots(2, 1, sharex=True)
    _draw_uploads(uploads, report.batches)
    _draw_waiting(waiting, report.batches)
    png = io.BytesIO()
    figure.savefig(png, format="png")
    return png.getvalue()


def _table(columns: Sequence[tuple[str, Measures]]) -> str:
    """Measures in rows: there are more of them than of analyzers."""
    lines: Sequence[tuple[str, str, Callable[[Any], str]]] = (
        ("Batches ended", "batches", _count),
        ("- completed", "batches_completed", _count),
        ("- failed", "batches_failed", _count),
        ("- cancelled", "batches_cancelled", _count),
        ("Uploads in them", "uploads_total", _count),
        ("- succeeded", "uploads_succeeded", _count),
        ("- of which took over the same bytes", "uploads_reused", _count),
        ("- failed", "uploads_failed", _count),
        ("Success rate", "success_rate", "{:.1%}".format),
        ("Size", "bytes_total", _size),
        ("Time at work", "duration_seconds", _time),
        ("Uploads per minute", "uploads_per_minute", "{:,.1f}".format),
        ("Wait in the queue, median", "seconds_waiting_in_queue_p50", _time),
        ("Wait in the queue, 95 % within", "seconds_waiting_in_queue_p95", _time),
    )
    rows = [
        ["", *(name for name, _ in columns)],
        ["---", *("---:" for _ in columns)],
        *(
            [
                label,
                *(
                    _NOTHING if pd.isna(measures[key]) else tell(measures[key])
                    for _, measures in columns
                ),
            ]
            for label, key, tell in lines
        ),
    ]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _failures_table(failures: list[dict[str, Any]]) -> str:
    rows = [
        f"| `{failure['error_code']}` | {_count(failure['uploads'])} |"
        for failure in failures[:_CODES_SHOWN]
    ]
    rest = sum(failure["uploads"] for failure in failures[_CODES_SHOWN:])
    if rest:
        rows.append(f"| others | {_count(rest)} |")
    table = "\n".join(["| Code | Uploads |", "| --- | ---: |", *rows])
    return f"**Why uploads failed**\n\n{table}"


def _count(value: int) -> str:
    return f"{value:,}"


def _size(size_bytes: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size_bytes < 1000:
            return f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:,.1f} GB"


def _time(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _draw_uploads(axes: "Axes", batches: pd.DataFrame) -> None:
    hours = range(24)
    by_hour = batches.groupby(batches.ended_at.dt.hour)[["uploads_succeeded", "uploads_failed"]]
    counts = by_hour.sum().reindex(hours, fill_value=0)
    middles = [hour + 0.5 for hour in hours]
    axes.bar(middles, counts.uploads_succeeded, 0.9, color=_SUCCEEDED, label="succeeded")
    axes.bar(
        *(middles, counts.uploads_failed, 0.9),
        bottom=counts.uploads_succeeded,
        color=_FAILED,
        label="failed",
    )
    axes.set_title("Uploads, by the hour in which their batch ended", loc="left", fontsize=10)
    axes.legend(frameon=False, ncols=2, loc="upper right", fontsize=9)
    axes.locator_params(axis="y", integer=True)
    _tidy(axes)


def _draw_waiting(axes: "Axes", batches: pd.DataFrame) -> None:
    ended = batches.ended_at.dt
    hours = ended.hour + ended.minute / 60 + ended.second / 3600
    axes.scatter(hours, batches.seconds_waiting_in_queue, s=16, color=_WAITED, alpha=0.7)
    axes.set_title("Seconds each batch waited in the queue", loc="left", fontsize=10)
    axes.set_ylim(bottom=0)
    axes.set_xlim(0, 24)
    axes.set_xticks(range(0, 25, 3))
    axes.set_xlabel("hour (UTC)")
    _tidy(axes)


def _tidy(axes: "Axes") -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(axis="y", alpha=0.3)
    axes.set_axisbelow(True)
