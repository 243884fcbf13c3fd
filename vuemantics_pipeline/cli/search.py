"""`vuemantics search`"""

from typing import Annotated

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import notices, print_json
from vuemantics_pipeline.cli.tables import print_hits
from vuemantics_pipeline.ledger.records import FileType


def command(
    text: Annotated[str, typer.Argument(metavar="TEXT", help="What to look for, in plain words.")],
    limit: Annotated[int, typer.Option(min=1, max=1000, help="How many at most.")] = 10,
    user: Annotated[
        str | None,
        typer.Option(metavar="USER", help="Only uploads of this user: e-mail address or id."),
    ] = None,
    file_type: Annotated[
        FileType | None, typer.Option("--type", help="Only images, or only videos.")
    ] = None,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Find photos and videos by meaning, the closest first.

    Words that can be read in a picture count as well, and so does a year: the one it was taken in.
    Paths of thumbnails are relative to UPLOAD_PATH.

    Example: `vuemantics search "a quiet lake in the morning" --limit 3`
    """
    from vuemantics_pipeline.analysis.build import build_analyzer
    from vuemantics_pipeline.cli.session import open_session
    from vuemantics_pipeline.ledger.ingestion import find_user
    from vuemantics_pipeline.status.documents import search_document
    from vuemantics_pipeline.status.search import search

    with open_session(home) as session:
        hits = search(
            session.connection,
            build_analyzer(session.settings),
            text,
            application_model=session.settings.embedding_model,
            limit=limit,
            user_id=None if user is None else find_user(session.connection, user),
            file_type=file_type,
        )
    if json:
        print_json(search_document(hits))
    elif hits:
        print_hits(hits)
    else:
        notices().print("Nothing was found: no such upload has been described yet.")
