"""`vuemantics audit`"""

from dataclasses import asdict
from typing import Annotated

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import BAD_NEWS, answers, cell, print_json, table
from vuemantics_pipeline.cli.tables import counted


def command(
    batch: Annotated[
        str | None, typer.Option(metavar="BATCH", help="Only this batch. [default: all]")
    ] = None,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Check that counters, uploads and attempts of every batch agree. Ends with 1 if not.

    Example: `vuemantics audit`
    """
    from vuemantics_pipeline.cli.session import open_session
    from vuemantics_pipeline.ledger.audit import audit
    from vuemantics_pipeline.status.batches import get_batch, parse_batch_id

    with open_session(home) as session:
        batch_id = None
        if batch is not None:
            batch_id = get_batch(session.connection, parse_batch_id(batch)).batch_id
        found = audit(session.connection, batch_id)
    if json:
        violations = [
            asdict(violation) | {"batch_id": str(violation.batch_id)}
            for violation in found.violations
        ]
        print_json({"ok": not violations, "batches": found.batches, "violations": violations})
    else:
        if found.violations:
            grid = table(["Batch", "Rule", "What the rows say"], whole=["Batch", "Rule"])
            for violation in found.violations:
                grid.add_row(
                    cell(violation.batch_id), cell(violation.rule, "red"), cell(violation.detail)
                )
            answers().print(grid)
        checked = counted(found.batches, "batch", "batches")
        broken = counted(len(found.violations), "violation", "violations")
        answers().print(f"{checked} checked: {broken if found.violations else 'all agree'}.")
    if found.violations:
        raise typer.Exit(BAD_NEWS)
