"""Postgres is restarted under clients that stay connected."""

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from vuemantics_pipeline.home import postgres
from vuemantics_pipeline.home.postgres import embedded_postgres
from vuemantics_pipeline.ledger import uploads
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.migrate import migrate
from vuemantics_pipeline.ledger.records import Stage
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.integration.gateway import running_gateway
from vuemantics_pipeline_tests.support import IDENTITY


@pytest.fixture
def home() -> Iterator[Path]:
    # Not under tmp_path: as root the server runs as somebody else, to whom pytest's are closed.
    with tempfile.TemporaryDirectory(prefix="vuemantics-tests-") as folder:
        yield Path(folder)


def reach(connection: Connection, batch: support.NewBatch, run_id: str, stage: Stage) -> None:
    lease = support.begin(connection, batch.batch_id, run_id)
    attempt = uploads.start_attempt(lease, batch.first, IDENTITY)
    assert attempt is not None
    uploads.reach_stage(lease, attempt, stage)


def test_a_restart_of_postgres_is_noticed_by_no_client(home: Path) -> None:
    server = postgres._Server(home / "postgres")
    with embedded_postgres(home) as url:
        with connect(url) as connection, connect(url) as worker:
            migrate(connection, dimension=support.DIMENSION)
            user_id = support.add_user(connection)
            batch = support.add_batch(connection, user_id)
            other = support.add_batch(connection, user_id)
            reach(worker, batch, "run-1", Stage.VISION_ANALYSIS)
        with running_gateway(url) as gateway, gateway.signed_in(user_id) as client:
            client.hear_until("batch_progress", batch_id=str(other.batch_id))
            client.say(action="subscribe_upload", upload_id=str(batch.first))
            client.hear_until("upload_progress", stage="vision_analysis")
            process = server.process()
            assert process is not None
            process.send_signal(signal.SIGQUIT)  # without a word to anybody
            gateway.wait_for(listening=False)
            # A question asked while the database is away waits for it.
            client.say(action="subscribe_batch", batch_id=str(other.batch_id))
            server.create_database()
            with connect(url) as connection, connect(url) as worker:
                # Nobody may be listening yet.
                reach(worker, batch, "run-2", Stage.EMBEDDING_GENERATION)
                while not (
                    client.has_heard("upload_progress", stage="embedding_generation")
                    and client.has_heard("file_progress", upload_id=str(other.first))
                    and client.has_heard("file_progress", stage="embedding_generation")
                ):
                    client.hear()
                new = support.add_batch(connection, user_id)
                client.hear_until("batch_progress", batch_id=str(new.batch_id))
