"""Alerts: what an operator has to know of a failed run is posted to a webhook, as Slack takes it.

Off unless VUEMANTICS_ALERT_WEBHOOK_URL is set. Most failed runs of a batch mend themselves: its
worker died and another run takes it over, or a backend was down for a moment. Nobody has to be
woken for those, so these alone are told of:

- a batch that has **failed for good**: too many runs in a row got nothing done;
- a backend that **stays down**: it has ended four runs of a batch in a row, which takes more than
  a minute with the default back-off. One batch is told of, not every one that waits behind it;
- any other run that failed, such as the daily report's. The runs of an operator's jobs, and of
  checks by themselves, are left out: whoever launched one sees its end.

A batch that completes with failed uploads is no failed run; the asset check `no_failed_uploads`
shows it.
"""

import logging
import time

import dagster as dg

from vuemantics_pipeline.errors import BackendUnavailable, UsageError
from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline.ledger.records import BatchStatus
from vuemantics_pipeline.orchestration.run_coordinator import Queue, queue_of
from vuemantics_pipeline.orchestration.tags import BatchRun, batch_run
from vuemantics_pipeline.settings import Settings, load_settings
from vuemantics_pipeline.status.alerts import Standing, standing

OUTAGES = 4
"""Ended by a backend that is down, so many runs of a batch in a row are told of."""

TRIES = 3
_PAUSE_SECONDS = 1.0
_TIMEOUT_SECONDS = 5.0
_SETTLING_SECONDS = 10.0
_LOOK_EVERY_SECONDS = 0.5
_LONGEST_REASON = 500


class NotDelivered(Exception):
    """The webhook did not take the message. Says why, without its address."""


@dg.run_failure_sensor(
    name="failure_alerts",
    description=(
        "Posts failures that do not mend themselves to the webhook in "
        "VUEMANTICS_ALERT_WEBHOOK_URL; does nothing where that is not set."
    ),
    minimum_interval_seconds=1,
    default_status=dg.DefaultSensorStatus.RUNNING,
)
def failure_alerts(context: dg.RunFailureSensorContext) -> dg.SkipReason:
    settings = load_settings()
    if settings.alert_webhook_url is None:
        return dg.SkipReason("VUEMANTICS_ALERT_WEBHOOK_URL is not set.")
    run = context.dagster_run
    try:
        told = _what_to_tell(run, _reason(context), settings)
    except BackendUnavailable as error:
        # Without the database nobody knows how the batch stands; that it is gone is news enough.
        told = f"Run of {_name(run)} failed", str(error)
    if told is None:
        return dg.SkipReason(f"Run {run.run_id} failed; it needs nobody's attention.")
    title, reason = told
    try:
        post(
            settings.alert_webhook_url.get_secret_value(),
            message(title, reason, f"{settings.ui_url}/runs/{run.run_id}"),
        )
    except NotDelivered as error:
        context.log.warning(f"Nobody was told that run {run.run_id} failed: {error}")
        return dg.SkipReason(f"Nobody was told that run {run.run_id} failed: {error}")
    return dg.SkipReason(f"The webhook was told that run {run.run_id} failed.")


def message(title: str, reason: str, link: str) -> dict[str, object]:
    """Return what Slack takes: text for notifications, and a block that reads better."""
    title, reason = _escaped(title), _escaped(_shortened(reason))
    opened = f"<{link}|Open the run>"
    section = {"type": "mrkdwn", "text": f"*{title}*\n{reason}\n{opened}"}
    return {
        "text": f"{title}: {reason} {opened}",
        "blocks": [{"type": "section", "text": section}],
    }


def post(url: str, document: dict[str, object]) -> None:
    """Post JSON to a webhook, again after 1 and 2 s where that may help.

    Raises:
        NotDelivered: it did not answer, or refused.
    """
    # Here, because the workers of batches load this module too.
    import httpx

    # It logs the address of every request, and whoever knows that of a webhook can post to it.
    logging.getLogger("httpx").setLevel(logging.WARNING)
    for pause in (*(_PAUSE_SECONDS * number for number in range(1, TRIES)), None):
        try:
            answer = httpx.post(url, json=document, timeout=_TIMEOUT_SECONDS)
        except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
            # Its words may hold the address.
            problem = f"the webhook does not answer ({type(error).__name__})."
            may_help = isinstance(error, httpx.TransportError)
        else:
            if answer.is_success:
                return
            problem = f"the webhook answered {answer.status_code}."
            may_help = answer.status_code == httpx.codes.TOO_MANY_REQUESTS or (
                answer.is_server_error
            )
        if pause is None or not may_help:
            break
        time.sleep(pause)
    raise NotDelivered(problem)


def _what_to_tell(run: dg.DagsterRun, failure: str, settings: Settings) -> tuple[str, str] | None:
    """Return title and reason of an alert; None if nobody has to know."""
    if queue_of(run) is Queue.OPERATORS:
        return None
    try:
        batch = batch_run(run)
    except UsageError:
        return f"Run of {_name(run)} failed", failure
    found = _settled(batch, settings)
    if found is None:
        return None
    reason = found.error_message or failure
    if found.status == BatchStatus.FAILED:
        return f"Batch {batch.batch_id} failed for good", reason
    if found.is_unsettled:
        return f"Batch {batch.batch_id} is stuck: its run failed and nothing took it over", reason
    is_pending = found.status == BatchStatus.PENDING
    if is_pending and found.outages == OUTAGES and found.is_longest_waiting:
        return f"Batch {batch.batch_id} waits: a backend stays down", reason
    return None


def _settled(run: BatchRun, settings: Settings) -> Standing | None:
    """Return how the run's batch stands once the other sensors have looked at the run."""
    deadline = time.monotonic() + _SETTLING_SECONDS
    with connect(settings.require_database_url()) as connection:
        while True:
            found = standing(connection, run.batch_id, run_id=run.run_id, try_number=run.try_number)
            if found is None or not found.is_unsettled or time.monotonic() > deadline:
                return found
            time.sleep(_LOOK_EVERY_SECONDS)


def _reason(context: dg.RunFailureSensorContext) -> str:
    """Return what the first step that failed said, or the run."""
    for event in context.get_step_failure_events():
        data = event.step_failure_data
        if data.user_failure_data and data.user_failure_data.description:
            return data.user_failure_data.description
        if data.error:
            return data.error.message
    return context.failure_event.message or ""


def _name(run: dg.DagsterRun) -> str:
    if run.asset_selection:
        return ", ".join(sorted(key.to_user_string() for key in run.asset_selection))
    return run.job_name


def _shortened(text: str) -> str:
    text = " ".join(text.split()) or "No reason was given."
    return text if len(text) <= _LONGEST_REASON else f"{text[: _LONGEST_REASON - 1]}…"


def _escaped(text: str) -> str:
    """Leave nothing in a text that Slack would take for a link, a mention or a channel."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
