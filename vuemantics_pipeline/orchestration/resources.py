"""Resources: the ledger, the decoder and the analyzer of a run, made once per run worker."""

import time
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from uuid import UUID

import dagster as dg

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.analysis.build import build_analyzer
from vuemantics_pipeline.errors import BackendUnavailable, PipelineError
from vuemantics_pipeline.ledger import batches, leases, vectors
from vuemantics_pipeline.ledger.batches import BackOff
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.leases import Lease
from vuemantics_pipeline.ledger.records import Scope, UploadKey
from vuemantics_pipeline.ledger.transactions import signals_deferred
from vuemantics_pipeline.media.decoder import Decoder
from vuemantics_pipeline.orchestration.tags import BatchRun, batch_run
from vuemantics_pipeline.settings import Settings, load_settings


@dg.resource(description="Describes and embeds media; VUEMANTICS_ANALYZER names which one it is.")
def analyzer_resource(_context: dg.InitResourceContext) -> Analyzer:
    """Return the analyzer of the settings. It loads its models when it is first used."""
    return build_analyzer(load_settings())


@dg.resource(description="Reads media in a process of its own, with limits of time and memory.")
def decoder_resource(_context: dg.InitResourceContext) -> Iterator[Decoder]:
    """Yield the decoder; its process starts with the first file and ends with the run."""
    settings = load_settings()
    memory_bytes = settings.decode_memory_mib << 20
    with Decoder(seconds=settings.decode_seconds, memory_bytes=memory_bytes) as decoder:
        yield decoder


_DATABASE_RESTART_SECONDS = 30.0
_RECONNECT_SECONDS = 0.2


def back_off(settings: Settings) -> BackOff:
    return BackOff(settings.backoff_seconds, settings.backoff_max_seconds)


class RunLedger:
    """The Postgres counters of the batch that a run is for, and the right to change them.

    The lease is taken when an op first asks for it, whichever op comes first (a run re-executed
    from the middle needs it as much as one from the start), and held until the batch is closed or
    the worker ends.
    """

    def __init__(self, connection: Connection, run: BatchRun, settings: Settings) -> None:
        self.connection = connection
        self.run = run
        self.settings = settings
        self._opened: tuple[Lease, Sequence[UploadKey]] | None = None
        self._file_after: Mapping[UUID, str] = {}

    def open(
        self, analyzer: Analyzer, scope: Scope = Scope.UNFINISHED
    ) -> tuple[Lease, Sequence[UploadKey]]:
        """Take the lease and open the batch, once; return its unfinished uploads as of then.

        Args:
            scope: finished uploads to begin anew, once for a run and all its re-executions.

        Raises:
            LeaseHeld, BatchStopped, UsageError, BackendUnavailable: as the ledger says.
        """
        if self._opened is None:
            vectors.claim_space(
                self.connection,
                analyzer.identity,
                application_model=self.settings.embedding_model,
            )
            batches.require_filled(
                self.connection, self.run.batch_id, grace_seconds=self.settings.grace_seconds
            )
            lease = leases.acquire(self.connection, self.run.batch_id, self.run.run_id)
            unfinished = batches.open_batch(
                lease,
                reopen=self.run.try_number is None,
                scope=scope,
                root_run_id=self.run.root_run_id,
            )
            self._opened = lease, unfinished
            self._file_after = {
                upload.upload_id: following.file_path for upload, following in pairwise(unfinished)
            }
        return self._opened

    def release(self) -> None:
        """Give the lease up; the run changes nothing any more."""
        if self._opened is not None:
            leases.release(self._opened[0])
            self._opened = None

    def file_after(self, upload_id: UUID) -> str | None:
        """Return the file of the upload that the executor takes up after another, if any."""
        return self._file_after.get(upload_id)

    def give_back(self, reason: PipelineError) -> None:
        """Return the batch to the sensor, to be tried again after its back-off.

        Raises:
            BackendUnavailable: the database is gone and stays away; the sweep does it later.
        """
        # Cut off halfway, the upload in hand would pass for one that its worker died on.
        with signals_deferred():
            try:
                self._requeue(self.connection, reason)
            except BackendUnavailable as lost:
                self._give_back_afresh(lost)

    def _give_back_afresh(self, lost: BackendUnavailable) -> None:
        """Do it on a new connection, since the old one died: a restart of Postgres is brief.

        The lease died with the connection, so the attempt in hand has to be closed here too,
        before another run takes it for that of a dead worker.
        """
        deadline = time.monotonic() + _DATABASE_RESTART_SECONDS
        while True:
            try:
                with connect(self.settings.require_database_url()) as fresh:
                    batches.release_own_attempts(
                        fresh, self.run.batch_id, run_id=self.run.run_id, reason=lost
                    )
                    self._requeue(fresh, lost)
                return
            except BackendUnavailable:
                if time.monotonic() > deadline:
                    raise
                time.sleep(_RECONNECT_SECONDS)

    def _requeue(self, connection: Connection, reason: PipelineError) -> None:
        batches.requeue(
            connection,
            self.run.batch_id,
            run_id=self.run.run_id,
            try_number=self.run.try_number,
            reason=str(reason),
            backoff=back_off(self.settings),
        )


@dg.resource(description="The Postgres counters of the run's batch, behind its lease.")
def ledger_resource(context: dg.InitResourceContext) -> Iterator[RunLedger]:
    """Yield the ledger, connected for as long as the run's worker lives."""
    if context.run is None:
        raise dg.DagsterInvariantViolationError("The ledger is for runs of a batch only.")
    run, settings = batch_run(context.run), load_settings()
    with connect(settings.require_database_url()) as connection:
        yield RunLedger(connection, run, settings)
