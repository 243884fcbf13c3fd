"""The analyzer that needs no server: two small models and measured words, all on the CPU."""

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from vuemantics_pipeline.analysis.analyzer import (
    AnalyzerIdentity,
    Description,
    Label,
    OnFrame,
    unheard,
)
from vuemantics_pipeline.analysis.appearance import (
    describe_colours,
    describe_light,
    describe_movement,
)
from vuemantics_pipeline.analysis.efficientnet import MODEL_NAME as VISION_MODEL
from vuemantics_pipeline.analysis.efficientnet import WEIGHTS_SHA256, EfficientNet
from vuemantics_pipeline.analysis.minilm import DIMENSION, MODEL_NAME, MiniLM
from vuemantics_pipeline.analysis.ocr import OCR
from vuemantics_pipeline.analysis.things import (
    POSSIBLY,
    PROBABLY,
    SURELY,
    describe_things,
    phrase,
    recognise,
)
from vuemantics_pipeline.media.probe import MediaInfo

# Raise it with every change of the words that come out.
_WORDS_VERSION = "2"

_SEASONS = ("winter", "spring", "summer", "autumn")
# (hour below, words)
_HOURS = ((5, "at night"), (12, "in the morning"), (17, "in the afternoon"), (22, "in the evening"))


# Writing beyond it is found by search, and would drown the rest of the description.
_QUOTED_LENGTH = 200


class EmbeddedAnalyzer:
    """Names what it recognises, then what it measures: colours, light, movement, date, camera.

    Args:
        models: folder in which the converted vision model is kept.
        ocr: whether writing is read; that takes the extra `ocr`.
    """

    def __init__(self, models: Path, *, ocr: bool = False) -> None:
        self._vision = EfficientNet(models)
        self._text = MiniLM()
        self._ocr = OCR() if ocr else None
        self._phrases: dict[str, NDArray[np.float64]] = {}
        self._identity = AnalyzerIdentity(
            analyzer="embedded",
            vision_model=VISION_MODEL,
            embedding_model=MODEL_NAME,
            dimension=DIMENSION,
            prompt_version=f"{_WORDS_VERSION}+ocr" if ocr else _WORDS_VERSION,
        )

    @property
    def identity(self) -> AnalyzerIdentity:
        return self._identity

    def describe(
        self,
        frames: Sequence[Image.Image],
        info: MediaInfo,
        *,
        again: bool = False,  # noqa: ARG002
        on_frame: OnFrame = unheard,
    ) -> Description:
        """See `Analyzer.describe`. Writing is read in the middle frame only.

        Raises:
            BackendUnavailable: 'model_missing' or 'model_damaged'.
        """
        middle = frames[len(frames) // 2]
        is_video = info.file_type == "video"
        labels = recognise(self._probabilities(frames, on_frame if is_video else unheard))
        visible_text = self._ocr.read(middle) if self._ocr else ""
        sentences = [
            describe_things("video" if is_video else "photo", labels),
            _quote(visible_text),
            _describe_kind(info, len(frames)),
            describe_colours(middle),
            describe_light(middle),
            describe_movement(frames) if len(frames) > 1 else "",
            *_describe_origin(info.taken_at, info.camera),
        ]
        return Description(
            " ".join(sentence for sentence in sentences if sentence),
            labels=labels,
            visible_text=visible_text,
            model_digest=WEIGHTS_SHA256,
            options={"possibly": POSSIBLY, "probably": PROBABLY, "surely": SURELY},
        )

    def embed(self, text: str, labels: Sequence[Label] = ()) -> list[float]:
        """See `Analyzer.embed`.

        With labels it is the mean of the text's vector and of the labels', which count by their
        probability.

        Raises:
            BackendUnavailable: 'model_missing' or 'model_damaged'.
        """
        vector = self._text.embed(text)
        if not labels:
            return vector
        mixed = np.sum([label.probability * self._phrase(label.name) for label in labels], axis=0)
        return _unit(np.asarray(vector) + np.asarray(_unit(mixed)))

    def check(self) -> str:
        """See `Analyzer.check`."""
        self._vision.load()
        self._text.load()
        models = [VISION_MODEL, MODEL_NAME]
        if self._ocr:
            self._ocr.load()
            models.append(self._ocr.MODEL_NAME)
        return f"The embedded analyzer is ready; {_listed(models)} are the files they should be."

    def _probabilities(
        self, frames: Sequence[Image.Image], on_frame: OnFrame
    ) -> NDArray[np.float32]:
        """Those of the frames taken together: what is seen in several counts for more.

        The mean of square roots, squared: of two classes with the same mean it prefers the one
        that is there all along.
        """
        roots = []
        for number, frame in enumerate(frames, start=1):
            roots.append(np.sqrt(self._vision.probabilities(frame)))
            on_frame(number, len(frames))
        return np.square(np.mean(roots, axis=0, dtype=np.float32))

    def _phrase(self, name: str) -> NDArray[np.float64]:
        """The vector of a label's everyday word: there are few, and they come again and again."""
        if name not in self._phrases:
            self._phrases[name] = np.asarray(self._text.embed(phrase(name)))
        return self._phrases[name]


def _unit(vector: NDArray[np.float64]) -> list[float]:
    unit: list[float] = (vector / np.linalg.norm(vector)).tolist()
    return unit


def _quote(visible_text: str) -> str:
    words = " ".join(visible_text.split()).replace('"', "'")
    if len(words) > _QUOTED_LENGTH:
        words = words[:_QUOTED_LENGTH].rsplit(" ", 1)[0] + " …"
    return f'There is writing: "{words}".' if words else ""


def _listed(words: Sequence[str]) -> str:
    return f"{', '.join(words[:-1])} and {words[-1]}"


def _describe_kind(info: MediaInfo, frame_count: int) -> str:
    shape = _shape(info.width / info.height)
    size = f"{info.width} x {info.height} pixels"
    if info.file_type == "image":
        return f"A {shape} photo of {size}."
    length = f" of {_duration(info.duration_seconds)}" if info.duration_seconds else ""
    looked_at = "one frame" if frame_count == 1 else f"{frame_count} frames"
    return f"A {shape} video{length}, {size}, of which {looked_at} were looked at.".replace(
        "one frame were", "one frame was"
    )


def _shape(ratio: float) -> str:
    """Words for width / height."""
    if ratio >= 2:
        return "wide panorama"
    if ratio > 1.05:
        return "landscape"
    if ratio >= 1 / 1.05:
        return "square"
    return "portrait" if ratio > 0.5 else "tall, narrow"


def _duration(seconds: float) -> str:
    if seconds < 1:
        return "less than a second"
    if seconds < 90:
        return f"{seconds:.0f} second{'' if round(seconds) == 1 else 's'}"
    return f"{seconds / 60:.0f} minutes"


def _describe_origin(taken_at: datetime | None, camera: str | None) -> list[str]:
    using = f" with a {camera}" if camera else ""
    if taken_at is None:
        return [f"Taken{using}."] if using else []
    season = _SEASONS[taken_at.month % 12 // 3]
    hour = next((words for below, words in _HOURS if taken_at.hour < below), "at night")
    return [
        f"Taken{using} in {taken_at:%B %Y} {hour} ({season} in the northern half of the world)."
    ]
