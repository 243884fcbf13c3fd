"""A video -> its real timing, and upright RGB frames spread evenly over it."""

import math
import struct
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import av.stream
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image
from PIL.Image import Transpose

from vuemantics_pipeline.errors import UploadError
from vuemantics_pipeline.media.content import (
    EXPORT_VIDEO,
    MPEG_ELEMENTARY,
    Format,
    check_pixels,
    open_video,
    unsupported,
)
from vuemantics_pipeline.media.hdr import to_rgb
from vuemantics_pipeline.media.images import fit

VIDEO_FRAMES = 10

# How far apart key frames may stand where no index says it.
_KEY_FRAME_SECONDS = 2.0

_FRAME_SECONDS = 1 / 25  # where the file gives no hint
# Signs of a, b, c and d of a display matrix (ISO/IEC 14496-12: x' = ax + cy, y' = bx + dy)
# -> degrees clockwise, after mirroring where it mirrors, and what does both.
_TURNS: dict[tuple[int, ...], tuple[int, Transpose | None]] = {
    (1, 0, 0, 1): (0, None),
    (0, 1, -1, 0): (90, Transpose.ROTATE_270),
    (-1, 0, 0, -1): (180, Transpose.ROTATE_180),
    (0, -1, 1, 0): (270, Transpose.ROTATE_90),
    (-1, 0, 0, 1): (0, Transpose.FLIP_LEFT_RIGHT),
    (0, -1, -1, 0): (90, Transpose.TRANSVERSE),
    (1, 0, 0, -1): (180, Transpose.FLIP_TOP_BOTTOM),
    (0, 1, 1, 0): (270, Transpose.TRANSPOSE),
}
# Wider or higher pixels than in any video standard (DV's are 1.46:1, anamorphic ones 2:1).
_WIDEST_PIXEL = 4


@dataclass(frozen=True)
class Timing:
    """How long the pictures of a video last.

    Attributes:
        frame_rate: pictures per second, on average.
        key_frame_seconds: from one picture that can be decoded by itself to the next, on average.
    """

    seconds: float
    frame_rate: float
    key_frame_seconds: float = _KEY_FRAME_SECONDS


def picture_stream(container: InputContainer) -> VideoStream:
    """The stream with the moving picture; cover art of a sound file does not count.

    Raises:
        UploadError: 'unsupported_type', the file holds sound only or a codec that FFmpeg lacks;
            'unreadable_media', it holds nothing at all.
    """
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            # PyAV's stubs do not know that there is none without a decoder.
            codec: object = stream.codec_context
            if codec is None:
                raise unsupported("a video in a codec that is damaged or unknown")
            return stream
    if container.streams.audio:
        raise unsupported("a recording without a picture")
    raise UploadError("unreadable_media", "The video holds no picture.", EXPORT_VIDEO)


def first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    """Raises UploadError 'unreadable_media' if there is none."""
    frame = next(container.decode(stream), None)
    if frame is None:
        raise UploadError("unreadable_media", "The video holds no picture.", EXPORT_VIDEO)
    return frame


def rotation(frame: VideoFrame) -> int:
    """Degrees that a player turns the stored picture clockwise: 0, 90, 180 or 270."""
    return _turn(frame)[0]


def _turn(frame: VideoFrame) -> tuple[int, Transpose | None]:
    side_data: Any = frame.side_data  # PyAV's stubs know of one kind only
    if "DISPLAYMATRIX" not in side_data:
        return _TURNS[1, 0, 0, 1]
    a, b, _, c, d, *_ = struct.unpack("=9i", bytes(side_data["DISPLAYMATRIX"]))
    # The nearest of the eight ways that keep the picture's sides level.
    if abs(a) + abs(d) < abs(b) + abs(c):
        a = d = 0
    else:
        b = c = 0
    signs = tuple((value > 0) - (value < 0) for value in (a, b, c, d))
    return _TURNS.get(signs, _TURNS[1, 0, 0, 1])


def shown_size(frame: VideoFrame, stream: VideoStream) -> tuple[int, int]:
    """Width and height with square pixels, not turned yet."""
    aspect = stream.sample_aspect_ratio or Fraction(1)
    if not Fraction(1, _WIDEST_PIXEL) <= aspect <= _WIDEST_PIXEL:
        aspect = Fraction(1)
    return max(1, round(frame.width * aspect)), frame.height


def claimed_seconds(container: InputContainer, stream: VideoStream) -> float | None:
    """Duration of the picture, or of the whole file; None where the file does not say."""
    candidates: list[float] = []
    if stream.duration is not None and stream.time_base is not None:
        candidates.append(float(stream.duration * stream.time_base))
    if container.duration is not None:
        candidates.append(container.duration / av.time_base)
    return next((s for s in candidates if s > 0 and math.isfinite(s)), None)


def claimed_frame_rate(stream: VideoStream) -> float | None:
    """Average frames per second; None where the file does not say."""
    rate = stream.average_rate or stream.guessed_rate
    return float(rate) if rate and rate > 0 else None


