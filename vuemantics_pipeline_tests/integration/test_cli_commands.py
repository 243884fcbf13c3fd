"""Each command as a person or a script runs it, on a real database."""

import fcntl
import json
import shutil
import socket
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner, Result

from vuemantics_pipeline.cli import app
from vuemantics_pipeline.home.postgres import is_running
from vuemantics_pipeline.home.processes import free_port
from vuemantics_pipeline.ledger.batches import cancel
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.settings import Settings

from .conftest import DIMENSION

RunBatch = Callable[..., None]
MakePhoto = Callable[..., Path]


@pytest.fixture
def environment(database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the commands read: the test's own database, home and upload folder."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("VUEMANTICS_HOME", str(settings.home))
    monkeypatch.setenv("UPLOAD_PATH", str(settings.uploads))
    monkeypatch.setenv("VUEMANTICS_ANALYZER", "none")
    monkeypatch.setenv("LOCAL_EMBEDDING_DIMENSIONS", str(DIMENSION))


pytestmark = pytest.mark.usefixtures("environment")


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def document(result: Result) -> object:
    """The one document on standard output; anything else there breaks the parsing."""
    return json.loads(result.stdout)


def test_a_database_that_was_not_prepared(database_url: str) -> None:
    result = run("batches", "--json")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "vuemantics migrate" in result.stderr


def test_migrate_says_what_it_did() -> None:
    first, second = run("migrate"), run("migrate")

    assert (first.exit_code, second.exit_code) == (0, 0)
    assert "Created the application's tables" in first.stdout
    assert "Applied 0001_" in first.stdout
    assert "trigger on upload_batches is attached" in first.stdout
    assert "Everything was in place already" in second.stdout


def test_migrate_json() -> None:
    done = document(run("migrate", "--json"))

    assert isinstance(done, dict)
    assert done["created_tables"] is True
    assert done["listening"] is True


def test_ingest_prints_the_batch_and_what_was_refused(
    connection: Connection, tmp_path: Path, make_photo: MakePhoto
) -> None:
    photo = make_photo(tmp_path / "in" / "[red]photo.jpg")
    (tmp_path / "in" / "notes.txt").write_text("hello")

    result = run("ingest", photo.parent)

    assert result.exit_code == 0
    [(batch_id,)] = connection.execute("SELECT id FROM upload_batches").fetchall()
    assert f"Batch {batch_id}: 1 file accepted" in result.stdout
    assert "notes.txt" in result.stdout
    assert "text, not a photo" in result.stdout


def test_ingest_json(connection: Connection, tmp_path: Path, make_photo: MakePhoto) -> None:
    make_photo(tmp_path / "in" / "photo.jpg")
    (tmp_path / "in" / "empty.jpg").touch()

    result = run("ingest", tmp_path / "in", "--json")

    assert result.exit_code == 0
    [(batch_id,)] = connection.execute("SELECT id FROM upload_batches").fetchall()
    assert document(result) == {
        "batch_id": str(batch_id),
        "accepted": 1,
        "refused": [
            {
                "file": str(tmp_path / "in" / "empty.jpg"),
                "reason": "The file is empty. Upload it again.",
            }
        ],
    }


def test_ingest_of_nothing_but_refused_files_is_bad_news(
    connection: Connection, tmp_path: Path
) -> None:
    (tmp_path / "notes.jpg").write_text("hello")

    result = run("ingest", tmp_path / "notes.jpg", "--wait", "--json")

    assert result.exit_code == 1
    ingested = document(result)
    assert isinstance(ingested, dict)
    assert ingested["accepted"] == 0
    assert len(ingested["refused"]) == 1


@pytest.mark.parametrize("arguments", [["nowhere"], ["."], [".", "--user", "nobody@example.org"]])
def test_ingest_of_nothing_is_wrong_use(
    connection: Connection,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")

    result = run("ingest", *arguments, "--json")

    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("Error: ")


def test_ingest_wait_follows_the_batch(
    connection: Connection, tmp_path: Path, make_photo: MakePhoto, run_batch: RunBatch
) -> None:
    photo = make_photo(tmp_path / "photo.jpg")

    with worker(connection, run_batch):
        result = run("ingest", photo, "--wait", "--json")

    assert result.exit_code == 0, result.output
    batch = document(result)
    assert isinstance(batch, dict)
    assert (batch["accepted"], batch["refused"]) == (1, [])
    assert (batch["status"], batch["successful_uploads"]) == ("completed", 1)


def test_batches(connection: Connection, batch_id: UUID) -> None:
    result = run("batches")

    assert result.exit_code == 0
    assert str(batch_id) in result.stdout
    assert "0/3" in result.stdout


def test_batches_json_with_filters(connection: Connection, batch_id: UUID) -> None:
    found = document(run("batches", "--json", "--status", "pending"))

    assert isinstance(found, list)
    assert [batch["batch_id"] for batch in found] == [str(batch_id)]
    assert document(run("batches", "--json", "--status", "completed")) == []
    assert document(run("batches", "--json", "--user", found[0]["user_id"])) == found
    assert document(run("batches", "--json", "--user", "demo@vuemantics.local")) == found
    assert run("batches", "--user", uuid4()).exit_code == 2


def test_status_of_a_pending_batch(connection: Connection, batch_id: UUID) -> None:
    result = run("status", batch_id)

    assert result.exit_code == 0
    assert "0 of 3 processed" in result.stdout


def test_status_json_with_uploads(
    connection: Connection, batch_id: UUID, run_batch: RunBatch
) -> None:
    run_batch(batch_id)

    plain = document(run("status", batch_id, "--json"))
    full = document(run("status", batch_id, "--json", "--uploads"))

    assert isinstance(plain, dict)
    assert isinstance(full, dict)
    assert plain["status"] == "completed"
    assert "uploads" not in plain
    assert {upload["attempts"] for upload in full["uploads"]} == {1}


def test_status_shows_failed_files_with_reason_and_remedy(
    connection: Connection, settings: Settings, batch_id: UUID, run_batch: RunBatch
) -> None:
    for stored in settings.uploads.glob("*/*/original.png"):
        stored.unlink()
    run_batch(batch_id)

    result = run("status", batch_id, "--uploads")

    assert result.exit_code == 0
    assert "3 of 3 processed" in result.stdout
    assert "1 failed" in result.stdout
    assert "deleted before its turn" in result.stdout
    assert "Upload it again." in result.stdout


@pytest.mark.parametrize("flags", [[], ["--watch"], ["--json"]])
def test_status_of_a_cancelled_batch_is_bad_news(
    connection: Connection, batch_id: UUID, flags: list[str]
) -> None:
    cancel(connection, batch_id, message="Not wanted.")

    assert run("status", batch_id, *flags).exit_code == 1


def test_status_watch(connection: Connection, batch_id: UUID, run_batch: RunBatch) -> None:
    with worker(connection, run_batch):
        result = run("status", batch_id, "--watch", "--json")

    assert result.exit_code == 0
    batch = document(result)
    assert isinstance(batch, dict)
    assert batch["status"] == "completed"
    assert "completed 3/3" in result.stderr


@pytest.mark.parametrize("flags", [[], ["--watch"], ["--json", "--uploads"]])
def test_status_of_no_batch(connection: Connection, flags: list[str]) -> None:
    batch_id = uuid4()

    result = run("status", batch_id, *flags)

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"There is no batch {batch_id}" in result.stderr


def test_search(connection: Connection, batch_id: UUID, run_batch: RunBatch) -> None:
    run_batch(batch_id)

    table = run("search", "a lake")
    hits = document(run("search", "a lake", "--limit", "2", "--json"))

    assert table.exit_code == 0
    assert "first.jpg" in table.stdout
    assert isinstance(hits, list)
    assert len(hits) == 2
    assert hits[0]["score"] == 1.0


def test_search_for_one_type(connection: Connection, batch_id: UUID, run_batch: RunBatch) -> None:
    run_batch(batch_id)
    images = document(run("search", "a lake", "--type", "image", "--json"))
    assert isinstance(images, list)
    assert {hit["file_type"] for hit in images} == {"image"}
    assert document(run("search", "a lake", "--type", "video", "--json")) == []
    assert run("search", "a lake", "--type", "sound").exit_code == 2


def test_search_before_anything_was_described(connection: Connection) -> None:
    assert document(run("search", "a lake", "--json")) == []
    assert run("search", "a lake").exit_code == 0


def test_search_with_another_model_is_wrong_use(
    connection: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_EMBEDDING_DIMENSIONS", "16")

    result = run("search", "a lake", "--json")

    assert (result.exit_code, result.stdout) == (2, "")
    assert "holds 8" in result.stderr


def test_doctor_finds_nothing_to_mend(connection: Connection) -> None:
    result = run("doctor", "--json")

    assert result.exit_code == 0, result.output
    report = document(result)
    assert isinstance(report, dict)
    assert report["ok"] is True
    assert [check["name"] for check in report["checks"]] == [
        "database",
        "migrations",
        "pgvector",
        "vector_dimension",
        "upload_path",
        "analyzer",
        "dagster",
    ]
    assert all(check["ok"] and check["detail"] for check in report["checks"])
    assert {check["remedy"] for check in report["checks"]} == {""}


def test_doctor_before_the_first_migration(database_url: str) -> None:
    result = run("doctor", "--json")

    assert result.exit_code == 1
    assert faults(result).keys() == {"migrations", "pgvector", "vector_dimension"}
    assert all("vuemantics migrate" in check["remedy"] for check in faults(result).values())


def test_doctor_with_another_dimension_and_no_upload_folder(
    connection: Connection, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCAL_EMBEDDING_DIMENSIONS", "16")
    settings.uploads.write_text("in the way")

    result = run("doctor", "--json")

    assert result.exit_code == 1
    assert faults(result).keys() == {"vector_dimension", "upload_path"}
    assert "VUEMANTICS_ANALYZER" in faults(result)["vector_dimension"]["remedy"]
    assert "UPLOAD_PATH" in faults(result)["upload_path"]["remedy"]


def test_doctor_without_a_model(connection: Connection, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VUEMANTICS_ANALYZER", "ollama")
    monkeypatch.setenv("OLLAMA_HOST", "http://127.0.0.1:1")

    result = run("doctor")

    assert result.exit_code == 1
    assert "not ok" in result.stdout
    assert "127.0.0.1:1" in result.stdout


def test_doctor_without_a_database(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada:s3cret@127.0.0.1:1/vuemantics")

    result = run("doctor", "--json")

    assert result.exit_code == 3
    assert faults(result)["database"]["remedy"]
    assert "s3cret" not in result.output


def test_without_a_database_url_the_embedded_server_is_used(
    settings: Settings, tmp_path: Path, make_photo: MakePhoto, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("DATABASE_URL")
    home = Path(tempfile.mkdtemp(prefix="vuemantics-tests-"))
    try:
        ingested = document(run("ingest", make_photo(tmp_path / "a.jpg"), "--json", "--home", home))
        found = document(run("batches", "--json", "--home", home))
        assert not is_running(home)
    finally:
        shutil.rmtree(home)

    assert isinstance(ingested, dict)
    assert isinstance(found, list)
    assert [batch["batch_id"] for batch in found] == [ingested["batch_id"]]


def test_up_on_a_port_in_use(connection: Connection) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        result = run("up", "--port", listener.getsockname()[1])

    assert result.exit_code == 2
    assert "in use" in result.stderr
    assert "--port" in result.stderr


def test_a_second_up_on_one_home(connection: Connection, settings: Settings) -> None:
    settings.home.mkdir()
    with (settings.home / "up.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        result = run("up", "--port", free_port())

    assert result.exit_code == 2
    assert "Another `vuemantics up`" in result.stderr
    assert "--home" in result.stderr


def test_a_home_that_cannot_be_made(settings: Settings) -> None:
    settings.home.write_text("in the way")

    result = run("up", "--port", free_port())

    assert result.exit_code == 3
    assert "--home" in result.stderr


def faults(result: Result) -> dict[str, dict[str, str]]:
    """The checks of a doctor's report that are not ok, by name."""
    report = document(result)
    assert isinstance(report, dict)
    return {check["name"]: check for check in report["checks"] if not check["ok"]}


@contextmanager
def worker(connection: Connection, run_batch: RunBatch) -> Iterator[None]:
    """Process the first batch that appears, beside the command under test."""
    ended = threading.Event()
    whole_batch = (
        "SELECT b.id FROM upload_batches AS b WHERE b.total_uploads > 0 AND b.total_uploads ="
        " (SELECT count(*) FROM uploads AS u WHERE u.batch_id = b.id)"
    )

    def work() -> None:
        while not ended.wait(0.3):
            if row := connection.execute(whole_batch).fetchone():
                run_batch(row[0])
                return

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()
