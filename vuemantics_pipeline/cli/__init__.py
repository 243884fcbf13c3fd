"""The command line: one module for each command.

Commands import what they need when they run, so that `vuemantics --help` answers at once.
"""

import sys
import warnings
from importlib.metadata import version
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vuemantics_pipeline.cli import (
    audit,
    batches,
    cancel,
    demo,
    doctor,
    export,
    gateway,
    ingest,
    mcp,
    migrate,
    reanalyze,
    retry,
    search,
    status,
    up,
)
from vuemantics_pipeline.cli.output import INTERRUPTED, exit_code, print_error
from vuemantics_pipeline.errors import PipelineError


class Commands(TyperGroup):
    """Turns expected errors of any command into a message and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except PipelineError as error:
            print_error(error)
            raise typer.Exit(exit_code(error)) from None
        except KeyboardInterrupt:
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    name="vuemantics",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Exit codes: 0 done, 1 the answer is bad news, 2 wrong use, 3 a backend cannot be "
    "reached. Without DATABASE_URL everything runs on a Postgres of its own under --home.",
)

app.command("up")(up.command)
app.command("demo")(demo.command)
app.command("ingest")(ingest.command)
app.command("batches")(batches.command)
app.command("status")(status.command)
app.command("search")(search.command)
app.command("cancel")(cancel.command)
app.command("retry")(retry.command)
app.command("reanalyze")(reanalyze.command)
app.command("export")(export.command)
app.command("audit")(audit.command)
app.command("migrate")(migrate.command)
app.command("doctor")(doctor.command)
app.command("gateway")(gateway.command)
app.command("mcp")(mcp.command)


def main() -> None:
    """Entry point of the console script."""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # they are for developers, and libraries have many
    app(prog_name="vuemantics")


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"vuemantics {version('vuemantics-pipeline')}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
) -> None:
    """Turn bulk uploads of photos and videos into described, searchable media."""
