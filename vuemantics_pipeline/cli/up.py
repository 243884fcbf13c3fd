"""`vuemantics up`"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from ipaddress import ip_address
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import answers, notices
from vuemantics_pipeline.errors import UsageError

if TYPE_CHECKING:
    from vuemantics_pipeline.home.stack import Stack
    from vuemantics_pipeline.settings import Settings

DEFAULT_PORT = 3000
DEFAULT_GATEWAY_PORT = 3001
LOOPBACK = "127.0.0.1"
_SIGNED_IN = timedelta(hours=24)


def command(
    port: options.Port = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address the Dagster UI listens on. It has no login: whoever reaches it can "
            "start and stop runs.",
        ),
    ] = LOOPBACK,
    analyst_port: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=65535,
            metavar="PORT",
            help="Port of another Dagster UI, which changes nothing. [default: none]",
        ),
    ] = None,
    gateway_port: Annotated[
        int, typer.Option(min=1, max=65535, metavar="PORT", help="Port of the gateway.")
    ] = DEFAULT_GATEWAY_PORT,
    gateway: Annotated[
        bool, typer.Option(help="Run the gateway: live page, WebSocket and read API.")
    ] = True,
    home: options.Home = None,
) -> None:
    """Run everything in the foreground until Ctrl-C: database, Dagster and the gateway.

    Without DATABASE_URL an embedded Postgres is started under --home. From then on every new
    batch is processed by itself. Both Dagster UIs listen on --host, the gateway on this machine
    only: `vuemantics gateway --host` serves others.

    Example: `vuemantics up --port 3001`
    """
    from vuemantics_pipeline.cli.session import settings_for
    from vuemantics_pipeline.home.secret import has_secret
    from vuemantics_pipeline.home.stack import Address, running_stack

    if not is_loopback(host):
        notices().print(
            f"Warning: the Dagster UI on {host} has no login. Let a proxy stand before it.",
            style="yellow",
        )
    settings = settings_for(home)
    if gateway and not has_secret(settings):
        notices().print("No gateway: SECRET_KEY is not set to the application's.", style="yellow")
    with (
        until_ctrl_c(),
        running_stack(
            settings,
            ui=Address(port or DEFAULT_PORT, host),
            analyst=Address(analyst_port, host) if analyst_port else None,
            gateway=Address(gateway_port) if gateway and has_secret(settings) else None,
        ) as stack,
    ):
        with notices().status("Starting Postgres, Dagster and the gateway ..."):
            stack.wait_until_ready()
        console = answers()
        console.print(f"The Dagster UI is at {stack.url}")
        if stack.analyst_url:
            console.print(f"One that changes nothing is at {stack.analyst_url}")
        if link := live_page(stack, settings):
            console.print(f"Watch it live: {link}", soft_wrap=True)
        console.print(f"Home: {settings.home}; uploads: {settings.uploads}; logs: {stack.logs}")
        console.print("New batches are processed by themselves. Ctrl-C stops everything.")
        stack.watch()


def live_page(stack: "Stack", settings: "Settings") -> str | None:
    """The live page; beside a database of our own, the link also signs its demo user in."""
    from vuemantics_pipeline.gateway.tokens import token_for
    from vuemantics_pipeline.home.secret import secret_key
    from vuemantics_pipeline.ledger.connection import connect
    from vuemantics_pipeline.ledger.ingestion import default_user

    if stack.gateway_url is None or settings.database_url is not None:
        return stack.gateway_url
    try:
        with connect(stack.database_url) as connection:
            user_id = default_user(connection)
            token = token_for(connection, secret_key(settings), user_id, lifetime=_SIGNED_IN)
    except UsageError:  # with several users, nobody can say whose page it is to be
        return stack.gateway_url
    return f"{stack.gateway_url}/?token={token}"


@contextmanager
def until_ctrl_c(*, is_normal_end: bool = True) -> Iterator[None]:
    """Run the block until Ctrl-C or SIGTERM; it stops what it started itself.

    Args:
        is_normal_end: what ends it so has done all it was asked to; else KeyboardInterrupt rises.
    """

    def stop(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
        # Once is enough: a second request must not cut the stopping short.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        os.write(2, b"Stopping ...\n")  # printing is not safe inside a signal handler
        raise KeyboardInterrupt

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    except KeyboardInterrupt:
        notices().print("Everything is stopped.")
        if not is_normal_end:
            raise
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def is_loopback(host: str) -> bool:
    """Whether an address a server listens on is reached from this machine only."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
