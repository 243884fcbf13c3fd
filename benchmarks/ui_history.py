"""How quick the Dagster UI is after a long history: python benchmarks/ui_history.py [batches]

One real batch of 100 photos is processed. Its rows, in our tables and in Dagster's, are then copied
under new ids, one batch every forty minutes into the past. A headless Chromium opens the pages an
operator uses, and each GraphQL query they make is timed as the browser sees it, three times over.
The table shows the median of each query, the slowest first; the aim is less than 1 s for each.
"""

import statistics
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from uuid import UUID

from PIL import Image
from playwright.sync_api import Page, Request, sync_playwright
from psycopg import ClientCursor

from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline.home.stack import Address, Stack, running_stack
from vuemantics_pipeline.ingest import ingest
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.settings import AnalyzerName, load_settings
from vuemantics_pipeline.status.batches import batch_run, follow_batch

UPLOADS = 100
ROUNDS = 3
_SETTLED_MILLISECONDS = 4_000
CHROMIUM = "/usr/bin/chromium"

# What a copy is called. Its step keys stay as they are: nothing looks them up.
COPIES = """
CREATE TEMP TABLE copies AS
SELECT n, md5('batch' || n)::uuid AS batch_id, md5('run' || n)::uuid::text AS run_id,
       n * interval '40 minutes' AS age, n * 2400.0 AS age_seconds
FROM generate_series(1, %(copies)s) AS n;
"""

OURS = """
INSERT INTO upload_batches
SELECT (jsonb_populate_record(b, jsonb_build_object(
    'id', c.batch_id, 'created_at', b.created_at - c.age, 'updated_at', b.updated_at - c.age,
    'started_at', b.started_at - c.age, 'completed_at', b.completed_at - c.age))).*
FROM upload_batches AS b, copies AS c WHERE b.id = %(batch_id)s;

INSERT INTO uploads
SELECT (jsonb_populate_record(u, jsonb_build_object(
    'id', md5(u.id::text || c.n)::uuid, 'batch_id', c.batch_id,
    'created_at', u.created_at - c.age, 'updated_at', u.updated_at - c.age))).*
FROM uploads AS u, copies AS c WHERE u.batch_id = %(batch_id)s;

INSERT INTO vuemantics_pipeline.batch_states (batch_id, try_number, fence, run_id, claimed_at)
SELECT c.batch_id, s.try_number, s.fence, c.run_id, s.claimed_at - c.age
FROM vuemantics_pipeline.batch_states AS s, copies AS c WHERE s.batch_id = %(batch_id)s;

INSERT INTO vuemantics_pipeline.attempts (
    upload_id, batch_id, attempt_number, run_id, fence, stage, stage_seconds, started_at,
    ended_at, outcome, analyzer, vision_model, embedding_model, prompt_version)
SELECT md5(a.upload_id::text || c.n)::uuid, c.batch_id, a.attempt_number, c.run_id, a.fence,
       a.stage, a.stage_seconds, a.started_at - c.age, a.ended_at - c.age, a.outcome, a.analyzer,
       a.vision_model, a.embedding_model, a.prompt_version
FROM vuemantics_pipeline.attempts AS a, copies AS c WHERE a.batch_id = %(batch_id)s;
"""

DAGSTERS = """
CREATE FUNCTION pg_temp.renamed(body text, c copies) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT replace(replace(body, %(run_id)s, c.run_id), %(batch_id)s, c.batch_id::text)
$$;
-- The moment that is shown stands in the body.
CREATE FUNCTION pg_temp.dated(body text, c copies) RETURNS text LANGUAGE sql IMMUTABLE AS $$
    SELECT regexp_replace(
        body, '"timestamp": [0-9.]+',
        '"timestamp": ' || (substring(body FROM '"timestamp": ([0-9.]+)')::numeric - c.age_seconds))
$$;

INSERT INTO runs (run_id, snapshot_id, pipeline_name, mode, status, run_body, partition,
                  partition_set, create_timestamp, update_timestamp, start_time, end_time)
SELECT c.run_id, r.snapshot_id, r.pipeline_name, r.mode, r.status, pg_temp.renamed(r.run_body, c),
       c.batch_id::text, r.partition_set, r.create_timestamp - c.age, r.update_timestamp - c.age,
       r.start_time - c.age_seconds, r.end_time - c.age_seconds
FROM runs AS r, copies AS c WHERE r.run_id = %(run_id)s;

INSERT INTO run_tags (run_id, key, value)
SELECT c.run_id, t.key, pg_temp.renamed(t.value, c)
FROM run_tags AS t, copies AS c WHERE t.run_id = %(run_id)s;

-- The oldest first, as they would have come.
INSERT INTO event_logs
    (run_id, event, dagster_event_type, timestamp, step_key, asset_key, partition)
SELECT c.run_id,
       CASE WHEN e.asset_key IS NULL THEN pg_temp.renamed(e.event, c)
            ELSE pg_temp.dated(pg_temp.renamed(e.event, c), c) END,
       e.dagster_event_type, e.timestamp - c.age, e.step_key, e.asset_key,
       pg_temp.renamed(e.partition, c)
FROM event_logs AS e, copies AS c WHERE e.run_id = %(run_id)s
ORDER BY c.n DESC, e.id;

INSERT INTO asset_event_tags (event_id, asset_key, key, value, event_timestamp)
SELECT copy.id, t.asset_key, t.key, pg_temp.renamed(t.value, c), copy.timestamp
FROM asset_event_tags AS t
JOIN event_logs AS e ON e.id = t.event_id AND e.run_id = %(run_id)s
CROSS JOIN copies AS c
JOIN event_logs AS copy ON copy.run_id = c.run_id AND copy.asset_key = e.asset_key
     AND copy.dagster_event_type = e.dagster_event_type;

INSERT INTO asset_check_executions (
    asset_key, check_name, partition, run_id, execution_status, evaluation_event,
    evaluation_event_timestamp, create_timestamp)
SELECT x.asset_key, x.check_name, pg_temp.renamed(x.partition, c), c.run_id, x.execution_status,
       pg_temp.dated(pg_temp.renamed(x.evaluation_event, c), c),
       x.evaluation_event_timestamp - c.age, x.create_timestamp - c.age
FROM asset_check_executions AS x, copies AS c WHERE x.run_id = %(run_id)s
ORDER BY c.n DESC, x.id;

INSERT INTO dynamic_partitions (partitions_def_name, partition, create_timestamp)
SELECT p.partitions_def_name, c.batch_id::text, p.create_timestamp - c.age
FROM dynamic_partitions AS p, copies AS c WHERE p.partition = %(batch_id)s;
"""


