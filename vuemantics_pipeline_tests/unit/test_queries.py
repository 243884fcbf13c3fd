"""SQL in named files."""

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from vuemantics_pipeline.ledger import queries as module
from vuemantics_pipeline.ledger.queries import queries

SQL = Path(module.__file__).parent / "sql"
FILES = sorted(path.stem for path in SQL.glob("*.sql"))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder `sql` to write test files into."""
    monkeypatch.setattr("vuemantics_pipeline.ledger.queries.resources.files", lambda _: tmp_path)
    queries.cache_clear()
    (tmp_path / "sql").mkdir()
    yield tmp_path / "sql"
    queries.cache_clear()


def test_queries_by_name(folder: Path) -> None:
    (folder / "some.sql").write_text(
        "-- What stands before the first name is nobody's.\n"
        "-- name: first\n-- A comment of its own.\nSELECT 1\n\n"
        "-- name: second\nSELECT 2;\nSELECT 3;\n"
    )
    assert queries("some") == {
        "first": "-- A comment of its own.\nSELECT 1",
        "second": "SELECT 2;\nSELECT 3;",
    }


def test_a_name_inside_a_line_is_no_heading(folder: Path) -> None:
    (folder / "some.sql").write_text("-- name: only\nSELECT '-- name: no' -- name: neither\n")
    assert list(queries("some")) == ["only"]


def test_two_of_a_name(folder: Path) -> None:
    (folder / "some.sql").write_text("-- name: same\nSELECT 1\n-- name: same\nSELECT 2\n")
    with pytest.raises(ValueError, match="names a query twice"):
        queries("some")


def test_no_such_file() -> None:
    with pytest.raises(FileNotFoundError):
        queries("nothing")


@pytest.mark.parametrize("file", FILES)
def test_every_file_reads(file: str) -> None:
    assert all(queries(file).values())


@pytest.mark.parametrize("file", FILES)
def test_every_query_is_used(file: str) -> None:
    sources = [path.read_text() for path in SQL.parent.parent.rglob("*.py")]
    users = [source for source in sources if f'queries("{file}")' in source]
    used = {name for source in users for name in re.findall(r'_SQL\["(\w+)"\]', source)}
    assert set(queries(file)) <= used
