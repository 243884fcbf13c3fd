"""Brings files into a batch: collected, checked by their content, copied and recorded."""

import errno
import os
import shutil
import stat
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID, uuid4

from vuemantics_pipeline.errors import BackendUnavailable, UploadError, UsageError
from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.ledger.ingestion import (
    NewUpload,
    add_batch,
    add_upload,
    default_user,
    find_user,
    settle_total,
)
from vuemantics_pipeline.media.decoder import Decoder
from vuemantics_pipeline.printable import printable
from vuemantics_pipeline.settings import Settings

MAX_FILES = 1000
MAX_BYTES = 10 * 1024**3
"""Limits of one batch, the application's own."""

_CHUNK_BYTES = 1024**2


@dataclass(frozen=True)
class Refused:
    """A file that was left out.

    Attributes:
        file: its path as it was found, printable.
        reason: one sentence or two for a person.
    """

    file: str
    reason: str


@dataclass(frozen=True)
class Ingested:
    """What became of the files offered."""

    batch_id: UUID
    accepted: int
    refused: tuple[Refused, ...]


@dataclass
class _Found:
    """Files on their way into a batch, and those left out so far."""

    files: list[Path] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    seen: set[tuple[int, int]] = field(default_factory=set)
    total_bytes: int = 0

    def refuse(self, path: Path, reason: str) -> None:
        self.refused.append(Refused(printable(str(path)), reason))


def ingest(
    connection: Connection,
    settings: Settings,
    paths: Sequence[Path],
    *,
    user: str | None = None,
    on_file: Callable[[int, int], None] = lambda *_: None,
) -> Ingested:
    """Make one batch of files and of everything in folders.

    The batch can be taken by the sensor only when this function has ended. It may end with
    fewer uploads than files offered, or with none at all.

    Args:
        user: e-mail address or id of the owner; by default the only user there is.
        on_file: called with (files done, files in all) before the first file and after each.

    Raises:
        UsageError: nothing was written: a path is missing or cannot be read, there are no files,
            or more than a batch may hold, or the user is not clear.
        BackendUnavailable: the disk is full, the database is gone or no decoder can be started;
            files accepted until then stay in the batch.
    """
    found = _collect(paths)
    owner = default_user(connection) if user is None else find_user(connection, user)
    _prepare_folder(settings.uploads)
    batch_id = add_batch(connection, owner, offered=len(found.files))
    decoder = Decoder(
        seconds=settings.decode_seconds, memory_bytes=settings.decode_memory_mib << 20
    )
    accepted = 0
    try:
        on_file(0, len(found.files))
        for done, path in enumerate(found.files, start=1):
            try:
                upload = _take(path, settings, owner, decoder)
            except UploadError as error:
                found.refuse(path, str(error))
            else:
                add_upload(connection, batch_id, owner, upload)
                accepted += 1
            on_file(done, len(found.files))
    except BackendUnavailable as error:
        so_far = f"Batch {batch_id} has the {accepted} files that were accepted before."
        raise BackendUnavailable(error.code, f"{error.message} {so_far}", error.remedy) from error
    finally:
        decoder.close()
        settle_total(connection, batch_id)
    return Ingested(batch_id, accepted, tuple(found.refused))


def _collect(paths: Sequence[Path]) -> _Found:
    found = _Found()
    for path in paths:
        if not os.path.lexists(path):
            raise UsageError(
                "no_such_path",
                f"There is no file or folder {printable(str(path))}.",
                "Check the path; quote it if it has spaces.",
            )
        if path.is_dir():
            try:
                _collect_folder(path, _realpath(path), found)
            except OSError as error:
                raise UsageError(
                    "unreadable_folder",
                    f"The folder {printable(str(path))} cannot be read: {error.strerror}.",
                    "Give yourself the right to read it, or name another.",
                ) from error
        else:
            _collect_file(path, found)
    _check_limits(paths, found)
    return found


def _collect_folder(folder: Path, root: Path, found: _Found) -> None:
    for path in sorted(folder.iterdir()):
        if path.name.startswith("."):
            found.refuse(path, "Hidden files and folders are left out.")
        elif path.is_symlink() and not _realpath(path).is_relative_to(root):
            found.refuse(path, "The link leads out of the folder that was named.")
        elif path.is_symlink() and path.is_dir():
            found.refuse(path, "Links to folders are not followed.")
        elif path.is_dir():
            try:
                _collect_folder(path, root, found)
            except OSError as error:
                found.refuse(path, f"The folder cannot be read: {error.strerror}.")
        else:
            _collect_file(path, found)


