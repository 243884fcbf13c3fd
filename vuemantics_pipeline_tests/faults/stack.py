"""The real processes of `vuemantics up`, to be broken, and what the tests ask them."""

import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import httpx
import psutil
import pytest

from vuemantics_pipeline.home.postgres import DATABASE, _Server
from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline.ledger.audit import audit
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline_tests.acceptance.conftest import App, outside_environment
from vuemantics_pipeline_tests.faults.definitions import POISON_HEIGHT
from vuemantics_pipeline_tests.support import (
    NewBatch,
    add_batch,
    add_user,
    assert_counters_true,
    batch_row,
    photo,
)

DEADLINE_SECONDS = 60.0
DIMENSION = 8

_LAUNCHER = """
from vuemantics_pipeline.cli import main
from vuemantics_pipeline.home import stack
stack.DEFINITIONS = "vuemantics_pipeline_tests.faults.definitions"
main()
"""
COMMAND = (sys.executable, "-c", _LAUNCHER)
_RUNS = """query($batch: String!) {
  runsOrError(filter: {tags: [{key: "dagster/partition", value: $batch}]}) {
    ... on Runs { results { runId status rootRunId startTime endTime } }
  }
}"""
_LOGS = """query($id: ID!) { logsForRun(runId: $id, limit: 1000) {
  __typename ... on EventConnection { events { ... on MessageEvent { message }
    ... on RunFailureEvent { error { message causes { message } } } } }
} }"""
_TERMINATE = """mutation($id: String!) { terminateRun(runId: $id) {
  __typename ... on TerminateRunFailure { message } ... on PythonError { message }
} }"""
_LAUNCH = """mutation($params: ExecutionParams!) {
  launchPipelineExecution(executionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""
_REEXECUTE = """mutation($params: ReexecutionParams!) {
  launchPipelineReexecution(reexecutionParams: $params) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}"""

T = TypeVar("T")


def eventually(what: str, ask: Callable[[], T], seconds: float = DEADLINE_SECONDS) -> T:
    """Return the first true answer, asked again until the time is up."""
    give_up_at = time.monotonic() + seconds
    while not (answer := ask()):
        assert time.monotonic() < give_up_at, f"{what}: not within {seconds:g} s"
        time.sleep(0.05)
    return answer


def show(what: str, seconds: Sequence[float]) -> None:
    """Print a measurement."""
    listed = ", ".join(f"{each:.1f}" for each in seconds)
    print(f"{what}: median {statistics.median(seconds):.1f} s of {len(seconds)} ({listed})")


@dataclass(frozen=True)
class Run:
    """A run as Dagster knows it."""

    run_id: str
    status: str


@dataclass
class FaultStack:
    """A home with `vuemantics up` on it, which may be killed and started again."""

    app: App
    up: subprocess.Popen[str] | None = None

    @property
    def home(self) -> Path:
        return self.app.home

    @property
    def uploads_root(self) -> Path:
        return self.home / "uploads"

    # Processes

    def start(self) -> None:
        """Start `vuemantics up`, and return when it says that everything is ready."""
        complaints = self.home.parent / "up.stderr"
        with complaints.open("a") as stderr:
            self.up = subprocess.Popen(
                [*COMMAND, "up", "--no-gateway", "--port", str(self.app.port)],
                env=self.app.environment,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
                start_new_session=True,
            )
        assert self.up.stdout is not None
        line = self.up.stdout.readline()
        assert self.app.url in line, (line, complaints.read_text())

    def stop(self) -> int:
        """Press Ctrl-C and return the exit code."""
        assert self.up is not None
        self.up.send_signal(signal.SIGINT)
        self.up.communicate(timeout=DEADLINE_SECONDS)
        return self.up.returncode

    def assert_nothing_left(self) -> None:
        """Insist that no process of the home lives on; the decoder's may take a moment to end."""
        give_up_at = time.monotonic() + 5
        while living := self.processes():
            assert time.monotonic() < give_up_at, living
            time.sleep(0.05)

    def kill_everything(self) -> None:
        """SIGKILL every process of the home, the supervisor first."""
        assert self.up is not None
        self.up.kill()
        self.up.communicate()
        while living := self.processes():
            for process in living:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            time.sleep(0.02)

    def processes(self) -> list[psutil.Process]:
        """Every living process that was started for this home."""
        return [process for process in psutil.process_iter() if self._is_ours(process)]

    def _is_ours(self, process: psutil.Process) -> bool:
        try:
            return process.status() != psutil.STATUS_ZOMBIE and process.environ().get(
                "VUEMANTICS_HOME"
            ) == str(self.home)
        except (psutil.Error, OSError):
            return False

    def service(self, *words: str) -> psutil.Process | None:
        """The oldest process of the home whose command line has all these words."""
        found = []
        for process in self.processes():
            with suppress(psutil.NoSuchProcess):
                if set(words) <= set(process.cmdline()):
                    found.append(process)
        return min(found, key=lambda process: process.create_time(), default=None)

    @property
    def code_server(self) -> psutil.Process:
        return self._present("dagster", "api", "grpc")

    @property
    def daemon(self) -> psutil.Process:
        return self._present("dagster._daemon")

    def _present(self, *words: str) -> psutil.Process:
        process = eventually(" ".join(words), lambda: self.service(*words), 30)
        assert process is not None
        return process

    def workers(self) -> list[psutil.Process]:
        """The run workers, those included whose code server is gone."""
        found = []
        for process in self.processes():
            with suppress(psutil.Error):
                if any("spawn_main" in word for word in process.cmdline()):
                    parent = process.parent()
                    if parent is None or "spawn_main" not in " ".join(parent.cmdline()):
                        found.append(process)
        return found

    def worker(self) -> psutil.Process:
        """The only run worker."""
        (found,) = eventually("a run worker", self.workers, 30)
        return found

    @property
    def postmaster(self) -> psutil.Process:
        process = self._server.process()
        assert process is not None
        return process

    @property
    def _server(self) -> _Server:
        return _Server(self.home / "postgres")

    def restart_postgres(self) -> None:
        """What `pg_ctl restart -m immediate` does: as a crash, and back at once."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("VUEMANTICS_HOME", str(self.home))
            self._server._run("pg_ctl", "restart", "--wait", "--mode", "immediate")

    @property
    def database_url(self) -> str:
        return self._server.url(DATABASE)

    @contextmanager
    def connect(self) -> Iterator[Connection]:
        with connect(self.database_url) as connection:
            yield connection

    # Uploads

    def hold(self, *names: object) -> None:
        """Keep the analyzer waiting at photos of these widths and at no others."""
        part = self.home / "held.part"
        part.write_text(" ".join(map(str, names)))
        part.replace(self.home / "held")

    def calls(self) -> Counter[int]:
        """How often the analyzer has looked at a photo, by width."""
        path = self.home / "calls"
        return Counter(map(int, path.read_text().split())) if path.exists() else Counter()

    def add_batch(self, *widths: int, poison: int = 0, bad: int = 0) -> NewBatch:
        """Add a pending batch of photos, named for their widths; the bad one is none."""
        files = {
            f"{width}.jpg": photo(width, POISON_HEIGHT if width == poison else 48)
            for width in widths
        }
        if bad:
            files[f"{bad}.jpg"] = b"no photo"
        with self.connect() as connection:
            return add_batch(
                connection, add_user(connection), files=files, uploads_root=self.uploads_root
            )

    def status(self, batch: NewBatch) -> str:
        with self.connect() as connection:
            return batch_row(connection, batch.batch_id).status

    def await_status(self, batch: NewBatch, *statuses: str) -> str:
        """Wait until the batch says one of these."""
        return eventually(
            f"batch {' or '.join(statuses)}",
            lambda: status if (status := self.status(batch)) in statuses else "",
        )

    def attempts(self, upload_id: UUID) -> list[tuple[int, str | None]]:
        """(attempt_number, outcome) of an upload's attempts, oldest first."""
        with self.connect() as connection:
            return connection.execute(
                "SELECT attempt_number, outcome FROM vuemantics_pipeline.attempts"
                " WHERE upload_id = %s ORDER BY id",
                (upload_id,),
            ).fetchall()

    def await_look(self, width: int, times: int = 1) -> float:
        """Wait until the analyzer looks at a photo for the n-th time; return when it began."""
        eventually(f"look {times} at photo {width}", lambda: self.calls()[width] >= times)
        return time.time()

    def started_after(self, batch: NewBatch, moment: float) -> float:
        """Wait for the first attempt of a batch after a moment; return the seconds between."""

        def ask() -> float | None:
            with suppress(Exception), self.connect() as connection:
                row = connection.execute(
                    "SELECT extract(epoch FROM min(started_at))::float8"
                    " FROM vuemantics_pipeline.attempts"
                    " WHERE batch_id = %s AND started_at > to_timestamp(%s)",
                    (batch.batch_id, moment),
                ).fetchone()
                return row[0] if row else None
            return None

        started = eventually("the next upload", ask)
        assert started is not None
        return started - moment

    def assert_ended(self, batch: NewBatch, status: str = "completed", *, failed: int = 0) -> None:
        """Wait for the end of a batch, and insist on counters, rows and attempts that agree."""
        self.await_status(batch, status)
        with self.connect() as connection:
            row = batch_row(connection, batch.batch_id)
            if status == "completed":
                assert (row.processed, row.failed) == (len(batch.uploads), failed), row
            assert_counters_true(connection, batch.batch_id)
            assert audit(connection, batch.batch_id).violations == []
        self.await_idle()

    def settle(self) -> None:
        """Leave nothing held and nothing to do for the next test."""
        self.hold()
        with self.connect() as connection:
            connection.execute(
                "UPDATE upload_batches SET status = 'cancelled', completed_at = now()"
                " WHERE status IN ('pending', 'processing')"
            )
        self.await_idle()
        (self.home / "calls").unlink(missing_ok=True)

    def await_idle(self) -> None:
        """Wait until no run is under way, as far as Dagster knows."""
        eventually("the end of every run", lambda: not self.unfinished_runs())

    # Dagster

    def ask(self, query: str, **variables: object) -> Any:
        """Ask the webserver, again where a fault has just cut it off from database or code."""
        give_up_at = time.monotonic() + 15
        while True:
            try:
                return self.app.graphql(query, **variables)
            except (httpx.HTTPError, AssertionError):
                if time.monotonic() > give_up_at:
                    raise
                time.sleep(0.5)

    def runs(self, batch: NewBatch) -> list[Run]:
        """The runs of a batch, oldest first."""
        results = self.ask(_RUNS, batch=str(batch.batch_id))["runsOrError"]["results"]
        return [Run(run["runId"], run["status"]) for run in reversed(results)]

    def run_status(self, run_id: str) -> str:
        query = "query($id: ID!) { runOrError(runId: $id) { ... on Run { status } } }"
        return str(self.ask(query, id=run_id)["runOrError"]["status"])

    def await_run(self, run_id: str) -> str:
        """Wait for the end of a run, and return how it ended."""
        ended = ("SUCCESS", "FAILURE", "CANCELED")
        return eventually(
            f"end of run {run_id}",
            lambda: status if (status := self.run_status(run_id)) in ended else "",
        )

    def unfinished_runs(self) -> list[str]:
        query = (
            "{ runsOrError(filter: {statuses: [QUEUED, NOT_STARTED, STARTING, STARTED, CANCELING]})"
            " { ... on Runs { results { runId } } } }"
        )
        return [run["runId"] for run in self.ask(query)["runsOrError"]["results"]]

    def log(self, run_id: str) -> str:
        """Every message of a run."""
        events = self.ask(_LOGS, id=run_id)["logsForRun"]["events"]
        lines = []
        for event in events:
            error = event.get("error") or {}
            causes = [cause["message"] for cause in error.get("causes") or []]
            lines += [event.get("message"), error.get("message"), *causes]
        return "\n".join(filter(None, lines))

    def terminate(self, run_id: str) -> None:
        """Press Terminate on a run's page."""
        answer = self.ask(_TERMINATE, id=run_id)["terminateRun"]
        assert answer["__typename"] == "TerminateRunSuccess", answer

    def launch(self, job: str, config: Mapping[str, object], **tags: str) -> str:
        """Launch a job from its launchpad; return the run's id."""
        params = {
            "selector": {
                "repositoryLocationName": "vuemantics_pipeline",
                "repositoryName": "__repository__",
                "pipelineName": job,
            },
            "mode": "default",
            "runConfigData": config,
            "executionMetadata": {
                "tags": [{"key": key, "value": value} for key, value in tags.items()]
            },
        }
        answer = self.ask(_LAUNCH, params=params)["launchPipelineExecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])

    def materialize(
        self, batch: NewBatch, config: Mapping[str, object] | None = None, **tags: str
    ) -> str:
        """Launch a run of a batch from the launchpad; return its id."""
        partition = {"dagster/partition": str(batch.batch_id)}
        return self.launch("process_batch", config or {}, **(partition | tags))

    def reexecute(self, run_id: str, strategy: str) -> str:
        """Re-execute a run, FROM_FAILURE or ALL_STEPS; return the new run's id."""
        params = {"parentRunId": run_id, "strategy": strategy}
        answer = self.ask(_REEXECUTE, params=params)["launchPipelineReexecution"]
        assert answer["__typename"] == "LaunchRunSuccess", answer
        return str(answer["run"]["runId"])


@contextmanager
def fault_stack(**environment: str) -> Iterator[FaultStack]:
    """A running stack on a home of its own; at the end nothing of it is left."""
    # Not under tmp_path: another pytest of the same root closes that to the server's user.
    folder = Path(tempfile.mkdtemp(prefix="vuemantics-faults-"))
    home = folder / "home"
    settings = {
        "VUEMANTICS_HOME": str(home),
        "VUEMANTICS_ANALYZER": "none",
        "VUEMANTICS_REUSE": "false",
        "LOCAL_EMBEDDING_DIMENSIONS": str(DIMENSION),
        "PYTHONPATH": str(Path(__file__).parents[2]),
    }
    stack = FaultStack(App(home, free_port(), outside_environment() | settings | environment))
    try:
        stack.start()
        yield stack
        assert stack.stop() == 0
        stack.assert_nothing_left()
    finally:
        if stack.up is not None:
            stack.kill_everything()
        shutil.rmtree(folder)
