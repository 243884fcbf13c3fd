"""Options that several commands share."""

from pathlib import Path
from typing import Annotated

import typer

Home = Annotated[
    Path | None,
    typer.Option(
        "--home",
        metavar="FOLDER",
        help="Where the embedded database, Dagster and, without UPLOAD_PATH, the uploads live. "
        "[default: $VUEMANTICS_HOME or ~/.vuemantics]",
    ),
]
Json = Annotated[
    bool, typer.Option("--json", help="Print one JSON document on standard output instead.")
]
BatchId = Annotated[str, typer.Argument(metavar="BATCH", help="Id of the batch.")]
Port = Annotated[
    int | None,
    typer.Option(
        "--port", min=1, max=65535, metavar="PORT", help="Port of the Dagster UI. [default: 3000]"
    ),
]
