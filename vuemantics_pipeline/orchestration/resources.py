"""Resources: the ledger and the analyzer of a run, each made once per run worker."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import dagster as dg
from pydantic import PrivateAttr

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.analysis.build import build_analyzer
from vuemantics_pipeline.ledger import batches, leases, vectors
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.leases import Lease
from vuemantics_pipeline.ledger.records import UploadKey
from vuemantics_pipeline.orchestration.tags import BatchRun, batch_run
from vuemantics_pipeline.settings import Settings, load_settings


class AnalyzerResource(dg.ConfigurableResource["AnalyzerResource"]):
    """The analyzer that VUEMANTICS_ANALYZER names; models are loaded when first used."""

    _analyzer: Analyzer | None = PrivateAttr(default=None)

    def get(self) -> Analyzer:
        if self._analyzer is None:
            self._analyzer = build_analyzer(load_settings())
        return self._analyzer


class LedgerResource(dg.ConfigurableResource["LedgerResource"]):
    """The Postgres counters of the batch that a run is for, and the right to change them.

    The lease is taken when an op first asks for it and held until the worker ends, whichever op
    comes first: a run re-executed from the middle needs it as much as one from the start.
    """

    _connection: Connection = PrivateAttr()
    _run: BatchRun = PrivateAttr()
    _settings: Settings = PrivateAttr()
    _lease: Lease | None = PrivateAttr(default=None)
    _unfinished: Sequence[UploadKey] = PrivateAttr(default=())

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Iterator["LedgerResource"]:
        if context.run is None:
            raise dg.DagsterInvariantViolationError("The ledger is for runs of a batch only.")
        self._run = batch_run(context.run)
        self._settings = load_settings()
        with connect(self._settings.require_database_url()) as connection:
            self._connection = connection
            yield self

    @property
    def run(self) -> BatchRun:
        return self._run

    @property
    def settings(self) -> Settings:
        return self._settings

    @property
    def connection(self) -> Connection:
        return self._connection

    def open(self, analyzer: Analyzer) -> tuple[Lease, Sequence[UploadKey]]:
        """Take the lease and open the batch, once; return its unfinished uploads as of then.

        Raises:
            LeaseHeld, BatchStopped, UsageError, BackendUnavailable: as the ledger says.
        """
        if self._lease is None:
            vectors.claim_space(
                self._connection,
                analyzer.identity,
                application_model=self._settings.embedding_model,
            )
            lease = leases.acquire(self._connection, self._run.batch_id, self._run.run_id)
            self._unfinished = batches.open_batch(lease, reopen=self._run.try_number is None)
            self._lease = lease
        return self._lease, self._unfinished
