"""Resources: the ledger and the analyzer of a run, each made once per run worker."""

from collections.abc import Iterator, Sequence

import dagster as dg

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.analysis.build import build_analyzer
from vuemantics_pipeline.ledger import batches, leases, vectors
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.leases import Lease
from vuemantics_pipeline.ledger.records import UploadKey
from vuemantics_pipeline.orchestration.tags import BatchRun, batch_run
from vuemantics_pipeline.settings import Settings, load_settings


@dg.resource(description="Describes and embeds media; VUEMANTICS_ANALYZER names which one it is.")
def analyzer_resource(_context: dg.InitResourceContext) -> Analyzer:
    """Return the analyzer of the settings. It loads its models when it is first used."""
    return build_analyzer(load_settings())


class RunLedger:
    """The Postgres counters of the batch that a run is for, and the right to change them.

    The lease is taken when an op first asks for it and held until the worker ends, whichever op
    comes first: a run re-executed from the middle needs it as much as one from the start.
    """

    def __init__(self, connection: Connection, run: BatchRun, settings: Settings) -> None:
        self.connection = connection
        self.run = run
        self.settings = settings
        self._opened: tuple[Lease, Sequence[UploadKey]] | None = None

    def open(self, analyzer: Analyzer) -> tuple[Lease, Sequence[UploadKey]]:
        """Take the lease and open the batch, once; return its unfinished uploads as of then.

        Raises:
            LeaseHeld, BatchStopped, UsageError, BackendUnavailable: as the ledger says.
        """
        if self._opened is None:
            vectors.claim_space(
                self.connection,
                analyzer.identity,
                application_model=self.settings.embedding_model,
            )
            lease = leases.acquire(self.connection, self.run.batch_id, self.run.run_id)
            reopen = self.run.try_number is None
            self._opened = lease, batches.open_batch(lease, reopen=reopen)
        return self._opened


@dg.resource(description="The Postgres counters of the run's batch, behind its lease.")
def ledger_resource(context: dg.InitResourceContext) -> Iterator[RunLedger]:
    """Yield the ledger, connected for as long as the run's worker lives."""
    if context.run is None:
        raise dg.DagsterInvariantViolationError("The ledger is for runs of a batch only.")
    run, settings = batch_run(context.run), load_settings()
    with connect(settings.require_database_url()) as connection:
        yield RunLedger(connection, run, settings)