def main(batches: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        settings = load_settings(
            home=Path(folder) / "home", analyzer=AnalyzerName.NONE, reuse=False
        )
        photos = _photos(Path(folder) / "photos")
        with running_stack(settings, ui=Address(free_port())) as stack:
            stack.wait_until_ready()
            with connect(stack.database_url) as connection:
                batch_id = ingest(connection, settings, [photos]).batch_id
                *_, batch = follow_batch(connection, batch_id)
                assert batch.successful_uploads == UPLOADS, batch
                run_id = _ended_run(connection, batch_id)
                started = time.monotonic()
                events = _copy(connection, batch_id, run_id, batches - 1)
                print(
                    f"{batches:,} batches of {UPLOADS} uploads, {events:,} rows in event_logs; "
                    f"copied in {time.monotonic() - started:.0f} s."
                )
            _report(_timed(_pages(stack, batch_id, run_id)))


def _photos(folder: Path) -> Path:
    folder.mkdir()
    for number in range(UPLOADS):
        Image.new("RGB", (256, 192), (number, 255 - number, 128)).save(folder / f"{number}.jpg")
    return folder


def _ended_run(connection: Connection, batch_id: UUID) -> str:
    """The batch's run, once Dagster knows its end and its checks, too."""
    run_id = batch_run(connection, batch_id)
    assert run_id is not None
    query = "SELECT 1 FROM vuemantics_dagster.runs WHERE run_id = %s AND status = 'SUCCESS'"
    while connection.execute(query, [run_id]).fetchone() is None:
        time.sleep(0.5)
    return run_id


def _copy(connection: Connection, batch_id: UUID, run_id: str, copies: int) -> int:
    connection.execute("SET statement_timeout = 0")
    connection.execute("SET search_path = vuemantics_dagster, public, pg_temp")
    names = {"batch_id": str(batch_id), "run_id": run_id, "copies": copies}
    # Scripts of several statements take no parameters from a server, so the client fills them in.
    with connection.transaction(), ClientCursor(connection) as cursor:
        for script in (COPIES, OURS, DAGSTERS):
            cursor.execute(script, names)
    connection.execute("VACUUM ANALYZE")
    row = connection.execute("SELECT count(*) FROM event_logs").fetchone()
    assert row is not None
    return int(row[0])


def _pages(stack: Stack, batch_id: UUID, run_id: str) -> dict[str, str]:
    asset = f"{stack.url}/assets/upload_batch"
    return {
        "runs": f"{stack.url}/runs",
        "timeline": f"{stack.url}/overview/activity/timeline",
        "run": stack.run_url(run_id),
        "asset, overview": f"{asset}?view=overview",
        "asset, partitions": f"{asset}?view=partitions",
        "asset, one batch": stack.batch_url(batch_id),
        "asset, events": f"{asset}?view=events",
        "asset, checks": f"{asset}?view=checks",
        "asset, plots": f"{asset}?view=plots",
        "sensors": f"{stack.url}/automation",
    }


def _timed(pages: dict[str, str]) -> dict[tuple[str, str], list[float]]:
    """Milliseconds of every answer, by page and query."""
    taken: dict[tuple[str, str], list[float]] = defaultdict(list)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"]
        )
        for _ in range(ROUNDS):
            for name, url in pages.items():
                page = browser.new_page(viewport={"width": 1440, "height": 1000})
                _listen(page, name, taken)
                page.goto(url)
                page.wait_for_timeout(_SETTLED_MILLISECONDS)
                page.close()
        browser.close()
    return taken


def _listen(page: Page, name: str, taken: dict[tuple[str, str], list[float]]) -> None:
    def finished(request: Request) -> None:
        if "/graphql" in request.url and request.method == "POST":
            query = (request.post_data_json or {}).get("operationName") or "?"
            timing = request.timing
            taken[name, query].append(timing["responseEnd"] - timing["requestStart"])

    page.on("requestfinished", finished)


def _report(taken: dict[tuple[str, str], list[float]]) -> None:
    print(f"{'page':20} {'query':44} {'asked':>5} {'median ms':>10} {'slowest ms':>10}")
    medians = {key: statistics.median(times) for key, times in taken.items()}
    for (page, query), median in sorted(medians.items(), key=lambda item: -item[1]):
        times = taken[page, query]
        print(f"{page:20} {query:44} {len(times):5} {median:10.0f} {max(times):10.0f}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 2000)
