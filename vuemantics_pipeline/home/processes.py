"""The processes that `vuemantics up` runs: started in order, restarted, and all of them ended."""

import errno
import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from vuemantics_pipeline.errors import BackendUnavailable, UsageError

LOOPBACK = "127.0.0.1"

_logger = logging.getLogger(__name__)

_LOG_BYTES = 10_000_000
_POLL_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 30.0
_HEALTHY_SECONDS = 60.0
_KILL_SECONDS = 5.0

# Run in the child before its program: has the kernel send it SIGTERM (15) when the supervisor
# dies, by PR_SET_PDEATHSIG (1). A program of its own, since code between fork and exec can
# deadlock where there are threads.
_TIE_TO_PARENT = """
import ctypes, os, sys
ctypes.CDLL(None).prctl(1, 15)
if os.getppid() == int(sys.argv[1]):
    os.execvp(sys.argv[2], sys.argv[2:])
"""


@dataclass(frozen=True)
class Service:
    """A program that is to run all the time.

    Attributes:
        name: also the name of its log file.
        command: the program and its arguments; no shell.
        ready: says whether it does its work yet; asked every 0.1 s. The services after this one
            start once it does; without `ready` they do not wait.
        secrets: variables that this service gets and the others do not.
    """

    name: str
    command: Sequence[str]
    ready: Callable[[], bool] | None = None
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@contextmanager
def supervise(
    services: Iterable[Service],
    *,
    logs: Path,
    environment: Mapping[str, str] | None = None,
    start_seconds: float = 60,
    grace_seconds: float = 10,
) -> Iterator["Supervisor"]:
    """Run services while the block does.

    They start in order, each in a session of its own, and write to `<logs>/<name>.log`. One that
    ends is started again after 1 s, then 2, 4 and so on up to 30 s; a minute of health starts
    that over. At the end they stop in reverse order, each with everything it started itself:
    SIGTERM first, SIGKILL after the grace.

    On Linux the services also end when this process is killed.

    Args:
        environment: what the services get instead of this process's environment.
        start_seconds: how long each may take until it is ready for the first time.
        grace_seconds: how long each may take to end by itself.
    """
    supervisor = Supervisor(services, logs, environment, start_seconds, grace_seconds)
    supervisor.start()
    try:
        yield supervisor
    finally:
        supervisor.stop()


class Supervisor:
    """Services at work; `supervise` makes one."""

    def __init__(
        self,
        services: Iterable[Service],
        logs: Path,
        environment: Mapping[str, str] | None,
        start_seconds: float,
        grace_seconds: float,
    ) -> None:
        self.logs = logs
        self._environment = environment
        self._start_seconds = start_seconds
        self._grace_seconds = grace_seconds
        self._children = [_Child(service) for service in services]
        self._ready = threading.Event()
        self._stopping = threading.Event()
        # Waited for in place of the thread: before Python 3.13 a join that a signal's exception
        # cuts short takes the thread for ended, and nobody would wait for it to stop anything.
        self._ended = threading.Event()
        self._failure: Exception | None = None
        # The kernel ties a process to the thread that started it, so one thread does it all.
        self._thread = threading.Thread(target=self._run, name="supervisor")

    def start(self) -> None:
        """Begin to start the services; return at once."""
        self._thread.start()

    def stop(self) -> None:
        """End all services; return when they have ended."""
        self._stopping.set()
        self._ended.wait()

    def wait_until_ready(self) -> None:
        """Wait until every service has been ready once.

        Raises:
            BackendUnavailable: code 'service_not_ready': one ended before, or took too long. The
                message has the last lines of its log.
        """
        self._ready.wait()
        self._raise_failure()

    def watch(self) -> None:
        """Wait for ever, while the services are kept running.

        Raises:
            BackendUnavailable: as `wait_until_ready`.
        """
        self._ended.wait()
        self._raise_failure()

    def processes(self) -> dict[str, int]:
        """Return the process id of each service that runs, by name."""
        return {
            child.service.name: child.process.pid
            for child in self._children
            if child.process is not None and child.process.poll() is None
        }

    def log(self, service: Service) -> Path:
        """Return the file a service writes to."""
        return self.logs / f"{service.name}.log"

    def _run(self) -> None:
        try:
            self._start_all()
            self._ready.set()
            while not self._stopping.wait(_POLL_SECONDS):
                for child in self._children:
                    self._revive(child)
        # Whatever it is, the other thread hears of it; nobody sees a thread fail.
        except Exception as error:
            self._failure = error
        finally:
            try:
                for child in reversed(self._children):
                    child.stop(self._grace_seconds)
            finally:
                self._ready.set()
                self._ended.set()

    def _start_all(self) -> None:
        self.logs.mkdir(parents=True, exist_ok=True)
        for child in self._children:
            self._start(child)
            self._await_ready(child)

    def _start(self, child: "_Child") -> None:
        log = self.log(child.service)
        keep_short(log)
        child.start(log, self._environment)

    def _await_ready(self, child: "_Child") -> None:
        deadline = time.monotonic() + self._start_seconds
        is_ready = child.service.ready or _at_once
        while not self._stopping.is_set() and not is_ready():
            code = child.exit_code()
            if code is not None or time.monotonic() > deadline:
                name, log = child.service.name, self.log(child.service)
                what = (
                    f"was not ready within {self._start_seconds:g} s"
                    if code is None
                    else f"ended with code {code} while it was starting"
                )
                raise BackendUnavailable(
                    "service_not_ready",
                    f"{name} {what}. Its last words:\n{last_lines(log, 15)}\n",
                    f"All of its log is in {log}.",
                )
            self._stopping.wait(_POLL_SECONDS)

    def _revive(self, child: "_Child") -> None:
        code = child.exit_code()
        if code is None:
            return
        now = time.monotonic()
        if child.restart_at is None:
            if now - child.started_at > _HEALTHY_SECONDS:
                child.pause_seconds = 1.0
            child.restart_at = now + child.pause_seconds
            _logger.warning(
                "%s ended with code %s; it is started again in %g s.",
                *(child.service.name, code, child.pause_seconds),
            )
            child.pause_seconds = min(2 * child.pause_seconds, _LONGEST_PAUSE_SECONDS)
        elif now >= child.restart_at:
            self._start(child)

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure


