"""Files become a batch, or are refused with a reason."""

import errno
import os
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from uuid import UUID

import psutil
import pytest

from vuemantics_pipeline import ingest as ingestion
from vuemantics_pipeline.errors import BackendUnavailable, UsageError
from vuemantics_pipeline.ingest import Ingested, ingest
from vuemantics_pipeline.ledger.batches import ready_batches
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.ingestion import DEMO_USER
from vuemantics_pipeline.media.decoder import Decoder
from vuemantics_pipeline.settings import Settings
from vuemantics_pipeline_tests.unit import decoder_standin

MakePhoto = Callable[..., Path]


def rows(connection: Connection, query: str) -> list[tuple[object, ...]]:
    return connection.execute(query.encode()).fetchall()


def add_user(connection: Connection, email: str) -> UUID:
    row = connection.execute(
        "INSERT INTO users (email, password_hash) VALUES (%s, 'x') RETURNING id", [email]
    ).fetchone()
    assert row is not None
    user_id: UUID = row[0]
    return user_id


def reasons(ingested: Ingested) -> dict[str, str]:
    return {Path(refused.file).name: refused.reason for refused in ingested.refused}


def assert_nothing_written(connection: Connection, settings: Settings) -> None:
    assert rows(connection, "SELECT 1 FROM upload_batches") == []
    assert not settings.uploads.exists()


