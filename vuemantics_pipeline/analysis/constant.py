"""The analyzer that looks at nothing: for measuring what everything around it costs."""

from collections.abc import Sequence

from PIL import Image

from vuemantics_pipeline.analysis.analyzer import (
    AnalyzerIdentity,
    Description,
    Label,
    OnFrame,
    unheard,
)
from vuemantics_pipeline.media.probe import MediaInfo

_DESCRIPTION = (
    "No analyzer looked at this upload: the pipeline ran with its analyzer switched off, "
    "to measure everything else."
)


class ConstantAnalyzer:
    """Gives every upload the same description and the same unit vector."""

    def __init__(self, dimension: int) -> None:
        self._identity = AnalyzerIdentity(
            analyzer="none",
            vision_model="none",
            embedding_model="none",
            dimension=dimension,
            prompt_version="none",
        )

    @property
    def identity(self) -> AnalyzerIdentity:
        return self._identity

    def describe(
        self,
        frames: Sequence[Image.Image],  # noqa: ARG002
        info: MediaInfo,  # noqa: ARG002
        *,
        again: bool = False,  # noqa: ARG002
        on_frame: OnFrame = unheard,  # noqa: ARG002
    ) -> Description:
        return Description(_DESCRIPTION)

    def embed(self, text: str, labels: Sequence[Label] = ()) -> list[float]:  # noqa: ARG002
        return [1.0] + [0.0] * (self._identity.dimension - 1)

    def check(self) -> str:
        return "The analyzer is switched off: every upload gets the same description."