def _realpath(path: Path) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve, it bears loops of links


def _collect_file(path: Path, found: _Found) -> None:
    try:
        status = path.stat()
    except OSError as error:
        found.refuse(path, f"The file cannot be read: {error.strerror}.")
        return
    if not stat.S_ISREG(status.st_mode):
        found.refuse(path, "This is a socket, pipe or device, not a file.")
    elif (status.st_dev, status.st_ino) in found.seen:
        found.refuse(path, "The same file was named before.")
    else:
        found.seen.add((status.st_dev, status.st_ino))
        found.files.append(path)
        found.total_bytes += status.st_size


def _check_limits(paths: Sequence[Path], found: _Found) -> None:
    if not found.files:
        names = ", ".join(printable(str(path)) for path in paths)
        left_out = "".join(f" {refused.file}: {refused.reason}" for refused in found.refused[:3])
        raise UsageError(
            "no_files",
            f"There are no files to ingest in {names}.{left_out}",
            "Name photos or videos, or a folder that holds some.",
        )
    if len(found.files) > MAX_FILES:
        raise UsageError(
            "too_many_files",
            f"{len(found.files)} files were offered; a batch holds at most {MAX_FILES}.",
            "Ingest them folder by folder.",
        )
    if found.total_bytes > MAX_BYTES:
        raise UsageError(
            "batch_too_large",
            f"The files have {found.total_bytes / 1024**3:.1f} GB; a batch holds at most "
            f"{MAX_BYTES // 1024**3} GB.",
            "Ingest them in parts.",
        )


def _take(path: Path, settings: Settings, owner: UUID, decoder: Decoder) -> NewUpload:
    """Check one file and copy it into UPLOAD_PATH.

    Raises:
        UploadError: the file is at fault.
        BackendUnavailable: UPLOAD_PATH is, or the decoder.
    """
    try:
        info = decoder.probe(path, max_pixels=settings.max_pixels)
    except BackendUnavailable as error:
        if error.code != "storage_unavailable":
            raise
        # Here it is only this file, in somebody's own folder, that cannot be read.
        raise UploadError(error.code, error.message, "Check its permissions.") from error
    upload_id = uuid4()
    file_path = f"{owner}/{upload_id}/original.{info.extension}"
    size = _copy(path, settings.uploads / file_path)
    return NewUpload(
        upload_id=upload_id,
        filename=printable(path.name),
        file_path=file_path,
        file_type=info.file_type,
        file_size=size,
        mime_type=info.mime_type,
        video_codec=info.video_codec,
    )


def _copy(source: Path, target: Path) -> int:
    """Copy a file, wholly or not at all, and return its size in bytes.

    Nothing is synced to disk: after a power cut an upload that is cut short fails by itself.
    """
    part = target.with_suffix(".part")
    try:
        with _writing(target.parent):
            target.parent.mkdir(parents=True)
            with part.open("xb") as output:
                for chunk in _chunks(source):
                    output.write(chunk)
            part.chmod(0o644)
            part.replace(target)
            return target.stat().st_size
    except BaseException:
        shutil.rmtree(target.parent, ignore_errors=True)
        raise


def _chunks(source: Path) -> Iterator[bytes]:
    try:
        with source.open("rb") as file:
            while chunk := file.read(_CHUNK_BYTES):
                yield chunk
    except OSError as error:
        raise UploadError(
            "unreadable_file",
            f"The file cannot be read: {error.strerror}.",
            "Copy it from its source again.",
        ) from error


def _prepare_folder(uploads: Path) -> None:
    with _writing(uploads):
        uploads.mkdir(parents=True, exist_ok=True)
        if not os.access(uploads, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


@contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = (
            "Free some space there, then ingest the rest."
            if error.errno in (errno.ENOSPC, errno.EDQUOT)
            else "Make it a folder that you may write to, or set UPLOAD_PATH to one."
        )
        raise BackendUnavailable(
            "storage_unavailable", f"Cannot write {folder}: {error.strerror}.", remedy
        ) from error
