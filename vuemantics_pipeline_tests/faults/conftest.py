"""What of Dagster outlives a worker: the sensor and the run-status hooks, here in this process."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

import dagster as dg
import pytest

from vuemantics_pipeline.ledger.audit import audit
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.migrate import migrate
from vuemantics_pipeline.orchestration.build import build_definitions
from vuemantics_pipeline.orchestration.hooks import (
    batch_after_cancellation,
    batch_after_failure,
    batch_after_success,
)
from vuemantics_pipeline.orchestration.sensors import pending_upload_batches
from vuemantics_pipeline_tests.faults.worker import (
    CANCELED,
    DIMENSION,
    KILLED,
    SUCCEEDED,
    Fault,
    Order,
    Worker,
    Zygote,
)
from vuemantics_pipeline_tests.support import NewBatch, add_batch, add_user, batch_row

_ENDED = ("completed", "failed", "cancelled")


@dataclass
class Ground:
    """A prepared database, the daemon's side of Dagster, and workers to kill."""

    connection: Connection
    instance: dg.DagsterInstance
    zygote: Zygote
    folder: Path
    environment: dict[str, str]
    monkeypatch: pytest.MonkeyPatch
    user_id: UUID
    requests: list[dg.RunRequest] = field(default_factory=list)
    repository: dg.RepositoryDefinition = field(
        default_factory=lambda: build_definitions().get_repository_def()
    )

    def configure(self, name: str, value: str) -> None:
        """Set an environment variable, for workers as well."""
        self.environment[name] = value
        self.monkeypatch.setenv(name, value)

    def add_batch(self, files: Mapping[str, bytes]) -> NewBatch:
        return add_batch(
            self.connection, self.user_id, files=files, uploads_root=self.folder / "uploads"
        )

    def calls(self, batch_id: UUID) -> Path:
        return self.folder / f"{batch_id}.calls"

    def start(self, batch_id: UUID, *faults: Fault, task: str = "run") -> Worker:
        """Start a worker with a task other than a run, or a run that a person asked for."""
        return self._start(batch_id, {}, faults, task)

    def launch(self, *faults: Fault) -> Worker:
        """Start a worker for the next run that the sensor asks for."""
        deadline = time.monotonic() + 60
        while not self.requests:
            assert time.monotonic() < deadline, "The sensor asks for no run."
            self.tick()
        request = self.requests.pop(0)
        return self._start(UUID(request.partition_key), request.tags, faults, "run")

    def _start(
        self, batch_id: UUID, tags: Mapping[str, str], faults: Sequence[Fault], task: str
    ) -> Worker:
        run_id = str(uuid4())
        if task == "run":
            self.instance.add_run(
                dg.DagsterRun(
                    job_name="process_batch",
                    run_id=run_id,
                    status=dg.DagsterRunStatus.STARTED,
                    tags={"dagster/partition": str(batch_id), **tags},
                )
            )
        trace = self.folder / f"{run_id}.points"
        order = Order(
            task, batch_id, run_id, tags, self.environment, trace, self.calls(batch_id), faults
        )
        return self.zygote.start(order)

    def tick(self) -> None:
        """One tick of the sensor."""
        context = dg.build_sensor_context(instance=self.instance, repository_def=self.repository)
        result = pending_upload_batches(context)
        if isinstance(result, dg.SensorResult):
            self.requests += result.run_requests or []

    def settle(self, worker: Worker, status: int, *, hook_first: bool = False) -> None:
        """Do what follows on the end of a worker: a tick, and the hook on its run's status.

        Args:
            hook_first: they come in either order.
        """
        self.wait_for_lease(worker.order.batch_id)
        if not hook_first:
            self.tick()
        self.fire(worker.order.run_id, status)

    def fire(self, run_id: str, status: int) -> None:
        """Report the end of a run, where the sensor has not, and call the hook on it."""
        run = self.instance.get_run_by_id(run_id)
        assert run is not None
        hook: dg.SensorDefinition
        if status == SUCCEEDED:
            hook = batch_after_success
            kind = dg.DagsterEventType.RUN_SUCCESS
            event = dg.DagsterEvent(event_type_value=kind.value, job_name=run.job_name)
            self.instance.handle_run_event(run_id, event)
        elif status == CANCELED or run.status in (
            dg.DagsterRunStatus.CANCELING,
            dg.DagsterRunStatus.CANCELED,
        ):
            hook = batch_after_cancellation
            event = self.instance.report_run_canceled(run)
        else:
            hook = batch_after_failure
            event = self.instance.report_run_failed(run, "The worker ended unexpectedly.")
        context = dg.build_run_status_sensor_context(
            sensor_name=hook.name,
            dagster_event=event,
            dagster_instance=self.instance,
            dagster_run=run,
        )
        hook(context.for_run_failure() if hook is batch_after_failure else context)

    def wait_for_lease(self, batch_id: UUID) -> None:
        """Wait until Postgres has noticed that a worker is gone."""
        deadline = time.monotonic() + 60
        while self._lease_is_held(batch_id):
            assert time.monotonic() < deadline, "A dead worker holds its lease."
            time.sleep(0.002)

    def _lease_is_held(self, batch_id: UUID) -> bool:
        row = self.connection.execute(
            "SELECT vuemantics_pipeline.lease_is_held(%s)", (batch_id,)
        ).fetchone()
        return row == (True,)

    def finish(self, batch_id: UUID) -> None:
        """Run workers, as often as the sensor asks for one, until the batch has ended."""
        for _ in range(10):
            if batch_row(self.connection, batch_id).status in _ENDED:
                assert not self.requests
                return
            worker = self.launch()
            assert worker.order.batch_id == batch_id
            status = worker.wait()
            assert status != KILLED
            self.settle(worker, status)
        raise AssertionError(f"Batch {batch_id} does not end.")

    def open_attempts(self, batch_id: UUID) -> set[UUID]:
        """The uploads of a batch with an attempt that has not ended."""
        rows = self.connection.execute(
            "SELECT upload_id FROM vuemantics_pipeline.attempts"
            " WHERE batch_id = %s AND outcome IS NULL",
            (batch_id,),
        ).fetchall()
        return {upload_id for (upload_id,) in rows}

    def assert_sound(self, batch_id: UUID) -> None:
        """A batch that has ended breaks no rule of the ledger."""
        assert audit(self.connection, batch_id).violations == []
        assert self.open_attempts(batch_id) == set()


@pytest.fixture(scope="session")
def zygote(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Zygote]:
    with Zygote(tmp_path_factory.mktemp("zygote") / "log") as warm:
        yield warm


@pytest.fixture
def ground(
    database_url: str, tmp_path: Path, zygote: Zygote, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Ground]:
    environment = {
        "DATABASE_URL": database_url,
        "VUEMANTICS_HOME": str(tmp_path),
        "UPLOAD_PATH": str(tmp_path / "uploads"),
        "VUEMANTICS_ANALYZER": "none",
        "LOCAL_EMBEDDING_DIMENSIONS": str(DIMENSION),
        "VUEMANTICS_LISTEN_SECONDS": "0",
        "VUEMANTICS_BACKOFF_SECONDS": "0",
        # Each upload's own calls are counted, and no upload's result may come from another.
        "VUEMANTICS_REUSE": "false",
        # Kills may come in any number: the limit of fruitless runs is not what is tested here.
        "VUEMANTICS_MAX_TRIES": "1000",
    }
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    with connect(database_url) as connection, dg.DagsterInstance.ephemeral() as instance:
        migrate(connection, dimension=DIMENSION)
        user_id = add_user(connection)
        yield Ground(connection, instance, zygote, tmp_path, environment, monkeypatch, user_id)
