"""What Dagster tells of batches, read over the GraphQL of its webserver."""

import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any
from uuid import UUID

import httpx
import pandas as pd

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError
from vuemantics_pipeline.settings import load_settings
from vuemantics_pipeline.status.analytics.columns import MATERIALIZATIONS, frame, joined
from vuemantics_pipeline.status.analytics.selection import Selection, select

PAGE_EVENTS = 200
_PATIENCE_SECONDS = 60.0
_NAMES = {"user": "user_id"}
"""Columns that are called otherwise in the metadata."""


@cache
def saved_query(name: str) -> str:
    """Return the text of `status/graphql/<name>.graphql`."""
    folder = resources.files("vuemantics_pipeline.status") / "graphql"
    return (folder / f"{name}.graphql").read_text()


def materializations(
    url: str | None = None,
    *,
    since: datetime | str | None = None,
    until: datetime | str | None = None,
    user: UUID | str | None = None,
    batch: UUID | str | None = None,
    analyzer: str | None = None,
) -> pd.DataFrame:
    """Return one row for each materialization of `upload_batch`, the newest first.

    A batch that was run again has several. All of them are of batches that were completed.

    Args:
        url: of the Dagster UI, None: VUEMANTICS_UI_URL.
        since, until: from this `materialized_at` on, and before that one, as `selection.select`.

    Returns:
        Columns, times in UTC, missing values as NaT, <NA> or NaN, each number as it was then:

        - batch_id, run_id (string), materialized_at, user_id (category)
        - uploads_total, uploads_succeeded, uploads_failed, uploads_reused (Int64): uploads
        - bytes_total (Int64), duration_seconds, seconds_waiting_in_queue, uploads_per_minute,
          audit_score_mean, attempts_total, takeovers (Int64): as in `batches`
        - extracting_frames_seconds_p50, extracting_frames_seconds_p95, and so on for
          vision_analysis, description_audit and embedding_generation: median and 95th percentile
          of the seconds that attempts spent in the stage
        - analyzer, vision_model, embedding_model, prompt_version (category)

    Raises:
        UsageError: code 'not_a_time' or 'not_an_id'.
        BackendUnavailable: code 'dagster_unavailable', the webserver does not answer.
        PipelineError: code 'dagster_refused', it does not answer this query.
    """
    selection = select(since=since, until=until, user=user, batch=batch, analyzer=analyzer)
    base = (url or load_settings().ui_url).rstrip("/")
    with httpx.Client(base_url=base, timeout=_PATIENCE_SECONDS) as client:
        pages = [
            frame(MATERIALIZATIONS, [_row(event) for event in events])
            for events in _pages(client, selection)
        ]
    found = joined(MATERIALIZATIONS, pages)
    return _selected(found, selection).reset_index(drop=True)


def _pages(client: httpx.Client, selection: Selection) -> Iterator[list[dict[str, Any]]]:
    cursor = None
    while True:
        variables = {
            "limit": PAGE_EVENTS,
            "cursor": cursor,
            "batches": [str(selection.batch_id)] if selection.batch_id else None,
            # Dagster leaves the bounds themselves out.
            "after": selection.since and _milliseconds(selection.since, -1),
            "before": selection.until and _milliseconds(selection.until, 1),
        }
        history = _ask(client, saved_query("latest_materializations"), variables)
        if history["results"]:
            yield history["results"]
        if len(history["results"]) < PAGE_EVENTS:
            return
        cursor = history["cursor"]


def _ask(client: httpx.Client, query: str, variables: Mapping[str, object]) -> dict[str, Any]:
    try:
        response = client.post("/graphql", json={"query": query, "variables": variables})
        answer = response.json()
    except (httpx.HTTPError, ValueError) as error:
        raise BackendUnavailable(
            "dagster_unavailable",
            f"The Dagster UI at {client.base_url} does not answer: {error}.",
            "Start it with `vuemantics up`, or set VUEMANTICS_UI_URL to where it is.",
        ) from error
    asset = (answer.get("data") or {}).get("assetOrError") or {}
    if answer.get("errors") or asset.get("__typename") != "Asset":
        reasons = "; ".join(error["message"] for error in answer.get("errors") or ())
        raise PipelineError(
            "dagster_refused",
            f"Dagster does not tell of upload_batch: {reasons or 'it does not know the asset'}.",
            "Is that the Dagster of this pipeline, and of this version?",
        )
    history: dict[str, Any] = asset["assetEventHistory"]
    return history


def _row(event: dict[str, Any]) -> list[object]:
    values: dict[str, object] = {
        _NAMES.get(entry["label"], entry["label"]): _value(entry)
        for entry in event["metadataEntries"]
    }
    values |= {
        "batch_id": event["partition"],
        "run_id": event["runId"],
        "materialized_at": datetime.fromtimestamp(int(event["timestamp"]) / 1000, UTC),
    }
    return [values.get(name) for name in MATERIALIZATIONS]


def _value(entry: dict[str, Any]) -> object:
    # Whole numbers come as texts too, because those of GraphQL have 32 bits.
    if "intRepr" in entry:
        return int(entry["intRepr"])
    return entry.get("floatValue", entry.get("text"))


def _selected(found: pd.DataFrame, selection: Selection) -> pd.DataFrame:
    wanted = pd.Series(True, index=found.index)
    if selection.since:
        wanted &= found["materialized_at"] >= selection.since
    if selection.until:
        wanted &= found["materialized_at"] < selection.until
    if selection.user_id:
        wanted &= found["user_id"] == str(selection.user_id)
    if selection.analyzer:
        wanted &= found["analyzer"] == selection.analyzer
    return found[wanted]


def _milliseconds(moment: datetime, margin: int) -> str:
    return str(math.floor(moment.timestamp() * 1000) + margin)
