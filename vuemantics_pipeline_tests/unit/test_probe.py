"""probe: what a file is, whatever it is called."""

import os
import shutil
import struct
from datetime import datetime
from pathlib import Path

import pillow_heif
import pytest
from PIL import Image

from vuemantics_pipeline.errors import BackendUnavailable, UploadError
from vuemantics_pipeline.media.probe import probe
from vuemantics_pipeline_tests.unit.media_files import corner_image, png_chunk, write_video

MAX_PIXELS = 1_000_000
SAMPLES = Path(__file__).parents[2] / "vuemantics_pipeline" / "home" / "samples"

pillow_heif.register_heif_opener()


def failure(path: Path, max_pixels: int = MAX_PIXELS) -> UploadError:
    with pytest.raises(UploadError) as caught:
        probe(path, max_pixels=max_pixels)
    assert caught.value.remedy
    return caught.value


@pytest.mark.parametrize(
    ("pillow_format", "format_", "mime_type", "extension"),
    [
        ("JPEG", "JPEG", "image/jpeg", "jpg"),
        ("PNG", "PNG", "image/png", "png"),
        ("WEBP", "WEBP", "image/webp", "webp"),
        ("HEIF", "HEIF", "image/heic", "heic"),
        ("AVIF", "AVIF", "image/avif", "avif"),
        ("GIF", "GIF", "image/gif", "gif"),
        ("TIFF", "TIFF", "image/tiff", "tif"),
        ("BMP", "BMP", "image/bmp", "bmp"),
    ],
)
def test_an_image_is_known_by_its_content(
    tmp_path: Path, pillow_format: str, format_: str, mime_type: str, extension: str
) -> None:
    path = tmp_path / "holiday.txt"
    corner_image().save(path, pillow_format)

    info = probe(path, max_pixels=MAX_PIXELS)

    assert (info.file_type, info.format, info.mime_type) == ("image", format_, mime_type)
    assert (info.extension, info.width, info.height) == (extension, 80, 40)
    assert (info.taken_at, info.camera) == (None, None)
    assert (info.duration_seconds, info.video_codec) == (None, None)


@pytest.mark.parametrize(
    ("container", "codec", "format_", "extension", "video_codec"),
    [
        ("mp4", "libx264", "MP4", "mp4", "h264"),
        ("mp4", "libx265", "MP4", "mp4", "hevc"),
        ("mov", "libx264", "MOV", "mov", "h264"),
        ("avi", "mpeg4", "AVI", "avi", "mpeg4"),
        ("webm", "libvpx-vp9", "WEBM", "webm", "vp9"),
        ("flv", "flv", "FLV", "flv", "flv1"),
        ("mpeg", "mpeg1video", "MPEG", "mpg", "mpeg1video"),
    ],
)
def test_a_video_is_known_by_its_content(
    tmp_path: Path, container: str, codec: str, format_: str, extension: str, video_codec: str
) -> None:
    path = write_video(tmp_path / "clip.jpg", codec=codec, container=container, frames=50, rate=25)

    info = probe(path, max_pixels=MAX_PIXELS)

    assert (info.file_type, info.format, info.extension) == ("video", format_, extension)
    assert (info.width, info.height) == (64, 48)
    assert info.video_codec == video_codec
    assert info.duration_seconds == pytest.approx(2.0, abs=0.2)
    assert info.frame_rate == 25.0
    assert not info.has_gps


def test_a_stored_rotation_swaps_width_and_height(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    corner_image().save(tmp_path / "photo", "JPEG", exif=exif)
    write_video(tmp_path / "clip", container="mp4", rotation=90)

    photo = probe(tmp_path / "photo", max_pixels=MAX_PIXELS)
    clip = probe(tmp_path / "clip", max_pixels=MAX_PIXELS)

    assert (photo.width, photo.height) == (40, 80)
    assert (clip.width, clip.height) == (48, 64)
    assert (photo.rotation, clip.rotation) == (None, 270)


@pytest.mark.parametrize(
    ("container", "key"),
    [("mp4", "location"), ("mov", "com.apple.quicktime.location.ISO6709")],
)
def test_whether_a_video_says_where_it_was_taken(tmp_path: Path, container: str, key: str) -> None:
    options = {"movflags": "use_metadata_tags"} if "." in key else {}
    for name, metadata in (("with", {key: "+48.8584+002.2945/"}), ("without", {})):
        write_video(tmp_path / name, container=container, options=options, metadata=metadata)

    assert probe(tmp_path / "with", max_pixels=MAX_PIXELS).has_gps
    assert not probe(tmp_path / "without", max_pixels=MAX_PIXELS).has_gps


def test_exif_date_and_camera(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x010F], exif[0x0110] = "Canon\x00", "Canon EOS 5D\x00\x00"
    exif.get_ifd(0x8769)[0x9003] = "2019:07:14 20:11:05"
    corner_image().save(tmp_path / "photo.jpg", exif=exif)

    info = probe(tmp_path / "photo.jpg", max_pixels=MAX_PIXELS)

    assert info.taken_at == datetime(2019, 7, 14, 20, 11, 5)
    assert info.camera == "Canon EOS 5D"


@pytest.mark.parametrize("date", ["0000:00:00 00:00:00", "    :  :     :  :  ", "yesterday", ""])
def test_a_date_that_is_none_is_left_out(tmp_path: Path, date: str) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8769)[0x9003] = date
    corner_image().save(tmp_path / "photo.jpg", exif=exif)

    assert probe(tmp_path / "photo.jpg", max_pixels=MAX_PIXELS).taken_at is None


