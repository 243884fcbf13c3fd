"""The real stack as its user starts it, and a real browser."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any

import httpx
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from vuemantics_pipeline.home.processes import free_port

CHROMIUM = "/usr/bin/chromium"
SAMPLES = Path(str(resources.files("vuemantics_pipeline.home") / "samples"))
SCREENSHOTS = os.environ.get("VUEMANTICS_SCREENSHOTS")
"""A folder: the pages that the tests look at are kept there as pictures."""
STOP_SECONDS = 60
COMMAND = (sys.executable, "-m", "vuemantics_pipeline")


@dataclass(frozen=True)
class App:
    """A home, and the command line on it; what has no port is not run."""

    home: Path
    port: int
    environment: Mapping[str, str]
    gateway_port: int | None = None
    analyst_port: int | None = None

    @property
    def url(self) -> str:
        """Of the Dagster UI."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def gateway_url(self) -> str:
        return f"http://127.0.0.1:{self.gateway_port}"

    def vuemantics(self, *arguments: str, expect: int = 0) -> str:
        """Run a command, insist on its exit code, and return what it printed."""
        done = subprocess.run(
            [*COMMAND, *arguments, "--home", str(self.home)],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=240,
        )
        assert done.returncode == expect, f"{arguments}: {done.returncode}\n{done.stderr}"
        return done.stdout

    def json(self, *arguments: str, expect: int = 0) -> Any:
        return json.loads(self.vuemantics(*arguments, "--json", expect=expect))

    def graphql(self, query: str, **variables: object) -> Any:
        answer = httpx.post(
            f"{self.url}/graphql", json={"query": query, "variables": variables}, timeout=30
        )
        answer.raise_for_status()
        document = answer.json()
        assert "errors" not in document, document
        return document["data"]

    def up(self) -> subprocess.Popen[str]:
        """Start `vuemantics up` and wait until it says where the UI is."""
        options = ["--home", str(self.home), "--port", str(self.port)]
        if self.gateway_port:
            options += ["--gateway-port", str(self.gateway_port)]
        else:
            options += ["--no-gateway"]
        if self.analyst_port:
            options += ["--analyst-port", str(self.analyst_port)]
        process = subprocess.Popen(
            [*COMMAND, "up", *options],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert process.stdout is not None
        line = process.stdout.readline()
        if self.url not in line:
            process.kill()
            raise AssertionError(f"up said {line!r}\n{process.communicate()[1]}")
        return process


def stop(process: subprocess.Popen[str]) -> int:
    """Press Ctrl-C, unless it has ended already, and return the exit code."""
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=STOP_SECONDS)
    return process.returncode


def outside_environment() -> dict[str, str]:
    """The environment of the tests, without what would lead a stack away from its own home."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("VUEMANTICS", "DAGSTER", "DATABASE", "UPLOAD"))
    }


@pytest.fixture(scope="session")
def app(tmp_path_factory: pytest.TempPathFactory) -> App:
    home = tmp_path_factory.mktemp("app") / "home"
    environment = outside_environment() | {"VUEMANTICS_LISTEN_SECONDS": "5"}
    return App(home, free_port(), environment, analyst_port=free_port())


@pytest.fixture(scope="session")
def running(app: App) -> Iterator[App]:
    """The app while `vuemantics up` runs on it."""
    process = app.up()
    try:
        yield app
    finally:
        stop(process)


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    if not Path(CHROMIUM).exists():
        pytest.fail(f"{CHROMIUM} is missing: run tools/install-debian-packages chromium as root.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            args=[
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ],
        )
        yield browser
        browser.close()


def eventually(what: str, check: Any, *, seconds: float = 60) -> Any:
    """Return the first true answer of `check`, asked again until the time is up."""
    give_up_at = time.monotonic() + seconds
    while not (answer := check()):
        assert time.monotonic() < give_up_at, f"{what}: not within {seconds} s"
        time.sleep(0.3)
    return answer


def keep(page: Page, name: str) -> None:
    """Take a picture of a page where somebody wants them."""
    if SCREENSHOTS:
        page.wait_for_timeout(1500)
        page.screenshot(path=Path(SCREENSHOTS) / name)
