"""`vuemantics status`"""

from typing import Annotated

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import BAD_NEWS, answers, print_json
from vuemantics_pipeline.cli.tables import print_batch, print_uploads
from vuemantics_pipeline.ledger.records import BatchStatus


def command(
    batch: options.BatchId,
    watch: Annotated[
        bool, typer.Option("--watch", "-w", help="Follow the batch until it has ended.")
    ] = False,
    uploads: Annotated[
        bool, typer.Option("--uploads", "-u", help="Show every upload of the batch.")
    ] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Show how a batch stands. Ends with 1 if it failed or was cancelled.

    Example: `vuemantics status 1b4e28ba-2fa1-4d2f-883f-0016d3cca427 --watch`
    """
    from vuemantics_pipeline.cli.following import follow_to_end
    from vuemantics_pipeline.cli.session import open_session
    from vuemantics_pipeline.status.batches import (
        get_batch,
        list_failures,
        list_uploads,
        parse_batch_id,
    )
    from vuemantics_pipeline.status.documents import batch_document, batch_with_uploads_document

    batch_id = parse_batch_id(batch)
    with open_session(home) as session:
        connection = session.connection
        found = follow_to_end(connection, batch_id) if watch else get_batch(connection, batch_id)
        rows = list_uploads(connection, batch_id) if uploads else []
        failures = list_failures(connection, batch_id)
    if json:
        print_json(batch_with_uploads_document(found, rows) if uploads else batch_document(found))
    else:
        print_batch(found, failures)
        if rows:
            answers().print()
            print_uploads(rows)
    if found.status in (BatchStatus.FAILED, BatchStatus.CANCELLED):
        raise typer.Exit(BAD_NEWS)
