"""`vuemantics demo`"""

import time
from collections.abc import Iterable, Iterator
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import BAD_NEWS, answers, notices
from vuemantics_pipeline.cli.tables import (
    counted,
    print_batch,
    print_hits,
    print_ingested,
    print_uploads,
)
from vuemantics_pipeline.cli.up import (
    DEFAULT_GATEWAY_PORT,
    DEFAULT_PORT,
    live_page,
    until_ctrl_c,
)
from vuemantics_pipeline.errors import PipelineError
from vuemantics_pipeline.ledger.records import Batch, BatchStatus

if TYPE_CHECKING:
    from vuemantics_pipeline.home.stack import Stack
    from vuemantics_pipeline.ledger.connection import Connection
    from vuemantics_pipeline.settings import Settings

SEARCHES = ("a dog", "a palace by the water")
_MANY = 1000
_START_SECONDS = 90.0
_STALL_SECONDS = 600.0


def command(
    photos: Annotated[
        Path | None,
        typer.Option(
            metavar="PATH", help="Photos or a folder of them. [default: the samples supplied]"
        ),
    ] = None,
    once: Annotated[
        bool, typer.Option("--once", help="End after the searches instead of staying up.")
    ] = False,
    port: options.Port = None,
    home: options.Home = None,
) -> None:
    """See it work: start everything, ingest photos, let the sensor run the batch, search in it.

    Stays up until Ctrl-C. With --once it ends with 0 after the searches, or with 1 if the batch
    did not complete or none of its photos could be described.

    Example: `vuemantics demo --photos ~/Pictures/holiday --once`
    """
    from vuemantics_pipeline.cli.session import settings_for
    from vuemantics_pipeline.home.processes import free_port
    from vuemantics_pipeline.home.secret import has_secret
    from vuemantics_pipeline.home.stack import Address, running_stack

    settings = settings_for(home)
    ui = Address(port or free_port(DEFAULT_PORT))
    gateway = Address(free_port(DEFAULT_GATEWAY_PORT)) if has_secret(settings) else None
    with (
        until_ctrl_c(is_normal_end=not once),
        running_stack(settings, ui=ui, gateway=gateway) as stack,
    ):
        batch = _show(stack, settings, [photos] if photos else _samples())
        if not once:
            answers().print("\nEverything stays up until Ctrl-C.")
            stack.watch()
        elif batch.status is not BatchStatus.COMPLETED or not batch.successful_uploads:
            raise typer.Exit(BAD_NEWS)


def _show(stack: "Stack", settings: "Settings", photos: list[Path]) -> Batch:
    """Bring photos in and follow their batch to its end; print what came of it."""
    from vuemantics_pipeline.cli.following import file_progress, show_progress
    from vuemantics_pipeline.ingest import ingest
    from vuemantics_pipeline.ledger.connection import connect
    from vuemantics_pipeline.status.batches import (
        batch_run,
        follow_batch,
        list_batches,
        list_failures,
        list_uploads,
    )

    console = answers()
    with connect(stack.database_url) as connection:
        if earlier := len(list_batches(connection, limit=_MANY)):
            console.print(f"Found {counted(earlier, 'earlier batch', 'earlier batches')} here.")
        # Dagster is starting meanwhile.
        with file_progress("Copying") as on_file:
            ingested = ingest(connection, settings, photos, on_file=on_file)
        print_ingested(ingested)
        with notices().status("Dagster is starting ..."):
            stack.wait_until_ready()
        if link := live_page(stack, settings):
            console.print(f"Watch it live: {link}", soft_wrap=True)
        batch = show_progress(_patiently(follow_batch(connection, ingested.batch_id), stack))
        console.print()
        print_batch(batch, list_failures(connection, batch.batch_id))
        console.print()
        print_uploads(list_uploads(connection, batch.batch_id))
        _search(connection, settings, batch)
        links = [f"The batch in the Dagster UI: {stack.batch_url(batch.batch_id)}"]
        if run_id := batch_run(connection, batch.batch_id):
            links.append(f"Its run: {stack.run_url(run_id)}")
        console.print("", *links, sep="\n", soft_wrap=True)
    return batch


def _search(connection: "Connection", settings: "Settings", batch: Batch) -> None:
    """Show what the example searches find in the batch: earlier ones may hold the same photos."""
    from vuemantics_pipeline.analysis.build import build_analyzer
    from vuemantics_pipeline.status.search import search

    analyzer = build_analyzer(settings)
    for text in SEARCHES:
        found = search(
            connection, analyzer, text, application_model=settings.embedding_model, limit=_MANY
        )
        answers().print(f'\nvuemantics search "{text}"', style="bold")
        print_hits([hit for hit in found if hit.batch_id == batch.batch_id][:3])


def _patiently(batches: Iterable[Batch], stack: "Stack") -> Iterator[Batch]:
    """Pass the states of a batch on until nothing has moved for too long."""
    last, moved_at = None, time.monotonic()
    for batch in batches:
        state = batch.status, batch.processed_uploads
        if state != last:
            last, moved_at = state, time.monotonic()
        waiting = batch.status is BatchStatus.PENDING
        limit = _START_SECONDS if waiting else _STALL_SECONDS
        if time.monotonic() - moved_at > limit:
            raise PipelineError(
                "run_never_started" if waiting else "batch_stalled",
                f"No run has taken the batch within {limit:g} s."
                if waiting
                else f"The batch has not moved for {limit:g} s.",
                f"Look at {stack.url}/overview/sensors and at the logs in {stack.logs}.",
            )
        yield batch


def _samples() -> list[Path]:
    folder = Path(str(resources.files("vuemantics_pipeline.home") / "samples"))
    return sorted(path for path in folder.iterdir() if path.suffix != ".md")
