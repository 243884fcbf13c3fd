"""The corpus itself: its files are the same every time, and its checks can fail."""

import socket
import struct
import zlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from uuid import uuid4

import pytest

from vuemantics_pipeline_tests.corpus.gather import CannotFetch, Corpus, _deb_src
from vuemantics_pipeline_tests.corpus.generate import generated
from vuemantics_pipeline_tests.corpus.ground import Ground, prepared
from vuemantics_pipeline_tests.corpus.pictures import png
from vuemantics_pipeline_tests.corpus.run import Result, Row, _problems
from vuemantics_pipeline_tests.corpus.samples import COMPLETED, Place, Sample, copy_of, made
from vuemantics_pipeline_tests.corpus.sound import MAKERS, sound


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    with prepared(tmp_path / "run", {}) as made_ground:
        yield made_ground


def put(sample: Sample, folder: Path) -> bytes:
    folder.mkdir()
    place = Place(folder / "original", folder, "http://127.0.0.1:1")
    sample.put(place)
    return place.path.read_bytes()


def test_no_two_samples_share_a_name() -> None:
    names = [sample.name for sample in generated(heavy=True)]
    assert len(set(names)) == len(names)
    assert len(generated(heavy=False)) < len(names)


@pytest.mark.parametrize("start", ["changed_", "7_of_8.", "exif_", "tags_"])
def test_a_sample_is_the_same_every_time(start: str, tmp_path: Path) -> None:
    def chosen() -> list[Sample]:
        return [sample for sample in generated(heavy=False) if sample.name.startswith(start)]

    # Of the same sound files: x264 now and then writes another film of the same frames.
    first = [put(sample, tmp_path / f"{number}") for number, sample in enumerate(chosen())]
    second = [put(sample, tmp_path / f"again {number}") for number, sample in enumerate(chosen())]
    assert first
    assert first == second


@pytest.mark.parametrize("extension", sorted(MAKERS.keys() - {"mp4"}))
def test_a_sound_file_is_encoded_the_same_every_time(extension: str) -> None:
    assert MAKERS[extension]() == MAKERS[extension]()


@pytest.mark.parametrize("extension", MAKERS)
def test_what_is_damaged_was_sound(extension: str) -> None:
    changed = {sample.name: sample for sample in generated(heavy=False)}
    assert changed[f"sound.{extension}"].expected == {COMPLETED}
    assert len(sound(extension)) > 1000


def test_crafted_png_has_right_lengths_and_checksums() -> None:
    body = png((b"tEXt", b"k\0v"))
    length = struct.unpack(">I", body[8:12])[0]
    assert (length, body[12:16]) == (3, b"tEXt")
    assert struct.unpack(">I", body[19:23])[0] == zlib.crc32(b"tEXtk\0v")


def test_ground_reports_what_was_written_outside(ground: Ground) -> None:
    assert ground.trespasses() == []
    (ground.outside / "photo.jpg").write_bytes(b"overwritten")
    (ground.folder / "user" / "left.txt").touch()
    (ground.folder / "temporary" / "left.txt").touch()
    (ground.settings.uploads / "stray.txt").touch()

    found = ground.trespasses()

    assert len(found) == 4
    assert any("photo.jpg was changed" in line for line in found)
    assert any("stray.txt was added in UPLOAD_PATH" in line for line in found)


def test_ground_bears_thumbnails_but_no_links_in_their_place(ground: Ground) -> None:
    for number in range(2):
        (ground.settings.uploads / str(number)).mkdir()
    (ground.settings.uploads / "0" / "thumb_256.jpg").touch()
    (ground.settings.uploads / "1" / "thumb_256.jpg").symlink_to(ground.outside)
    found = [line for line in ground.trespasses() if "thumb_256" in line]
    assert len(found) == 1
    assert found[0].startswith("1/")


def test_ground_reports_a_connection(ground: Ground) -> None:
    with socket.create_connection(ground.server.getsockname()):
        assert ground.trespasses() == ["a connection was made from 127.0.0.1"]


def test_ground_reports_a_reader(ground: Ground) -> None:
    if not ground.notes_reading():
        pytest.skip("This file system keeps no times of access.")
    assert any("photo.jpg was changed" in line for line in ground.trespasses())


