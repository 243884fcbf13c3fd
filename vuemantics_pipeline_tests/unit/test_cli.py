"""The command line where no database is needed: help, wrong use, exit codes."""

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from vuemantics_pipeline.cli import app
from vuemantics_pipeline.cli.output import exit_code
from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UsageError

COMMANDS = ["up", "demo", "ingest", "batches", "status", "search", "export", "migrate", "doctor"]
NOBODY_LISTENS = "postgresql://ada:s3cret@127.0.0.1:1/vuemantics"


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("VUEMANTICS_HOME", str(tmp_path))
    monkeypatch.setenv("DATABASE_URL", NOBODY_LISTENS)
    monkeypatch.setenv("VUEMANTICS_ANALYZER", "none")
    monkeypatch.delenv("UPLOAD_PATH", raising=False)
    monkeypatch.setenv("COLUMNS", "200")


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, [*arguments])


@pytest.mark.parametrize("flag", ["-h", "--help"])
def test_help_lists_every_command(flag: str) -> None:
    result = run(flag)

    assert result.exit_code == 0
    assert all(command in result.stdout for command in COMMANDS)
    assert "Exit codes" in result.stdout


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_explains_itself_with_an_example(command: str) -> None:
    result = run(command, "-h")

    assert result.exit_code == 0
    assert "Example" in result.stdout
    assert f"vuemantics {command}" in result.stdout
    assert "--home" in result.stdout


def test_version() -> None:
    result = run("--version")

    assert result.exit_code == 0
    assert result.stdout.startswith("vuemantics ")


def test_help_imports_nothing_heavy() -> None:
    program = (
        "import sys; sys.argv = ['vuemantics', '--help']\n"
        "from vuemantics_pipeline.cli import main\n"
        "try: main()\n"
        "except SystemExit: pass\n"
        "heavy = {'dagster', 'pandas', 'numpy', 'onnxruntime', 'av', 'psycopg', 'sqlalchemy'}\n"
        "sys.exit(str(heavy & sys.modules.keys()) if heavy & sys.modules.keys() else 0)"
    )

    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["no-such-command"],
        ["batches", "--no-such-option"],
        ["batches", "--status", "lost"],
        ["batches", "--limit", "0"],
        ["search", "lake", "--limit", "many"],
        ["search"],
        ["status"],
        ["ingest"],
        ["up", "--port", "70000"],
    ],
)
def test_wrong_use_ends_with_2(arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "Traceback" not in result.stderr


def test_a_batch_id_that_is_none_is_told_before_anything_is_reached() -> None:
    result = run("status", "not-a-uuid", "--json")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "'not-a-uuid' is not a batch id" in result.stderr
    assert "vuemantics batches" in result.stderr


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("VUEMANTICS_ANALYZER", "crystal-ball"),
        ("LOCAL_EMBEDDING_DIMENSIONS", "many"),
        ("VUEMANTICS_GRACE_SECONDS", "-1"),
    ],
)
def test_a_bad_setting_is_named(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)

    result = run("batches")

    assert result.exit_code == 2
    assert name in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("url", ["mysql://ada@localhost/x", "nonsense"])
def test_a_database_url_of_another_kind(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setenv("DATABASE_URL", url)

    result = run("batches", "--json")

    assert result.exit_code == 2
    assert result.stdout == ""
    assert "DATABASE_URL is not a PostgreSQL URL" in result.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["batches", "--json"],
        ["status", "1b4e28ba-2fa1-4d2f-883f-0016d3cca427"],
        ["search", "a lake", "--json"],
        ["ingest", "somewhere", "--json"],
        ["migrate"],
        ["up"],
        ["demo", "--once"],
    ],
)
def test_a_database_nobody_serves_ends_with_3(arguments: list[str]) -> None:
    result = run(*arguments)

    assert result.exit_code == 3
    assert result.stdout == ""
    assert "Postgres does not answer" in result.stderr
    assert "DATABASE_URL" in result.stderr
    assert "s3cret" not in result.output
    assert "Traceback" not in result.stderr


def test_every_kind_of_error_has_its_exit_code() -> None:
    assert exit_code(UsageError("a", "b")) == 2
    assert exit_code(BackendUnavailable("a", "b")) == 3
    assert exit_code(PipelineError("a", "b")) == 1


def test_ctrl_c_ends_with_130(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*arguments: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("vuemantics_pipeline.cli.session.load_settings", interrupt)

    result = run("batches")

    assert result.exit_code == 130
    assert "Traceback" not in result.output
