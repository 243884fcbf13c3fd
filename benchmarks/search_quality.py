"""How well search finds photos by what they show, on 64 labelled photos under free licences.

    python benchmarks/search_quality.py [--home HOME]

The photos are those of `benchmarks/photos/` and the samples; `queries.json` beside them says which
of them a person would want for each query. For every analyzer that can be reached it prints:

- mAP: the mean over the queries of the average precision of the whole ranking,
- known: the same over the queries that are a word of `analysis/data/things.txt`, as 'a bridge' is,
- top-1: the share of queries whose first photo is wanted,
- P@2: the share of wanted photos among the first two, or the first one where only one is wanted,
- seconds to describe and embed one photo.
"""

import argparse
import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np

from vuemantics_pipeline.analysis.appearance import describe_colours, describe_light
from vuemantics_pipeline.analysis.build import build_analyzer
from vuemantics_pipeline.analysis.minilm import MiniLM
from vuemantics_pipeline.analysis.things import all_words, phrase
from vuemantics_pipeline.errors import PipelineError
from vuemantics_pipeline.media.decode import Decoded, decode
from vuemantics_pipeline.settings import AnalyzerName, Settings, load_settings

PHOTOS = Path(__file__).parent / "photos"
SAMPLES = Path(__file__).parents[1] / "vuemantics_pipeline" / "home" / "samples"

Embed = Callable[[str], list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description="Measure how well search finds photos.")
    parser.add_argument("--home", type=Path, help="the folder that keeps the converted model")
    home = parser.parse_args().home
    overrides = {} if home is None else {"home": home}
    photos = {
        path.stem: decode(path, max_pixels=10_000_000, max_side=1568)
        for path in sorted([*PHOTOS.iterdir(), *SAMPLES.iterdir()])
        if path.suffix not in (".md", ".json")
    }
    queries = json.loads((PHOTOS / "queries.json").read_text(encoding="utf-8"))
    print(f"{len(photos)} photos, {len(queries)} queries")
    print(f"{'':<28}{'mAP':>6}{'known':>7}{'top-1':>7}{'P@2':>6}{'s/photo':>9}")

    text = MiniLM()
    text.load()
    measure(
        "colours and light only",
        lambda photo: text.embed(_colours(photo)),
        text.embed,
        photos,
        queries,
    )
    for name, settings in (
        ("embedded", load_settings(analyzer=AnalyzerName.EMBEDDED, ocr=False, **overrides)),
        ("embedded with OCR", load_settings(analyzer=AnalyzerName.EMBEDDED, ocr=True, **overrides)),
        ("ollama", load_settings(analyzer=AnalyzerName.OLLAMA, **overrides)),
    ):
        try:
            measure_analyzer(name, settings, photos, queries)
        except PipelineError as error:
            print(f"{name:<28}skipped: {error}")


def measure_analyzer(
    name: str,
    settings: Settings,
    photos: Mapping[str, Decoded],
    queries: Mapping[str, list[str]],
) -> None:
    analyzer = build_analyzer(settings)
    analyzer.check()

    def vector(photo: Decoded) -> list[float]:
        described = analyzer.describe(photo.frames, photo.info)
        return analyzer.embed(described.text, described.labels)

    measure(name, vector, analyzer.embed, photos, queries)


def measure(
    name: str,
    vector: Callable[[Decoded], list[float]],
    embed: Embed,
    photos: Mapping[str, Decoded],
    queries: Mapping[str, list[str]],
) -> None:
    start = time.perf_counter()
    vectors = np.array([vector(photo) for photo in photos.values()])
    seconds = (time.perf_counter() - start) / len(photos)
    words = {word for name in all_words() for word in (name, phrase(name))}
    precisions, known, firsts, pairs = [], [], [], []
    for query, wanted in queries.items():
        ranking = np.argsort(-(vectors @ np.array(embed(query))), kind="stable")
        hits = np.isin(np.array(list(photos))[ranking], wanted)
        precisions.append(average_precision(hits))
        known.append(query in words)
        firsts.append(hits[0])
        pairs.append(hits[:2].sum() / min(2, len(wanted)))
    print(
        f"{name:<28}{np.mean(precisions):>6.3f}"
        f"{np.mean(np.array(precisions)[known]):>7.3f}{np.mean(firsts):>7.3f}{np.mean(pairs):>6.3f}"
        f"{seconds:>9.3f}"
    )


def average_precision(hits: np.ndarray) -> float:
    """Mean of the precision at each hit of a ranking, all hits being in it."""
    precision = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    return float(precision[hits].mean())


def _colours(photo: Decoded) -> str:
    middle = photo.frames[len(photo.frames) // 2]
    return f"{describe_colours(middle)} {describe_light(middle)}"


if __name__ == "__main__":
    main()
