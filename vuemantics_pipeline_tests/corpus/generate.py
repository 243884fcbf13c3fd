"""The part of the corpus that is made by script: the same samples every time."""

import random
from collections.abc import Iterator

from vuemantics_pipeline_tests.corpus.movies import movies
from vuemantics_pipeline_tests.corpus.names import names
from vuemantics_pipeline_tests.corpus.pictures import pictures
from vuemantics_pipeline_tests.corpus.samples import COMPLETED, Sample, made
from vuemantics_pipeline_tests.corpus.sound import MAKERS, sound

_SEED = 20240229
_MUTATIONS = 6
_BYTES_CHANGED = 8


def generated(*, heavy: bool) -> list[Sample]:
    """Every generated sample; the heavy ones too if they are wanted."""
    samples = [*_sound(), *_truncated(), *_changed(), *pictures(), *movies(), *names()]
    return [sample for sample in samples if heavy or not sample.is_heavy]


def _sound() -> Iterator[Sample]:
    """A sound file of every format under its own name, under a wrong one, and its first bytes."""
    for extension in MAKERS:
        other = "mp4" if extension == "jpg" else "jpg"
        yield made(f"sound.{extension}", lambda e=extension: sound(e), COMPLETED)  # type: ignore[misc]
        yield made(
            f"{extension}_named.{other}",
            lambda e=extension: sound(e),  # type: ignore[misc]
            COMPLETED,
        )
        yield made(f"magic_only.{extension}", lambda e=extension: sound(e)[:12])  # type: ignore[misc]


def _truncated() -> Iterator[Sample]:
    """Files cut off at every eighth."""
    for extension in MAKERS:
        for eighth in range(1, 8):
            yield made(
                f"{eighth}_of_8.{extension}",
                lambda e=extension, n=eighth: sound(e)[: len(sound(e)) * n // 8],  # type: ignore[misc]
            )


def _changed() -> Iterator[Sample]:
    """Files with some bytes changed at random, as a bad disk or a fuzzer would."""
    for extension in MAKERS:
        for number in range(_MUTATIONS):
            yield made(
                f"changed_{number}.{extension}",
                lambda e=extension, n=number: _mutated(e, n),  # type: ignore[misc]
            )


def _mutated(extension: str, number: int) -> bytes:
    chance = random.Random(f"{_SEED} {extension} {number}")
    body = bytearray(sound(extension))
    # The first half of the changes hits the head, where lengths and counts are.
    for change in range(_BYTES_CHANGED):
        end = len(body) if change % 2 else min(len(body), 400)
        body[chance.randrange(16, end)] = chance.randrange(256)
    return bytes(body)