def test_a_folder_becomes_a_batch_in_the_applications_layout(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    make_photo(tmp_path / "in" / "b.jpg")
    make_photo(tmp_path / "in" / "deep" / "er" / "c.PNG")
    make_photo(tmp_path / "in" / "a.jpg")
    steps: list[tuple[int, int]] = []

    ingested = ingest(
        connection, settings, [tmp_path / "in"], on_file=lambda *step: steps.append(step)
    )

    assert (ingested.accepted, ingested.refused) == (3, ())
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert rows(connection, "SELECT id, status, total_uploads FROM upload_batches") == [
        (ingested.batch_id, "pending", 3)
    ]
    uploads = connection.execute(
        "SELECT id, user_id, filename, file_path, file_type, file_size, mime_type,"
        " processing_status FROM uploads ORDER BY created_at"
    ).fetchall()
    assert [row[2] for row in uploads] == ["a.jpg", "b.jpg", "c.PNG"]
    for upload_id, user_id, filename, file_path, file_type, size, mime_type, status in uploads:
        extension = "png" if filename == "c.PNG" else "jpg"
        assert file_path == f"{user_id}/{upload_id}/original.{extension}"
        stored = settings.uploads / file_path
        assert stored.stat().st_mode & 0o777 == 0o644
        assert [*stored.parent.iterdir()] == [stored]
        assert stored.stat().st_size == size
        assert (file_type, status) == ("image", "pending")
        assert mime_type == f"image/{extension.replace('jpg', 'jpeg')}"


def test_types_are_told_by_content_not_by_name(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    make_photo(tmp_path / "in" / "really_png.jpg", format_="PNG")
    (tmp_path / "in" / "notes.jpg").write_text("not a photo")
    (tmp_path / "in" / "nothing.jpg").touch()
    (tmp_path / "in" / "paper.pdf").write_bytes(b"%PDF-1.7 ...")

    ingested = ingest(connection, settings, [tmp_path / "in"])

    assert ingested.accepted == 1
    assert rows(connection, "SELECT mime_type FROM uploads") == [("image/png",)]
    assert rows(connection, "SELECT total_uploads FROM upload_batches") == [(1,)]
    found = reasons(ingested)
    assert found.keys() == {"notes.jpg", "nothing.jpg", "paper.pdf"}
    assert "text" in found["notes.jpg"]
    assert "empty" in found["nothing.jpg"]
    assert "PDF" in found["paper.pdf"]


def test_a_photo_cut_short_before_its_picture_is_refused(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    whole = make_photo(tmp_path / "whole.jpg").read_bytes()
    (tmp_path / "cut.jpg").write_bytes(whole[:40])

    ingested = ingest(connection, settings, [tmp_path / "cut.jpg", tmp_path / "whole.jpg"])

    assert ingested.accepted == 1
    assert "damaged or incomplete" in reasons(ingested)["cut.jpg"]


def test_what_is_not_a_plain_file_of_the_folder_is_left_out(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    folder = tmp_path / "in"
    photo = make_photo(folder / "photo.jpg")
    make_photo(folder / ".hidden.jpg")
    make_photo(folder / ".thumbnails" / "small.jpg")
    outside = make_photo(tmp_path / "outside.jpg")
    (folder / "link_out.jpg").symlink_to(outside)
    (folder / "link_in.jpg").symlink_to(photo)
    (folder / "loop.jpg").symlink_to(folder / "loop.jpg")
    (folder / "round").symlink_to(folder, target_is_directory=True)
    os.mkfifo(folder / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / "socket.jpg"))

        ingested = ingest(connection, settings, [folder])

    assert ingested.accepted == 1
    found = reasons(ingested)
    assert found.keys() == {
        ".hidden.jpg",
        ".thumbnails",
        "link_out.jpg",
        "loop.jpg",
        "round",
        "pipe.jpg",
        "socket.jpg",
        "photo.jpg",
    }
    assert "leads out" in found["link_out.jpg"]
    assert "Hidden" in found[".thumbnails"]
    assert "not a file" in found["pipe.jpg"]


def test_a_file_named_twice_is_taken_once(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    photo = make_photo(tmp_path / "in" / "photo.jpg")

    ingested = ingest(connection, settings, [photo, tmp_path / "in"])

    assert ingested.accepted == 1
    assert "named before" in reasons(ingested)["photo.jpg"]


def test_a_name_is_stored_printable_and_never_used_as_a_path(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    name = os.fsdecode(b"caf\xe9 \x1b[31m\n.jpg")
    make_photo(tmp_path / "in" / name, format_="JPEG")
    make_photo(tmp_path / "in" / "d\u00e9j\u00e0 vu \U0001f600.jpg")

    assert ingest(connection, settings, [tmp_path / "in"]).accepted == 2
    assert rows(connection, "SELECT filename FROM uploads ORDER BY created_at") == [
        ("caf\\udce9 \\x1b[31m\\n.jpg",),
        ("d\u00e9j\u00e0 vu \U0001f600.jpg",),
    ]


def test_a_file_that_may_not_be_read_costs_only_itself(
    connection: Connection,
    settings: Settings,
    tmp_path: Path,
    make_photo: MakePhoto,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_photo(tmp_path / "in" / "locked.jpg")
    make_photo(tmp_path / "in" / "open.jpg")
    real_open = Path.open

    def open_(self: Path, *args: object, **kwargs: object) -> object:
        if self.name == "locked.jpg":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real_open(self, *args, **kwargs)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", open_)

    ingested = ingest(connection, settings, [tmp_path / "in"])

    assert ingested.accepted == 1
    assert "Permission denied" in reasons(ingested)["locked.jpg"]


@pytest.mark.parametrize(
    ("conduct", "reason"), [("segfault", "SIGSEGV"), ("hang", "took longer than 0.3 s")]
)
def test_a_file_that_breaks_the_decoder_costs_only_itself(
    connection: Connection,
    settings: Settings,
    tmp_path: Path,
    make_photo: MakePhoto,
    monkeypatch: pytest.MonkeyPatch,
    conduct: str,
    reason: str,
) -> None:
    make_photo(tmp_path / "in" / "a.jpg")
    make_photo(tmp_path / "in" / "b.jpg")
    _replace_decoder(monkeypatch, sys.executable, "-P", decoder_standin.__file__, conduct)

    ingested = ingest(
        connection, settings.model_copy(update={"decode_seconds": 0.3}), [tmp_path / "in"]
    )

    assert ingested.accepted == 0
    found = reasons(ingested)
    assert found.keys() == {"a.jpg", "b.jpg"}
    assert all(reason in text for text in found.values())
    assert rows(connection, "SELECT total_uploads FROM upload_batches") == [(0,)]
    assert [*settings.uploads.iterdir()] == []


def test_no_file_is_refused_for_a_decoder_that_does_not_start(
    connection: Connection,
    settings: Settings,
    tmp_path: Path,
    make_photo: MakePhoto,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    _replace_decoder(monkeypatch, "/nowhere/python")

    with pytest.raises(BackendUnavailable) as caught:
        ingest(connection, settings, [make_photo(tmp_path / "photo.jpg")])

    assert caught.value.code == "decoder_unavailable"
    assert "the 0 files that were accepted" in caught.value.message


def _replace_decoder(monkeypatch: pytest.MonkeyPatch, *command: str) -> None:
    monkeypatch.setattr(ingestion, "Decoder", partial(Decoder, command=command))


def test_the_decoder_has_the_settings_limits_and_ends_with_the_ingest(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    photo = make_photo(tmp_path / "photo.jpg")
    limits: list[tuple[int, int]] = []
    before = set(psutil.Process().children(recursive=True))

    def children() -> set[psutil.Process]:
        return set(psutil.Process().children(recursive=True)) - before

    def look(done: int, _total: int) -> None:
        if done:
            limits.extend(child.rlimit(psutil.RLIMIT_AS) for child in children())

    ingest(connection, settings, [photo], on_file=look)

    assert limits == [(settings.decode_memory_mib << 20,) * 2]
    assert children() == set()


def test_a_batch_of_refused_files_is_there_and_empty(
    connection: Connection, settings: Settings, tmp_path: Path
) -> None:
    (tmp_path / "notes.txt").write_text("hello")

    ingested = ingest(connection, settings, [tmp_path / "notes.txt"])

    assert ingested.accepted == 0
    assert rows(connection, "SELECT status, total_uploads FROM upload_batches") == [("pending", 0)]


def test_a_batch_cannot_be_taken_while_it_is_being_filled(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    for number in range(3):
        make_photo(tmp_path / "in" / f"{number}.jpg")
    (tmp_path / "in" / "notes.txt").write_text("hello")
    offered: list[int] = []

    def look(done: int, total: int) -> None:
        offered.append(len(ready_batches(connection, limit=10, grace_seconds=900)))

    ingested = ingest(connection, settings, [tmp_path / "in"], on_file=look)

    assert offered == [0] * 5
    ready = ready_batches(connection, limit=10, grace_seconds=900)
    assert [request.batch_id for request in ready] == [ingested.batch_id]


@pytest.mark.parametrize(
    ("path", "code"),
    [("nowhere", "no_such_path"), ("empty", "no_files"), ("hidden_only", "no_files")],
)
def test_nothing_to_ingest_is_a_clear_error(
    connection: Connection, settings: Settings, tmp_path: Path, path: str, code: str
) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "hidden_only").mkdir()
    (tmp_path / "hidden_only" / ".DS_Store").touch()

    with pytest.raises(UsageError) as caught:
        ingest(connection, settings, [tmp_path / path])

    assert caught.value.code == code
    assert path in caught.value.message
    assert caught.value.remedy
    assert_nothing_written(connection, settings)


def test_an_unreadable_folder_is_a_clear_error(
    connection: Connection, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(self: Path) -> list[Path]:
        raise PermissionError(errno.EACCES, "Permission denied", str(self))

    (tmp_path / "secret").mkdir()
    monkeypatch.setattr(Path, "iterdir", refuse)

    with pytest.raises(UsageError, match="secret cannot be read: Permission denied") as caught:
        ingest(connection, settings, [tmp_path / "secret"])

    assert caught.value.code == "unreadable_folder"
    assert_nothing_written(connection, settings)


def test_an_unreadable_folder_inside_is_left_out(
    connection: Connection,
    settings: Settings,
    tmp_path: Path,
    make_photo: MakePhoto,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    make_photo(tmp_path / "in" / "photo.jpg")
    make_photo(tmp_path / "in" / "secret" / "other.jpg")
    real_iterdir = Path.iterdir

    def iterdir(self: Path) -> object:
        if self.name == "secret":
            raise PermissionError(errno.EACCES, "Permission denied", str(self))
        return real_iterdir(self)

    monkeypatch.setattr(Path, "iterdir", iterdir)

    ingested = ingest(connection, settings, [tmp_path / "in"])

    assert ingested.accepted == 1
    assert "Permission denied" in reasons(ingested)["secret"]


@pytest.mark.parametrize(
    ("limit", "value", "code"),
    [("MAX_FILES", 2, "too_many_files"), ("MAX_BYTES", 100, "batch_too_large")],
)
def test_more_than_a_batch_may_hold_is_refused_whole(
    connection: Connection,
    settings: Settings,
    tmp_path: Path,
    make_photo: MakePhoto,
    monkeypatch: pytest.MonkeyPatch,
    limit: str,
    value: int,
    code: str,
) -> None:
    for number in range(3):
        make_photo(tmp_path / "in" / f"{number}.jpg")
    monkeypatch.setattr(ingestion, limit, value)

    with pytest.raises(UsageError) as caught:
        ingest(connection, settings, [tmp_path / "in"])

    assert caught.value.code == code
    assert_nothing_written(connection, settings)


def test_the_limits_are_the_applications() -> None:
    assert ingestion.MAX_FILES == 1000
    assert ingestion.MAX_BYTES == 10 * 1024**3


def test_a_full_disk_keeps_what_was_accepted(
    connection: Connection,
    settings: Settings,
    tmp_path: Path,
    make_photo: MakePhoto,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for number in range(3):
        make_photo(tmp_path / "in" / f"{number}.jpg")
    real_replace = Path.replace
    done = 0

    def replace(self: Path, target: Path) -> Path:
        nonlocal done
        done += 1
        if done == 3:
            raise OSError(errno.ENOSPC, "No space left on device", str(target))
        return real_replace(self, target)

    monkeypatch.setattr(Path, "replace", replace)

    with pytest.raises(BackendUnavailable, match="No space left") as caught:
        ingest(connection, settings, [tmp_path / "in"])

    assert "Free some space" in caught.value.remedy
    [(batch_id, total)] = rows(connection, "SELECT id, total_uploads FROM upload_batches")
    assert total == 2
    assert f"Batch {batch_id} has the 2 files" in caught.value.message
    assert len([*settings.uploads.glob("*/*")]) == 2
    assert len(ready_batches(connection, limit=10, grace_seconds=900)) == 1


def test_an_upload_path_that_is_a_file_is_a_clear_error(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    settings.uploads.write_text("in the way")

    with pytest.raises(BackendUnavailable, match="Cannot write") as caught:
        ingest(connection, settings, [make_photo(tmp_path / "photo.jpg")])

    assert "UPLOAD_PATH" in caught.value.remedy
    assert rows(connection, "SELECT 1 FROM upload_batches") == []


def test_interrupting_keeps_what_was_accepted(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    for number in range(3):
        make_photo(tmp_path / "in" / f"{number}.jpg")

    def interrupt(done: int, total: int) -> None:
        if done == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ingest(connection, settings, [tmp_path / "in"], on_file=interrupt)

    assert rows(connection, "SELECT total_uploads FROM upload_batches") == [(1,)]


def test_the_first_batch_of_a_database_of_ours_gets_a_user_nobody_can_be(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    photo = make_photo(tmp_path / "photo.jpg")

    ingest(connection, settings, [photo])
    ingest(connection, settings, [photo])

    assert rows(connection, "SELECT email, password_hash FROM users") == [(DEMO_USER, "!")]


def test_the_only_user_owns_the_files(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    user_id = add_user(connection, "ada@example.org")

    ingest(connection, settings, [make_photo(tmp_path / "photo.jpg")])

    assert rows(connection, "SELECT user_id FROM upload_batches") == [(user_id,)]


@pytest.mark.parametrize("by", ["id", "email"])
def test_a_user_can_be_named(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto, by: str
) -> None:
    add_user(connection, "ada@example.org")
    user_id = add_user(connection, "grace@example.org")

    user = str(user_id) if by == "id" else "Grace@Example.org"
    ingest(connection, settings, [make_photo(tmp_path / "photo.jpg")], user=user)

    assert rows(connection, "SELECT user_id FROM uploads") == [(user_id,)]


@pytest.mark.parametrize(
    ("user", "code"),
    [
        (None, "which_user"),
        ("nobody@example.org", "no_such_user"),
        ("1b4e28ba-2fa1-4d2f-883f-0016d3cca427", "no_such_user"),
    ],
)
def test_an_unclear_user_is_a_clear_error(
    connection: Connection,
    settings: Settings,
    tmp_path: Path,
    make_photo: MakePhoto,
    user: str | None,
    code: str,
) -> None:
    add_user(connection, "ada@example.org")
    add_user(connection, "grace@example.org")

    with pytest.raises(UsageError) as caught:
        ingest(connection, settings, [make_photo(tmp_path / "photo.jpg")], user=user)

    assert caught.value.code == code
    assert_nothing_written(connection, settings)


def test_no_user_is_made_up_in_the_applications_database(
    connection: Connection, settings: Settings, tmp_path: Path, make_photo: MakePhoto
) -> None:
    connection.execute(
        "CREATE FUNCTION uuid_generate_v4() RETURNS uuid LANGUAGE sql AS 'SELECT gen_random_uuid()'"
    )
    connection.execute("ALTER TABLE users ALTER COLUMN id SET DEFAULT uuid_generate_v4()")

    with pytest.raises(UsageError) as caught:
        ingest(connection, settings, [make_photo(tmp_path / "photo.jpg")])

    assert caught.value.code == "no_user"
    assert rows(connection, "SELECT 1 FROM users") == []
