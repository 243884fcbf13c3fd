"""What the code server of a stack under test loads: the product, with uploads that wait or kill.

A photo's width is its name here: the analyzer is shown pixels only. The tests say in the file
`held` of the home which widths, `*` for all, are kept waiting, and may change it at any time.
"""

import os
import time
from collections.abc import Iterator, Sequence

import dagster as dg
from PIL import Image

from vuemantics_pipeline.analysis.analyzer import Analyzer, Description, OnFrame, unheard
from vuemantics_pipeline.analysis.constant import ConstantAnalyzer
from vuemantics_pipeline.media.probe import MediaInfo
from vuemantics_pipeline.orchestration.build import build_definitions
from vuemantics_pipeline.settings import load_settings

POISON_HEIGHT = 66
"""Of photos that end the process of whoever looks at them."""

RESOURCES = "resources"
"""Held, it keeps a run from the batch: between its start and its lease."""


def is_held(name: str) -> bool:
    """Say whether the tests want this to wait."""
    try:
        held = (load_settings().home / "held").read_text().split()
    except FileNotFoundError:
        return False
    return name in held or ("*" in held and name != RESOURCES)


def wait_while_held(name: str) -> None:
    while is_held(name):
        time.sleep(0.02)


class HeldAnalyzer(ConstantAnalyzer):
    """Notes each call in the file `calls` of the home, and waits for as long as it is told to."""

    def describe(
        self,
        frames: Sequence[Image.Image],
        info: MediaInfo,
        *,
        again: bool = False,
        on_frame: OnFrame = unheard,
    ) -> Description:
        with (load_settings().home / "calls").open("a") as calls:
            calls.write(f"{info.width}\n")
        if info.height == POISON_HEIGHT:
            os._exit(3)
        wait_while_held(str(info.width))
        return super().describe(frames, info, again=again, on_frame=on_frame)


@dg.resource
def held_analyzer(_context: dg.InitResourceContext) -> Iterator[Analyzer]:
    wait_while_held(RESOURCES)
    yield HeldAnalyzer(load_settings().embedding_dimensions)


defs = build_definitions(analyzer=held_analyzer)
