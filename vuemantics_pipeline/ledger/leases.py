"""The lease: which run may write to a batch.

A lease is a session lock of Postgres, gone the moment the worker's process or connection dies,
and a fencing number that only grows. The connection that holds the lock is the one the run
writes with, and every write checks the number besides: a worker that wakes up after another
took over cannot write.
"""

from dataclasses import dataclass
from uuid import UUID

from vuemantics_pipeline.errors import PipelineError, UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.queries import queries

_SQL = queries("leases")


class LeaseHeld(PipelineError):
    """Another run is processing the batch."""


class LeaseLost(PipelineError):
    """Another run took the batch over; this one may not write any more."""


class BatchStopped(PipelineError):
    """The batch has ended, by this pipeline or by someone else; a run of it has to stop."""


@dataclass(frozen=True)
class Lease:
    """The right of one run to write to one batch, for as long as `connection` lives."""

    connection: Connection
    batch_id: UUID
    run_id: str
    fence: int


def acquire(connection: Connection, batch_id: UUID, run_id: str) -> Lease:
    """Take the lease of a batch for a run, and raise its fencing number.

    Raises:
        UsageError: there is no such batch.
        LeaseHeld: another session holds it; the message names the run.
    """
    parameters = {"batch_id": batch_id, "run_id": run_id}
    row = connection.execute(_SQL["try_lock"], parameters).fetchone()
    if row is None or not row[0]:
        holder = connection.execute(_SQL["holder"], parameters).fetchone()
        by = f"run {holder[0]} since {holder[1]:%Y-%m-%d %H:%M:%S} UTC" if holder else "another run"
        raise LeaseHeld(
            "lease_held",
            f"Batch {batch_id} is being processed by {by}; this run changed nothing.",
            "Wait for that run to end, or terminate it.",
        )
    fence = connection.execute(_SQL["claim"], parameters).fetchone()
    if fence is None:
        connection.execute(_SQL["unlock"], parameters)
        raise no_such_batch(batch_id)
    return Lease(connection, batch_id, run_id, fence[0])


def no_such_batch(batch_id: object) -> UsageError:
    return UsageError(
        "no_such_batch",
        f"There is no batch {batch_id}.",
        "`vuemantics batches` lists the batches there are.",
    )


def release(lease: Lease) -> None:
    """Give the lease up, so that nobody need wait for the connection to close."""
    lease.connection.execute(_SQL["unlock"], {"batch_id": lease.batch_id})


def guard(lease: Lease) -> str:
    """Lock the batch row for this transaction and return its status.

    Raises:
        LeaseLost: the fencing number has moved on, or the batch is gone.
    """
    row = lease.connection.execute(
        _SQL["guard"], {"batch_id": lease.batch_id, "fence": lease.fence}
    ).fetchone()
    if row is None:
        raise LeaseLost(
            "lease_lost",
            f"Another run took over batch {lease.batch_id}, or it was deleted; this run stops.",
        )
    return str(row[0])
