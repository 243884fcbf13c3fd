"""Alerts: what operators are told of, what not, and what a webhook that is down does: nothing."""

import json
import logging
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import UUID

import dagster as dg
import pytest

from vuemantics_pipeline.ledger import batches, leases
from vuemantics_pipeline.ledger.batches import BackOff
from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline.orchestration import alerts
from vuemantics_pipeline.orchestration.alerts import NotDelivered, failure_alerts, message, post
from vuemantics_pipeline.orchestration.run_coordinator import QUEUE
from vuemantics_pipeline_tests.dagster.conftest import World

SECRET = "T00000000/B00000000/WhoeverKnowsThisMayPost"


@dataclass
class Webhook:
    """A local server that takes messages, or refuses them as it is told to."""

    server: ThreadingHTTPServer
    answers: list[int] = field(default_factory=list)
    posted: list[dict[str, Any]] = field(default_factory=list)
    requests: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server.server_port}/services/{SECRET}"

    def take(self, path: str, body: bytes) -> int:
        assert path == f"/services/{SECRET}"
        self.requests += 1
        answer = self.answers.pop(0) if self.answers else 200
        if answer == 200:
            self.posted.append(json.loads(body))
        return answer


@pytest.fixture
def webhook(monkeypatch: pytest.MonkeyPatch) -> Iterator[Webhook]:
    monkeypatch.setattr(alerts, "_PAUSE_SECONDS", 0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(hook.take(self.path, body))
            self.end_headers()

        def log_message(self, *args: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        hook = Webhook(server)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setenv("VUEMANTICS_ALERT_WEBHOOK_URL", hook.url)
        monkeypatch.setenv("VUEMANTICS_UI_URL", "https://dagster.example")
        yield hook
        server.shutdown()
        thread.join()


def begin(world: World, batch_id: UUID) -> dg.DagsterRun:
    """A run that has opened its batch, and no longer lives."""
    run = world.instance.create_run_for_job(
        world.definitions.resolve_job_def("process_batch"),
        tags={"dagster/partition": str(batch_id), "vuemantics/try": "1"},
        status=dg.DagsterRunStatus.STARTED,
    )
    lease = leases.acquire(world.connection, batch_id, run.run_id)
    batches.open_batch(lease, reopen=False)
    leases.release(lease)
    return run


def hand_on(world: World, run: dg.DagsterRun, *, max_tries: int | None, reason: str) -> None:
    batches.requeue(
        world.connection,
        UUID(run.tags["dagster/partition"]),
        run_id=run.run_id,
        reason=reason,
        backoff=BackOff(0, 0),
        max_tries=max_tries,
    )


def fire(world: World, run: dg.DagsterRun, message: str = "It broke.") -> str:
    """What the tick says after a run has failed."""
    event = world.instance.report_run_failed(run, message)
    context = dg.build_run_status_sensor_context(
        sensor_name=failure_alerts.name,
        dagster_event=event,
        dagster_instance=world.instance,
        dagster_run=run,
    )
    skipped = failure_alerts(context.for_run_failure())
    assert isinstance(skipped, dg.SkipReason)
    return skipped.skip_message or ""


def test_off_by_default(world: World) -> None:
    run = begin(world, world.add_batch("a.jpg"))
    assert fire(world, run) == "VUEMANTICS_ALERT_WEBHOOK_URL is not set."


def test_a_batch_that_failed_for_good(world: World, webhook: Webhook) -> None:
    batch_id = world.add_batch("a.jpg")
    run = begin(world, batch_id)
    hand_on(world, run, max_tries=1, reason="<!channel> & <https://evil.example|click>")

    assert fire(world, run) == f"The webhook was told that run {run.run_id} failed."

    (document,) = webhook.posted
    link = f"<https://dagster.example/runs/{run.run_id}|Open the run>"
    title = f"Batch {batch_id} failed for good"
    reason = "&lt;!channel&gt; &amp; &lt;https://evil.example|click&gt;"
    assert document == {
        "text": f"{title}: {reason} {link}",
        "blocks": [
            {
                "type": "section",
                "text": {"type": "mrkdwn", "text": f"*{title}*\n{reason}\n{link}"},
            }
        ],
    }


def test_a_batch_that_another_run_takes_over(world: World, webhook: Webhook) -> None:
    run = begin(world, world.add_batch("a.jpg"))
    hand_on(world, run, max_tries=5, reason="The worker died.")
    assert "needs nobody's attention" in fire(world, run)
    assert webhook.requests == 0


def test_a_backend_that_stays_down_is_told_of_once(world: World, webhook: Webhook) -> None:
    first, second = world.add_batch("a.jpg"), world.add_batch("b.jpg")
    told = []
    for number in range(1, 7):
        for batch_id in (first, second):
            run = begin(world, batch_id)
            hand_on(world, run, max_tries=None, reason="Ollama does not answer.")
            if "was told" in fire(world, run):
                told.append((number, batch_id))
    assert told == [(alerts.OUTAGES, first)]
    (document,) = webhook.posted
    assert document["text"].startswith(
        f"Batch {first} waits: a backend stays down: Ollama does not answer."
    )


def test_it_waits_until_the_batch_is_settled(
    world: World, webhook: Webhook, database_url: str
) -> None:
    batch_id = world.add_batch("a.jpg")
    run = begin(world, batch_id)

    def settle() -> None:
        with connect(database_url) as connection:
            batches.requeue(
                connection,
                batch_id,
                run_id=run.run_id,
                reason="It died too often.",
                backoff=BackOff(0, 0),
                max_tries=1,
            )

    other_sensor = threading.Timer(0.3, settle)
    other_sensor.start()
    fire(world, run)
    other_sensor.join()
    assert webhook.posted[0]["text"].startswith(
        f"Batch {batch_id} failed for good: It died too often."
    )


def test_a_batch_that_nobody_settles(
    world: World, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(alerts, "_SETTLING_SECONDS", 0)
    batch_id = world.add_batch("a.jpg")
    fire(world, begin(world, batch_id))
    assert webhook.posted[0]["text"].startswith(f"Batch {batch_id} is stuck")


def test_a_report_that_failed(
    world: World, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VUEMANTICS_REPORTS_PATH", "/dev/null/reports")
    result = world.definitions.resolve_job_def("report_day").execute_in_process(
        partition_key="2026-03-14", instance=world.instance, raise_on_error=False
    )
    run = world.instance.get_run_by_id(result.run_id)
    assert run is not None
    assert run.status == dg.DagsterRunStatus.FAILURE
    fire(world, run)
    assert "The folder /dev/null/reports cannot be written" in webhook.posted[0]["text"]


def test_an_operators_job_that_failed_is_not_told_of(world: World, webhook: Webhook) -> None:
    job = world.definitions.resolve_job_def("audit_ledger")
    run = world.instance.create_run_for_job(
        job, tags=job.run_tags, status=dg.DagsterRunStatus.STARTED
    )
    assert run.tags[QUEUE] == "operators"
    assert "needs nobody's attention" in fire(world, run)
    assert webhook.requests == 0


def test_a_webhook_that_is_down_breaks_nothing(
    world: World, webhook: Webhook, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    webhook.answers = [500] * alerts.TRIES
    run = begin(world, world.add_batch("a.jpg"))
    hand_on(world, run, max_tries=1, reason="It broke.")

    told = fire(world, run)

    assert told == (f"Nobody was told that run {run.run_id} failed: the webhook answered 500.")
    assert webhook.requests == alerts.TRIES
    assert SECRET not in caplog.text + told


def test_a_database_that_is_down_is_told_of(
    world: World, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begin(world, world.add_batch("a.jpg"))
    monkeypatch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/nothing")
    fire(world, run)
    assert "Postgres does not answer" in webhook.posted[0]["text"]


def test_what_may_pass_is_tried_again(webhook: Webhook) -> None:
    webhook.answers = [429, 503]
    post(webhook.url, {"text": "hello"})
    assert (webhook.requests, webhook.posted) == (3, [{"text": "hello"}])


def test_a_refusal_is_not_tried_again(webhook: Webhook) -> None:
    webhook.answers = [404]
    with pytest.raises(NotDelivered, match=r"answered 404"):
        post(webhook.url, {"text": "hello"})
    assert webhook.requests == 1


@pytest.mark.parametrize(
    "address", ["http://127.0.0.1:1/", "no address", "ftp://example.com/", "http://[::1/"]
)
def test_an_address_nobody_answers_at(webhook: Webhook, address: str) -> None:
    with pytest.raises(NotDelivered, match="does not answer") as refused:
        post(f"{address}{SECRET}", {"text": "hello"})
    assert SECRET not in str(refused.value)


def test_a_long_reason_is_shortened() -> None:
    text = message("Title", "x" * 2000, "https://dagster.example/runs/1")["text"]
    assert isinstance(text, str)
    assert len(text) < 600
    assert "…" in text
    assert "No reason was given." in str(message("Title", " \n", "link")["text"])
