"""A video -> its real timing, and upright RGB frames spread evenly over it."""

import math
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

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
    Format,
    check_pixels,
    open_video,
    unsupported,
)
from vuemantics_pipeline.media.images import fit

VIDEO_FRAMES = 10

# Frames wanted closer together than this are reached by decoding on, not by seeking: a seek goes
# back to a key frame, and those stand seconds apart.
_SEEK_GAP_SECONDS = 2.0

_FRAME_SECONDS = 1 / 25  # where the file gives no hint
_TURNS = {90: Transpose.ROTATE_270, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_90}
# Wider or higher pixels than in any video standard (DV's are 1.46:1, anamorphic ones 2:1).
_WIDEST_PIXEL = 4


@dataclass(frozen=True)
class Timing:
    """How long the pictures of a video last, and how many of them there are each second."""

    seconds: float
    frame_rate: float


def picture_stream(container: InputContainer) -> VideoStream:
    """The stream with the moving picture; cover art of a sound file does not count.

    Raises:
        UploadError: 'unsupported_type', the file holds sound only.
    """
    for stream in container.streams.video:
        if not stream.disposition & av.stream.Disposition.attached_pic:
            return stream
    raise unsupported("a recording without a picture")


def first_frame(container: InputContainer, stream: VideoStream) -> VideoFrame:
    """Raises UploadError 'unreadable_media' if there is none."""
    frame = next(container.decode(stream), None)
    if frame is None:
        raise UploadError("unreadable_media", "The video holds no picture.", EXPORT_VIDEO)
    return frame


def rotation(frame: VideoFrame) -> int:
    """Degrees that a player turns the stored picture clockwise: 0, 90, 180 or 270."""
    # FFmpeg's display matrix counts the other way round.
    return round(-frame.rotation / 90) * 90 % 360


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
        UploadError: 'unreadable_media', no frame can be read; 'too_many_pixels'.
    """
    timing = _read_index(path, format_)
    is_counted = timing is None
    if timing is None:
        timing = _count(path, format_)
    frames = _sample(path, format_, max_pixels, max_side, timing)
    if len(frames) < VIDEO_FRAMES and not is_counted:
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
        return _timing(seconds, len(index) - 1, stream)


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
        return _timing(last - first, count - 1, stream)


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
    for search in (_seek_frames, _walk_frames) if gap > _SEEK_GAP_SECONDS else (_walk_frames,):
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
    width, height = fit(shown_size(frame, stream), max_side)
    small = frame.reformat(width, height, format="rgb24", interpolation="AREA")
    image = Image.fromarray(small.to_ndarray())
    turn = _TURNS.get(rotation(frame))
    return image if turn is None else image.transpose(turn)
