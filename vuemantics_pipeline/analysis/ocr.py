"""A picture -> the writing in it, with PP-OCR on the CPU (rapidocr, the extra `ocr`)."""

from functools import cached_property
from importlib.util import find_spec
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from PIL import Image

from vuemantics_pipeline.analysis.pinned import open_session, package_file, read_pinned
from vuemantics_pipeline.printable import printable

if TYPE_CHECKING:
    from rapidocr import RapidOCR

_PACKAGE = "rapidocr"
_REQUIREMENT = "vuemantics-pipeline[ocr]"

# PP-OCRv6 small (PaddlePaddle, Apache-2.0) as rapidocr 3.10 brings it along.
_DETECTOR = "PP-OCRv6_det_small.onnx"
_DETECTOR_SHA256 = "090f04abcd9d9a7498bc4ebf677e4cb9bdce1fe4197ddb7e529f1ef44e1ff94f"
_READER = "PP-OCRv6_rec_small.onnx"
_READER_SHA256 = "6f327246b50388f3c176ae304bd95767ea6dc0c9ae92153ef8cbe210b3c14884"

# Longest side in pixels that the detector is given, and how sure a line must be, 0-1.
_SIDE = 960
_SURE = 0.8
_LENGTH = 2000


def ocr_installed() -> bool:
    """Whether the extra `ocr` is there. Nothing is imported."""
    return find_spec(_PACKAGE) is not None


class OCR:
    """Reads Latin and Chinese script.

    Both models are read and compared with their pinned SHA-256 before anything parses them, and
    handed over as they are: rapidocr is never left to look for a model by itself, or to download
    one.
    """

    MODEL_NAME: ClassVar[str] = "PP-OCRv6-small"

    def read(self, image: Image.Image) -> str:
        """Return the lines of writing from top to bottom, at most 2,000 characters.

        Raises:
            BackendUnavailable: 'model_missing' or 'model_damaged'.
        """
        small = image.copy()
        small.thumbnail((_SIDE, _SIDE), Image.Resampling.LANCZOS)
        from rapidocr.utils.output import RapidOCROutput

        found = self._engine(np.asarray(small)[..., ::-1])
        # What it gives back when it finds nothing is of other kinds at times.
        if not isinstance(found, RapidOCROutput):
            return ""
        lines = zip(found.txts or (), found.scores or (), strict=True)
        sure = (printable(line).strip() for line, score in lines if score >= _SURE)
        # Textures are taken for single letters now and then.
        words = (line for line in sure if sum(map(str.isalnum, line)) > 1)
        return "\n".join(words)[:_LENGTH].strip()

    def load(self) -> None:
        """Load what `read` needs, or raise as it does."""
        _ = self._engine

    @cached_property
    def _engine(self) -> "RapidOCR":
        detector, reader = (
            open_session(
                read_pinned(
                    package_file(_PACKAGE, "models", name, requirement=_REQUIREMENT),
                    sha256,
                    requirement=_REQUIREMENT,
                ),
                arena=False,
            )
            for name, sha256 in ((_DETECTOR, _DETECTOR_SHA256), (_READER, _READER_SHA256))
        )
        from omegaconf import flag_override
        from rapidocr import RapidOCR

        engine = RapidOCR(
            params={
                "Global.log_level": "critical",
                # Photos are upright by now; the third model would only turn lines upside down.
                "Global.use_cls": False,
                "Det.limit_type": "max",
                "Det.limit_side_len": _SIDE,
            }
        )
        with flag_override(engine.cfg, "allow_objects", True):
            engine.cfg.Det.session = detector
            engine.cfg.Rec.session = reader
        return engine
