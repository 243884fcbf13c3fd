"""docs/formats.md holds: each row, and each cell that says yes, on a file of a real encoder."""

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pillow_heif
import pytest
from av.video.stream import VideoStream
from PIL import Image, ImageCms, TiffImagePlugin

from vuemantics_pipeline.errors import UploadError
from vuemantics_pipeline.media import content
from vuemantics_pipeline.media.content import Format
from vuemantics_pipeline.media.decode import Decoded, decode
from vuemantics_pipeline_tests.unit.media_files import (
    CORNERS,
    STORED,
    brightness,
    corner_image,
    corners,
    cyan_is_red_profile,
    grey_profile,
    write_png,
    write_video,
)

DOCUMENT = (Path(__file__).parents[2] / "docs" / "formats.md").read_text()
MAX_PIXELS = 10_000_000

pillow_heif.register_heif_opener()

Row = Mapping[str, str]


def table(heading: str) -> Sequence[Row]:
    """The rows of the table under a heading of the document, by column."""
    section = DOCUMENT.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def names(cell: str) -> list[str]:
    return re.findall("`(.+?)`", cell)


PHOTOS = {names(row["Format"])[0]: row for row in table("Photos")}
VIDEOS = {names(row["Format"])[0]: names(row["Codecs"]) for row in table("Videos")}


def that_say_yes(column: str) -> list[str]:
    return [name for name, row in PHOTOS.items() if row[column].startswith("yes")]


def load(path: Path, max_side: int = 1568) -> Decoded:
    return decode(path, max_pixels=MAX_PIXELS, max_side=max_side)


def test_every_format_has_its_row() -> None:
    known = [value for value in vars(content).values() if isinstance(value, Format)]

    assert {format_.name for format_ in known if format_.file_type == "image"} == set(PHOTOS)
    assert {format_.name for format_ in known if format_.file_type == "video"} == set(VIDEOS)


@pytest.mark.parametrize("name", PHOTOS)
def test_a_photo(tmp_path: Path, name: str) -> None:
    corner_image().save(tmp_path / "file", name)

    decoded = load(tmp_path / "file")

    assert (decoded.info.format, decoded.info.file_type) == (name, "image")
    assert f".{decoded.info.extension}" in PHOTOS[name]["Files"]
    assert (decoded.info.width, decoded.info.height) == (80, 40)
    assert [corners(frame) for frame in decoded.frames] == [CORNERS]
    assert corners(decoded.thumbnail) == CORNERS


@pytest.mark.parametrize("name", that_say_yes("Turned upright"))
@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_upright_once(tmp_path: Path, name: str, orientation: int) -> None:
    stored, turn = corner_image(), STORED[orientation]
    if turn is not None:
        stored = stored.transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    # As bytes: only then pillow-heif writes the turn the way HEIF has it.
    stored.save(tmp_path / "file", name, exif=exif.tobytes())

    decoded = load(tmp_path / "file")

    assert (decoded.info.width, decoded.info.height) == (80, 40)
    for picture in (decoded.frames[0], decoded.thumbnail):
        assert picture.size == (80, 40)
        assert corners(picture) == CORNERS


def test_formats_that_cannot_say_how_to_turn_them_are_named() -> None:
    assert set(PHOTOS) - set(that_say_yes("Turned upright")) == {"GIF", "BMP"}


@pytest.mark.parametrize("name", that_say_yes("Transparency"))
def test_transparency_is_laid_on_white(tmp_path: Path, name: str) -> None:
    image = Image.new("RGBA", (80, 40), (255, 0, 0, 0))
    image.paste((0, 0, 255, 255), (0, 0, 40, 40))
    image.save(tmp_path / "file", name)

    red, _, blue, _ = corners(load(tmp_path / "file").frames[0])

    assert (red, blue) == ((0, 0, 255), (0, 0, 255))
    assert corners(load(tmp_path / "file").thumbnail)[1::2] == ((255, 255, 255),) * 2


