"""A file -> everything the pipeline wants of it, read once: facts, frames, thumbnail, hash."""

import dataclasses
import hashlib
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from vuemantics_pipeline.media.content import blame_file, open_file, open_image, sniff
from vuemantics_pipeline.media.images import load_image
from vuemantics_pipeline.media.probe import MediaInfo, image_info, probe
from vuemantics_pipeline.media.thumbnail import choose_thumbnail
from vuemantics_pipeline.media.videos import load_video


@dataclass(frozen=True)
class Decoded:
    """What is in a file.

    Attributes:
        info: what `probe` says, with a video's real duration and frame rate.
        frames: upright sRGB frames without metadata, alpha laid on white: the picture (the first
            one of an animation), or 1 to 10 frames spread evenly over the video, in order.
        thumbnail: RGB, longest side at most 256 px; of a video, from a frame that shows something.
        sha256: of the file's bytes, in hexadecimal.
    """

    info: MediaInfo
    frames: list[Image.Image]
    thumbnail: Image.Image
    sha256: str


def decode(path: Path, *, max_pixels: int, max_side: int) -> Decoded:
    """Identify a file by its content and decode what a person would see.

    Args:
        max_pixels: of the picture or of one frame of the video.
        max_side: longest side of the frames in pixels; smaller media are not enlarged.

    Raises:
        UploadError: as `probe` does.
        BackendUnavailable: 'storage_unavailable', the folder cannot be read.
    """
    format_ = sniff(path)
    if format_.file_type == "image":
        with open_image(path, format_, max_pixels=max_pixels) as opened:
            info = image_info(opened, format_)
            frames = [load_image(opened, max_side)]
    else:
        info = probe(path, max_pixels=max_pixels)
        frames, timing = load_video(path, format_, max_pixels=max_pixels, max_side=max_side)
        info = dataclasses.replace(
            info, duration_seconds=timing.seconds, frame_rate=timing.frame_rate
        )
    return Decoded(info, frames, choose_thumbnail(frames), _sha256(path))


def _sha256(path: Path) -> str:
    with open_file(path) as file, blame_file(path):
        return hashlib.file_digest(file, "sha256").hexdigest()
