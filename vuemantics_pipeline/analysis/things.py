"""Probabilities of ImageNet classes -> everyday words, hedged by how sure the network is.

Which classes a word stands for, and which are never named, is in `data/things.txt`. A word's
probability is the sum of its classes': a hundred breeds, each of them unlikely, add up to a dog.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vuemantics_pipeline.analysis.analyzer import Label
from vuemantics_pipeline.analysis.efficientnet import CLASSES

# Probability from which a word is said, and how. Set on other photos than the benchmark's.
POSSIBLY, PROBABLY, SURELY = 0.2, 0.4, 0.8

# Probability from which a word weighs in when the upload is embedded.
_LABEL = 0.05
_MOST_NAMED = 3
# A narrower word takes the place of its wider one when it has this share of its probability.
_SHARE = 0.6

_TABLE = Path(__file__).parent / "data" / "things.txt"
_UNNAMED = "-"
_AN = frozenset(("hourglass", "umbrella"))
_WITHOUT_ARTICLE = frozenset(
    (
        *("beer", "bells", "binoculars", "bread", "chocolate sauce", "cloth", "coffee", "coral"),
        *("dough", "drink", "eggnog", "fabric", "food", "fruit", "furniture", "guacamole", "hay"),
        *("ice cream", "kitchenware", "laboratory glass", "maize", "maracas", "mashed potato"),
        *("pan pipes", "paper towel", "pasta", "rapeseed", "scales", "skis", "soup"),
        *("sports equipment", "squash", "standing stones", "stew", "sweets", "water", "wine"),
    )
)


@dataclass(frozen=True)
class Word:
    """An everyday word.

    Attributes:
        wider: the next wider word, None for the widest.
        classes: indices of the ImageNet classes it stands for, those of narrower words included.
    """

    name: str
    wider: str | None
    classes: tuple[int, ...]


def read_table() -> dict[int, tuple[str, ...]]:
    """The words of each class by its index, widest first; none for one that is never named."""
    table = {}
    for line in _TABLE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("#"):
            index, path = line.split("\t")
            table[int(index)] = () if path == _UNNAMED else tuple(path.split(" > "))
    return table


@cache
def all_words() -> dict[str, Word]:
    """Every word there is, by its name."""
    wider: dict[str, str | None] = {}
    classes: dict[str, list[int]] = {}
    for index, path in read_table().items():
        for parent, name in zip((None, *path), path, strict=False):
            wider[name] = parent
            classes.setdefault(name, []).append(index)
    return {name: Word(name, wider[name], tuple(classes[name])) for name in wider}


@cache
def _narrower() -> dict[str | None, tuple[str, ...]]:
    """The next narrower words of each word; of None, the widest."""
    found: dict[str | None, list[str]] = {}
    for word in all_words().values():
        found.setdefault(word.wider, []).append(word.name)
    return {name: tuple(words) for name, words in found.items()}


def recognise(probabilities: NDArray[np.floating]) -> tuple[Label, ...]:
    """Return the words for what is seen, most probable first.

    A wide word whose narrower ones are all unlikely must be probable itself: the traces that every
    picture leaves in four hundred kinds of animal are no animal.

    Args:
        probabilities: of the ImageNet classes, shape (1000,).
    """
    if probabilities.shape != (CLASSES,):
        raise ValueError(f"{CLASSES} probabilities, not {probabilities.shape}")
    sums = {
        word.name: min(1.0, float(probabilities[list(word.classes)].sum()))
        for word in all_words().values()
    }
    seen = [Label(name, sum_) for name, sum_ in sums.items() if _stands(name, sums, _LABEL)]
    return tuple(sorted(seen, key=lambda label: (-label.probability, label.name)))


def describe_things(kind: str, labels: Sequence[Label]) -> str:
    """One sentence that names what is seen as surely as it is seen, or "" where nothing is sure.

    Args:
        kind: 'photo' or 'video'.
        labels: of `recognise`.
    """
    known = {label.name: label.probability for label in labels}
    widest = [name for name in known if all_words()[name].wider is None]
    named = [name for name in widest if _stands(name, known, POSSIBLY)][:_MOST_NAMED]
    if not named:
        return ""
    parts = [_narrow_down(name, known) for name in named]
    (hedge, first), rest = parts[0], parts[1:]
    others = "".join(f", and {hedge}{words}" for hedge, words in rest)
    return f"This {kind} {hedge}shows {first}{others}."


def phrase(name: str) -> str:
    """The word as it is said, e.g. 'an otter', 'coffee'."""
    if name in _WITHOUT_ARTICLE:
        return name
    return f"{'an' if name[0].lower() in 'aeio' or name in _AN else 'a'} {name}"


def _stands(name: str, known: dict[str, float], floor: float) -> bool:
    if known.get(name, 0) < floor:
        return False
    narrower = _narrower().get(name, ())
    return (
        not narrower
        or known[name] >= PROBABLY
        or any(known.get(word, 0) >= floor for word in narrower)
    )


def _narrow_down(name: str, known: dict[str, float]) -> tuple[str, str]:
    """How sure it is, and what it is in words no wider than needed.

    'a dog (golden retriever)', or 'an animal, possibly a dog' where the narrower word is a guess.
    """
    path = [name]
    while (guess := _likeliest(path[-1], known)) is not None:
        if known[guess] < _SHARE * known[path[-1]]:
            break
        path.append(guess)
    # The widest words, 'animal' or 'building', go without saying.
    words = f"{phrase(path[-2])} ({path[-1]})" if len(path) > 2 else phrase(path[-1])
    if guess is not None:
        words += f", {_hedge(known[guess])}{phrase(guess)}"
    return _hedge(known[path[-1]]), words


def _likeliest(name: str, known: dict[str, float]) -> str | None:
    """The most probable of the next narrower words, if it is worth saying."""
    narrower = [word for word in _narrower().get(name, ()) if known.get(word, 0) >= POSSIBLY]
    return max(narrower, key=lambda word: known[word], default=None)


def _hedge(probability: float) -> str:
    if probability >= SURELY:
        return ""
    return "probably " if probability >= PROBABLY else "possibly "