ROW = Row(
    upload_id=uuid4(),
    status="failed",
    code="unreadable_media",
    message="The file is damaged.",
    remedy="Export it again.",
    attempts=2,
    deaths=0,
    runs=1,
    seconds=1.0,
    file_size=1,
    format=None,
    width=None,
    height=None,
    video_codec=None,
    duration_seconds=None,
)
SAMPLE = made("a.jpg", bytes, "unreadable_media")


def wrong(row: Row) -> list[str]:
    """The checks that a result does not pass."""
    found = _problems([Result(SAMPLE, row)], decode_seconds=20)
    return [check for check, problems in found.items() if problems]


def test_a_failure_with_reason_and_remedy_is_no_problem() -> None:
    assert wrong(ROW) == []


@pytest.mark.parametrize(
    ("row", "checks"),
    [
        (replace(ROW, status="pending"), ["every file is completed", "generated files end"]),
        (replace(ROW, remedy=""), ["every file is completed"]),
        (replace(ROW, message=None), ["every file is completed"]),
        (replace(ROW, code="internal_error"), ["no file finds", "generated files end"]),
        (replace(ROW, message="cannot identify <_io.BufferedReader>"), ["every reason"]),
        (replace(ROW, message="'NoneType' object"), ["every reason"]),
        (replace(ROW, status="completed", code=None), ["generated files end"]),
        (replace(ROW, deaths=1), ["no worker dies"]),
        (replace(ROW, runs=2), ["every batch ends"]),
        (replace(ROW, seconds=36.0), ["no attempt takes longer"]),
    ],
)
def test_each_check_can_fail(row: Row, checks: list[str]) -> None:
    found = wrong(row)
    assert len(found) == len(checks)
    assert all(name.startswith(start) for name, start in zip(found, checks, strict=True))


def test_a_corpus_that_cannot_be_had_says_why(tmp_path: Path) -> None:
    def fail(folder: Path) -> None:
        raise CannotFetch("no network")

    with pytest.raises(CannotFetch, match="no network"):
        Corpus("x", fail, ["*"]).samples(tmp_path)
    with pytest.raises(CannotFetch, match="has no a/"):
        Corpus("y", lambda folder: None, ["a/*"]).samples(tmp_path)


def test_a_corpus_is_fetched_once(tmp_path: Path) -> None:
    fetched = []

    def fetch(folder: Path) -> None:
        fetched.append(folder)
        (folder / "a.JPG").write_bytes(b"x")

    corpus = Corpus("x", fetch, ["*"])
    assert [sample.name for sample in corpus.samples(tmp_path)] == ["a.JPG"]
    assert [sample.extension for sample in corpus.samples(tmp_path)] == [".jpg"]
    assert len(fetched) == 1


def test_a_copied_file_gets_no_odd_extension(tmp_path: Path) -> None:
    assert copy_of(tmp_path / "fuzzer-1234", "x", tmp_path).extension == ""
    assert copy_of(tmp_path / "a.jp\u0660\u00e9", "x", tmp_path).extension == ""


def test_debian_sources_of_both_notations_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vuemantics_pipeline_tests.corpus.gather._release", lambda: "bookworm")
    (tmp_path / "sources.list.d").mkdir()
    (tmp_path / "sources.list").write_text(
        "# deb file:/a bookworm main\n"
        "deb [arch=amd64 signed-by=/key] file:/one bookworm main contrib\n"
        "deb file:/other elsewhere main\n"
    )
    (tmp_path / "sources.list.d" / "two.sources").write_text(
        "Types: deb\n# a comment\nURIs: file:/two\nSuites: bookworm bookworm-updates\n"
        "Components: main\nSigned-By:\n a key\n of two lines\n"
    )

    found = _deb_src(tmp_path)

    assert found.count("Types: deb-src") == 2
    assert "URIs: file:/one\nSuites: bookworm\nComponents: main contrib\nSigned-By: /key" in found
    assert "URIs: file:/two" in found
    assert "\n a key\n of two lines" in found
    assert "file:/other" not in found
    assert "file:/a " not in found


def test_without_debian_sources_it_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("vuemantics_pipeline_tests.corpus.gather._release", lambda: "bookworm")
    with pytest.raises(CannotFetch, match="no Debian sources"):
        _deb_src(tmp_path)
