"""Where files are: paths from the database are not trusted to stay inside UPLOAD_PATH."""

from pathlib import Path
from uuid import UUID

from vuemantics_pipeline.errors import BackendUnavailable, UploadError

THUMBNAIL = "thumb_256.jpg"


def require_folder(root: Path) -> None:
    """Make sure of UPLOAD_PATH itself: without it, every file would seem to be deleted.

    Raises:
        BackendUnavailable: code 'storage_unavailable'.
    """
    if not root.is_dir():
        raise BackendUnavailable(
            "storage_unavailable",
            f"The upload folder {root} is not there.",
            "Mount it, or correct UPLOAD_PATH; the batch goes on by itself.",
        )


def resolve_upload(root: Path, file_path: str) -> Path:
    """Return the file that `uploads.file_path` names.

    Raises:
        UploadError: code 'path_outside_uploads'; the path is absolute, climbs with `..`, or
            leads out of `root` through a symlink.
    """
    try:
        path = (root / file_path).resolve()
        is_inside = path != root.resolve() and path.is_relative_to(root.resolve())
    except (OSError, ValueError, RuntimeError):  # NUL bytes, loops of symlinks, names too long
        is_inside = False
    if not is_inside or Path(file_path).is_absolute() or ".." in Path(file_path).parts:
        raise UploadError(
            "path_outside_uploads",
            "The file's path leads out of the upload folder, so it was not read.",
            "Correct uploads.file_path, or upload the file again.",
        )
    return path


def thumbnail_path(user_id: UUID, upload_id: UUID) -> str:
    """Return `uploads.thumbnail_path` of an upload, relative to UPLOAD_PATH."""
    return f"{user_id}/{upload_id}/{THUMBNAIL}"
