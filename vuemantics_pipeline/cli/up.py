"""`vuemantics up`"""

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import ip_address
from types import FrameType
from typing import Annotated

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import answers, notices

DEFAULT_PORT = 3000
_LOOPBACK = "127.0.0.1"


def command(
    port: options.Port = None,
    host: Annotated[
        str,
        typer.Option(
            metavar="ADDRESS",
            help="Address the Dagster UI listens on. It has no login: whoever reaches it can "
            "start and stop runs.",
        ),
    ] = _LOOPBACK,
    home: options.Home = None,
) -> None:
    """Run everything in the foreground until Ctrl-C: database, Dagster UI, daemon and code.

    Without DATABASE_URL an embedded Postgres is started under --home. From then on every new
    batch is processed by itself.

    Example: `vuemantics up --port 3001`
    """
    from vuemantics_pipeline.cli.session import settings_for
    from vuemantics_pipeline.home.stack import running_stack

    if not _is_loopback(host):
        notices().print(
            f"Warning: the Dagster UI on {host} has no login. Let a proxy stand before it.",
            style="yellow",
        )
    settings = settings_for(home)
    with until_ctrl_c(), running_stack(settings, port=port or DEFAULT_PORT, host=host) as stack:
        with notices().status("Starting Postgres and Dagster ..."):
            stack.wait_until_ready()
        console = answers()
        console.print(f"The Dagster UI is at {stack.url}")
        console.print(f"Home: {settings.home}; uploads: {settings.uploads}; logs: {stack.logs}")
        console.print("New batches are processed by themselves. Ctrl-C stops everything.")
        stack.watch()


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


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
