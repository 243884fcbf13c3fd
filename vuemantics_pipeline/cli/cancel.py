"""`vuemantics cancel`"""

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import BAD_NEWS, answers, print_json


def command(
    batch: options.BatchId,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Cancel a batch: its run stops after the upload in hand, and what is done is kept.

    Ends with 1 if the batch had ended already.

    Example: `vuemantics cancel 1b4e28ba-2fa1-4d2f-883f-0016d3cca427`
    """
    from vuemantics_pipeline.cli.session import open_session
    from vuemantics_pipeline.ledger.batches import cancel
    from vuemantics_pipeline.status.batches import get_batch, parse_batch_id
    from vuemantics_pipeline.status.documents import batch_document

    with open_session(home) as session:
        batch_id = get_batch(session.connection, parse_batch_id(batch)).batch_id
        cancelled = cancel(session.connection, batch_id, message="Cancelled from the command line.")
        now = get_batch(session.connection, batch_id)
    if json:
        print_json({"cancelled": cancelled, **batch_document(now)})
    elif cancelled:
        answers().print(
            f"Batch {batch_id} is cancelled with {now.processed_uploads} of "
            f"{now.total_uploads} uploads done."
        )
    else:
        answers().print(f"Batch {batch_id} is {now.status} already; nothing was changed.")
    if not cancelled:
        raise typer.Exit(BAD_NEWS)
