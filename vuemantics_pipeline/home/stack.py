"""Everything at once: database, Dagster's processes and the gateway, as one context manager."""

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
from vuemantics_pipeline.home.secret import secret_key
from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline.settings import Settings, variable

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
class Address:
    """Where a server listens."""

    port: int
    host: str = LOOPBACK

    @property
    def url(self) -> str:
        """Where this machine finds it, without a slash at its end."""
        # One that listens everywhere also listens here.
        host = LOOPBACK if self.host in ("", "0.0.0.0", "::") else self.host  # noqa: S104
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}"

    @property
    def options(self) -> tuple[str, ...]:
        """As the command lines of our servers take it."""
        return ("--host", self.host, "--port", str(self.port))


@dataclass(frozen=True)
class Stack:
    """What is running.

    Attributes:
        url: of the Dagster UI, without a slash at its end.
        analyst_url: of the one that changes nothing; None if there is none.
        gateway_url: of the gateway; None if there is none.
        database_url: of the database of record; holds the password, if there is one.
        supervisor: of the processes.
    """

    url: str
    analyst_url: str | None
    gateway_url: str | None
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
def running_stack(
    settings: Settings,
    *,
    ui: Address,
    analyst: Address | None = None,
    gateway: Address | None = None,
) -> Iterator[Stack]:
    """Run everything while the block does, and stop it all at its end.

    The database is migrated and ready at once. The other processes take some seconds more, for
    which `Stack.wait_until_ready` waits; one that dies is started again.

    Args:
        ui: where the Dagster UI listens. It has no login.
        analyst: where another one listens that changes nothing, None: there is none.
        gateway: where the gateway listens, None: there is none.

    Raises:
        UsageError: code 'port_in_use', 'already_running' or 'no_secret_key', or the migration's.
        BackendUnavailable: the database does not answer, or the home cannot be written.
    """
    for address, option in (
        (ui, "--port"),
        (analyst, "--analyst-port"),
        (gateway, "--gateway-port"),
    ):
        if address is not None:
            require_free_port(address.port, option)
    with _only_one(settings.home), database(settings) as database_url:
        with connect(database_url) as connection:
            migrate_for(settings, connection)
        environment = prepare_instance(settings, database_url)
        if "ui_url" not in settings.model_fields_set:
            environment[variable("ui_url")] = ui.url
        services = [
            *_database_service(settings),
            *_dagster_services(environment, ui, analyst),
            *(_gateway_service(gateway, secret_key(settings)) if gateway else ()),
        ]
        logs = settings.home / "logs"
        with supervise(
            services,
            logs=logs,
            environment=os.environ | environment,
            grace_seconds=_GRACE_SECONDS,
        ) as supervisor:
            yield Stack(
                ui.url,
                analyst.url if analyst else None,
                gateway.url if gateway else None,
                database_url,
                supervisor,
            )


def _database_service(settings: Settings) -> list[Service]:
    """What brings an embedded server back that was killed."""
    if settings.database_url is not None:
        return []
    command = (sys.executable, "-m", "vuemantics_pipeline.home.postgres", str(settings.home))
    return [Service("postgres", command, lambda: is_running(settings.home))]


def _dagster_services(
    environment: Mapping[str, str], ui: Address, analyst: Address | None
) -> Iterator[Service]:
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
    yield Service("code-server", code_server, ready=lambda: _listens(int(code_port)))
    yield Service("daemon", daemon)
    if analyst is not None:
        yield Service("analyst-webserver", (*webserver, "--read-only", *analyst.options))
    yield Service("webserver", (*webserver, *ui.options), ready=lambda: _is_ready(ui.url))


def _gateway_service(gateway: Address, secret: str) -> Iterator[Service]:
    command = (sys.executable, "-m", "vuemantics_pipeline", "gateway", *gateway.options)
    yield Service(
        "gateway",
        command,
        ready=lambda: _is_healthy(gateway.url),
        secrets={variable("secret_key"): secret},
    )


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


def _is_healthy(gateway_url: str) -> bool:
    try:
        return httpx.get(f"{gateway_url}/healthz", timeout=10).status_code == httpx.codes.OK
    except httpx.HTTPError:
        return False


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
