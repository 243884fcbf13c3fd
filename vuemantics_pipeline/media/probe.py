"""What a file is, read from its content: never from its name or a MIME header."""

import re
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Literal

from PIL import ExifTags, Image

from vuemantics_pipeline.media.content import (
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
from vuemantics_pipeline.media.videos import (
    claimed_frame_rate,
    claimed_seconds,
    first_frame,
    picture_stream,
    rotation,
    shown_size,
)

# TIFF 6.0 NewSubfileType, and Adobe's DNGVersion: raw files are TIFFs that begin with a preview.
_NEW_SUBFILE_TYPE, _REDUCED_RESOLUTION = 254, 1
_DNG_VERSION = 50706
_CAMERA_LENGTH = 80
# Where QuickTime, MP4 and Android keep ISO 6709 coordinates.
_VIDEO_POSITION = ("com.apple.quicktime.location.ISO6709", "location", "location-eng")


@dataclass(frozen=True)
class MediaInfo:
    """What a file says about itself, without decoding all of it.

    Attributes:
        file_type: 'image' or 'video', as in `uploads.file_type`.
        format: e.g. 'JPEG', 'HEIF', 'MP4'.
        mime_type: of the content, e.g. 'image/jpeg'.
        extension: the extension files of this format get, without a dot, e.g. 'jpg'.
        width, height: pixels as a person sees them: turned upright, pixels made square.
        taken_at: EXIF (or QuickTime) date and time, naive local time of the camera.
        camera: maker and model, e.g. 'Canon EOS 5D'.
        duration_seconds: videos only, as their header says.
        video_codec: videos only; 'h264', 'hevc', 'vp9', 'av1', or another canonical name of FFmpeg.
        has_gps: whether the file says where it was taken; the place itself is not read.
        frame_rate: videos only, frames per second on average, as their header says.
        rotation: videos only, degrees that a player turns the stored picture clockwise: 0, 90, 180
            or 270.
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
    has_gps: bool = False
    frame_rate: float | None = None
    rotation: int | None = None


def probe(path: Path, *, max_pixels: int) -> MediaInfo:
    """Identify a media file by its content.

    Raises:
        UploadError: code 'file_missing', 'empty_file', 'unsupported_type', 'unreadable_media'
            or 'too_many_pixels'.
        BackendUnavailable: code 'storage_unavailable', the folder cannot be read.
    """
    format_ = sniff(path)
    if format_.file_type == "image":
        with open_image(path, format_, max_pixels=max_pixels) as image:
            return image_info(image, format_)
    return _probe_video(path, format_, max_pixels)


def image_info(image: Image.Image, format_: Format) -> MediaInfo:
    """What `probe` says of an image that is open already."""
    if format_ is TIFF and _is_raw(image):
        raise unsupported("a camera raw file")
    width, height = image.size
    if orientation(image) >= 5:
        width, height = height, width
    taken_at, camera, has_gps = _exif(image)
    return MediaInfo(
        file_type="image",
        format=format_.name,
        mime_type=format_.mime_type,
        extension=format_.extension,
        width=width,
        height=height,
        taken_at=taken_at,
        camera=camera,
        has_gps=has_gps,
    )


def _is_raw(image: Image.Image) -> bool:
    tags = image.getexif()
    return _DNG_VERSION in tags or tags.get(_NEW_SUBFILE_TYPE) == _REDUCED_RESOLUTION


def _exif(image: Image.Image) -> tuple[datetime | None, str | None, bool]:
    """When it was taken, with which camera, and whether it says where."""
    try:
        exif = image.getexif()
        details = exif.get_ifd(ExifTags.IFD.Exif)
        position = exif.get_ifd(ExifTags.IFD.GPSInfo)
    except Exception:  # A damaged EXIF block is no reason to refuse a sound photo.
        return None, None, False
    taken_at = _date(details.get(ExifTags.Base.DateTimeOriginal)) or _date(
        details.get(ExifTags.Base.DateTimeDigitized)
    )
    camera = _camera(exif.get(ExifTags.Base.Make), exif.get(ExifTags.Base.Model))
    return taken_at, camera, ExifTags.GPS.GPSLatitude in position


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
        frame = first_frame(container, stream)
        check_pixels(frame.width, frame.height, max_pixels)
        width, height = shown_size(frame, stream)
        check_pixels(width, height, max_pixels)
        turned = rotation(frame)
        if turned % 180:
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
            has_gps=any(key in metadata for key in _VIDEO_POSITION),
            # An elementary stream does not say; FFmpeg would guess from its bit rate.
            duration_seconds=(
                None if format_ is MPEG_ELEMENTARY else claimed_seconds(container, stream)
            ),
            frame_rate=claimed_frame_rate(stream),
            rotation=turned,
            video_codec=codec.codec.canonical_name,
        )


def _quicktime_date(value: str | None) -> datetime | None:
    """Local time out of QuickTime's 'creationdate', e.g. '2023-07-14T20:11:05+0200'."""
    return _date(value.replace("-", ":", 2)) if value else None
