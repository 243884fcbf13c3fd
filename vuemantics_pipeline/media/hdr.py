"""High dynamic range -> the range that screens and models know.

Rec. ITU-R BT.2100 pictures (PQ and HLG) taken for ordinary ones look flat and pale. FFmpeg's
swscale converts them: diffuse white (203 cd/m2, Rec. ITU-R BT.2408) becomes white, what is brighter
is cut off, and colours come from the wide gamut of BT.2020 to that of sRGB.
"""

import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import ColorPrimaries, ColorTrc
from PIL import Image

# Values of transfer_characteristics in Rec. ITU-T H.273, which FFmpeg uses as well.
HDR_TRANSFERS = frozenset({int(ColorTrc.SMPTE2084), int(ColorTrc.ARIB_STD_B67)})


def to_rgb(frame: VideoFrame, size: tuple[int, int]) -> Image.Image:
    """Scale a video frame to `size`, as sRGB."""
    is_hdr = frame.color_trc in HDR_TRANSFERS
    small = frame.reformat(
        *size,
        format="rgb24",
        interpolation="AREA",
        dst_color_trc=ColorTrc.IEC61966_2_1 if is_hdr else None,
        dst_color_primaries=ColorPrimaries.BT709 if is_hdr else None,
    )
    return Image.fromarray(small.to_ndarray())


def to_sdr(image: Image.Image, transfer: int) -> Image.Image:
    """Convert an RGB image of BT.2020 colours whose `transfer` is one of HDR_TRANSFERS."""
    frame = VideoFrame.from_ndarray(np.asarray(image), format="rgb24")
    frame.color_trc = transfer
    frame.color_primaries = ColorPrimaries.BT2020
    return to_rgb(frame, image.size)
