"""What an analyzer is. `build_analyzer` in `build.py` picks one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from PIL import Image

from vuemantics_pipeline.media.probe import MediaInfo


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


class Analyzer(Protocol):
    """Describes media and embeds text. Implementations are used by one thread at a time."""

    @property
    def identity(self) -> AnalyzerIdentity: ...

    def describe(self, frames: Sequence[Image.Image], info: MediaInfo) -> str:
        """Describe one upload in plain language.

        Args:
            frames: at least one upright RGB image: the picture, or frames of the video in order.
            info: what the file says about itself.

        Raises:
            BackendUnavailable: the model cannot be reached or is missing.
            UploadError: the model answers, and blames this file.
        """
        ...

    def embed(self, text: str) -> list[float]:
        """Embed text as a unit vector of `identity.dimension` floats.

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
