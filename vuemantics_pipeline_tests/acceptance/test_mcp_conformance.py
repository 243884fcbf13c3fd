"""The MCP server before the protocol's own tools: the conformance suite and the inspector."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline_tests.acceptance.bearer_proxy import bearer_proxy
from vuemantics_pipeline_tests.acceptance.conftest import (
    COMMAND,
    App,
    eventually,
    outside_environment,
    stop,
)

PINNED = Path(__file__).parent / "mcp"
SNAPSHOT = Path(__file__).parents[1] / "unit" / "snapshots" / "mcp_tools.json"
SAMPLES = Path(str(resources.files("vuemantics_pipeline.home") / "samples"))
TOKEN = "a token for this test"
NEEDED_NODE = 22
# Node and npm of the virtual environment come before the machine's.
PATH = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])


def node_version() -> int:
    try:
        said = subprocess.run(
            [shutil.which("node", path=PATH) or "node", "--version"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return 0
    return int(said.strip().removeprefix("v").partition(".")[0])


@pytest.fixture(scope="module")
def tools(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder in which the pinned tools are installed."""
    if node_version() < NEEDED_NODE:
        pytest.fail(f"The MCP tools need Node.js {NEEDED_NODE} or later with npm on PATH.")
    folder = tmp_path_factory.mktemp("tools")
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PINNED / name, folder)
    npm = shutil.which("npm", path=PATH)
    assert npm is not None, "npm is not on PATH"
    done = subprocess.run(
        [npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder,
        env=os.environ | {"PATH": PATH},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert done.returncode == 0, done.stderr
    return folder / "node_modules" / "@modelcontextprotocol"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> App:
    """A home with one batch in it, which nobody processes."""
    home = tmp_path_factory.mktemp("library") / "home"
    environment = {"PATH": PATH, "VUEMANTICS_MCP_TOKEN": TOKEN}
    app = App(home, free_port(), outside_environment() | environment)
    app.vuemantics("ingest", str(SAMPLES / "dahlia.jpg"))
    return app


@pytest.fixture(scope="module")
def url(library: App) -> Iterator[str]:
    """Where the library is served over HTTP."""
    process = subprocess.Popen(
        [*COMMAND, "mcp", "--http", str(library.port), "--home", str(library.home)],
        env=library.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    eventually("the server", lambda: "Serving" in process.stderr.readline())
    yield f"{library.url}/mcp"
    assert stop(process) == 0


def run(library: App, *command: str, expect: int = 0) -> str:
    done = subprocess.run(
        [shutil.which("node", path=PATH) or "node", *command],
        env=library.environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert done.returncode == expect, f"{done.stdout}\n{done.stderr}"
    return done.stdout


def test_the_conformance_suite(tools: Path, library: App, url: str) -> None:
    with bearer_proxy(url, TOKEN) as proxied:
        said = run(
            library,
            str(tools / "conformance" / "dist" / "index.js"),
            *("server", "--url", proxied, "--suite", "all"),
            *("--expected-failures", str(PINNED / "expected-failures.yaml")),
        )
    for scenario in (
        "server-initialize",
        "ping",
        "tools-list",
        "resources-list",
        "prompts-list",
        "completion-complete",
        "tools-call-error",
        "server-sse-multiple-streams",
        "dns-rebinding-protection",
    ):
        assert f"✓ {scenario}: " in said, said


@pytest.fixture(params=["stdio", "http"])
def target(request: pytest.FixtureRequest, library: App, url: str, tmp_path: Path) -> list[str]:
    """How the inspector reaches the server."""
    if request.param == "http":
        server: dict[str, Any] = {
            "type": "streamable-http",
            "url": url,
            "headers": {"Authorization": f"Bearer {TOKEN}"},
        }
    else:
        server = {
            "type": "stdio",
            "command": COMMAND[0],
            "args": [*COMMAND[1:], "mcp", "--home", str(library.home), "--allow-changes"],
        }
    config = tmp_path / "mcp.json"
    config.write_text(json.dumps({"mcpServers": {"vuemantics": server}}))
    return ["--config", str(config), "--server", "vuemantics"]


def inspect(tools: Path, library: App, target: list[str], *arguments: str, expect: int = 0) -> Any:
    bin_of = json.loads((tools / "inspector" / "package.json").read_text())["bin"]
    program = tools / "inspector" / bin_of["mcp-inspector"]
    return json.loads(run(library, str(program), "--cli", *target, *arguments, expect=expect))


def test_the_inspector_finds_no_fault_with_the_schemas(
    tools: Path, library: App, target: list[str]
) -> None:
    listed = inspect(tools, library, target, "--method", "tools/list", "--strict")["tools"]

    expected = json.loads(SNAPSHOT.read_text())
    assert len(listed) in (len(expected), len(expected) - 2)
    for tool, snapshot in zip(listed, expected, strict=False):
        assert tool["name"] == snapshot["name"]
        assert tool["annotations"] == snapshot["annotations"]
        assert tool["inputSchema"] == snapshot["inputSchema"]
        assert tool["outputSchema"] == snapshot["outputSchema"]


def test_the_inspector_calls_tools_and_reads_resources(
    tools: Path, library: App, target: list[str]
) -> None:
    call = ("--method", "tools/call", "--tool-name")
    listed = inspect(tools, library, target, *call, "list_batches")
    [batch] = listed["structuredContent"]["batches"]
    assert (batch["status"], batch["total_uploads"]) == ("pending", 1)

    key = batch["batch_id"]
    uploads = inspect(
        tools, library, target, *call, "list_batch_uploads", "--tool-arg", f"batch_id={key}"
    )["structuredContent"]["uploads"]
    assert [upload["filename"] for upload in uploads] == ["dahlia.jpg"]

    report = inspect(
        tools,
        library,
        target,
        *("--method", "resources/read", "--uri", f"vuemantics://batches/{key}/report"),
    )
    assert report["contents"][0]["text"].startswith(f"# Batch {key}")
    prompts = inspect(tools, library, target, "--method", "prompts/list")["prompts"]
    assert [prompt["name"] for prompt in prompts] == ["why_did_my_batch_fail", "weekly_report"]
