"""One file of the corpus: how it comes to lie under UPLOAD_PATH, and what must become of it."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

COMPLETED = "completed"
GENERATED = "generated"


@dataclass(frozen=True)
class Place:
    """Where a sample is put.

    Attributes:
        path: where `uploads.file_path` will point; the folder exists, the file does not.
        outside: a folder with a picture and a video that nobody may read or change.
        url: of a server that nobody may ask; it has no slash at its end.
    """

    path: Path
    outside: Path
    url: str


@dataclass(frozen=True)
class Sample:
    """A file of the corpus.

    Attributes:
        source: the part of the corpus it belongs to.
        name: `uploads.filename`, and what it is called in reports.
        put: makes the file, or whatever stands in its place. PermissionError: not on this system.
        expected: the outcomes that are right, 'completed' or error codes; empty: any of them.
        extension: of the stored file, with its dot.
        file_path: `uploads.file_path`, where it is not the one the application would write;
            `{folder}` stands for the upload's folder, `{outside}` for `Place.outside`.
        is_heavy: takes seconds, or hundreds of megabytes of memory or disk.
    """

    source: str
    name: str
    put: Callable[[Place], object]
    expected: frozenset[str] = frozenset()
    extension: str = ".jpg"
    file_path: str | None = None
    is_heavy: bool = False


def copy_of(file: Path, source: str, root: Path) -> Sample:
    """A sample that is a file on disk, named by its path below `root`."""
    suffix = file.suffix.lower()
    return Sample(
        source,
        str(file.relative_to(root)),
        lambda place: place.path.write_bytes(file.read_bytes()),
        extension=suffix if suffix[1:].isalnum() and suffix.isascii() else "",
    )


def made(
    name: str,
    make: Callable[[], bytes],
    *expected: str,
    extension: str | None = None,
    is_heavy: bool = False,
) -> Sample:
    """A generated sample: its bytes are made when they are needed."""
    return Sample(
        GENERATED,
        name,
        lambda place: place.path.write_bytes(make()),
        frozenset(expected),
        Path(name).suffix if extension is None else extension,
        is_heavy=is_heavy,
    )
