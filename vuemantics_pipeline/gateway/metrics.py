"""What machines that watch over the pipeline ask: /healthz and /metrics, both without a token."""

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from http import HTTPStatus
from ipaddress import ip_address

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import GaugeMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.gateway.live import Live
from vuemantics_pipeline.gateway.problems import Problem
from vuemantics_pipeline.ledger.pool import Pool
from vuemantics_pipeline.ledger.queries import queries
from vuemantics_pipeline.ledger.records import BatchStatus
from vuemantics_pipeline.status.batches import Outcome

_logger = logging.getLogger(__name__)

_NAMESPACE = "vuemantics"
_SQL = queries("metrics")
_STAGES_SECONDS = 60


@dataclass(frozen=True)
class _Figures:
    """What the database says at a scrape.

    Attributes:
        batches: status -> (batches, uploads completed, failed, unfinished, age of the oldest in s).
        stages: stage, tries that reached it, seconds they took.
    """

    batches: Mapping[str, tuple[int, int, int, int, float]]
    stages: Sequence[tuple[str, int, float]]

    def uploads(self, *statuses: BatchStatus) -> tuple[int, int, int]:
        """How many uploads of batches with these statuses are completed, failed, unfinished."""
        rows = [self.batches[status] for status in statuses if status in self.batches]
        return sum(row[1] for row in rows), sum(row[2] for row in rows), sum(row[3] for row in rows)


class PipelineCollector(Collector):
    """Asks the database at each scrape, so that the figures are right whoever did the work.

    What the stages took is summed over all attempts there ever were, so it is asked for at most
    once a minute.
    """

    def __init__(self, pool: Pool, live: Live) -> None:
        self._pool = pool
        self._live = live
        self._stages: Sequence[tuple[str, int, float]] = ()
        self._stages_until = 0.0

    def collect(self) -> Iterator[Metric]:
        """All families; those about the database's rows are left out while it does not answer."""
        yield _gauge("gateway_sockets", "WebSockets that are open.", self._live.sockets)
        try:
            figures = self._read()
        except BackendUnavailable as error:
            _logger.warning("%s", error)
            yield _gauge("database_up", "Whether the database answers.", 0)
        else:
            yield _gauge("database_up", "Whether the database answers.", 1)
            yield from _families(figures)

    def _read(self) -> _Figures:
        with self._pool.connection() as connection:
            rows = connection.execute(_SQL["batches"]).fetchall()
            if time.monotonic() >= self._stages_until:
                self._stages = connection.execute(_SQL["stages"]).fetchall()
                self._stages_until = time.monotonic() + _STAGES_SECONDS
        return _Figures({status: tuple(figures) for status, *figures in rows}, self._stages)


@dataclass(frozen=True)
class Metrics:
    """The two addresses."""

    pool: Pool
    live: Live

    def routes(self) -> list[Route]:
        """Both of them."""
        registry = CollectorRegistry()
        registry.register(PipelineCollector(self.pool, self.live))
        ProcessCollector(registry=registry)

        def metrics(request: Request) -> Response:
            """The text format of Prometheus, for this machine only."""
            if not _is_loopback(request):
                raise Problem(
                    HTTPStatus.FORBIDDEN, "not_from_here", "Only this machine is told the metrics."
                )
            return Response(
                generate_latest(registry), headers={"Content-Type": CONTENT_TYPE_LATEST}
            )

        return [Route("/healthz", self.health), Route("/metrics", metrics)]

    def health(self, _: Request) -> Response:
        """Whether the gateway does its work: {status, database, listening}."""
        try:
            with self.pool.connection():
                database = True
        except BackendUnavailable as error:
            _logger.warning("%s", error)
            database = False
        listening = self.live.is_listening
        well = database and listening
        return JSONResponse(
            {
                "status": "ok" if well else "unavailable",
                "database": database,
                "listening": listening,
            },
            HTTPStatus.OK if well else HTTPStatus.SERVICE_UNAVAILABLE,
        )


def _families(figures: _Figures) -> Iterator[Metric]:
    batches = _gauge("batches", "Batches by status.", labels=["status"])
    for status in BatchStatus:
        row = figures.batches.get(status)
        batches.add_metric([status], row[0] if row else 0)
    yield batches

    uploads = _gauge("uploads", "Uploads of all batches by outcome.", labels=["outcome"])
    for outcome, count in zip(Outcome, figures.uploads(*BatchStatus), strict=True):
        uploads.add_metric([outcome], count)
    yield uploads

    *_, waiting = figures.uploads(BatchStatus.PENDING, BatchStatus.PROCESSING)
    yield _gauge("queue_uploads", "Unfinished uploads of batches that have not ended.", waiting)
    pending = figures.batches.get(BatchStatus.PENDING)
    yield _gauge(
        "queue_oldest_seconds",
        "Age of the oldest pending batch, 0 if none is pending.",
        pending[4] if pending else 0,
    )

    stages = SummaryMetricFamily(
        f"{_NAMESPACE}_stage_seconds",
        "Seconds that attempts have spent in a stage.",
        labels=["stage"],
    )
    for stage, tries, seconds in figures.stages:
        stages.add_metric([stage], tries, seconds)
    yield stages


def _gauge(
    name: str, documentation: str, value: float | None = None, labels: Sequence[str] | None = None
) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"{_NAMESPACE}_{name}", documentation, value, labels)


def _is_loopback(request: Request) -> bool:
    try:
        return request.client is not None and ip_address(request.client.host).is_loopback
    except ValueError:
        return False
