"""What the code server of the live page's stack loads: the product, with an analyzer that waits.

See `faults/definitions.py`: the tests say in the file `held` of the home at photos of which widths.
"""

from collections.abc import Sequence

import dagster as dg
from PIL import Image

from vuemantics_pipeline.analysis.analyzer import (
    Analyzer,
    AnalyzerIdentity,
    Description,
    Label,
    OnFrame,
    unheard,
)
from vuemantics_pipeline.analysis.build import build_analyzer
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.orchestration.build import build_definitions
from vuemantics_pipeline.settings import load_settings
from vuemantics_pipeline_tests.faults.definitions import wait_while_held


class HeldAnalyzer:
    """Another analyzer, before which photos wait for as long as they are told to."""

    def __init__(self, analyzer: Analyzer) -> None:
        self._analyzer = analyzer

    @property
    def identity(self) -> AnalyzerIdentity:
        return self._analyzer.identity

    def describe(
        self,
        frames: Sequence[Image.Image],
        info: MediaInfo,
        *,
        again: bool = False,
        on_frame: OnFrame = unheard,
    ) -> Description:
        wait_while_held(str(info.width))
        return self._analyzer.describe(frames, info, again=again, on_frame=on_frame)

    def embed(self, text: str, labels: Sequence[Label] = ()) -> list[float]:
        return self._analyzer.embed(text, labels)

    def check(self) -> str:
        return self._analyzer.check()


@dg.resource
def held_analyzer(_context: dg.InitResourceContext) -> Analyzer:
    return HeldAnalyzer(build_analyzer(load_settings()))


defs = build_definitions(analyzer=held_analyzer)
