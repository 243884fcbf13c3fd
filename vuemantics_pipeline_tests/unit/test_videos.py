"""Videos: frames spread evenly over what is really there, as a person sees them."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import numpy as np
import pytest
from av.video.stream import VideoStream
from PIL import Image

from vuemantics_pipeline.errors import UploadError
from vuemantics_pipeline.media.content import MP4
from vuemantics_pipeline.media.decode import Decoded, decode
from vuemantics_pipeline.media.videos import load_video
from vuemantics_pipeline_tests.unit.media_files import (
    CORNERS,
    STORED,
    brightness,
    corner_image,
    corners,
    write_video,
)

MAX_PIXELS = 10_000_000

# Brightness rises from 0 to 255, so the middles of ten equal parts are known. A frame may come from
# anywhere in its part.
EVENLY = pytest.approx([25.5 * (part + 0.5) for part in range(10)], abs=16)


def load(path: Path, max_side: int = 1568) -> Decoded:
    decoded = decode(path, max_pixels=MAX_PIXELS, max_side=max_side)
    for frame in decoded.frames:
        assert frame.mode == "RGB"
        assert not frame.info
        assert max(frame.size) <= max_side
    return decoded


def levels(decoded: Decoded) -> list[float]:
    return [brightness(frame) for frame in decoded.frames]


@pytest.mark.parametrize("key_frame_every", [1, 5, 300])
@pytest.mark.parametrize("rate", [5, 60])
def test_short_or_long_and_however_far_apart_its_key_frames(
    tmp_path: Path, key_frame_every: int, rate: int
) -> None:
    path = write_video(
        tmp_path / "clip.mp4", frames=300, rate=rate, key_frame_every=key_frame_every
    )

    decoded = load(path)

    assert levels(decoded) == EVENLY
    assert decoded.info.duration_seconds == pytest.approx(300 / rate)
    assert decoded.info.frame_rate == pytest.approx(rate)


@pytest.mark.parametrize("container", ["mp4", "webm", "flv", "avi", "mpeg"])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_clips_under_a_second(tmp_path: Path, container: str, frames: int) -> None:
    codec = {"webm": "libvpx-vp9", "avi": "mpeg4", "mpeg": "mpeg2video"}.get(container, "libx264")
    path = write_video(tmp_path / "clip", frames=frames, rate=25, container=container, codec=codec)

    decoded = load(path)

    assert 1 <= len(decoded.frames) <= frames
    assert decoded.frames[0].size == (64, 48)
    assert decoded.info.duration_seconds == pytest.approx(frames / 25, abs=0.05)


# Half of the frames in the first of ten seconds, as phones do when the light fades.
VARIABLE = [*range(0, 1000, 20), *range(1000, 10_000, 180)]


@pytest.mark.parametrize(
    ("container", "codec"), [("mp4", "libx264"), ("webm", "libvpx-vp9"), ("flv", "flv")]
)
def test_a_variable_frame_rate(tmp_path: Path, container: str, codec: str) -> None:
    path = write_video(
        tmp_path / "clip",
        codec=codec,
        container=container,
        frames=100,
        milliseconds=VARIABLE,
        key_frame_every=10,
    )

    decoded = load(path)

    assert decoded.info.duration_seconds == pytest.approx(10.0, abs=0.5)
    assert decoded.info.frame_rate == pytest.approx(10.0, abs=0.5)
    # By time: one frame from the crowded first second, and the others evenly over the rest.
    found = levels(decoded)
    assert len(found) in {9, 10}  # FLV has no index: its last key frame may not be found
    assert found[1] > 127 - 3
    assert all(5 < after - before < 25 for before, after in pairwise(found[1:]))


@pytest.mark.parametrize(
    ("container", "codec", "options"),
    [
        ("webm", "libvpx-vp9", {"live": "1"}),
        ("flv", "flv", {}),
        ("mpeg1video", "mpeg1video", {}),
        ("mpeg2video", "mpeg2video", {}),
        ("mp4", "libx264", {"movflags": "frag_keyframe+empty_moov"}),
    ],
)
def test_a_missing_duration_is_measured(
    tmp_path: Path, container: str, codec: str, options: dict[str, str]
) -> None:
    path = write_video(
        tmp_path / "clip",
        codec=codec,
        container=container,
        options=options,
        streamed=True,
        frames=100,
        rate=25,
    )

    decoded = load(path)

    assert levels(decoded) == EVENLY
    assert decoded.info.duration_seconds == pytest.approx(4.0, abs=0.1)
    assert decoded.info.frame_rate == pytest.approx(25.0, abs=0.5)


@pytest.mark.parametrize("claimed_seconds", [0.5, 3600])
def test_a_false_duration_is_not_believed(tmp_path: Path, claimed_seconds: float) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=100, rate=25)
    content = bytearray(path.read_bytes())
    for box in (b"mvhd", b"mdhd"):  # ISO/IEC 14496-12: time scale and duration, version 0
        at = content.index(box) + 16
        (scale,) = struct.unpack_from(">I", content, at)
        struct.pack_into(">I", content, at + 4, round(scale * claimed_seconds))
    path.write_bytes(content)

    decoded = load(path)

    assert levels(decoded) == EVENLY
    assert decoded.info.duration_seconds == pytest.approx(4.0, abs=0.1)


def test_a_video_cut_short_shows_what_is_there(tmp_path: Path) -> None:
    """Its index, at the start, promises frames that did not come."""
    path = write_video(
        tmp_path / "clip.mp4",
        frames=100,
        rate=25,
        options={"movflags": "faststart"},
        picture=lambda index: noise(index),
    )
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])

    decoded = load(path)

    assert len(decoded.frames) >= 5
    assert decoded.info.duration_seconds == pytest.approx(2.0, abs=0.5)


def noise(seed: int) -> Image.Image:
    pixels = np.random.default_rng(seed).integers(0, 255, (48, 64, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


# 16.16 and 2.30 fixed point, FFmpeg's layout: a, b, u, c, d, v, x, y, w.
ONE, LAST = 1 << 16, 1 << 30
TURNS = {
    1: (1, 0, 0, 1),
    2: (-1, 0, 0, 1),
    3: (-1, 0, 0, -1),
    4: (1, 0, 0, -1),
    5: (0, 1, 1, 0),
    6: (0, 1, -1, 0),
    7: (0, -1, -1, 0),
    8: (0, -1, 1, 0),
}
DEGREES = {1: 0, 2: 0, 3: 180, 4: 180, 5: 270, 6: 90, 7: 90, 8: 270}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_it_is_turned_upright(tmp_path: Path, orientation: int) -> None:
    """The eight ways are those of EXIF; so the same test picture comes out upright."""
    stored, turn = corner_image(64, 48), STORED[orientation]
    if turn is not None:
        stored = stored.transpose(turn)
    a, b, c, d = (ONE * sign for sign in TURNS[orientation])
    path = write_video(
        tmp_path / "clip.mp4",
        frames=4,
        size=stored.size,
        matrix=(a, b, 0, c, d, 0, 0, 0, LAST),
        picture=lambda _index: stored,
    )

    decoded = load(path)

    assert corners(decoded.frames[0]) == corners(decoded.thumbnail) == CORNERS
    assert decoded.frames[0].size == (decoded.info.width, decoded.info.height) == (64, 48)
    assert decoded.info.rotation == DEGREES[orientation]


@pytest.mark.parametrize(
    ("aspect", "shown"),
    [
        (Fraction(4, 3), (96, 48)),
        (Fraction(8, 9), (64, 48)),
        (Fraction(1), (72, 48)),
        (Fraction(100), (72, 48)),
    ],
)
def test_pixels_become_square(tmp_path: Path, aspect: Fraction, shown: tuple[int, int]) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=4, size=(72, 48), aspect=aspect)

    decoded = load(path)

    assert (decoded.info.width, decoded.info.height) == shown
    assert decoded.frames[0].size == shown


def test_too_many_pixels_once_they_are_square(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=4, size=(72, 48), aspect=Fraction(4, 3))

    with pytest.raises(UploadError) as caught:
        decode(path, max_pixels=96 * 48 - 1, max_side=500)

    assert caught.value.code == "too_many_pixels"


def test_frames_shrink(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=4, size=(320, 240))

    assert load(path, max_side=160).frames[0].size == (160, 120)


def test_the_thumbnail_is_not_black(tmp_path: Path) -> None:
    def picture(index: int) -> Image.Image:
        return corner_image(64, 48) if index >= 50 else Image.new("RGB", (64, 48))

    decoded = load(write_video(tmp_path / "clip.mp4", frames=100, rate=25, picture=picture))

    assert brightness(decoded.frames[0]) < 1
    assert corners(decoded.thumbnail) == CORNERS


def write_hdr(path: Path, transfer: int, signals: Sequence[float]) -> None:
    """Grey bars of 64 pixels, by how much of the range of a BT.2100 signal they take up."""
    with av.open(str(path), "w") as output:
        # With B-frames, x265 makes a time up for a film of one frame, now and then one that MP4 has
        # no room for.
        stream = output.add_stream(
            "libx265", rate=Fraction(25), options={"x265-params": "log-level=none:bframes=0"}
        )
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64 * len(signals), 64, "yuv420p10le"
        codec = stream.codec_context
        codec.colorspace, codec.color_primaries, codec.color_trc = 9, 9, transfer
        codec.color_range = 1
        frame = av.VideoFrame(stream.width, stream.height, stream.pix_fmt)
        for index, plane in enumerate(frame.planes):
            values = np.full((plane.height, plane.line_size // 2), 512, dtype=np.uint16)
            if index == 0:
                bars = [round(64 + 876 * signal) for signal in signals]
                values[:, : stream.width] = np.repeat(bars, 64)
            plane.update(values.tobytes())
        frame.colorspace, frame.color_primaries, frame.color_trc = 9, 9, transfer
        frame.color_range = 1
        frame.pts = 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode(None))


@pytest.mark.parametrize(("transfer", "diffuse_white"), [(16, 0.58), (18, 0.75)])
def test_hdr_is_converted(tmp_path: Path, transfer: int, diffuse_white: float) -> None:
    """BT.2408: diffuse white stands at 58 % of PQ and 75 % of HLG; it is to come out white."""
    write_hdr(tmp_path / "clip.mp4", transfer, (0.0, diffuse_white / 2, diffuse_white, 1.0))

    pixels = np.asarray(load(tmp_path / "clip.mp4").frames[0])

    black, dark, white, bright = (pixels[32, 32 + 64 * bar].tolist() for bar in range(4))
    assert max(black) <= 2
    assert 20 < min(dark) <= max(dark) < 128
    assert min(white) >= 248
    assert min(bright) == 255


@pytest.mark.parametrize("colorspace", [1, 5, 9])  # BT.709, BT.601 and BT.2020, H.273
def test_colours_are_those_that_were_filmed(tmp_path: Path, colorspace: int) -> None:
    with av.open(str(tmp_path / "clip.mp4"), "w") as output:
        stream = output.add_stream("libx264", rate=Fraction(25), options={"qp": "0"})
        assert isinstance(stream, VideoStream)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv444p"
        stream.codec_context.colorspace = colorspace
        stream.codec_context.color_range = 1
        filmed = np.full((48, 64, 3), (200, 30, 60), dtype=np.uint8)
        frame = av.VideoFrame.from_ndarray(filmed, format="rgb24")
        output.mux(stream.encode(frame.reformat(format="yuv444p", dst_colorspace=colorspace)))
        output.mux(stream.encode(None))

    shown = np.asarray(load(tmp_path / "clip.mp4").frames[0])

    assert shown[20, 20].tolist() == pytest.approx([200, 30, 60], abs=3)


def test_damage_in_the_middle_does_not_cost_the_video(tmp_path: Path) -> None:
    path = write_video(
        tmp_path / "clip.mpg", codec="mpeg1video", container="mpeg", frames=100, rate=25
    )
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 200] = bytes(200)
    path.write_bytes(content)

    assert len(load(path).frames) >= 5


def test_a_video_without_a_readable_frame(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", frames=20)
    content = bytearray(path.read_bytes())
    start = content.index(b"mdat") + 4
    content[start : content.index(b"moov") - 4] = bytes(content.index(b"moov") - 4 - start)
    path.write_bytes(content)

    for call in (
        lambda: load(path),
        lambda: load_video(path, MP4, max_pixels=MAX_PIXELS, max_side=500),
    ):
        with pytest.raises(UploadError) as caught:
            call()
        assert caught.value.code == "unreadable_media"


def test_a_video_exchanged_or_deleted_after_it_was_probed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")

    with pytest.raises(UploadError) as caught:
        load_video(path, MP4, max_pixels=64 * 48 - 1, max_side=500)
    assert caught.value.code == "too_many_pixels"

    path.unlink()
    with pytest.raises(UploadError) as caught:
        load_video(path, MP4, max_pixels=MAX_PIXELS, max_side=500)
    assert caught.value.code == "file_missing"
