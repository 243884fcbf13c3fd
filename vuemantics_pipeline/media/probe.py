"""What a file is, read from its content: never from its name or a MIME header."""

from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class MediaInfo:
    """What a file says about itself, without decoding all of it.

    Attributes:
        file_type: 'image' or 'video', as in `uploads.file_type`.
        format: e.g. 'JPEG', 'HEIF', 'MP4'.
        mime_type: of the content, e.g. 'image/jpeg'.
        extension: the extension files of this format get, without a dot, e.g. 'jpg'.
        width, height: pixels as a person sees them, orientation applied.
        taken_at: EXIF date and time, naive local time of the camera.
        camera: maker and model, e.g. 'Canon EOS 5D'.
        duration_seconds, video_codec: videos only; codec as 'h264', 'hevc', 'vp9', 'av1', ...
    """

    file_type: Literal["image", "video"]
    format: str
    mime_type: str
    extension: str
    width: int
    height: int
    taken_at: datetime | None = None
    camera: str | None = None
    duration_seconds: float | None = None
    video_codec: str | None = None


def probe(path: Path, *, max_pixels: int) -> MediaInfo:
    """Identify a media file by its content.

    Raises:
        UploadError: code 'file_missing', 'empty_file', 'unsupported_type', 'unreadable_media'
            or 'too_many_pixels'.
    """
    raise NotImplementedError
