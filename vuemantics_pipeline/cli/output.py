"""What commands print: answers on standard output, everything else on standard error."""

import json
import sys
from collections.abc import Collection, Iterable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UsageError
from vuemantics_pipeline.printable import printable

DONE = 0
BAD_NEWS = 1
WRONG_USE = 2
UNREACHABLE = 3
INTERRUPTED = 130

_PIPE_WIDTH = 200


def answers() -> Console:
    """Standard output, wide enough for whole tables where it is no terminal."""
    return Console(width=None if sys.stdout.isatty() else _PIPE_WIDTH, highlight=False)


def notices() -> Console:
    """Standard error."""
    return Console(stderr=True, highlight=False)


def print_json(document: object) -> None:
    """Print one JSON document."""
    sys.stdout.write(json.dumps(document, indent=2) + "\n")


def print_error(error: PipelineError) -> None:
    """Say on standard error what happened and what to do about it."""
    lines = [*error.message.splitlines(), *error.remedy.splitlines()]
    message = Text("\n").join(Text(printable(line)) for line in lines)
    notices().print(Text.assemble(("Error: ", "bold red"), message), soft_wrap=True)


def exit_code(error: PipelineError) -> int:
    """The exit code that tells a script which kind of error this was."""
    if isinstance(error, UsageError):
        return WRONG_USE
    if isinstance(error, BackendUnavailable):
        return UNREACHABLE
    return BAD_NEWS


def table(columns: Iterable[str], *, whole: Collection[str] = ()) -> Table:
    """An empty table. The columns named in `whole` are never broken over lines."""
    result = Table(pad_edge=False, box=None)
    for column in columns:
        result.add_column(column, header_style="dim", overflow="fold", no_wrap=column in whole)
    return result


def cell(value: object, style: str = "") -> Text:
    """A cell of a table: None is empty, and no text can act on the terminal."""
    return Text("" if value is None else printable(str(value)), style=style)
