"""A worker that can be killed: a real process, a real run, and named points at which it dies.

The processes are forked from a warm one, a zygote, so that starting one costs milliseconds. The
points are put in by replacing functions in the worker only: the product knows nothing of them.
Each one reached is written down outside of the process before anything happens there.
"""

import gc
import json
import os
import pickle
import signal
import socket
import subprocess
import sys
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, NoReturn, Self
from uuid import UUID

import dagster as dg
import psycopg
from dagster._core.errors import DagsterExecutionInterruptedError
from PIL import Image

from vuemantics_pipeline import processing
from vuemantics_pipeline.analysis.analyzer import Description, Label, OnFrame, unheard
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.errors import BackendUnavailable
from vuemantics_pipeline.ingest import ingest
from vuemantics_pipeline.ledger import (
    batches,
    ingestion,
    leases,
    reanalysis,
    reruns,
    uploads,
    vectors,
)
from vuemantics_pipeline.ledger.connection import Connection, connect, database_errors
from vuemantics_pipeline.ledger.records import Attempt, Scope, Stage
from vuemantics_pipeline.ledger.transactions import transaction
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.orchestration.build import build_definitions
from vuemantics_pipeline.orchestration.sweep import sweep
from vuemantics_pipeline.settings import load_settings

DIMENSION = 8

_MAX_LOG_BYTES = 10_000_000

SUCCEEDED, FAILED, CANCELED, KILLED = 0, 10, 11, -signal.SIGKILL
"""How a worker ends: an exit status, or the signal that ended it."""


class Action(StrEnum):
    """What happens at a point."""

    KILL = "kill"
    STOP = "stop"
    """SIGSTOP, until somebody sends SIGCONT."""
    LOSE_ANSWER = "lose answer"
    """What was just committed seems to have failed; the connection lives."""
    LOSE_CONNECTION = "lose connection"
    """What was just committed seems to have failed, because the connection was lost."""
    CUT_CONNECTION = "cut connection"
    """Postgres ends the session that holds the lease."""
    BACKEND_DOWN = "backend down"
    TERMINATE = "terminate"
    """As Terminate in the Dagster UI does."""


@dataclass(frozen=True)
class Fault:
    """An action at the n-th time a worker comes to a point."""

    point: str
    occurrence: int = 1
    action: Action = Action.KILL

    def __str__(self) -> str:
        return f"{self.action} {self.point} #{self.occurrence}"


@dataclass(frozen=True)
class Order:
    """What a worker is to do.

    Attributes:
        task: 'run', 'sweep', 'retry', 'reanalyze', or 'ingest' of the folder `offered` in the home.
        trace: the file that gets a line for each point reached.
        calls: the file that gets a line for each call of a model.
    """

    task: str
    batch_id: UUID
    run_id: str
    tags: Mapping[str, str]
    environment: Mapping[str, str]
    trace: Path
    calls: Path
    faults: Sequence[Fault] = ()


@dataclass(frozen=True)
class Reached:
    """A point that a worker came to, and the upload it had in hand there."""

    point: str
    upload_id: UUID | None


@dataclass(frozen=True)
class Call:
    """A call of a model: when (seconds since 1970), which model, and what it was shown."""

    at: float
    kind: str
    subject: str


def trace_of(order: Order) -> list[Reached]:
    """The points a worker reached, in order."""
    if not order.trace.exists():
        return []
    lines = [line.split("\t") for line in order.trace.read_text().splitlines()]
    return [Reached(point, UUID(upload) if upload else None) for point, upload in lines]


def calls_in(path: Path) -> list[Call]:
    """The calls of models that were written to a file."""
    if not path.exists():
        return []
    return [Call(**json.loads(line)) for line in path.read_text().splitlines()]


def describe(width: int, height: int) -> str:
    """What the model says of a picture."""
    return f"A picture of {width} by {height} pixels, photographed on a quiet day by a lake."


class Zygote:
    """The warm process that workers are forked from. It and they end with the block."""

    def __init__(self, log: Path) -> None:
        self._log = log

    def __enter__(self) -> Self:
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-c", f"from {__name__} import zygote; zygote()"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                start_new_session=True,
            )
        self._answer()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(30)
        self._process.stdout.close()

    def start(self, order: Order) -> "Worker":
        return Worker(self, order, self.ask("start", order))

    def ask(self, *question: object) -> Any:
        assert self._process.stdin is not None
        pickle.dump(question, self._process.stdin)
        self._process.stdin.flush()
        return self._answer()

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return pickle.load(self._process.stdout)