@pytest.mark.parametrize("name", that_say_yes("Colour profile"))
def test_a_colour_profile_is_applied(tmp_path: Path, name: str) -> None:
    """A profile in which red and blue have changed places shows stored red as blue."""
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    exchanged = srgb.replace(b"rXYZ", b"temp").replace(b"bXYZ", b"rXYZ").replace(b"temp", b"bXYZ")
    red = Image.new("RGB", (64, 64), (255, 0, 0))
    red.save(tmp_path / "exchanged", name, icc_profile=exchanged)
    red.save(tmp_path / "broken", name, icc_profile=b"no profile at all")

    assert corners(load(tmp_path / "exchanged").frames[0]) == ((0, 0, 255),) * 4
    assert corners(load(tmp_path / "broken").frames[0]) == ((255, 0, 0),) * 4


@pytest.mark.parametrize("mode", ["L", "LA", "I;16"])
def test_a_grey_profile_is_applied(tmp_path: Path, mode: str) -> None:
    """Values in proportion to light: 100 of 255 is a brighter grey than sRGB's 100."""
    if mode == "I;16":
        image = Image.fromarray(np.full((40, 80), 100 * 257, dtype=np.uint16))
    else:
        image = Image.new("L", (80, 40), 100).convert(mode)
    image.save(tmp_path / "file", "PNG", icc_profile=grey_profile(gamma=1.0))

    # IEC 61966-2-1 (sRGB) for 100/255 of the light.
    assert brightness(load(tmp_path / "file").frames[0]) == pytest.approx(168, abs=2)


@pytest.mark.parametrize(
    "name", [name for name, row in PHOTOS.items() if "CMYK" in row["Colour profile"]]
)
def test_a_press_profile_is_applied(tmp_path: Path, name: str) -> None:
    image = Image.new("CMYK", (80, 40), (255, 0, 0, 0))
    image.paste((0, 255, 0, 0), (0, 0, 40, 40))
    image.save(tmp_path / "plain", name)
    image.save(tmp_path / "file", name, icc_profile=cyan_is_red_profile())

    plain, file = (corners(load(tmp_path / file).frames[0])[:2] for file in ("plain", "file"))

    assert plain == ((255, 0, 255), (0, 255, 255))
    assert file == ((255, 255, 255), (255, 0, 0))


@pytest.mark.parametrize("name", that_say_yes("Several pictures"))
def test_of_several_pictures_one_is_shown(tmp_path: Path, name: str) -> None:
    others = [Image.new("RGB", (80, 40), "black") for _ in range(3)]
    written_as = "MPO" if name == "JPEG" else name
    corner_image().save(tmp_path / "file", written_as, save_all=True, append_images=others)

    decoded = load(tmp_path / "file")

    assert decoded.info.format == name
    assert [corners(frame) for frame in decoded.frames] == [CORNERS]


def test_of_a_heif_the_primary_picture_is_shown(tmp_path: Path) -> None:
    black = Image.new("RGB", (80, 40), "black")
    black.save(
        tmp_path / "file", "HEIF", save_all=True, append_images=[corner_image()], primary_index=1
    )

    assert corners(load(tmp_path / "file").frames[0]) == CORNERS


def write_deep_png(path: Path) -> None:
    pixels = np.full((40, 80, 3), (0x8000, 0x4000, 0xFFFF), dtype=">u2")
    write_png(path, pixels, bit_depth=16, colour_type=2)


def write_deep_heif(path: Path) -> None:
    pixels = np.full((40, 80, 3), (0x8000, 0x4000, 0xFFFF), dtype=np.uint16)
    image = pillow_heif.from_bytes(mode="RGB;16", size=(80, 40), data=pixels.tobytes())
    image.save(path, format="HEIF", quality=-1, chroma=444)
    assert pillow_heif.open_heif(path).info["bit_depth"] == 10


