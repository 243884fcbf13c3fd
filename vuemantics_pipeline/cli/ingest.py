"""`vuemantics ingest`"""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import BAD_NEWS, answers, notices, print_json
from vuemantics_pipeline.cli.tables import print_batch, print_ingested
from vuemantics_pipeline.ledger.records import BatchStatus


def command(
    paths: Annotated[
        list[Path], typer.Argument(metavar="PATH", help="Photos, videos, or folders of them.")
    ],
    user: Annotated[
        str | None,
        typer.Option(
            metavar="USER",
            help="Owner of the files: e-mail address or id. [default: the only user there is]",
        ),
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", "-w", help="Follow the batch until it has ended.")
    ] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Make one batch of photos and videos: at most 1000 files and 10 GB.

    Folders are searched through, hidden files left out. Files are checked by their content,
    whatever they are called, and copied into UPLOAD_PATH. Ends with 1 if no file was accepted
    or, with --wait, if the batch failed or was cancelled.

    Example: `vuemantics ingest ~/Pictures/2024 --wait`
    """
    from vuemantics_pipeline.cli.following import file_progress, follow_to_end
    from vuemantics_pipeline.cli.session import open_session
    from vuemantics_pipeline.ingest import ingest
    from vuemantics_pipeline.status.batches import list_failures
    from vuemantics_pipeline.status.documents import batch_document

    with open_session(home) as session:
        connection = session.connection
        with file_progress("Copying") as on_file:
            ingested = ingest(connection, session.settings, paths, user=user, on_file=on_file)
        document = {
            "batch_id": str(ingested.batch_id),
            "accepted": ingested.accepted,
            "refused": [asdict(refused) for refused in ingested.refused],
        }
        if not json:
            print_ingested(ingested)
        bad_news = ingested.accepted == 0
        if wait and ingested.accepted:
            if json:
                notices().print(f"Batch {ingested.batch_id}")
            batch = follow_to_end(connection, ingested.batch_id)
            document |= batch_document(batch)
            bad_news = batch.status is not BatchStatus.COMPLETED
            if not json:
                answers().print()
                print_batch(batch, list_failures(connection, batch.batch_id))
    if json:
        print_json(document)
    if bad_news:
        raise typer.Exit(BAD_NEWS)