@dataclass(frozen=True)
class Worker:
    """A running worker. Its process id stays its own until `wait` has returned."""

    zygote: Zygote
    order: Order
    pid: int

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def resume(self) -> None:
        os.kill(self.pid, signal.SIGCONT)

    def wait(self, seconds: float = 60) -> int:
        """Wait for its end and return how it ended."""
        status = self.zygote.ask("wait", self.pid, seconds)
        assert status is not None, f"The worker of {self.order} did not end in {seconds} s."
        return int(status)

    def wait_until_stopped(self, seconds: float = 60) -> None:
        stopped = self.zygote.ask("wait until stopped", self.pid, seconds)
        assert stopped, f"The worker of {self.order} did not stop in {seconds} s."


def zygote() -> NoReturn:
    """Fork a worker for each order on stdin, until that is closed."""
    orders = sys.stdin.buffer
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    job = _warm_job()
    gc.collect()
    gc.freeze()
    _answer(answers, "ready")
    alive: set[int] = set()
    while True:
        try:
            name, *arguments = pickle.load(orders)
        except EOFError:
            break
        if name == "start":
            pid = os.fork()
            if pid == 0:
                _work(job, arguments[0])
            alive.add(pid)
            _answer(answers, pid)
        else:
            pid, seconds = arguments
            ended = _wait(pid, seconds, os.WUNTRACED if name == "wait until stopped" else 0)
            if name == "wait" and ended is not None:
                alive.discard(pid)
            _answer(answers, ended)
    for pid in alive:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    sys.exit()


def _answer(answers: BinaryIO, answer: object) -> None:
    pickle.dump(answer, answers)
    answers.flush()


def _wait(pid: int, seconds: float, options: int) -> int | bool | None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found, status = os.waitpid(pid, os.WNOHANG | options)
        if found:
            return os.WIFSTOPPED(status) or os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def _warm_job() -> dg.JobDefinition:
    """Resolve the job, and run another one for the modules that Dagster imports only then."""

    @dg.op(out=dg.DynamicOut())
    def fan_out() -> Iterator[dg.DynamicOutput[int]]:
        yield dg.DynamicOutput(1, mapping_key="a")

    @dg.op
    def mapped(number: int) -> int:
        return number

    @dg.op
    def gather(numbers: list[int]) -> None:
        pass

    @dg.job(executor_def=dg.in_process_executor)
    def warm_up() -> None:
        gather(fan_out().map(mapped).collect())

    with dg.DagsterInstance.ephemeral() as instance:
        warm_up.execute_in_process(instance=instance)
    return build_definitions(analyzer=_ANALYZER).resolve_job_def("process_batch")


def _work(job: dg.JobDefinition, order: Order) -> NoReturn:
    status = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        if os.fstat(2).st_size > _MAX_LOG_BYTES:
            os.ftruncate(2, 0)
        os.environ.update(order.environment)
        _install(_Points(order))
        status = _TASKS[order.task](job, order)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def _run(job: dg.JobDefinition, order: Order) -> int:
    with dg.DagsterInstance.ephemeral() as instance:
        points = _ANALYZER.points
        assert points is not None
        points.instance = instance
        instance.add_dynamic_partitions("upload_batch", [str(order.batch_id)])
        job.execute_in_process(
            partition_key=str(order.batch_id),
            instance=instance,
            raise_on_error=False,
            run_id=order.run_id,
            tags=order.tags,
        )
        run = instance.get_run_by_id(order.run_id)
        assert run is not None
        return {
            dg.DagsterRunStatus.SUCCESS: SUCCEEDED,
            dg.DagsterRunStatus.FAILURE: FAILED,
            dg.DagsterRunStatus.CANCELED: CANCELED,
        }[run.status]


def _sweep(job: dg.JobDefinition, order: Order) -> int:
    with _connection() as connection, dg.DagsterInstance.ephemeral() as instance:
        for _ in sweep(instance, connection, load_settings(grace_seconds=0)):
            pass
    return SUCCEEDED


def _ingest(job: dg.JobDefinition, order: Order) -> int:
    settings = load_settings()
    with _connection() as connection:
        ingest(connection, settings, [settings.home / "offered"])
    return SUCCEEDED


def _retry(job: dg.JobDefinition, order: Order) -> int:
    with _connection() as connection:
        reruns.retry(connection, order.batch_id, Scope.ALL)
    return SUCCEEDED


def _reanalyze(job: dg.JobDefinition, order: Order) -> int:
    identity = replace(_ANALYZER.identity, embedding_model="another model")
    with _connection() as connection:
        reanalysis.reanalyze(connection, identity, application_model="bge-m3")
    return SUCCEEDED


_TASKS: dict[str, Callable[[dg.JobDefinition, Order], int]] = {
    "run": _run,
    "sweep": _sweep,
    "ingest": _ingest,
    "retry": _retry,
    "reanalyze": _reanalyze,
}


def _connection() -> AbstractContextManager[Connection]:
    return connect(load_settings().require_database_url())


