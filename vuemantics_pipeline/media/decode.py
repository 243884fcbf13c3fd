"""A probed file -> upright RGB frames, small enough to look at."""

import io
import math
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from PIL import Image, ImageCms
from PIL.Image import Transpose

from vuemantics_pipeline.errors import UploadError
from vuemantics_pipeline.media.content import (
    EXPORT_VIDEO,
    check_pixels,
    open_image,
    open_video,
    orientation,
    sniff,
)
from vuemantics_pipeline.media.probe import MediaInfo, picture_stream

VIDEO_FRAMES = 10

# Frames wanted closer together than this are reached by decoding on, not by seeking: a seek goes
# back to a key frame, and those stand seconds apart.
_SEEK_GAP_SECONDS = 2.0

# EXIF orientation -> what turns the stored pixels upright (TIFF 6.0, tag 274).
_UPRIGHT = {
    2: Transpose.FLIP_LEFT_RIGHT,
    3: Transpose.ROTATE_180,
    4: Transpose.FLIP_TOP_BOTTOM,
    5: Transpose.TRANSPOSE,
    6: Transpose.ROTATE_270,
    7: Transpose.TRANSVERSE,
    8: Transpose.ROTATE_90,
}
# Degrees counterclockwise -> the same for a video frame.
_ROTATIONS = {90: Transpose.ROTATE_90, 180: Transpose.ROTATE_180, 270: Transpose.ROTATE_270}

# Modes that resize well as they are; the others are converted first.
_RESIZABLE = {"L", "LA", "RGB", "RGBA", "CMYK"}
_TRANSPARENT = {"LA", "La", "PA", "RGBA", "RGBa"}


def load_frames(path: Path, info: MediaInfo, *, max_side: int) -> list[Image.Image]:
    """Decode what a person would see.

    Args:
        info: what `probe` said about the file.
        max_side: longest side of the frames in pixels; smaller media are not enlarged.

    Returns:
        Upright sRGB frames without metadata, alpha laid on white: the picture (the first one of an
        animation), or 1 to 10 frames spread evenly over the video, in order.

    Raises:
        UploadError: 'file_missing', 'unreadable_media', or 'too_many_pixels' when the file is no
            longer the one that was probed.
        BackendUnavailable: 'storage_unavailable'.
    """
    if info.file_type == "image":
        return [_load_image(path, info, max_side)]
    return _load_video(path, info, max_side)


def _load_image(path: Path, info: MediaInfo, max_side: int) -> Image.Image:
    with open_image(path, sniff(path), max_pixels=info.width * info.height) as opened:
        turn = _UPRIGHT.get(orientation(opened))
        if opened.format in {"JPEG", "MPO"}:
            opened.draft(None, _fit(opened.size, max_side))
        opened.load()
        image: Image.Image = opened
        if image.mode in _RESIZABLE and not _is_keyed(image):
            image = _shrink(image, max_side)
        image = _shrink(_to_srgb(image), max_side)
        if turn is not None:
            image = image.transpose(turn)
    image.info = {}
    return image


def _is_keyed(image: Image.Image) -> bool:
    """Whether one colour stands for transparent: resampling would mix it into its neighbours."""
    return "transparency" in image.info


def _fit(size: tuple[int, int], max_side: int) -> tuple[int, int]:
    scale = min(1.0, max_side / max(size))
    return max(1, round(size[0] * scale)), max(1, round(size[1] * scale))


def _shrink(image: Image.Image, max_side: int) -> Image.Image:
    size = _fit(image.size, max_side)
    if size == image.size:
        return image
    return image.resize(size, Image.Resampling.LANCZOS, reducing_gap=2.0)


def _to_srgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return _to_eight_bits(image)
    if image.mode in _TRANSPARENT or _is_keyed(image):
        layer = image.convert("RGBA")
        image = Image.new("RGB", layer.size, "white")
        image.paste(layer, mask=layer.getchannel("A"))
    elif image.mode == "P":
        image = image.convert("RGB")
    if profile and image.mode in {"L", "RGB", "CMYK"}:
        # A damaged profile, or one of another colour space, is as good as none.
        with suppress(ImageCms.PyCMSError, OSError, ValueError):
            return _apply_profile(image, profile)
    return image.convert("RGB")


def _apply_profile(image: Image.Image, profile: bytes) -> Image.Image:
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    converted = ImageCms.profileToProfile(
        image, source, ImageCms.createProfile("sRGB"), outputMode="RGB"
    )
    assert converted is not None
    return converted


