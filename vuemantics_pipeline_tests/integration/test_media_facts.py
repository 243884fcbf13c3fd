"""What a file says about itself is recorded beside the application's columns."""

import io
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from uuid import UUID

import pytest
from PIL import ExifTags, Image

from vuemantics_pipeline.ledger.connection import Connection
from vuemantics_pipeline.processing import Verdict
from vuemantics_pipeline_tests import support
from vuemantics_pipeline_tests.unit.media_files import write_video

ProcessOne = Callable[[str, bytes], UUID]


def phone_photo() -> bytes:
    """A JPEG that lies on its side, with a date, a camera and a position in its EXIF block."""
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    exif[ExifTags.Base.Make], exif[ExifTags.Base.Model] = "Canon", "Canon EOS 5D"
    exif.get_ifd(ExifTags.IFD.Exif)[ExifTags.Base.DateTimeOriginal] = "2019:07:14 20:11:05"
    gps = exif.get_ifd(ExifTags.IFD.GPSInfo)
    gps[ExifTags.GPS.GPSLatitudeRef], gps[ExifTags.GPS.GPSLatitude] = "N", (48.0, 8.0, 14.0)
    gps[ExifTags.GPS.GPSLongitudeRef], gps[ExifTags.GPS.GPSLongitude] = "E", (11.0, 34.0, 31.0)
    encoded = io.BytesIO()
    Image.new("RGB", (640, 480), "teal").save(encoded, "JPEG", exif=exif)
    return encoded.getvalue()


@pytest.fixture
def process(connection: Connection, worker: Connection, root: Path) -> ProcessOne:
    def act(name: str, content: bytes) -> UUID:
        user_id = support.add_user(connection)
        batch = support.add_batch(connection, user_id, files={name: content}, uploads_root=root)
        lease = support.begin(worker, batch.batch_id)
        assert support.process(lease, batch.first, root).verdict is Verdict.COMPLETED
        return batch.first

    return act


def facts(connection: Connection, upload_id: UUID, *columns: str) -> tuple[object, ...] | None:
    return connection.execute(
        f"SELECT {', '.join(columns)} FROM vuemantics_pipeline.media_facts"
        " JOIN uploads ON uploads.id = upload_id WHERE upload_id = %s",
        (upload_id,),
    ).fetchone()


def test_of_a_photo(connection: Connection, process: ProcessOne) -> None:
    content = phone_photo()

    upload_id = process("phone.jpg", content)

    columns = (
        "format",
        "media_facts.mime_type",
        "width",
        "height",
        "taken_at",
        "camera",
        "has_gps",
    )
    assert facts(connection, upload_id, *columns) == (
        "JPEG",
        "image/jpeg",
        480,
        640,
        datetime(2019, 7, 14, 20, 11, 5),
        "Canon EOS 5D",
        True,
    )
    row = connection.execute(
        "SELECT sha256 = sha256(%s) FROM vuemantics_pipeline.media_facts", (content,)
    ).fetchone()
    assert row == (True,)


def test_of_a_video(connection: Connection, process: ProcessOne, tmp_path: Path) -> None:
    write_video(tmp_path / "clip.mp4")

    upload_id = process("clip.mp4", (tmp_path / "clip.mp4").read_bytes())

    columns = ("format", "has_gps", "taken_at", "rotation", "uploads.video_codec")
    assert facts(connection, upload_id, *columns) == ("MP4", False, None, 0, "h264")
    timing = facts(connection, upload_id, "duration_seconds", "frame_rate")
    assert timing is not None
    assert all(isinstance(value, float) and value > 0 for value in timing)
