"""The run launcher: Dagster's own, which also knows whether a run's worker still lives.

Dagster's hears of a dead worker from the code server that started it. When both die at once the
run would stay STARTED for ever and, with one run at a time, keep every other batch waiting; and a
worker that outlives its code server could not be terminated. Here run monitoring looks at the
process itself. It can do so for workers on this machine only; others are left to Dagster's ways.
"""

import json
import signal
import time
from contextlib import suppress

import dagster as dg
import psutil
from dagster._core.errors import DagsterUserCodeUnreachableError
from dagster._core.events import DagsterEventType
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher
from dagster._core.storage.tags import GRPC_INFO_TAG

_THIS_MACHINE = ("127.0.0.1", "localhost", "::1")
_FIRST_EVENTS = 20
_PATIENCE = ((None, 1.0), (signal.SIGINT, 5.0), (signal.SIGKILL, 5.0))


class WatchfulRunLauncher(DefaultRunLauncher):
    """`DefaultRunLauncher` with a health check; named in dagster.yaml under `run_launcher`."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Say whether the worker of a run that has begun is alive."""
        started = _started(self._instance, run)
        if started is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "Its process is not known here.")
        if _process(*started) is None:
            return CheckRunHealthResult(WorkerStatus.NOT_FOUND, f"Its process {started[0]} died.")
        return CheckRunHealthResult(WorkerStatus.RUNNING)

    def terminate(self, run_id: str) -> bool:
        """Ask a run to stop: by its code server or, if that no longer knows it, by a signal."""
        with suppress(DagsterUserCodeUnreachableError):
            if super().terminate(run_id):  # type: ignore[no-untyped-call]
                return True
        run = self._instance.get_run_by_id(run_id)
        process = None if run is None or run.is_finished else self._worker(run)
        if process is None:
            return False
        with suppress(psutil.NoSuchProcess):
            process.send_signal(signal.SIGINT)
        return True

    def end_worker(self, run: dg.DagsterRun) -> bool:
        """End a worker that lives on without its lease; return when it has ended.

        It is left a moment to find that out by itself, then asked, so that it gives its upload
        back, and killed only if it does not listen.

        Returns:
            Whether there was one.
        """
        worker = self._worker(run)
        if worker is None:
            return False
        with suppress(psutil.NoSuchProcess):
            for number, seconds in _PATIENCE:
                if number is not None:
                    worker.send_signal(number)
                if _has_ended(worker, seconds):
                    break
        return True

    def _worker(self, run: dg.DagsterRun) -> psutil.Process | None:
        started = _started(self._instance, run)
        return _process(*started) if started else None


def _started(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[int, float] | None:
    """Return process id and time of a worker's first word; None if that was not on this machine."""
    server = json.loads(run.tags.get(GRPC_INFO_TAG, "{}"))
    if server.get("host") not in _THIS_MACHINE:
        return None
    events = instance.event_log_storage.get_logs_for_run(
        run.run_id, of_type={DagsterEventType.ENGINE_EVENT}, limit=_FIRST_EVENTS
    )
    for entry in events:
        event = entry.dagster_event
        pid = event.engine_event_data.metadata.get("pid") if event else None
        if pid is not None and str(pid.value).isdecimal():
            return int(str(pid.value)), entry.timestamp
    return None


def _has_ended(process: psutil.Process, within_seconds: float) -> bool:
    deadline = time.monotonic() + within_seconds
    while process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True


def _process(pid: int, spoke_at: float) -> psutil.Process | None:
    """Return the living process of that id, unless it began later: then it is another's by now."""
    try:
        process = psutil.Process(pid)
        # A second's slack, as the kernel counts the start of processes in ticks from its own.
        is_it = process.create_time() < spoke_at + 1
        return process if is_it and process.status() != psutil.STATUS_ZOMBIE else None
    except psutil.NoSuchProcess:
        return None
