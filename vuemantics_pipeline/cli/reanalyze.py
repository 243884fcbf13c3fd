"""`vuemantics reanalyze`"""

from dataclasses import asdict
from typing import Annotated

import typer

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import BAD_NEWS, WRONG_USE, answers, notices, print_json
from vuemantics_pipeline.cli.tables import counted


def command(
    user: Annotated[
        str | None,
        typer.Option(metavar="USER", help="Only uploads of this user: e-mail address or id."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say how many uploads that would be.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask before.")] = False,
    json: options.Json = False,
    home: options.Home = None,
) -> None:
    """Describe and embed anew what another analyzer, model or prompt made.

    The uploads become ordinary work: the sensor takes their batches up. Descriptions and vectors
    stay in place until new ones replace them. Only where the embedding model changes are all
    vectors cleared at once, because those of two models cannot be compared; search finds each
    upload again as soon as it is done. Ends with 1 if there is nothing to do.

    Example: `vuemantics reanalyze --dry-run`
    """
    from vuemantics_pipeline.analysis.build import build_analyzer
    from vuemantics_pipeline.cli.session import open_session
    from vuemantics_pipeline.ledger.ingestion import find_user
    from vuemantics_pipeline.ledger.reanalysis import Reanalysis, reanalyze

    with open_session(home) as session:
        identity = build_analyzer(session.settings).identity
        user_id = None if user is None else find_user(session.connection, user)

        def act(*, dry_run: bool) -> Reanalysis:
            return reanalyze(
                session.connection,
                identity,
                application_model=session.settings.embedding_model,
                user_id=user_id,
                dry_run=dry_run,
            )

        found = act(dry_run=True)
        if found.uploads and not (dry_run or yes or json):
            notices().print(_plan(found.uploads, found.forgets))
            if not typer.confirm("Go on?", err=True):
                raise typer.Exit(WRONG_USE)
        if not dry_run:
            found = act(dry_run=False)
    if json:
        print_json(asdict(found) | {"dry_run": dry_run})
    elif not found.uploads:
        answers().print("Nothing to do: no finished upload was made by anything else.")
    else:
        would = "would be made anew" if dry_run else "are made anew by the next runs"
        batches = counted(found.batches, "batch", "batches")
        answers().print(f"{counted(found.uploads, 'upload', 'uploads')} in {batches} {would}.")
    if found.skipped and not json:
        skipped = counted(found.skipped, "upload is", "uploads are")
        notices().print(f"{skipped} in a batch that a run is processing: left alone for now.")
    if not found.uploads:
        raise typer.Exit(BAD_NEWS)


def _plan(uploads: int, forgets: str | None) -> str:
    plan = f"This describes {counted(uploads, 'upload', 'uploads')} anew"
    if forgets is None:
        return f"{plan}."
    return f"{plan} and clears all vectors of {forgets} now: search finds nothing until then."
