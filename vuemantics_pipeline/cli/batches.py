"""`vuemantics batches`"""

from typing import Annotated

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import notices, print_json
from vuemantics_pipeline.cli.tables import print_batches
from vuemantics_pipeline.ledger.records import BatchStatus


def command(
    status: Annotated[
        BatchStatus | None, typer.Option(help="Only batches with this status.")
    ] = None,
    limit: Annotated[
        int, typer.Option(min=1, max=10_000, help="How many at most, the newest first.")
    ] = 20,
    user: Annotated[
        str | None,
        typer.Option(metavar="USER", help="Only batches of this user: e-mail address or id."),
    ] = None,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """List batches, the newest first.

    Example: `vuemantics batches --status failed --limit 5`
    """
    from vuemantics_pipeline.cli.session import open_session
    from vuemantics_pipeline.ledger.ingestion import find_user
    from vuemantics_pipeline.status.batches import list_batches
    from vuemantics_pipeline.status.documents import batch_document

    with open_session(home) as session:
        user_id = None if user is None else find_user(session.connection, user)
        batches = list_batches(session.connection, status=status, user_id=user_id, limit=limit)
    if json:
        print_json([batch_document(batch) for batch in batches])
    elif batches:
        print_batches(batches)
    else:
        notices().print("There are no such batches. `vuemantics ingest FOLDER` makes one.")
