"""`vuemantics mcp`"""

import os
import secrets
from importlib.util import find_spec
from typing import Annotated

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import notices
from vuemantics_pipeline.errors import UsageError

TOKEN_VARIABLE = "VUEMANTICS_MCP_TOKEN"  # noqa: S105


def command(
    http: Annotated[
        int | None,
        typer.Option(
            "--http",
            min=1,
            max=65535,
            metavar="PORT",
            help="Serve streamable HTTP on 127.0.0.1 instead. Clients need the bearer token in "
            f"{TOKEN_VARIABLE}; without it one is made up and printed on standard error.",
        ),
    ] = None,
    user: Annotated[
        str | None,
        typer.Option(
            metavar="USER",
            help="Show only what is this user's: e-mail address or id. [default: everything]",
        ),
    ] = None,
    allow_changes: Annotated[
        bool, typer.Option("--allow-changes", help="Offer retry_batch and cancel_batch, too.")
    ] = False,
    dagster_url: Annotated[
        str, typer.Option(metavar="URL", help="Where links to runs lead: the Dagster UI.")
    ] = "http://127.0.0.1:3000",
    home: options.Home = None,
) -> None:
    """Let an AI assistant ask about batches, search media and see what failed, over MCP.

    A client starts it and talks to it on standard input and output. It changes nothing unless
    --allow-changes is given.

    Example: `vuemantics mcp --user ada@example.com`
    """
    if find_spec("mcp") is None:
        raise UsageError(
            "mcp_missing",
            "The MCP server needs packages that are not installed.",
            "Install them: pip install 'vuemantics-pipeline[mcp]'.",
        )
    from vuemantics_pipeline.cli.session import settings_for
    from vuemantics_pipeline.cli.up import until_ctrl_c
    from vuemantics_pipeline.home.database import database, ready_database
    from vuemantics_pipeline.ledger.ingestion import find_user
    from vuemantics_pipeline.mcp_server.http import serve_http, url
    from vuemantics_pipeline.mcp_server.library import Library
    from vuemantics_pipeline.mcp_server.stdio import serve_stdio

    settings = settings_for(home)
    # Taken out, so that no process started from here on inherits it.
    token = os.environ.pop(TOKEN_VARIABLE, "").strip()
    # Held for as long as the server runs, so that an embedded database is not stopped after
    # every call. Another's may be down now: calls say so until it is back.
    with database(settings):
        user_id = None
        if user is not None:
            with ready_database(settings) as (_, connection):
                user_id = find_user(connection, user)
        library = Library(settings, user_id, dagster_url.rstrip("/"))
        if http is None:
            serve_stdio(library, allow_changes=allow_changes)
            return
        if not token:
            token = secrets.token_urlsafe(32)
            notices().print(f"Token for this start: {token}", soft_wrap=True)
        with until_ctrl_c():
            notices().print(f"Serving MCP at {url(http)}; Ctrl-C stops it.", soft_wrap=True)
            serve_http(library, port=http, token=token, allow_changes=allow_changes)