def load_video(
    path: Path, format_: Format, *, max_pixels: int, max_side: int
) -> tuple[list[Image.Image], Timing]:
    """Decode up to VIDEO_FRAMES frames from the middles of equal parts of the video, in order.

    Args:
        max_pixels: of one frame.
        max_side: longest side of the frames in pixels; smaller ones are not enlarged.

    Returns:
        At least one frame, upright, RGB, with square pixels; and the timing as it really is,
        whatever the header says.

    Raises:
        UploadError: 'unreadable_media', no frame can be read; 'too_many_pixels'; 'file_missing'.
        BackendUnavailable: 'storage_unavailable'.
    """
    indexed = _read_index(path, format_)
    timing = indexed or _count(path, format_)
    frames = _sample(path, format_, max_pixels, max_side, timing)
    if len(frames) < VIDEO_FRAMES and indexed:
        # A clip of few frames, or an index of frames that are not there.
        real = _count(path, format_)
        if abs(real.seconds - timing.seconds) > 0.1 * timing.seconds:
            timing = real
            frames = _sample(path, format_, max_pixels, max_side, timing)
    if not frames:
        raise UploadError("unreadable_media", "No frame of the video can be read.", EXPORT_VIDEO)
    return frames, timing


def _read_index(path: Path, format_: Format) -> Timing | None:
    """The timing by the index of all frames, where the file has one."""
    with open_video(path, format_) as container:
        stream = picture_stream(container)
        index, base = stream.index_entries, stream.time_base
        if base is None or len(index) < 2 or len(index) != stream.frames:
            return None
        seconds = float((index[-1].timestamp - index[0].timestamp) * base)
        timing = _timing(seconds, len(index) - 1, stream)
        key_frames = sum(entry.is_keyframe for entry in index)
        return replace(timing, key_frame_seconds=timing.seconds / max(1, key_frames))


def _count(path: Path, format_: Format) -> Timing:
    """The timing packet by packet, without decoding them."""
    first, last, count = math.inf, -math.inf, 0
    with open_video(path, format_) as container:
        stream = picture_stream(container)
        with suppress(av.FFmpegError):
            for packet in container.demux(stream):
                count += packet.size > 0
                if packet.pts is not None and packet.time_base is not None:
                    time = float(packet.pts * packet.time_base)
                    first, last = min(first, time), max(last, time)
        # The packets of an elementary stream have no times but those FFmpeg makes up.
        seconds = 0.0 if format_ is MPEG_ELEMENTARY else last - first
        return _timing(seconds, count - 1, stream)


def _timing(seconds: float, intervals: int, stream: VideoStream) -> Timing:
    """The timing of frames that begin `seconds` apart, the first from the last."""
    if intervals < 1 or not 0 < seconds < math.inf:
        rate = claimed_frame_rate(stream) or 1 / _FRAME_SECONDS
        return Timing(max(intervals + 1, 1) / rate, rate)
    rate = intervals / seconds
    return Timing(seconds + 1 / rate, rate)


def _sample(
    path: Path, format_: Format, max_pixels: int, max_side: int, timing: Timing
) -> list[Image.Image]:
    gap = timing.seconds / VIDEO_FRAMES
    # A seek goes back to a key frame: frames wanted closer together are reached by decoding on.
    can_seek = gap > timing.key_frame_seconds
    for search in (_seek_frames, _walk_frames) if can_seek else (_walk_frames,):
        with open_video(path, format_) as container:
            stream = picture_stream(container)
            stream.thread_type = "AUTO"
            frames = []
            for frame in search(container, stream, gap, 1 / timing.frame_rate):
                check_pixels(frame.width, frame.height, max_pixels)
                frames.append(_to_image(frame, stream, max_side))
        if frames:
            return frames
    return []


def _walk_frames(
    container: InputContainer, stream: VideoStream, gap: float, step: float
) -> Iterator[VideoFrame]:
    """Decode everything in order and pick what is on screen in the middle of each part."""
    wanted = [(part + 0.5) * gap for part in range(VIDEO_FRAMES)]
    shown = None
    for time, frame in _timed_frames(container, stream, step):
        if shown is not None and time > wanted[0]:
            yield shown
            wanted = [middle for middle in wanted if middle >= time]
            if not wanted:
                return
        shown = frame
    if shown is not None:
        yield shown


def _seek_frames(
    container: InputContainer, stream: VideoStream, gap: float, step: float
) -> Iterator[VideoFrame]:
    """Jump to the middle of each part; a frame from anywhere in the part will do."""
    latest = -math.inf
    for part in range(VIDEO_FRAMES):
        try:
            container.seek(round((part + 0.5) * gap * av.time_base) + _start(container))
        except av.FFmpegError:
            return
        for time, frame in _timed_frames(container, stream, step):
            if time >= part * gap and time > latest:
                latest = time
                yield frame
                break


def _start(container: InputContainer) -> int:
    return container.start_time or 0


def _timed_frames(
    container: InputContainer, stream: VideoStream, step: float
) -> Iterator[tuple[float, VideoFrame]]:
    """Frames with their seconds from the start; damaged packets are passed over.

    Args:
        step: seconds from frame to frame, where frames carry no time.
    """
    start = _start(container) / av.time_base
    time = -step
    packets = container.demux(stream)
    while True:
        try:
            frames = next(packets).decode()
        except StopIteration:
            return
        except av.InvalidDataError:
            continue
        except av.FFmpegError:
            return
        for frame in frames:
            assert isinstance(frame, VideoFrame)
            time = time + step if frame.time is None else frame.time - start
            yield time, frame


def _to_image(frame: VideoFrame, stream: VideoStream, max_side: int) -> Image.Image:
    image = to_rgb(frame, fit(shown_size(frame, stream), max_side))
    _, turn = _turn(frame)
    return image if turn is None else image.transpose(turn)
