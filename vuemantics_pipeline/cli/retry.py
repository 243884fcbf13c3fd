"""`vuemantics retry`"""

from typing import Annotated

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import BAD_NEWS, WRONG_USE, answers, notices, print_json
from vuemantics_pipeline.cli.tables import counted
from vuemantics_pipeline.ledger.records import Scope


def command(
    batch: options.BatchId,
    scope: Annotated[
        Scope,
        typer.Option(
            help="Uploads to take up: those unfinished, the failed ones as well, or all anew."
        ),
    ] = Scope.UNFINISHED,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many uploads that would be.")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", "-y", help="Do not ask before doing all uploads anew.")
    ] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Run a batch again: the sensor takes it up at its next tick.

    Descriptions and vectors stay in place until new ones replace them. Ends with 1 if there is
    nothing to do.

    Example: `vuemantics retry 1b4e28ba-2fa1-4d2f-883f-0016d3cca427 --scope failed`
    """
    from vuemantics_pipeline.cli.session import open_session
    from vuemantics_pipeline.ledger.reruns import count_scope, retry
    from vuemantics_pipeline.status.batches import get_batch, parse_batch_id

    with open_session(home) as session:
        batch_id = get_batch(session.connection, parse_batch_id(batch)).batch_id
        count = count_scope(session.connection, batch_id, scope)
        if not (dry_run or yes or json or scope is not Scope.ALL) and count:
            notices().print(f"This describes {counted(count, 'upload', 'uploads')} anew.")
            if not typer.confirm("Go on?", err=True):
                raise typer.Exit(WRONG_USE)
        if not dry_run:
            count = retry(session.connection, batch_id, scope)
    if json:
        print_json(
            {"batch_id": str(batch_id), "scope": scope, "uploads": count, "dry_run": dry_run}
        )
    elif not count:
        answers().print(f"Batch {batch_id} has no uploads to take up in this scope.")
    else:
        would = "would be taken up" if dry_run else "are taken up by the next run"
        answers().print(f"{counted(count, 'upload', 'uploads')} of batch {batch_id} {would}.")
    if not count:
        raise typer.Exit(BAD_NEWS)
