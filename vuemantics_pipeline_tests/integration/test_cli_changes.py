"""`vuemantics cancel`, `retry`, `reanalyze` and `audit`, as a person or a script runs them."""

import json
from collections.abc import Callable
from uuid import UUID, uuid4

import pytest
from typer.testing import CliRunner, Result

from vuemantics_pipeline.cli import app
from vuemantics_pipeline.ledger import leases
from vuemantics_pipeline.ledger.connection import Connection, connect
from vuemantics_pipeline.settings import Settings
from vuemantics_pipeline_tests import support

from .conftest import DIMENSION

RunBatch = Callable[..., None]


@pytest.fixture(autouse=True)
def environment(database_url: str, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the commands read: the test's own database, home and upload folder."""
    monkeypatch.setenv("DATABASE_URL", database_url)
    monkeypatch.setenv("VUEMANTICS_HOME", str(settings.home))
    monkeypatch.setenv("UPLOAD_PATH", str(settings.uploads))
    monkeypatch.setenv("VUEMANTICS_ANALYZER", "none")
    monkeypatch.setenv("LOCAL_EMBEDDING_DIMENSIONS", str(DIMENSION))


@pytest.fixture
def done(batch_id: UUID, settings: Settings, run_batch: RunBatch) -> UUID:
    """A completed batch of three, of which second.png failed."""
    (lost,) = settings.uploads.glob("*/*/original.png")
    lost.unlink()
    run_batch(batch_id)
    return batch_id


def run(*arguments: object, answer: str | None = None) -> Result:
    result = CliRunner().invoke(app, [str(argument) for argument in arguments], input=answer)
    assert "Traceback" not in result.output
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result


def document(result: Result) -> dict[str, object]:
    """The one document on standard output; anything else there breaks the parsing."""
    found = json.loads(result.stdout)
    assert isinstance(found, dict)
    return found


# --- what the three have in common ---

COMMANDS = pytest.mark.parametrize(
    "command",
    [
        ("cancel",),
        ("retry",),
        ("retry", "--dry-run"),
        ("retry", "--scope", "all", "--yes"),
        ("audit", "--batch"),
    ],
    ids=" ".join,
)


@COMMANDS
@pytest.mark.parametrize("flags", [[], ["--json"]])
def test_an_unknown_batch_is_wrong_use(
    connection: Connection, command: tuple[str, ...], flags: list[str]
) -> None:
    unknown = uuid4()

    result = run(command[0], *flags, *command[1:], unknown)

    assert (result.exit_code, result.stdout) == (2, "")
    assert f"There is no batch {unknown}" in result.stderr
    assert "vuemantics batches" in result.stderr


@COMMANDS
@pytest.mark.parametrize("name", ["1b4e28ba", ""])
def test_what_is_no_id_is_wrong_use(
    connection: Connection, batch_id: UUID, command: tuple[str, ...], name: str
) -> None:
    """An empty one, too, as from an unset variable: it does not mean all batches."""
    before = support.everything(connection, batch_id)

    result = run(*command, name)

    assert (result.exit_code, result.stdout) == (2, "")
    assert "is not a batch id" in result.stderr
    assert support.everything(connection, batch_id) == before


@COMMANDS
def test_a_database_that_is_down_is_said_by_the_exit_code(
    command: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://ada:s3cret@127.0.0.1:1/vuemantics")

    result = run(*command, uuid4())

    assert (result.exit_code, result.stdout) == (3, "")
    assert "127.0.0.1:1" in result.stderr
    assert "s3cret" not in result.output


@pytest.mark.parametrize("command", [("cancel",), ("retry",), ("retry", "--scope", "some")])
def test_missing_or_wrong_arguments_are_wrong_use(command: tuple[str, ...]) -> None:
    assert run(*command).exit_code == 2


# --- cancel ---


def test_cancel(connection: Connection, batch_id: UUID) -> None:
    result = run("cancel", batch_id)

    assert result.exit_code == 0
    assert f"Batch {batch_id} is cancelled with 0 of 3 uploads done." in result.stdout
    row = support.batch_row(connection, batch_id)
    assert (row.status, row.ended) == ("cancelled", True)
    assert row.message == "Cancelled from the command line."


def test_cancel_json(connection: Connection, batch_id: UUID) -> None:
    result = run("cancel", batch_id, "--json")

    assert result.exit_code == 0
    found = document(result)
    assert (found["cancelled"], found["batch_id"]) == (True, str(batch_id))
    assert (found["status"], found["processed_uploads"]) == ("cancelled", 0)


@pytest.mark.parametrize("is_json", [False, True])
def test_cancel_of_a_batch_that_has_ended_is_bad_news(
    connection: Connection, done: UUID, is_json: bool
) -> None:
    before = support.everything(connection, done)

    result = run("cancel", done, *(["--json"] if is_json else []))

    assert result.exit_code == 1
    if is_json:
        found = document(result)
        assert (found["cancelled"], found["status"]) == (False, "completed")
    else:
        assert f"Batch {done} is completed already; nothing was changed." in result.stdout
    assert support.everything(connection, done) == before


def test_cancel_twice(connection: Connection, batch_id: UUID) -> None:
    assert run("cancel", batch_id).exit_code == 0
    second = run("cancel", batch_id)
    assert second.exit_code == 1
    assert "cancelled already" in second.stdout


def test_cancel_while_a_run_holds_the_batch(
    connection: Connection, database_url: str, batch_id: UUID
) -> None:
    with connect(database_url) as worker:
        support.begin(worker, batch_id)
        assert run("cancel", batch_id).exit_code == 0
    assert support.batch_row(connection, batch_id).status == "cancelled"
    support.assert_counters_true(connection, batch_id)


# --- retry ---

SCOPES = [("unfinished", 0), ("failed", 1), ("all", 3)]


def test_retry_takes_up_what_is_unfinished(connection: Connection, batch_id: UUID) -> None:
    run("cancel", batch_id)

    result = run("retry", batch_id)

    assert result.exit_code == 0
    assert f"3 uploads of batch {batch_id} are taken up by the next run." in result.stdout
    assert support.batch_row(connection, batch_id).status == "pending"


@pytest.mark.parametrize(("scope", "count"), SCOPES)
def test_retry_json(connection: Connection, done: UUID, scope: str, count: int) -> None:
    """A script is not asked."""
    before = support.everything(connection, done)

    result = run("retry", done, "--scope", scope, "--json")

    assert result.exit_code == (0 if count else 1)
    assert document(result) == {
        "batch_id": str(done),
        "scope": scope,
        "uploads": count,
        "dry_run": False,
    }
    row = support.batch_row(connection, done)
    assert (row.status, row.processed) == ("pending" if count else "completed", 3 - count)
    support.assert_counters_true(connection, done)
    if not count:
        assert support.everything(connection, done) == before


@pytest.mark.parametrize(("scope", "count"), SCOPES)
@pytest.mark.parametrize("is_json", [False, True])
def test_a_dry_run_changes_nothing(
    connection: Connection, done: UUID, scope: str, count: int, is_json: bool
) -> None:
    before = support.everything(connection, done)

    result = run("retry", done, "--scope", scope, "--dry-run", *(["--json"] if is_json else []))

    assert result.exit_code == (0 if count else 1)
    assert result.stderr == ""
    if is_json:
        found = document(result)
        assert (found["uploads"], found["dry_run"]) == (count, True)
    elif count:
        noun = "upload" if count == 1 else "uploads"
        assert f"{count} {noun} of batch {done} would be taken up." in result.stdout
    else:
        assert f"Batch {done} has no uploads to take up in this scope." in result.stdout
    assert support.everything(connection, done) == before


def test_retry_of_all_is_done_after_a_yes(connection: Connection, done: UUID) -> None:
    result = run("retry", done, "--scope", "all", answer="y\n")

    assert result.exit_code == 0
    assert "This describes 3 uploads anew." in result.stderr
    assert f"3 uploads of batch {done} are taken up by the next run.\n" in result.stdout
    assert support.batch_row(connection, done).processed == 0


@pytest.mark.parametrize(("answer", "code"), [("n\n", 2), ("\n", 2), (None, 1)])
def test_retry_of_all_is_not_done_otherwise(
    connection: Connection, done: UUID, answer: str | None, code: int
) -> None:
    before = support.everything(connection, done)

    result = run("retry", done, "--scope", "all", answer=answer)

    assert result.exit_code == code
    assert "taken up" not in result.output
    assert support.everything(connection, done) == before


@pytest.mark.parametrize("arguments", [["--scope", "all", "--yes"], ["--scope", "failed"]])
def test_retry_does_not_ask(connection: Connection, done: UUID, arguments: list[str]) -> None:
    result = run("retry", done, *arguments)

    assert (result.exit_code, result.stderr) == (0, "")
    assert support.batch_row(connection, done).status == "pending"


@pytest.mark.parametrize("scope", ["unfinished", "failed", "all"])
def test_retry_while_a_run_holds_the_batch(
    connection: Connection, database_url: str, batch_id: UUID, scope: str
) -> None:
    with connect(database_url) as worker:
        lease = leases.acquire(worker, batch_id, "run-1")
        before = support.everything(connection, batch_id)

        result = run("retry", batch_id, "--scope", scope, "--json")

        assert (result.exit_code, result.stdout) == (2, "")
        assert f"A run is processing batch {batch_id}." in result.stderr
        assert support.everything(connection, batch_id) == before
        leases.release(lease)
    assert run("retry", batch_id, "--scope", scope, "--json").exit_code == 0


def test_a_batch_run_again_completes(
    connection: Connection, done: UUID, settings: Settings, run_batch: RunBatch
) -> None:
    row = connection.execute(
        "SELECT file_path FROM uploads WHERE processing_status = 'failed'"
    ).fetchone()
    assert row is not None
    (settings.uploads / row[0]).write_bytes(support.photo())
    assert run("retry", done, "--scope", "failed").exit_code == 0

    run_batch(done)

    found = document(run("status", done, "--json"))
    assert (found["status"], found["successful_uploads"]) == ("completed", 3)
    assert run("audit").exit_code == 0


# --- audit ---


def test_audit_of_true_books(connection: Connection, done: UUID) -> None:
    result = run("audit")

    assert (result.exit_code, result.stdout) == (0, "1 batch checked: all agree.\n")
    assert document(run("audit", "--json")) == {"ok": True, "batches": 1, "violations": []}


def test_audit_finds_what_is_wrong(connection: Connection, done: UUID) -> None:
    connection.execute("UPDATE upload_batches SET total_uploads = 2")

    plain, found = run("audit"), run("audit", "--json")

    assert (plain.exit_code, found.exit_code) == (1, 1)
    assert str(done) in plain.stdout
    assert "more_processed_than_total" in plain.stdout
    assert "1 batch checked: 1 violation." in plain.stdout
    assert document(found) == {
        "ok": False,
        "batches": 1,
        "violations": [
            {
                "batch_id": str(done),
                "rule": "more_processed_than_total",
                "detail": "says 3 processed of 2",
            }
        ],
    }


def test_audit_of_one_batch(connection: Connection, done: UUID) -> None:
    other = support.add_batch(connection, support.add_user(connection))
    connection.execute("UPDATE upload_batches SET total_uploads = 2 WHERE id = %s", (done,))

    assert run("audit", "--batch", done).exit_code == 1
    clean = run("audit", "--batch", other.batch_id)
    assert (clean.exit_code, clean.stdout) == (0, "1 batch checked: all agree.\n")


def test_audit_changes_nothing(connection: Connection, done: UUID) -> None:
    connection.execute("UPDATE upload_batches SET total_uploads = 2")
    before = support.everything(connection, done)

    run("audit")

    assert support.everything(connection, done) == before


# --- reanalyze ---


@pytest.fixture
def outdated(connection: Connection, done: UUID) -> UUID:
    """`done`, whose two descriptions are of an earlier prompt."""
    connection.execute("UPDATE vuemantics_pipeline.attempts SET prompt_version = 'of old'")
    return done


def test_reanalyze_asks_first(connection: Connection, outdated: UUID) -> None:
    declined = run("reanalyze", answer="n\n")
    assert declined.exit_code == 2
    assert "This describes 2 uploads anew." in declined.stderr
    assert support.batch_row(connection, outdated).status == "completed"

    agreed = run("reanalyze", answer="y\n")
    assert agreed.exit_code == 0
    assert "2 uploads in 1 batch are made anew by the next runs." in agreed.stdout
    row = support.batch_row(connection, outdated)
    assert (row.status, row.processed, row.failed) == ("pending", 1, 1)


def test_reanalyze_dry_run(connection: Connection, outdated: UUID) -> None:
    before = support.everything(connection, outdated)
    result = run("reanalyze", "--dry-run", "--json")
    assert document(result) == {
        "uploads": 2,
        "batches": 1,
        "skipped": 0,
        "forgets": None,
        "dry_run": True,
    }
    assert support.everything(connection, outdated) == before


def test_reanalyze_warns_before_vectors_are_cleared(connection: Connection, outdated: UUID) -> None:
    connection.execute("UPDATE vuemantics_pipeline.embedding_space SET embedding_model = 'bge-m3'")
    assert run("search", "a lake").exit_code == 2, "another model's vectors were searched"

    declined = run("reanalyze", answer="n\n")
    assert "clears all vectors of bge-m3 now" in " ".join(declined.stderr.split())

    assert run("reanalyze", "--yes").exit_code == 0
    assert run("search", "a lake").exit_code == 0


def test_reanalyze_of_nothing_is_bad_news(connection: Connection, done: UUID) -> None:
    result = run("reanalyze")
    assert result.exit_code == 1
    assert "Nothing to do" in result.stdout


def test_reanalyze_leaves_a_batch_at_work_alone(
    connection: Connection, database_url: str, outdated: UUID
) -> None:
    with connect(database_url) as other:
        leases.acquire(other, outdated, "run-2")
        result = run("reanalyze", "--yes")
    assert result.exit_code == 1
    assert "2 uploads are in a batch that a run is processing" in " ".join(result.stderr.split())


def test_reanalyze_for_an_unknown_user(connection: Connection, outdated: UUID) -> None:
    assert run("reanalyze", "--user", "nobody@example.com", "--yes").exit_code == 2