def test_damaged_exif_does_not_cost_the_photo(tmp_path: Path) -> None:
    path = tmp_path / "photo.jpg"
    corner_image().save(path, exif=b"Exif\x00\x00II*\x00\x08\x00\x00\x00\xff\xff" + b"\x12\x01" * 9)

    assert probe(path, max_pixels=MAX_PIXELS).width == 80


@pytest.mark.parametrize(
    ("content", "called"),
    [
        (b"Dear all,\nplease find attached", "text"),
        ("Grüße aus dem Urlaub".encode() * 400, "text"),
        (b"BMW sold 2.45 million cars", "text"),
        (b"%PDF-1.7\n", "a PDF document"),
        (b"PK\x03\x04rest", "a ZIP archive"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "an SVG drawing"),
        (b"#EXTM3U\n#EXT-X-VERSION:3\nhttp://127.0.0.1/x.ts\n", "text"),
        (b"\x1a\x45\xdf\xa3\x93\x42\x82\x88matroska", "a Matroska (MKV) video"),
        (b"\x00\x00\x00\x18ftypcrx \x00\x00\x00\x01crx isom", "a camera raw file"),
        (b"II*\x00\x10\x00\x00\x00CR\x02\x00", "a camera raw file"),
        (b"\x00" * 64, "of an unknown kind"),
        (b"\x80\x81\x82\x83" * 9, "of an unknown kind"),
    ],
)
def test_what_is_no_photo_or_video_is_named(tmp_path: Path, content: bytes, called: str) -> None:
    path = tmp_path / "photo.jpg"
    path.write_bytes(content)

    error = failure(path)

    assert error.code == "unsupported_type"
    assert f"The file is {called}" in error.message


def test_a_raw_photo_is_not_taken_for_its_preview(tmp_path: Path) -> None:
    corner_image().save(tmp_path / "photo.dng", "TIFF", tiffinfo={254: 1})

    assert failure(tmp_path / "photo.dng").code == "unsupported_type"


def test_a_sound_recording_is_no_video(tmp_path: Path) -> None:
    import av

    path = tmp_path / "song.mp4"
    with av.open(str(path), "w") as output:
        stream = output.add_stream("aac", rate=44100)
        frame = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        frame.sample_rate = 44100
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))

    error = failure(path)

    assert error.code == "unsupported_type"
    assert "without a picture" in error.message


def test_an_empty_file(tmp_path: Path) -> None:
    (tmp_path / "photo.jpg").touch()

    assert failure(tmp_path / "photo.jpg").code == "empty_file"


def test_a_file_that_is_gone(tmp_path: Path) -> None:
    error = failure(tmp_path / "nowhere" / "photo.jpg")

    assert error.code == "file_missing"
    assert "deleted before its turn" in error.message


def test_what_is_no_regular_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    assert failure(tmp_path).code == "unsupported_type"
    assert failure(tmp_path / "pipe").code == "unsupported_type"


def test_a_file_that_may_not_be_read_is_nobodys_failed_upload(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "photo.jpg"
    corner_image().save(path)

    def refuse(*args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(BackendUnavailable) as caught:
        probe(path, max_pixels=MAX_PIXELS)

    assert caught.value.code == "storage_unavailable"
    assert str(tmp_path) in caught.value.message


@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "HEIF", "AVIF", "GIF", "TIFF", "BMP"])
def test_too_many_pixels_are_refused_before_they_are_decoded(tmp_path: Path, format_: str) -> None:
    corner_image().save(tmp_path / "photo", format_)

    error = failure(tmp_path / "photo", max_pixels=80 * 40 - 1)

    assert error.code == "too_many_pixels"
    assert probe(tmp_path / "photo", max_pixels=80 * 40).width == 80


def test_the_limit_is_ours_not_pillows(tmp_path: Path) -> None:
    """A PNG of 400 million pixels in a few hundred bytes, twice what Pillow lets pass."""
    header = struct.pack(">IIBBBBB", 20_000, 20_000, 8, 2, 0, 0, 0)
    path = tmp_path / "bomb.png"
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b""))

    assert failure(path, max_pixels=250_000_000).code == "too_many_pixels"
    assert probe(path, max_pixels=400_000_000).width == 20_000


def test_too_many_pixels_in_a_video(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")

    assert failure(path, max_pixels=64 * 48 - 1).code == "too_many_pixels"


@pytest.mark.parametrize("name", ["photo.png", "photo.heic", "photo.avif", "photo.gif", "clip.mp4"])
def test_a_file_cut_off_near_its_start(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    if path.suffix == ".mp4":
        write_video(path)
    else:
        corner_image().save(path)
    path.write_bytes(path.read_bytes()[:28])

    assert failure(path).code == "unreadable_media"


def test_the_samples_are_what_their_names_say(tmp_path: Path) -> None:
    samples = [path for path in SAMPLES.iterdir() if path.suffix != ".md"]
    assert len(samples) == 14
    for sample in samples:
        copy = tmp_path / "upload"
        shutil.copyfile(sample, copy)
        assert f".{probe(copy, max_pixels=MAX_PIXELS).extension}" == sample.suffix
    dogs = probe(SAMPLES / "two_dogs_at_a_door.jpg", max_pixels=MAX_PIXELS)
    assert dogs.height > dogs.width
