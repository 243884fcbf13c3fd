"""ImageNet classes in everyday words: grouped, hedged, and some never named."""

import re

import numpy as np
import pytest
from numpy.typing import NDArray

from vuemantics_pipeline.analysis.things import (
    all_words,
    describe_things,
    phrase,
    read_table,
    recognise,
)

TABLE = read_table()
UNNAMED = [index for index, path in TABLE.items() if not path]

# By index, so that a slip in the table cannot hide one: primates; swine and hippopotamus; whale,
# dugong, ox and skunk; vermin, worms and slugs; people; underwear, swimwear and other clothes;
# masks, wigs and what the ill wear; weapons; toilets.
MUST_BE_UNNAMED = (
    *range(365, 385),
    *range(341, 345),
    *(147, 149, 345, 361),
    *(78, 79, 110, 111, 114, 126, 305, 314),
    *(981, 982, 983),
    *(399, 411, 433, 439, 443, 445, 452, 459, 474, 501, 514, 515, 529, 568, 578, 601, 608, 610),
    *(614, 617, 638, 639, 643, 652, 655, 658, 678, 680, 689, 697, 735, 770, 774, 775, 793, 796),
    *(806, 808, 834, 836, 837, 841, 842, 869, 887, 903, 906),
    *(413, 499, 583, 596, 597, 676, 743, 747, 763, 764, 777),
    *(861, 999),
)

DOGS = range(151, 269)


def probabilities(classes: dict[int, float]) -> NDArray[np.float32]:
    filled = np.zeros(1000, np.float32)
    for index, value in classes.items():
        filled[index] = value
    return filled


def said(classes: dict[int, float]) -> str:
    return describe_things("photo", recognise(probabilities(classes)))


def test_every_class_is_grouped_or_expressly_unnamed() -> None:
    assert list(TABLE) == list(range(1000))
    assert 100 < len(UNNAMED) < 200


def test_a_word_has_one_place() -> None:
    wider: dict[str, tuple[str, ...]] = {}
    for path in TABLE.values():
        for depth, name in enumerate(path):
            assert wider.setdefault(name, path[:depth]) == path[:depth], name


def test_words_are_fit_to_print() -> None:
    for name in all_words():
        assert re.fullmatch(r"[A-Za-z][A-Za-z' -]+", name)
        assert phrase(name).endswith(name)


def test_what_could_insult_is_unnamed() -> None:
    assert not set(MUST_BE_UNNAMED) - set(UNNAMED)


@pytest.mark.parametrize("index", UNNAMED)
def test_an_unnamed_class_leaves_no_trace(index: int) -> None:
    assert recognise(probabilities({index: 1.0})) == ()
    # Nor does it add to anything else.
    koala = {105: 0.4}
    assert recognise(probabilities({**koala, index: 0.6})) == recognise(probabilities(koala))


def test_whatever_the_probabilities_only_words_of_the_table_come_out() -> None:
    random = np.random.default_rng(4)
    hedges = {"This", "photo", "shows", "probably", "possibly", "and", "a", "an"}
    printable = hedges | {part for word in all_words() for part in word.split()}
    single = np.eye(1000, dtype=np.float32)
    # The smaller the concentration, the fewer classes have most of it.
    mixed = [random.dirichlet(np.full(1000, 10.0**-power)) for power in range(5) for _ in range(50)]

    for vector in (*single, *mixed):
        labels = recognise(vector)
        assert all(label.name in all_words() for label in labels)
        said = re.findall(r"[A-Za-z'-]+", describe_things("photo", labels))
        assert set(said) <= printable, said


def test_no_word_gathers_an_unnamed_class() -> None:
    gathered = {index for word in all_words().values() for index in word.classes}

    assert gathered == set(range(1000)) - set(UNNAMED)


def test_a_hundred_breeds_add_up_to_a_dog() -> None:
    breeds = {index: 0.9 / len(DOGS) for index in DOGS}

    assert said(breeds) == "This photo shows a dog."
    labels = {label.name: label.probability for label in recognise(probabilities(breeds))}
    assert labels == {"animal": pytest.approx(0.9), "dog": pytest.approx(0.9)}


@pytest.mark.parametrize(
    ("classes", "sentence"),
    [
        ({105: 0.95}, "This photo shows a koala."),
        ({105: 0.6}, "This photo probably shows a koala."),
        ({105: 0.3}, "This photo possibly shows a koala."),
        ({105: 0.1}, ""),
        ({}, ""),
        ({207: 0.9}, "This photo shows a dog (golden retriever)."),
        ({207: 0.5, 160: 0.4}, "This photo shows a dog, probably a golden retriever."),
        ({207: 0.3, 160: 0.6}, "This photo probably shows a dog (Afghan hound)."),
        ({105: 0.45, 360: 0.4}, "This photo shows an animal, probably a koala."),
        ({105: 0.5, 967: 0.3}, "This photo probably shows a koala, and possibly coffee."),
        ({483: 0.9}, "This photo shows a castle."),
        ({879: 0.9}, "This photo shows an umbrella."),
        ({880: 0.9}, "This photo shows a unicycle."),
        ({985: 0.5, 986: 0.4}, "This photo shows a flower."),
    ],
)
def test_words_are_as_sure_as_the_network(classes: dict[int, float], sentence: str) -> None:
    assert said(classes) == sentence


def test_at_most_three_things_are_named() -> None:
    four = said({105: 0.25, 967: 0.25, 483: 0.25, 879: 0.25})

    assert four.count("possibly") == 3


def test_traces_of_many_animals_are_no_animal() -> None:
    traces = dict.fromkeys(range(398), 0.1 / 398)

    assert recognise(probabilities(traces)) == ()
    # More of them weigh in for search; they are not said.
    assert said(dict.fromkeys(range(398), 0.3 / 398)) == ""


def test_labels_come_most_probable_first() -> None:
    labels = recognise(probabilities({207: 0.6, 967: 0.3}))

    assert [label.name for label in labels] == [
        "animal",
        "dog",
        "golden retriever",
        "coffee",
        "drink",
    ]
    assert labels[0].probability == pytest.approx(0.6)


def test_the_number_of_probabilities_is_checked() -> None:
    with pytest.raises(ValueError, match="1000"):
        recognise(np.zeros(999, np.float32))
