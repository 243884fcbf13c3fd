"""The analyzer that needs no server: measured words for pixels, a small real model for text."""

from collections.abc import Sequence
from datetime import datetime

from PIL import Image

from vuemantics_pipeline.analysis.analyzer import AnalyzerIdentity, Description, Label
from vuemantics_pipeline.analysis.appearance import (
    describe_colours,
    describe_light,
    describe_movement,
)
from vuemantics_pipeline.analysis.minilm import DIMENSION, MODEL_NAME, MiniLM
from vuemantics_pipeline.media.probe import MediaInfo

# Raise it with every change of the words that come out.
_WORDS_VERSION = "1"

_SEASONS = ("winter", "spring", "summer", "autumn")
# (hour below, words)
_HOURS = ((5, "at night"), (12, "in the morning"), (17, "in the afternoon"), (22, "in the evening"))


class EmbeddedAnalyzer:
    """Says what it can measure (colours, light, shape, movement, date, camera), and no more.

    Text is embedded with `MiniLM`, so search by meaning works for what the words say.
    """

    def __init__(self) -> None:
        self._model = MiniLM()
        self._identity = AnalyzerIdentity(
            analyzer="embedded",
            vision_model="measured-appearance",
            embedding_model=MODEL_NAME,
            dimension=DIMENSION,
            prompt_version=_WORDS_VERSION,
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
    ) -> Description:
        """See `Analyzer.describe`. Raises nothing: there is no model to blame."""
        middle = frames[len(frames) // 2]
        sentences = [_describe_kind(info, len(frames))]
        sentences += [describe_colours(middle), describe_light(middle)]
        if len(frames) > 1:
            sentences.append(describe_movement(frames))
        sentences += _describe_origin(info.taken_at, info.camera)
        return Description(" ".join(sentences))

    def embed(self, text: str, labels: Sequence[Label] = ()) -> list[float]:  # noqa: ARG002
        """See `Analyzer.embed`.

        Raises:
            BackendUnavailable: 'model_missing' or 'model_damaged'.
        """
        return self._model.embed(text)

    def check(self) -> str:
        """See `Analyzer.check`."""
        self._model.load()
        return f"The embedded analyzer is ready; {MODEL_NAME} is the file it should be."


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
