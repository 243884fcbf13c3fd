"""`vuemantics doctor`"""

from dataclasses import asdict

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import (
    BAD_NEWS,
    UNREACHABLE,
    answers,
    cell,
    print_json,
    table,
)


def command(json: options.Json = False, home: options.Home = None) -> None:
    """Check everything the pipeline stands on, and say how to mend what is not right.

    Ends with 1 if something is not right, with 3 if the database cannot be reached.

    Example: `vuemantics doctor`
    """
    from vuemantics_pipeline.cli.checks import examine
    from vuemantics_pipeline.cli.session import settings_for

    checks = examine(settings_for(home))
    ok = all(check.ok for check in checks)
    if json:
        print_json({"ok": ok, "checks": [asdict(check) for check in checks]})
    else:
        grid = table(["Check", "", "Found", "What to do"])
        for check in checks:
            mark = cell("ok", "green") if check.ok else cell("not ok", "bold red")
            grid.add_row(cell(check.name), mark, cell(check.detail), cell(check.remedy))
        answers().print(grid)
    if not ok:
        reachable = all(check.ok for check in checks if check.name == "database")
        raise typer.Exit(BAD_NEWS if reachable else UNREACHABLE)
