"""`vuemantics gateway`"""

from typing import Annotated

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import notices
from vuemantics_pipeline.cli.up import DEFAULT_GATEWAY_PORT, LOOPBACK, is_loopback, until_ctrl_c

_SECRET_BYTES = 32


def command(
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address it listens on. It speaks plain HTTP: beyond this machine let a proxy "
            "with TLS stand before it.",
        ),
    ] = LOOPBACK,
    port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="PORT", help="Port it listens on.")
    ] = DEFAULT_GATEWAY_PORT,
    home: options.Home = None,
) -> None:
    """Let people follow their batches live: page, WebSocket and read API, until Ctrl-C.

    Whoever comes needs an access token that was signed with SECRET_KEY, as the application issues
    them. `vuemantics up` runs it, too.

    Example: `vuemantics gateway --port 3001`
    """
    from vuemantics_pipeline.cli.session import settings_for
    from vuemantics_pipeline.gateway.serve import serve
    from vuemantics_pipeline.home.database import database, ready_database
    from vuemantics_pipeline.home.secret import secret_key
    from vuemantics_pipeline.home.stack import Address

    settings = settings_for(home)
    secret = secret_key(settings)
    if len(secret.encode()) < _SECRET_BYTES:
        notices().print(
            f"Warning: SECRET_KEY is shorter than {_SECRET_BYTES} bytes, so its tokens can be "
            "forged by trying keys. Let the application have a longer one.",
            style="yellow",
        )
    if not is_loopback(host):
        notices().print(
            f"Warning: the gateway on {host} speaks plain HTTP, tokens included. "
            "Let a proxy with TLS stand before it.",
            style="yellow",
        )
    with until_ctrl_c(), database(settings) as database_url:
        with ready_database(settings):
            pass  # else every answer would be an error
        notices().print(
            f"The gateway is at {Address(port, host).url}; Ctrl-C stops it.", soft_wrap=True
        )
        serve(settings, database_url, secret, host=host, port=port)
