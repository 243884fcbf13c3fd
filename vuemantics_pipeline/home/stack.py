"""Everything at once: database, code server, webserver and daemon, as one context manager."""

import fcntl
import os
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from vuemantics_pipeline.errors import UsageError
from vuemantics_pipeline.home.database import database, migrate_for
from vuemantics_pipeline.home.instance import home_unusable, prepare_instance
from vuemantics_pipeline.home.postgres import is_running
from vuemantics_pipeline.home.processes import (
    LOOPBACK,
    Service,
    Supervisor,
    require_free_port,
    supervise,
)
from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline.settings import Settings

DEFINITIONS = "vuemantics_pipeline.definitions"
"""Module that the code server loads."""

_LOCATION = "vuemantics_pipeline"
# A run gives its upload back in well under a second; a daemon in mid-tick can be killed unharmed.
_GRACE_SECONDS = 5.0
_READINESS = """{
  workspaceOrError { ... on Workspace { locationEntries { locationOrLoadError { __typename } } } }
  instance { daemonHealth { allDaemonStatuses { required healthy } } }
}"""


@dataclass(frozen=True)
class Stack:
    """What is running.

    Attributes:
        url: of the Dagster UI, without a slash at its end.
        database_url: of the database of record; holds the password, if there is one.
        supervisor: of Dagster's processes.
    """

    url: str
    database_url: str
    supervisor: Supervisor

    @property
    def logs(self) -> Path:
        """Folder with what the processes write."""
        return self.supervisor.logs

    def batch_url(self, batch_id: object) -> str:
        """The page of a batch in the Dagster UI."""
        return f"{self.url}/assets/upload_batch?view=partitions&partition={batch_id}"

    def run_url(self, run_id: str) -> str:
        """The page of a run in the Dagster UI."""
        return f"{self.url}/runs/{run_id}"

    def wait_until_ready(self) -> None:
        """Return once the UI answers, the code is loaded and every daemon is at work.

        Raises:
            BackendUnavailable: code 'service_not_ready', with the end of a log.
        """
        self.supervisor.wait_until_ready()

    def watch(self) -> None:
        """Wait for ever, while everything is kept running; a signal's exception ends the wait.

        Raises:
            BackendUnavailable: a process could not be started.
        """
        self.supervisor.watch()


@contextmanager
def running_stack(settings: Settings, *, port: int, host: str = LOOPBACK) -> Iterator[Stack]:
    """Run everything while the block does, and stop it all at its end.

    The database is migrated and ready at once. Dagster's processes take some seconds more, for
    which `Stack.wait_until_ready` waits; one that dies is started again.

    Args:
        port, host: where the Dagster UI listens. It has no login.

    Raises:
        UsageError: code 'port_in_use' or 'already_running', or the migration's.
        BackendUnavailable: the database does not answer, or the home cannot be written.
    """
    require_free_port(port)
    with _only_one(settings.home), database(settings) as database_url:
        with connect(database_url) as connection:
            migrate_for(settings, connection)
        environment = prepare_instance(settings, database_url)
        # The UI may listen everywhere; what asks it sits on this machine.
        url = f"http://{LOOPBACK if host in ('', '0.0.0.0', '::') else _in_url(host)}:{port}"  # noqa: S104
        services = [*_database_service(settings), *_services(url, host, port, environment)]
        logs = settings.home / "logs"
        with supervise(
            services,
            logs=logs,
            environment=os.environ | environment,
            grace_seconds=_GRACE_SECONDS,
        ) as supervisor:
            yield Stack(url, database_url, supervisor)


def _database_service(settings: Settings) -> list[Service]:
    """What brings an embedded server back that was killed."""
    if settings.database_url is not None:
        return []
    command = (sys.executable, "-m", "vuemantics_pipeline.home.postgres", str(settings.home))
    return [Service("postgres", command, lambda: is_running(settings.home))]


def _services(url: str, host: str, port: int, environment: Mapping[str, str]) -> list[Service]:
    """Dagster's processes: the code server first, since the others look for it rarely."""
    dagster = (sys.executable, "-m", "dagster")
    code_port = environment["VUEMANTICS_CODE_SERVER_PORT"]
    workspace = ("--workspace", f"{environment['DAGSTER_HOME']}/workspace.yaml")
    code_server = (
        *(*dagster, "api", "grpc", "--module-name", DEFINITIONS),
        *("--location-name", _LOCATION, "--host", LOOPBACK, "--port", code_port),
    )
    daemon = (sys.executable, "-m", "dagster._daemon", "run", *workspace)
    webserver = (sys.executable, "-m", "dagster_webserver", *workspace)
    return [
        Service("code-server", code_server, ready=lambda: _listens(int(code_port))),
        Service("daemon", daemon),
        Service(
            "webserver",
            (*webserver, "--host", host, "--port", str(port)),
            ready=lambda: _is_ready(url),
        ),
    ]


def _listens(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1):
            return True
    except OSError:
        return False


def _is_ready(url: str) -> bool:
    """Whether the UI answers, has loaded the code and knows every daemon to be at work."""
    data = _ask(url, _READINESS)
    if data is None:
        return False
    entries = data["workspaceOrError"].get("locationEntries", [])
    loaded = [(entry["locationOrLoadError"] or {}).get("__typename") for entry in entries]
    daemons = data["instance"]["daemonHealth"]["allDaemonStatuses"]
    return loaded == ["RepositoryLocation"] and all(
        daemon["healthy"] for daemon in daemons if daemon["required"]
    )


def _ask(url: str, query: str) -> dict[str, Any] | None:
    """Ask the webserver's GraphQL; None while it does not answer."""
    try:
        answer = httpx.post(f"{url}/graphql", json={"query": query}, timeout=10)
        data: dict[str, Any] | None = answer.raise_for_status().json().get("data")
    except (httpx.HTTPError, ValueError):
        return None
    return data


@contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Keep a second stack away from the same home for as long as this one lives."""
    try:
        home.mkdir(parents=True, exist_ok=True)
        lock = (home / "up.lock").open("w")
    except OSError as error:
        raise home_unusable(home, error) from error
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UsageError(
                "already_running",
                f"Another `vuemantics up` or `vuemantics demo` is running on {home}.",
                "Stop that one, or give this one a --home of its own.",
            ) from None
        yield


def _in_url(host: str) -> str:
    return f"[{host}]" if ":" in host else host
