"""Where the corpus runs: a home of its own, and around it what may be neither read nor changed."""

import os
import shutil
import socket
import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self
from unittest.mock import patch
from uuid import UUID, uuid4

from vuemantics_pipeline.home.processes import LOOPBACK
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.ingestion import (
    NewUpload,
    add_batch,
    add_upload,
    default_user,
    settle_total,
)
from vuemantics_pipeline.settings import Settings, load_settings, variable
from vuemantics_pipeline_tests.corpus.samples import Place, Sample
from vuemantics_pipeline_tests.corpus.sound import sound

# What a run may add to an upload's folder, and what it may remove: its own unfinished one.
_ADDED, _REMOVED = "thumb_256.jpg", ".thumb_256.jpg.part"
_LONG_AGO = 1_000_000_000  # seconds since 1970


@dataclass(frozen=True)
class SampleBatch:
    """A batch as it was added.

    Attributes:
        uploads: its samples by the upload each became.
        left_out: samples that this system cannot have, and why.
    """

    batch_id: UUID
    uploads: Mapping[UUID, Sample]
    left_out: Sequence[tuple[Sample, str]]


@dataclass
class Ground:
    """The folders of one run, and a server that nobody may ask."""

    folder: Path
    settings: Settings
    server: socket.socket
    _uploads: dict[Path, tuple[object, ...]] = field(default_factory=dict)
    _outside: dict[Path, tuple[object, ...]] = field(default_factory=dict)

    @property
    def outside(self) -> Path:
        return self.folder / "outside"

    def prepare(self) -> Self:
        for name in ("user", "temporary", "outside"):
            (self.folder / name).mkdir(parents=True)
        self.settings.uploads.mkdir()
        for name, extension in (("photo.jpg", "jpg"), ("film.mp4", "mp4")):
            path = self.outside / name
            path.write_bytes(sound(extension))
            # So long ago that the next access is noted on file systems that seldom do it.
            os.utime(path, (_LONG_AGO, _LONG_AGO))
        self._uploads = _entry(self.settings.uploads)
        self._outside = _tree(self.outside, accesses=True)
        return self

    def add_batch(self, connection: Connection, samples: Sequence[Sample]) -> SampleBatch:
        """Put samples under UPLOAD_PATH and add their rows, as the application would."""
        user_id = default_user(connection)
        batch_id = add_batch(connection, user_id, offered=len(samples) + 1)
        uploads: dict[UUID, Sample] = {}
        left_out: list[tuple[Sample, str]] = []
        host, port = self.server.getsockname()
        for sample in samples:
            upload_id = uuid4()
            folder = f"{user_id}/{upload_id}"
            path = self.settings.uploads / folder / f"original{sample.extension}"
            path.parent.mkdir(parents=True)
            try:
                sample.put(Place(path, self.outside, f"http://{host}:{port}"))
            except PermissionError as error:
                shutil.rmtree(path.parent)
                left_out.append((sample, f"making it needs more rights ({error.strerror})"))
                continue
            add_upload(connection, batch_id, user_id, self._row(sample, upload_id, path, folder))
            uploads[upload_id] = sample
            self._uploads |= _tree(path.parent)
        self._uploads |= _entry(self.settings.uploads / str(user_id))
        settle_total(connection, batch_id)
        return SampleBatch(batch_id, uploads, left_out)

    def _row(self, sample: Sample, upload_id: UUID, path: Path, folder: str) -> NewUpload:
        stored = str(path.relative_to(self.settings.uploads))
        if sample.file_path is not None:
            stored = sample.file_path.replace("{folder}", folder)
            stored = stored.replace("{outside}", str(self.outside))
        size = path.stat().st_size if path.is_file() else 0
        # What the client says of its file is as wrong as its name.
        return NewUpload(upload_id, sample.name, stored, "image", size, "image/jpeg", None)

    def trespasses(self) -> list[str]:
        """What was written where it must not be, or read where nobody has to look."""
        found = [
            f"{path.relative_to(self.settings.uploads)} was {what} in UPLOAD_PATH"
            for path, what in _changes(self._uploads, _tree(self.settings.uploads)).items()
            if not _is_thumbnail(path, what)
        ]
        found += [
            f"{path} was {what}"
            for path, what in _changes(self._outside, _tree(self.outside, accesses=True)).items()
        ]
        for name in ("user", "temporary"):
            found += [f"{path} was added" for path in sorted((self.folder / name).rglob("*"))]
        self.server.setblocking(False)
        try:
            caller, address = self.server.accept()
        except BlockingIOError:
            return found
        caller.close()
        return [*found, f"a connection was made from {address[0]}"]

    def notes_reading(self) -> bool:
        """Whether the file system tells when a file outside was read; ends what it watches."""
        path = self.outside / "photo.jpg"
        path.read_bytes()
        return path.stat().st_atime > _LONG_AGO


@contextmanager
def prepared(folder: Path, settings: Mapping[str, object]) -> Iterator[Ground]:
    """An empty ground in a folder, with an environment to match while the block runs.

    Args:
        settings: by field name.
    """
    shutil.rmtree(folder, ignore_errors=True)
    home = folder / "home"
    home.mkdir(parents=True)
    known = {variable(name) for name in Settings.model_fields}
    inherited = {
        name: value
        for name, value in os.environ.items()
        if name not in known and not name.startswith("XDG_")
    }
    ours = {
        "HOME": str(folder / "user"),
        "TMPDIR": str(folder / "temporary"),
        **{variable(name): str(value) for name, value in settings.items()},
        variable("home"): str(home),
    }
    with (
        patch.dict(os.environ, inherited | ours, clear=True),
        socket.create_server((LOOPBACK, 0)) as server,
    ):
        yield Ground(folder, load_settings(), server).prepare()


def _is_thumbnail(path: Path, what: str) -> bool:
    if what == "removed":
        return path.name == _REMOVED
    return what == "added" and path.name == _ADDED and path.is_file() and not path.is_symlink()


def _tree(folder: Path, *, accesses: bool = False) -> dict[Path, tuple[object, ...]]:
    """A folder and everything below it, with what changes when somebody writes (or reads) it."""
    found = _entry(folder)
    for path in folder.rglob("*"):
        found |= _entry(path, accesses=accesses)
    return found


def _entry(path: Path, *, accesses: bool = False) -> dict[Path, tuple[object, ...]]:
    status = path.lstat()
    # A folder changes with what is put into it, and that is compared by itself.
    if stat.S_ISDIR(status.st_mode):
        return {path: (status.st_mode, status.st_ino)}
    changing = (status.st_size, status.st_mtime_ns, status.st_atime_ns if accesses else 0)
    return {path: (status.st_mode, status.st_ino, *changing)}


def _changes(
    before: Mapping[Path, tuple[object, ...]], after: Mapping[Path, tuple[object, ...]]
) -> dict[Path, str]:
    changes = {path: "removed" for path in before if path not in after}
    changes |= {path: "added" for path in after if path not in before}
    changes |= {path: "changed" for path in before if path in after and before[path] != after[path]}
    return changes
