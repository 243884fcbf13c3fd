"""What an analyzer is. `build_analyzer` in `build.py` picks one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from PIL import Image

from vuemantics_pipeline.media.probe import MediaInfo

OnFrame = Callable[[int, int], None]
"""Hears (done, total) whenever another of a video's frames has been looked at."""


def unheard(done: int, total: int) -> None:
    """The `OnFrame` of whoever does not follow."""


@dataclass(frozen=True)
class AnalyzerIdentity:
    """Who made a description and its vector.

    Two vectors can be compared only when `embedding_model` and `dimension` are equal.
    """

    analyzer: str
    vision_model: str
    embedding_model: str
    dimension: int
    prompt_version: str


@dataclass(frozen=True)
class Label:
    """Something that was recognised.

    Attributes:
        name: in everyday words, e.g. 'dog'.
        probability: 0-1.
    """

    name: str
    probability: float


@dataclass(frozen=True)
class Description:
    """What an analyzer says about one upload.

    Attributes:
        text: plain language.
        labels: what `embed` weighs in besides the text, most probable first.
        visible_text: writing that was read in the picture, "" where none was looked for or found.
        model_digest: of the vision model's weights, None where there is none.
        options: what the model was run with, as JSON takes it.
    """

    text: str
    labels: tuple[Label, ...] = ()
    visible_text: str = ""
    model_digest: str | None = None
    options: Mapping[str, str | int | float] = field(default_factory=dict)


class Analyzer(Protocol):
    """Describes media and embeds text. Implementations are used by one thread at a time."""

    @property
    def identity(self) -> AnalyzerIdentity: ...

    def describe(
        self,
        frames: Sequence[Image.Image],
        info: MediaInfo,
        *,
        again: bool = False,
        on_frame: OnFrame = unheard,
    ) -> Description:
        """Describe one upload in plain language.

        Args:
            frames: at least one upright RGB image: the picture, or frames of the video in order.
            info: what the file says about itself.
            again: the first answer was no good; give another one, if there can be another.
            on_frame: called after each frame of a video; what it raises ends the call.

        Raises:
            BackendUnavailable: the model cannot be reached or is missing.
            UploadError: the model answers, and blames this file.
        """
        ...

    def embed(self, text: str, labels: Sequence[Label] = ()) -> list[float]:
        """Embed a text as a unit vector of `identity.dimension` floats.

        Args:
            labels: those of the description that the text is from; none for a search.

        Raises:
            BackendUnavailable: the model cannot be reached or is missing.
        """
        ...

    def check(self) -> str:
        """Say in one sentence what was found ready, without describing anything.

        Raises:
            BackendUnavailable: the model cannot be reached or is missing.
        """
        ...