def write_deep_avif(path: Path) -> None:
    with av.open(str(path), "w", format="avif") as output:
        stream = output.add_stream("libsvtav1", rate=Fraction(1), options={"crf": "5"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 80, 64, "yuv420p10le"
        pixels = np.full((64, 80, 3), (128, 64, 255), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


def write_deep_tiff(path: Path) -> None:
    """By hand (TIFF 6.0): Pillow writes no RGB of 16 bits."""
    pixels = np.full((40, 80, 3), (0x8000, 0x4000, 0xFFFF), dtype="<u2").tobytes()
    tags = TiffImagePlugin.ImageFileDirectory_v2()
    tags[256], tags[257], tags[258], tags[262], tags[277] = 80, 40, (16, 16, 16), 2, 3
    # The offset of the pixels counts from the end of the tags.
    tags[259], tags[278], tags[279], tags[273] = 1, 40, len(pixels), 0
    path.write_bytes(b"II*\0\x08\0\0\0" + tags.tobytes(8) + pixels)


DEEP: dict[str, Any] = {
    "PNG": write_deep_png,
    "HEIF": write_deep_heif,
    "AVIF": write_deep_avif,
    "TIFF": write_deep_tiff,
}


@pytest.mark.parametrize("name", that_say_yes("Deep colour"))
def test_deep_colours_keep_their_values(tmp_path: Path, name: str) -> None:
    DEEP[name](tmp_path / "file")

    decoded = load(tmp_path / "file")

    assert decoded.info.format == name
    assert np.asarray(decoded.frames[0]).mean(axis=(0, 1)) == pytest.approx([128, 64, 255], abs=3)


@pytest.mark.parametrize("photometric", [0, 1])
def test_deep_grey_of_a_tiff(tmp_path: Path, photometric: int) -> None:
    pixels = np.full((40, 80), 0xC000, dtype=np.uint16)
    Image.fromarray(pixels).save(tmp_path / "file", "TIFF", tiffinfo={262: photometric})
    with Image.open(tmp_path / "file") as written:
        assert written.tag_v2[262] == photometric  # type: ignore[attr-defined]

    expected = 191 if photometric else 64
    assert brightness(load(tmp_path / "file").frames[0]) == pytest.approx(expected, abs=1)


@pytest.mark.parametrize("name", that_say_yes("Decoded small"))
def test_what_can_be_decoded_small_is(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    options: dict[str, object] = {"thumbnails": [500]} if name == "HEIF" else {}
    corner_image(2000, 1600).save(tmp_path / "file", name, **options)
    loaded: list[tuple[int, int]] = []
    real_load = Image.Image.load

    def load_(self: Image.Image) -> Any:
        pixels = real_load(self)
        loaded.append(self.size)
        return pixels

    monkeypatch.setattr(Image.Image, "load", load_)
    decoded = load(tmp_path / "file", max_side=400)

    assert max(loaded) == (500, 400)
    assert (decoded.info.width, decoded.info.height) == (2000, 1600)
    assert decoded.frames[0].size == (400, 320)
    assert corners(decoded.frames[0]) == CORNERS


def test_a_preview_that_is_too_small_is_not_shown(tmp_path: Path) -> None:
    corner_image(1000, 800).save(tmp_path / "file", "HEIF", thumbnails=[500])

    assert load(tmp_path / "file", max_side=501).frames[0].size == (501, 401)


@pytest.mark.parametrize(("transfer", "diffuse_white"), [(16, 0.58), (18, 0.75)])
def test_hdr_of_a_heif_is_converted(tmp_path: Path, transfer: int, diffuse_white: float) -> None:
    """BT.2408: diffuse white stands at 58 % of PQ and 75 % of HLG; it is to come out white."""
    stored = Image.new("RGB", (80, 40), (round(255 * diffuse_white),) * 3)
    stored.paste((0, 0, 0), (0, 0, 40, 40))
    stored.save(
        tmp_path / "file",
        "HEIF",
        quality=-1,
        chroma=444,
        color_primaries=9,
        transfer_characteristics=transfer,
        matrix_coefficients=9,
        full_range_flag=1,
    )

    frame = np.asarray(load(tmp_path / "file").frames[0])

    assert frame[20, 70].min() >= 248
    assert frame[20, 10].max() <= 2


@pytest.mark.parametrize("name", that_say_yes("Turned upright"))
def test_what_is_recorded_of_it(tmp_path: Path, name: str) -> None:
    directories = {0x8769: {0x9003: "2019:07:14 20:11:05"}, 0x8825: {1: "N", 2: (48.0, 51.0, 30.0)}}
    for position, file in ((True, "with"), (False, "without")):
        kept = {tag: fields for tag, fields in directories.items() if position or tag != 0x8825}
        exif: Any = TiffImagePlugin.ImageFileDirectory_v2() if name == "TIFF" else Image.Exif()
        exif[0x0110] = "Pixel 9"
        for tag, fields in kept.items():
            if name == "TIFF":
                exif[tag] = fields
            else:
                exif.get_ifd(tag).update(fields)
        options = {"tiffinfo": exif} if name == "TIFF" else {"exif": exif}
        corner_image().save(tmp_path / file, name, **options)

    info = load(tmp_path / "with").info

    assert (info.taken_at, info.camera) == (datetime(2019, 7, 14, 20, 11, 5), "Pixel 9")
    assert info.has_gps
    assert not load(tmp_path / "without").info.has_gps


ENCODERS = {
    "h264": "libx264",
    "hevc": "libx265",
    "av1": "libsvtav1",
    "vp9": "libvpx-vp9",
    "vp8": "libvpx",
    "flv1": "flv",
    "prores": "prores_ks",
}
MUXERS = {"h263": "3gp"}
PIXEL_FORMATS = {"prores": "yuv422p10le", "mjpeg": "yuvj420p"}
SIZES = {"dvvideo": (720, 576), "h263": (176, 144)}


@pytest.mark.parametrize(
    ("name", "codec"), [(name, codec) for name, codecs in VIDEOS.items() for codec in codecs]
)
def test_a_video(tmp_path: Path, name: str, codec: str) -> None:
    path = write_video(
        tmp_path / "file",
        codec=ENCODERS.get(codec, codec),
        container=MUXERS.get(codec, name.lower()),
        pixel_format=PIXEL_FORMATS.get(codec, "yuv420p"),
        size=SIZES.get(codec, (64, 48)),
        frames=50,
        rate=25,
    )

    decoded = load(path)

    info = decoded.info
    assert (info.file_type, info.format, info.video_codec) == ("video", name, codec)
    assert info.duration_seconds == pytest.approx(2.0, abs=0.05)
    assert info.frame_rate == pytest.approx(25.0, abs=0.5)
    assert info.rotation == 0
    found = [brightness(frame) for frame in decoded.frames]
    # Off by less than a part: H.264 in AVI has no order of display, some codecs blur in time.
    assert found == pytest.approx([25.5 * (part + 0.5) for part in range(10)], abs=17)


@pytest.mark.parametrize("container", ["ipod", "3gp"])
def test_relatives_of_mp4(tmp_path: Path, container: str) -> None:
    path = write_video(tmp_path / "file", container=container)

    assert load(path).info.format == "MP4"


REFUSED = {
    "Matroska": "matroska",
    "MPEG transport stream: .ts, .mts, .m2ts": "mpegts",
    "Windows Media: .wmv, .asf": "asf",
}


@pytest.mark.parametrize(("kind", "container"), REFUSED.items())
def test_a_video_that_is_refused_is_called_by_its_name(
    tmp_path: Path, kind: str, container: str
) -> None:
    called = {row["Content"]: row["Called"] for row in table("Refused")}[kind]
    path = write_video(tmp_path / "file", container=container, codec="mpeg4", frames=50)

    with pytest.raises(UploadError, match=re.escape(f"The file is {called},")) as caught:
        load(path)

    assert caught.value.code == "unsupported_type"


def test_every_reason_of_the_document_is_one_the_code_gives() -> None:
    media = Path(content.__file__).parent
    code = "".join(path.read_text() for path in media.glob("*.py"))

    for row in table("Limits"):
        assert f'"{names(row["Reason given"])[0]}"' in code
    for row in table("Refused"):
        for called in re.split("; ", row["Called"]):
            if called.startswith(("a ", "an ")):
                assert f'"{called}"' in code
