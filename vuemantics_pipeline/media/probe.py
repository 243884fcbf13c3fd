"""What a file is, read from its content: never from its name or a MIME header."""

import math
import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

import av
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import ExifTags, Image

from vuemantics_pipeline.errors import UploadError
from vuemantics_pipeline.media.content import (
    EXPORT_VIDEO,
    MPEG_ELEMENTARY,
    TIFF,
    Format,
    check_pixels,
    open_image,
    open_video,
    orientation,
    sniff,
    unsupported,
)

# TIFF 6.0 NewSubfileType, and Adobe's DNGVersion: raw files are TIFFs that begin with a preview.
_NEW_SUBFILE_TYPE, _REDUCED_RESOLUTION = 254, 1
_DNG_VERSION = 50706
_CAMERA_LENGTH = 80


@dataclass(frozen=True)
class MediaInfo:
    """What a file says about itself, without decoding all of it.

    Attributes:
        file_type: 'image' or 'video', as in `uploads.file_type`.
        format: e.g. 'JPEG', 'HEIF', 'MP4'.
        mime_type: of the content, e.g. 'image/jpeg'.
        extension: the extension files of this format get, without a dot, e.g. 'jpg'.
        width, height: pixels as a person sees them, orientation applied.
        taken_at: EXIF (or QuickTime) date and time, naive local time of the camera.
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
        BackendUnavailable: code 'storage_unavailable', the folder cannot be read.
    """
    format_ = sniff(path)
    if format_.file_type == "image":
        return _probe_image(path, format_, max_pixels)
    return _probe_video(path, format_, max_pixels)


def _probe_image(path: Path, format_: Format, max_pixels: int) -> MediaInfo:
    with open_image(path, format_, max_pixels=max_pixels) as image:
        if format_ is TIFF and _is_raw(image):
            raise unsupported("a camera raw file")
        width, height = image.size
        if orientation(image) >= 5:
            width, height = height, width
        taken_at, camera = _exif(image)
    return MediaInfo(
        file_type="image",
        format=format_.name,
        mime_type=format_.mime_type,
        extension=format_.extension,
        width=width,
        height=height,
        taken_at=taken_at,
        camera=camera,
    )


def _is_raw(image: Image.Image) -> bool:
    tags = image.getexif()
    return _DNG_VERSION in tags or tags.get(_NEW_SUBFILE_TYPE) == _REDUCED_RESOLUTION


def _exif(image: Image.Image) -> tuple[datetime | None, str | None]:
    try:
        exif = image.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
    except Exception:  # A damaged EXIF block is no reason to refuse a sound photo.
        return None, None
    taken_at = _date(details.get(ExifTags.Base.DateTimeOriginal)) or _date(
        details.get(ExifTags.Base.DateTimeDigitized)
    )
    return taken_at, _camera(exif.get(ExifTags.Base.Make), exif.get(ExifTags.Base.Model))


def _date(value: object) -> datetime | None:
    match = re.match(r"(\d{4}):(\d\d):(\d\d)[ T](\d\d):(\d\d):(\d\d)", str(value))
    if match is None:
        return None
    try:
        return datetime(*(int(part) for part in match.groups()))  # type: ignore[arg-type]
    except ValueError:
        return None


def _camera(make: object, model: object) -> str | None:
    maker, name = _words(make), _words(model)
    if maker and name.lower().startswith(maker.split()[0].lower()):
        maker = ""
    return f"{maker} {name}".strip()[:_CAMERA_LENGTH].strip() or None


def _words(value: object) -> str:
    """Printable text of an EXIF value: cameras pad with NUL, which Postgres refuses."""
    text = value if isinstance(value, str) else ""
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _probe_video(path: Path, format_: Format, max_pixels: int) -> MediaInfo:
    with open_video(path, format_) as container:
        stream = picture_stream(container)
        codec = stream.codec_context
        if codec.width and codec.height:
            check_pixels(codec.width, codec.height, max_pixels)
        frame = _first_frame(container, stream)
        check_pixels(frame.width, frame.height, max_pixels)
        width, height = frame.width, frame.height
        if frame.rotation % 180:
            width, height = height, width
        metadata = container.metadata
        return MediaInfo(
            file_type="video",
            format=format_.name,
            mime_type=format_.mime_type,
            extension=format_.extension,
            width=width,
            height=height,
            taken_at=_quicktime_date(metadata.get("com.apple.quicktime.creationdate")),
            camera=_camera(
                metadata.get("com.apple.quicktime.make"),
                metadata.get("com.apple.quicktime.model"),
            ),
            # An elementary stream does not say; FFmpeg would guess from its bit rate.
            duration_seconds=(None if format_ is MPEG_ELEMENTARY else _duration(container, stream)),
            video_codec=codec.codec.canonical_name,
        )


def picture_stream(container: InputContainer) -> VideoStream:
    """The stream with the moving picture; cover art of a sound file does not count.

    Raises:
        UploadError: 'unsupported_type', the file holds sound only.
    """
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise unsupported("a recording without a picture")


def _first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    frame = next(container.decode(stream), None)
    if frame is None:
        raise UploadError("unreadable_media", "The video holds no picture.", EXPORT_VIDEO)
    return frame


def _quicktime_date(value: str | None) -> datetime | None:
    """Local time out of QuickTime's 'creationdate', e.g. '2023-07-14T20:11:05+0200'."""
    return _date(value.replace("-", ":", 2)) if value else None


def _duration(container: InputContainer, stream: VideoStream) -> float | None:
    """Seconds of picture, or of the whole file; None where the file does not say."""
    candidates: list[float] = []
    if stream.duration is not None and stream.time_base is not None:
        candidates.append(float(stream.duration * stream.time_base))
    if container.duration is not None:
        candidates.append(container.duration / av.time_base)
    return next((s for s in candidates if s > 0 and math.isfinite(s)), None)
