"""A batch run in this process: ephemeral Dagster instance, real Postgres, scripted analyzer."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import dagster as dg
import pytest

from vuemantics_pipeline.analysis.analyzer import Description, OnFrame, unheard
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.migrate import migrate
from vuemantics_pipeline.ledger.records import Batch
from vuemantics_pipeline.orchestration.build import build_definitions
from vuemantics_pipeline.status.batches import get_batch
from vuemantics_pipeline_tests.support import add_batch, add_user, photo

DIMENSION = 8


class ScriptedAnalyzer(ConstantAnalyzer):
    """Counts its calls and does what a test tells it to before it answers."""

    def __init__(self) -> None:
        super().__init__(DIMENSION)
        self.calls = 0
        self.before: Callable[[int], None] = lambda call: None

    def describe(
        self, frames: Any, info: Any, *, again: bool = False, on_frame: OnFrame = unheard
    ) -> Description:
        self.calls += 1
        self.before(self.calls)
        return super().describe(frames, info, again=again)


@dataclass
class World:
    """A prepared database, a Dagster instance and the means to run batches between them."""

    connection: Connection
    instance: dg.DagsterInstance
    uploads_root: Path
    user_id: UUID
    analyzer: ScriptedAnalyzer = field(default_factory=ScriptedAnalyzer)

    @property
    def definitions(self) -> dg.Definitions:
        return build_definitions(analyzer=self.analyzer)

    def add_batch(self, *names: str, offered: int | None = None) -> UUID:
        """Add a batch of small photos; a file whose name begins with 'bad' is none."""
        files = {name: b"no photo" if name.startswith("bad") else photo() for name in names}
        added = add_batch(
            self.connection,
            self.user_id,
            files=files,
            offered=offered,
            uploads_root=self.uploads_root,
        )
        return added.batch_id

    def run(self, batch_id: object, **tags: str) -> dg.ExecuteInProcessResult:
        self.instance.add_dynamic_partitions("upload_batch", [str(batch_id)])
        job = self.definitions.resolve_job_def("process_batch")
        return job.execute_in_process(
            partition_key=str(batch_id), instance=self.instance, raise_on_error=False, tags=tags
        )

    def run_as_sensor(self, batch_id: object, try_number: int = 1) -> dg.ExecuteInProcessResult:
        return self.run(batch_id, **{"vuemantics/try": str(try_number)})

    def batch(self, batch_id: UUID) -> Batch:
        return get_batch(self.connection, batch_id)

    def status_of(self, result: dg.ExecuteInProcessResult) -> dg.DagsterRunStatus:
        run = self.instance.get_run_by_id(result.run_id)
        assert run is not None
        return run.status

    def attempts(self) -> list[tuple[Any, ...]]:
        """Return (number, outcome) of every attempt, in order."""
        return self.connection.execute(
            "SELECT attempt_number, outcome FROM vuemantics_pipeline.attempts ORDER BY id"
        ).fetchall()


@pytest.fixture
def world(database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    for name, value in {
        "DATABASE_URL": database_url,
        "UPLOAD_PATH": str(tmp_path / "uploads"),
        "VUEMANTICS_ANALYZER": "none",
        "LOCAL_EMBEDDING_DIMENSIONS": str(DIMENSION),
        "VUEMANTICS_LISTEN_SECONDS": "0",
        # Most tests use one photo for all uploads, and count the calls of the model.
        "VUEMANTICS_REUSE": "false",
    }.items():
        monkeypatch.setenv(name, value)
    with connect(database_url) as connection, dg.DagsterInstance.ephemeral() as instance:
        migrate(connection, dimension=DIMENSION)
        yield World(connection, instance, tmp_path / "uploads", add_user(connection))