@dataclass
class _Child:
    """A service's process, and every session it has had: workers outlive a parent that died."""

    service: Service
    process: subprocess.Popen[bytes] | None = None
    started_at: float = 0.0
    restart_at: float | None = None
    pause_seconds: float = 1.0
    sessions: dict[int, float] = field(default_factory=dict)

    def start(self, log: Path, environment: Mapping[str, str] | None) -> None:
        command = tuple(self.service.command)
        if sys.platform == "linux":
            tie = (sys.executable, "-I", "-S", "-c", _TIE_TO_PARENT, str(os.getpid()))
            command = (*tie, *command)
        before = time.time()
        with log.open("ab") as file:
            self.process = subprocess.Popen(
                command,
                env={
                    **(os.environ if environment is None else environment),
                    **self.service.secrets,
                },
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.sessions[self.process.pid] = before
        self.started_at, self.restart_at = time.monotonic(), None

    def exit_code(self) -> int | None:
        return None if self.process is None else self.process.poll()

    def stop(self, grace_seconds: float) -> None:
        """End the service and all that came from it."""
        family = self._family()
        for process in family:
            with suppress(psutil.NoSuchProcess):
                process.terminate()
        _wait(family, grace_seconds)
        # Those asked may have started others meanwhile.
        deadline = time.monotonic() + _KILL_SECONDS
        while (family := _living({*family, *self._family()})) and time.monotonic() < deadline:
            for process in family:
                with suppress(psutil.NoSuchProcess):
                    process.kill()
            _wait(family, _POLL_SECONDS)
        if self.process is not None:
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(_POLL_SECONDS)

    def _family(self) -> set[psutil.Process]:
        """Return what lives of the service's sessions, and its descendants in other sessions."""
        family = {process for process in psutil.process_iter() if self._is_member(process)}
        for process in tuple(family):
            with suppress(psutil.NoSuchProcess):
                family.update(process.children(recursive=True))
        return _living(family)

    def _is_member(self, process: psutil.Process) -> bool:
        try:
            began = self.sessions.get(os.getsid(process.pid))
            # A second's slack, as the kernel counts the start of processes in ticks from its own.
            return began is not None and process.create_time() > began - 1
        except (OSError, psutil.NoSuchProcess):
            return False


def _at_once() -> bool:
    return True


def free_port(preferred: int | None = None) -> int:
    """Return a TCP port of the loopback interface that nobody uses: the preferred one if it is.

    Nothing reserves it: take it soon.
    """
    if preferred is not None:
        with suppress(OSError):
            return _bind(preferred)
    return _bind(0)


def require_free_port(port: int, option: str = "--port") -> None:
    """Make sure that a service can listen on a TCP port of the loopback interface.

    Args:
        option: of the command line that chooses another.

    Raises:
        UsageError: code 'port_in_use', or 'port_unusable' where the system refuses it.
    """
    remedy = f"Choose another with {option}."
    try:
        _bind(port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise UsageError("port_in_use", f"Port {port} is in use.", remedy) from None
        raise UsageError("port_unusable", f"Port {port}: {error.strerror}.", remedy) from None


def keep_short(log: Path) -> None:
    """Put a log of more than 10 MB aside as `<name>.1`, in place of the one before."""
    with suppress(FileNotFoundError):
        if log.stat().st_size > _LOG_BYTES:
            log.replace(log.with_name(f"{log.name}.1"))


def last_lines(log: Path, count: int) -> str:
    """Return the last lines of a log, or a word in place of nothing."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, log.stat().st_size - 10_000))
            lines = file.read().decode(errors="replace").splitlines()
    except OSError:
        lines = []
    return "\n".join(lines[-count:]) or "(nothing)"


def _bind(port: int) -> int:
    with socket.socket() as probe:
        # Connections that have just ended still hold a port, but not against a new listener.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        probe.bind((LOOPBACK, port))
        bound: int = probe.getsockname()[1]
    return bound


def _wait(processes: set[psutil.Process], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while _living(processes) and time.monotonic() < deadline:
        time.sleep(0.02)


def _living(processes: set[psutil.Process]) -> set[psutil.Process]:
    return {process for process in processes if _is_living(process)}


def _is_living(process: psutil.Process) -> bool:
    try:
        # One that nobody reaps stays a zombie for as long as the machine runs.
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
