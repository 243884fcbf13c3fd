"""Sniffing a file's content and opening it, with every failure told apart by whose fault it is."""

import errno
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Literal

import av
import pillow_heif
from av.container import InputContainer

# Naming the plugins keeps Pillow from importing all of its forty to identify one file.
from PIL import (  # noqa: F401
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    JpegImagePlugin,
    MpoImagePlugin,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    WebPImagePlugin,
)

from vuemantics_pipeline.errors import BackendUnavailable, PipelineError, UploadError

# Depth maps and other pictures that come along are nothing to look at.
pillow_heif.register_heif_opener(depth_images=False, aux_images=False)

EXPORT_PHOTO = "Convert it to JPEG, or export it again, and upload that."
EXPORT_VIDEO = "Convert it to MP4, or export it again, and upload that."

_HEAD_BYTES = 4096
_ORIENTATION_TAG = 0x0112


@dataclass(frozen=True)
class Format:
    """A media format the pipeline accepts.

    Attributes:
        name: as `MediaInfo.format`.
        decoder: the Pillow format or FFmpeg demuxer that may open it; no other may.
    """

    file_type: Literal["image", "video"]
    name: str
    mime_type: str
    extension: str
    decoder: str


JPEG = Format("image", "JPEG", "image/jpeg", "jpg", "JPEG")
PNG = Format("image", "PNG", "image/png", "png", "PNG")
WEBP = Format("image", "WEBP", "image/webp", "webp", "WEBP")
HEIF = Format("image", "HEIF", "image/heic", "heic", "HEIF")
AVIF = Format("image", "AVIF", "image/avif", "avif", "AVIF")
GIF = Format("image", "GIF", "image/gif", "gif", "GIF")
TIFF = Format("image", "TIFF", "image/tiff", "tif", "TIFF")
BMP = Format("image", "BMP", "image/bmp", "bmp", "BMP")
MP4 = Format("video", "MP4", "video/mp4", "mp4", "mov")
MOV = Format("video", "MOV", "video/quicktime", "mov", "mov")
AVI = Format("video", "AVI", "video/x-msvideo", "avi", "avi")
WEBM = Format("video", "WEBM", "video/webm", "webm", "matroska")
FLV = Format("video", "FLV", "video/x-flv", "flv", "flv")
MPEG = Format("video", "MPEG", "video/mpeg", "mpg", "mpeg")
MPEG_ELEMENTARY = Format("video", "MPEG", "video/mpeg", "mpg", "mpegvideo")

_ACCEPTED = "Convert it to JPEG, PNG or HEIC for a photo, or MP4 for a video, and upload that."

_MAGIC: tuple[tuple[bytes, Format], ...] = (
    (b"\xff\xd8\xff", JPEG),
    (b"\x89PNG\r\n\x1a\n", PNG),
    (b"GIF87a", GIF),
    (b"GIF89a", GIF),
    (b"II*\x00", TIFF),
    (b"MM\x00*", TIFF),
    (b"II+\x00", TIFF),
    (b"MM\x00+", TIFF),
    (b"FLV\x01", FLV),
    (b"\x00\x00\x01\xba", MPEG),
    (b"\x00\x00\x01\xb3", MPEG_ELEMENTARY),
)

