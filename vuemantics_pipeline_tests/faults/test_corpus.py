"""Generated bad input, hundreds of files, through the processes that `vuemantics up` runs."""

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest

from vuemantics_pipeline.ledger.connection import connect
from vuemantics_pipeline.ledger.ingestion import NewUpload, add_batch, add_upload
from vuemantics_pipeline.ledger.migrate import migrate
from vuemantics_pipeline_tests.corpus.generate import generated
from vuemantics_pipeline_tests.corpus.run import run
from vuemantics_pipeline_tests.corpus.samples import COMPLETED, GENERATED
from vuemantics_pipeline_tests.support import DIMENSION, add_user


@pytest.fixture
def folder() -> Iterator[Path]:
    # Not tmp_path: as root the server runs as somebody else, to whom pytest's are closed.
    path = Path(tempfile.mkdtemp(prefix="vuemantics-corpus-"))
    yield path
    shutil.rmtree(path)


def test_bad_input_ends_with_a_reason_and_harms_nothing(folder: Path) -> None:
    samples = generated(heavy=False)

    report = run({GENERATED: samples}, folder / "run", decode_seconds=20)

    assert [f"{check}: {one}" for check, found in report.problems.items() for one in found] == []
    (part,) = report.parts
    assert len(part.results) + len(part.left_out) == len(samples)
    outcomes = Counter(result.outcome for result in part.results)
    assert outcomes[COMPLETED] > 200
    assert {"unreadable_media", "unsupported_type", "too_many_pixels"} < set(outcomes)
    assert {"empty_file", "file_missing", "path_outside_uploads"} < set(outcomes)
    # Somebody did watch.
    assert part.worker_bytes > 0
    assert part.decoder_bytes > 0


def test_a_name_with_nul_cannot_even_be_stored(database_url: str) -> None:
    with connect(database_url) as connection:
        migrate(connection, dimension=DIMENSION)
        user_id = add_user(connection)
        batch_id = add_batch(connection, user_id, offered=1)
        upload = NewUpload(uuid4(), "a\0.jpg", "a/b/original.jpg", "image", 1, "image/jpeg", None)

        with pytest.raises(psycopg.DataError, match="NUL"):
            add_upload(connection, batch_id, user_id, upload)
