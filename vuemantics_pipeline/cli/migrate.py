"""`vuemantics migrate`"""

from dataclasses import asdict

from vuemantics_pipeline.cli import options
from vuemantics_pipeline.cli.output import answers, print_json


def command(json: options.Json = False, home: options.Home = None) -> None:
    """Prepare the database: create what the pipeline needs, alter nothing that is there.

    On an empty database the application's tables are created too. Running it twice does no harm.

    Example: `DATABASE_URL=postgresql://... vuemantics migrate`
    """
    from vuemantics_pipeline.cli.session import settings_for
    from vuemantics_pipeline.home.database import database, migrate_for
    from vuemantics_pipeline.ledger.connection import connect
    from vuemantics_pipeline.ledger.migrate import ANALYST_ROLE

    settings = settings_for(home)
    with database(settings) as url, connect(url) as connection:
        done = migrate_for(settings, connection)
    if json:
        print_json(asdict(done))
        return
    console = answers()
    if done.created_tables:
        console.print("Created the application's tables: the database was empty.")
    for name in done.applied:
        console.print(f"Applied {name}.")
    if not done.applied:
        console.print("Everything was in place already.")
    console.print(
        "New batches wake the sensor at once: the trigger on upload_batches is attached."
        if done.listening
        else "The trigger on upload_batches could not be attached, so the sensor looks for new "
        "batches every second. To attach it, let the table's owner run `vuemantics migrate`."
    )
    console.print(
        f"Members of the role {ANALYST_ROLE} may read the views for analysts: "
        f"GRANT {ANALYST_ROLE} TO somebody;"
        if done.analysts
        else f"The role {ANALYST_ROLE}, which reads the views for analysts, could not be set up. "
        f"Let a role that may create roles run\n    CREATE ROLE {ANALYST_ROLE} NOLOGIN;\n"
        "and then the owner of the schema vuemantics_pipeline `vuemantics migrate`."
    )