# What people upload by mistake, so that the message can call it by its name.
_OTHER_MAGIC: tuple[tuple[bytes, str], ...] = (
    (b"%PDF", "a PDF document"),
    (b"PK\x03\x04", "a ZIP archive or office document"),
    (b"8BPS", "a Photoshop document"),
    (b"\xff\x0a", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cJXL ", "a JPEG XL picture"),
    (b"\x00\x00\x00\x0cjP  ", "a JPEG 2000 picture"),
    (b"ID3", "a sound file"),
    (b"OggS", "an Ogg file"),
    (b"fLaC", "a sound file"),
    (b"\x30\x26\xb2\x75\x8e\x66\xcf\x11", "a Windows Media file"),
    (b"FUJIFILMCCD-RAW", "a camera raw file"),
    (b"\x1f\x8b", "a compressed archive"),
    (b"<svg", "an SVG drawing"),
    (b"<?xml", "an XML or SVG document"),
)

# Behind a TIFF's header: Canon's CR2, and Phase One's IIQ in either byte order.
_RAW_MARKS = (b"CR", b"IIII", b"MMMM")
_AVIF_BRANDS = {b"avif", b"avis"}
_HEIF_BRANDS = {b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"}
_QUICKTIME_ATOMS = {b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot"}
# Where the first packet of an MPEG transport stream has its sync byte, and bytes to the next one:
# broadcast, and camcorders' M2TS.
_TRANSPORT_PACKETS = ((0, 188), (4, 192))
# Sizes that a BMP's second header can have: "BM" alone also begins ordinary text.
_BMP_HEADER_SIZES = {12, 16, 40, 52, 56, 64, 108, 124}


def sniff(path: Path) -> Format:
    """Tell a file's format from its first bytes.

    Raises:
        UploadError: 'file_missing', 'empty_file' or 'unsupported_type'.
        BackendUnavailable: 'storage_unavailable', the folder cannot be read.
    """
    with open_file(path) as file:
        head = file.read(_HEAD_BYTES)
    if not head:
        raise UploadError("empty_file", "The file is empty.", "Upload it again.")
    if found := _identify(head):
        return found
    raise unsupported(_call_by_name(head))


def unsupported(kind: str) -> UploadError:
    """The error for a file that is `kind`, e.g. 'a PDF document'."""
    return UploadError(
        "unsupported_type", f"The file is {kind}, not a photo or video we can read.", _ACCEPTED
    )


def _identify(head: bytes) -> Format | None:
    for magic, format_ in _MAGIC:
        if head.startswith(magic):
            return None if format_ is TIFF and head.startswith(_RAW_MARKS, 8) else format_
    if head.startswith(b"RIFF"):
        return {b"WEBP": WEBP, b"AVI ": AVI}.get(head[8:12])
    if head.startswith(b"BM"):
        return BMP if int.from_bytes(head[14:18], "little") in _BMP_HEADER_SIZES else None
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return WEBM if b"\x42\x82\x84webm" in head else None
    if head[4:8] == b"ftyp":
        return _identify_brand(head)
    return MOV if head[4:8] in _QUICKTIME_ATOMS else None


def _identify_brand(head: bytes) -> Format | None:
    end = min(int.from_bytes(head[:4], "big"), len(head))
    major = head[8:12]
    brands = {major, *(head[at : at + 4] for at in range(16, end - 3, 4))}
    if major in _HEIF_BRANDS | _AVIF_BRANDS:
        # 'mif1' only says "a still picture"; the compatible brands say how it is coded.
        return AVIF if brands & _AVIF_BRANDS else HEIF
    if major in {b"crx ", b"jxl ", b"jp2 "}:
        return None
    return MOV if major == b"qt  " else MP4


def _call_by_name(head: bytes) -> str:
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "a Matroska (MKV) video"
    if head[4:12] == b"ftypcrx " or head.startswith(_RAW_MARKS, 8):
        return "a camera raw file"
    if any(head[at::size][:3] == b"GGG" for at, size in _TRANSPORT_PACKETS):
        return "an MPEG transport stream"
    for magic, name in _OTHER_MAGIC:
        if head.startswith(magic):
            return name
    # A character of several bytes may be cut at the end of what was read.
    text = head.decode(errors="ignore")
    is_text = b"\x00" not in head and len(text.encode()) >= len(head) - 3
    return "text" if is_text else "of an unknown kind"


@contextmanager
def open_file(path: Path) -> Iterator[BufferedReader]:
    """Open a stored upload for reading.

    Raises:
        UploadError: 'file_missing', or 'unsupported_type' for what is not a regular file.
        BackendUnavailable: 'storage_unavailable'.
    """
    with blame_file(path):
        # A FIFO would block for ever when opened.
        if not stat.S_ISREG(path.stat().st_mode):
            raise unsupported("a folder or device")
        file = path.open("rb")
    with file:
        yield file


@contextmanager
def open_image(path: Path, format_: Format, *, max_pixels: int) -> Iterator[Image.Image]:
    """Open an image, only as the format it was sniffed to be; its pixels are not decoded yet.

    Whatever goes wrong inside the `with` block is the file's fault too. One thread at a time:
    Pillow's limit on pixels and Python's warning filters belong to the whole process.

    Raises:
        UploadError: 'file_missing', 'unreadable_media' or 'too_many_pixels'.
        BackendUnavailable: 'storage_unavailable'.
    """
    limit = Image.MAX_IMAGE_PIXELS
    with open_file(path) as file, blame_file(path), warnings.catch_warnings():
        # Odd metadata in a sound photo is no concern of the person who took it.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        Image.MAX_IMAGE_PIXELS = max_pixels
        try:
            with Image.open(file, formats=[format_.decoder]) as image:
                check_pixels(image.width, image.height, max_pixels)
                yield image
        except (Image.DecompressionBombWarning, Image.DecompressionBombError) as error:
            raise _too_many_pixels(str(max_pixels)) from error
        finally:
            Image.MAX_IMAGE_PIXELS = limit


@contextmanager
def open_video(path: Path, format_: Format) -> Iterator[InputContainer]:
    """Open a video, only with the demuxer of the format it was sniffed to be.

    FFmpeg gets an open file and a demuxer's name, never a path, so that a playlist can make it
    open nothing else. Whatever goes wrong inside the `with` block is the file's fault too.

    Raises:
        UploadError: 'file_missing' or 'unreadable_media'.
        BackendUnavailable: 'storage_unavailable'.
    """
    with (
        open_file(path) as file,
        blame_file(path),
        av.open(file, "r", format=format_.decoder, metadata_errors="replace") as container,
    ):
        yield container


def check_pixels(width: int, height: int, max_pixels: int) -> None:
    """Raise UploadError 'too_many_pixels' or, for no pixels at all, 'unreadable_media'."""
    if width < 1 or height < 1:
        raise UploadError("unreadable_media", "The file has no picture size.", EXPORT_PHOTO)
    if width * height > max_pixels:
        raise _too_many_pixels(f"{max_pixels}; this one has {width} x {height}")


def _too_many_pixels(limit: str) -> UploadError:
    return UploadError(
        "too_many_pixels",
        f"The picture has more pixels than allowed ({limit}).",
        "Upload a smaller version, or raise VUEMANTICS_MAX_PIXELS.",
    )


def orientation(image: Image.Image) -> int:
    """What is still to be done to the pixels: an EXIF orientation (TIFF 6.0, tag 274), 1 to 8.

    1, nothing to do, also where it is absent or makes no sense.
    """
    if image.format == "TIFF":  # Pillow turns these upright by itself.
        return 1
    try:
        value = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # Pillow lets many kinds out of a damaged EXIF block.
        return 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


@contextmanager
def blame_file(path: Path) -> Iterator[None]:
    """Turn what decoders raise into an `UploadError`, and a failing disk into the opposite.

    Decoders raise far more than they document (OSError, ValueError, SyntaxError, struct.error,
    RuntimeError ...). Only an OSError with an errno, raised by Python itself, is the disk's:
    FFmpeg's errors carry errno values too, and files are opened by Python, not by FFmpeg.
    """
    try:
        yield
    except PipelineError:
        raise
    except MemoryError as error:
        raise UploadError(
            "unreadable_media", "Decoding the file needs more memory than there is.", EXPORT_PHOTO
        ) from error
    except av.FFmpegError as error:
        raise _unreadable(error, EXPORT_VIDEO) from error
    except OSError as error:
        if error.errno is None:
            raise _unreadable(error, EXPORT_PHOTO) from error
        if error.errno in {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}:
            raise UploadError(
                "file_missing", "The file was deleted before its turn.", "Upload it again."
            ) from error
        raise storage_unavailable(path.parent, "read", error) from error
    except Exception as error:
        raise _unreadable(error, EXPORT_PHOTO) from error


def _unreadable(error: Exception, remedy: str) -> UploadError:
    reason = _words(error)
    bracket = f" ({reason[:200]})" if reason else ""
    return UploadError("unreadable_media", f"The file is damaged or incomplete{bracket}.", remedy)


def _words(error: Exception) -> str:
    """What a decoder says is wrong, as far as it means something to a person."""
    if isinstance(error, UnidentifiedImageError):  # It tells the file's path, and no more.
        return ""
    if isinstance(error, av.FFmpegError):
        # FFmpeg's names for these are of the system's errors; nothing is wrong with the disk.
        if isinstance(error, av.EOFError):
            return "it ends too early"
        return "" if error.errno in {errno.EIO, errno.EINVAL} else error.strerror or ""
    return " ".join(str(error).split()) or type(error).__name__


def storage_unavailable(folder: Path, verb: str, error: OSError) -> BackendUnavailable:
    """The error for a folder that cannot be read or written ('read' or 'write')."""
    remedy = (
        "Free some space there; the batch goes on by itself."
        if error.errno in {errno.ENOSPC, errno.EDQUOT}
        else "Check that it is mounted and that the pipeline's user may read and write it."
    )
    return BackendUnavailable(
        "storage_unavailable", f"Cannot {verb} {folder}: {error.strerror or error}.", remedy
    )