class _Points:
    """Writes down each point as it is reached, and does what is planned there."""

    instance: dg.DagsterInstance | None = None
    connection: Connection | None = None
    upload_id: UUID | None = None

    def __init__(self, order: Order) -> None:
        self._order = order
        self._faults = {(fault.point, fault.occurrence): fault.action for fault in order.faults}
        self._seen: Counter[str] = Counter()
        self._trace = os.open(order.trace, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._calls = os.open(order.calls, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def reached(self, point: str, upload_id: UUID | None = None) -> None:
        self._seen[point] += 1
        os.write(self._trace, f"{point}\t{upload_id or ''}\n".encode())
        action = self._faults.get((point, self._seen[point]))
        if action:
            self._do(action)

    def called(self, kind: str, subject: str) -> None:
        call = {"at": time.time(), "kind": kind, "subject": subject}
        os.write(self._calls, (json.dumps(call) + "\n").encode())

    def _do(self, action: Action) -> None:
        if action is Action.KILL:
            os.kill(os.getpid(), signal.SIGKILL)
        if action is Action.STOP:
            os.kill(os.getpid(), signal.SIGSTOP)
            return
        if action is Action.BACKEND_DOWN:
            raise BackendUnavailable("model_down", "The model does not answer.", "Start it.")
        if action is Action.TERMINATE:
            assert self.instance is not None
            run = self.instance.get_run_by_id(self._order.run_id)
            assert run is not None
            self.instance.report_run_canceling(run)
            raise DagsterExecutionInterruptedError
        assert self.connection is not None
        if action is Action.CUT_CONNECTION:
            with _connection() as other:
                other.execute(
                    "SELECT pg_terminate_backend(%s, 10000)", (self.connection.info.backend_pid,)
                )
            return
        if action is Action.LOSE_CONNECTION:
            with socket.socket(fileno=os.dup(self.connection.fileno())) as wire:
                wire.shutdown(socket.SHUT_RDWR)
        with database_errors(self.connection):
            raise psycopg.OperationalError("the answer to COMMIT was lost")


class _Analyzer(ConstantAnalyzer):
    """Says what size a picture is, and writes down that it was asked."""

    points: _Points | None = None

    def describe(
        self,
        frames: Sequence[Image.Image],
        info: MediaInfo,
        *,
        again: bool = False,
        on_frame: OnFrame = unheard,
    ) -> Description:
        points, said = self._points(), describe(info.width, info.height)
        points.reached("before:describe", points.upload_id)
        points.called("describe", said)
        if info.file_type == "video":
            on_frame(1, 1)
        points.reached("after:describe", points.upload_id)
        return Description(said)

    def embed(self, text: str, labels: Sequence[Label] = ()) -> list[float]:
        points = self._points()
        points.reached("before:embed", points.upload_id)
        points.called("embed", text)
        points.reached("after:embed", points.upload_id)
        return super().embed(text, labels)

    def _points(self) -> _Points:
        assert self.points is not None
        return self.points


_ANALYZER = _Analyzer(DIMENSION)


def _install(points: _Points) -> None:
    """Put the points in: around every transaction of the ledger and every stage of an upload."""
    _ANALYZER.points = points
    name, real_transaction = "transaction", transaction

    def observed(connection: Connection) -> AbstractContextManager[None]:
        caller = sys._getframe(1)
        attempt = caller.f_locals.get("attempt")
        upload_id = attempt.upload_id if attempt else caller.f_locals.get("upload_id")
        points.connection = connection
        return _observed(connection, caller.f_code.co_name, upload_id)

    @contextmanager
    def _observed(connection: Connection, commit: str, upload_id: UUID | None) -> Iterator[None]:
        with real_transaction(connection):
            yield
            points.reached(f"before:{commit}", upload_id)
        points.reached(f"after:{commit}", upload_id)

    for module in (batches, ingestion, reanalysis, reruns, uploads):
        assert hasattr(module, name)
        setattr(module, name, observed)
    for module, name in (
        (leases, "acquire"),
        (vectors, "claim_space"),
        (batches, "mark_requested"),
    ):
        setattr(module, name, _surrounded(points, name, getattr(module, name)))

    real_stage = processing._StageClock.stage

    @contextmanager
    def stage(clock: processing._StageClock, attempt: Attempt, stage: Stage) -> Iterator[None]:
        points.upload_id = attempt.upload_id
        points.reached(f"before:{stage}", attempt.upload_id)
        with real_stage(clock, attempt, stage):
            yield
        points.reached(f"after:{stage}", attempt.upload_id)

    setattr(processing._StageClock, "stage", stage)  # noqa: B010
    name = "write_thumbnail"
    setattr(processing, name, _surrounded(points, name, getattr(processing, name)))


def _surrounded(points: _Points, name: str, real: Callable[..., Any]) -> Callable[..., Any]:
    def surrounded(*arguments: Any, **options: Any) -> Any:
        points.reached(f"before:{name}", points.upload_id)
        result = real(*arguments, **options)
        points.reached(f"after:{name}", points.upload_id)
        return result

    return surrounded