def _to_eight_bits(image: Image.Image) -> Image.Image:
    """Grey of 16 bits, or of no defined range (32-bit integers, floats), as 8-bit RGB."""
    values = np.asarray(image, dtype=np.float32)
    values = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
    low, high = 0.0, 65535.0
    if image.mode in {"I", "F"} and (values.min() < low or not 255 < values.max() <= high):
        low, high = float(values.min()), float(values.max())
    scaled = (values - low) * (255.0 / max(high - low, 1e-12))
    return Image.fromarray(scaled.round().astype(np.uint8)).convert("RGB")


def _load_video(path: Path, info: MediaInfo, max_side: int) -> list[Image.Image]:
    claimed = info.duration_seconds
    duration = claimed or _measure(path)
    frames = _sample(path, info, max_side, duration)
    if len(frames) < VIDEO_FRAMES and claimed:
        # A clip of few frames, or a header that claims what is not so.
        real = _measure(path)
        if abs(real - duration) > 0.1 * duration:
            frames = _sample(path, info, max_side, real)
    if not frames:
        raise UploadError("unreadable_media", "No frame of the video can be read.", EXPORT_VIDEO)
    return frames


def _measure(path: Path) -> float:
    """Seconds of video there really are, counted packet by packet without decoding them."""
    first, last, count = math.inf, -math.inf, 0
    with open_video(path, sniff(path)) as container:
        stream = picture_stream(container)
        with suppress(av.FFmpegError):
            for packet in container.demux(stream):
                count += packet.size > 0
                if packet.pts is not None and packet.time_base is not None:
                    first = min(first, float(packet.pts * packet.time_base))
                    end = packet.pts + (packet.duration or 0)
                    last = max(last, float(end * packet.time_base))
        return last - first if last > first else count * _frame_seconds(stream)


def _frame_seconds(stream: VideoStream) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(1 / rate) if rate else 1 / 25


def _sample(path: Path, info: MediaInfo, max_side: int, duration: float) -> list[Image.Image]:
    """Up to VIDEO_FRAMES frames from the middles of equal parts of `duration` seconds."""
    gap = duration / VIDEO_FRAMES
    for search in (_seek_frames, _walk_frames) if gap > _SEEK_GAP_SECONDS else (_walk_frames,):
        with open_video(path, sniff(path)) as container:
            stream = picture_stream(container)
            stream.thread_type = "AUTO"
            frames = []
            for frame in search(container, stream, gap):
                check_pixels(frame.width, frame.height, info.width * info.height)
                frames.append(_to_image(frame, max_side))
        if frames:
            return frames
    return []


def _walk_frames(
    container: InputContainer, stream: VideoStream, gap: float
) -> Iterator[VideoFrame]:
    """Decode everything in order and pick what is on screen in the middle of each part."""
    wanted = [(part + 0.5) * gap for part in range(VIDEO_FRAMES)]
    shown = None
    for time, frame in _timed_frames(container, stream):
        if shown is not None and time > wanted[0]:
            yield shown
            wanted = [middle for middle in wanted if middle >= time]
            if not wanted:
                return
        shown = frame
    if shown is not None:
        yield shown


def _seek_frames(
    container: InputContainer, stream: VideoStream, gap: float
) -> Iterator[VideoFrame]:
    """Jump to the middle of each part; a frame from anywhere in the part will do."""
    latest = -math.inf
    for part in range(VIDEO_FRAMES):
        try:
            container.seek(round((part + 0.5) * gap * av.time_base) + _start(container))
        except av.FFmpegError:
            return
        for time, frame in _timed_frames(container, stream):
            if time >= part * gap and time > latest:
                latest = time
                yield frame
                break


def _start(container: InputContainer) -> int:
    return container.start_time or 0


def _timed_frames(
    container: InputContainer, stream: VideoStream
) -> Iterator[tuple[float, VideoFrame]]:
    """Frames with their seconds from the start; damaged packets are passed over."""
    start = _start(container) / av.time_base
    step = _frame_seconds(stream)
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


def _to_image(frame: VideoFrame, max_side: int) -> Image.Image:
    width, height = _fit((frame.width, frame.height), max_side)
    small = frame.reformat(width, height, format="rgb24", interpolation="AREA")
    image = Image.fromarray(small.to_ndarray())
    turn = _ROTATIONS.get(round(frame.rotation / 90) * 90 % 360)
    return image if turn is None else image.transpose(turn)
