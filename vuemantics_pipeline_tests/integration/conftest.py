"""Fixtures for tests on a real Postgres: a migrated ledger, photos, and a run without Dagster."""

from collections.abc import Callable, Iterator
from pathlib import Path
from uuid import UUID

import pytest
from PIL import Image

from vuemantics_pipeline.analysis.analyzer import Analyzer
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.ingest import ingest
from vuemantics_pipeline.ledger.batches import close_batch, open_batch
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.ledger.leases import acquire, release
from vuemantics_pipeline.ledger.migrate import migrate
from vuemantics_pipeline.ledger.vectors import claim_space
from vuemantics_pipeline.processing import Tools, process_upload
from vuemantics_pipeline.settings import AnalyzerName, Settings, load_settings
from vuemantics_pipeline_tests.support import decoder

DIMENSION = 8

MakePhoto = Callable[..., Path]
RunBatch = Callable[..., None]


@pytest.fixture
def connection(database_url: str) -> Iterator[Connection]:
    """An open connection to a database with all tables."""
    with connect(database_url) as opened:
        migrate(opened, dimension=DIMENSION)
        yield opened


@pytest.fixture
def worker(database_url: str, connection: Connection) -> Iterator[Connection]:
    """The session of a run; `connection` is the test's own view."""
    with connect(database_url) as opened:
        yield opened


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """UPLOAD_PATH."""
    path = tmp_path / "uploads"
    path.mkdir()
    return path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Settings for a home of its own, with the analyzer that looks at nothing."""
    return load_settings(
        home=tmp_path / "home",
        upload_path=tmp_path / "uploads",
        analyzer=AnalyzerName.NONE,
        embedding_dimensions=DIMENSION,
    )


@pytest.fixture
def make_photo() -> MakePhoto:
    """Writes a small photo; its format follows the name unless it is given."""

    def make(path: Path, *, format_: str | None = None, colour: str = "teal") -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (64, 48), colour).save(path, format=format_)
        return path

    return make


@pytest.fixture
def run_batch(connection: Connection, settings: Settings) -> RunBatch:
    """Processes a batch to its end as a run does, without Dagster around it."""

    def run(batch_id: UUID, analyzer: Analyzer | None = None) -> None:
        analyzer = analyzer or ConstantAnalyzer(DIMENSION)
        claim_space(connection, analyzer.identity, application_model="bge-m3")
        lease = acquire(connection, batch_id, "run-1")
        tools = Tools(decoder(), analyzer, settings.uploads, settings.max_pixels)
        for _ in range(2):
            for upload in open_batch(lease, reopen=False):
                process_upload(lease, upload.upload_id, tools)
        close_batch(lease)
        release(lease)

    return run


@pytest.fixture
def batch_id(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> UUID:
    """A pending batch of three photos."""
    for name in ("first.jpg", "second.png", "third.webp"):
        make_photo(tmp_path / "photos" / name)
    return ingest(connection, settings, [tmp_path / "photos"]).batch_id
