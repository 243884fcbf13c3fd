"""audit: a description that cannot be one does not pass."""

import pytest

from vuemantics_pipeline.analysis.audit import MAX_LENGTH, PASS_MARK, audit

GOOD = (
    "A golden retriever runs along a sandy beach at sunset. Behind it the sea is calm and the "
    "sky glows orange and pink. Two people sit on a blanket in the distance and watch."
)

USEFUL = [
    GOOD,
    "Ein Hund läuft bei Sonnenuntergang am Strand entlang; das Meer dahinter ist ruhig.",
    "夕暮れの砂浜を一匹の犬が走っている。海は静かで、空は橙色と桃色に輝いている。"
    "遠くでは二人が毛布に座り、波打ち際の犬を眺めながら静かに話している。",
    "A street sign reads 'Bahnhofstraße 12-14'. A red tram, number 7, passes at 18:45 in rain.",
    "A spreadsheet with 12 columns and 40 rows: 2019, 2020 and 2021 sales by region, in euros.",
    "The picture is black and white; it is very, very dark, and a long, long road leads uphill.",
]

USELESS = [
    "",
    "   \n\t ",
    "...",
    "A dog.",
    f"{GOOD}<|im_end|>",
    f"<|im_start|>assistant\n{GOOD}",
    f"{GOOD}</s>",
    f"[INST] {GOOD}",
    f"<start_of_turn>model {GOOD}",
    "x" * 200,
    "asdkjhqwe" * 20,
    f"{GOOD} aaaaaaaaaaaaaaaaaaaaaaaa",
    "The the the the the the the the the the the the the the the the the the the the.",
    "A dog on a beach. " * 12,
    "A dog runs on the beach and " * 30,
    "0 1 2 3 4 5 6 7 8 9 " * 4 + "the end of it all",
    "{}[]();:=+*/<>!?#$%^&~|\\" * 4 + " and some words",
    "\ufffd\ufffd\ufffd " + GOOD,
]


@pytest.mark.parametrize("description", USEFUL)
def test_a_useful_description_passes(description: str) -> None:
    assert audit(description) == 100


@pytest.mark.parametrize("description", USELESS)
def test_a_useless_description_does_not_pass(description: str) -> None:
    assert 0 <= audit(description) < PASS_MARK


def test_nothing_scores_nothing() -> None:
    assert audit("") == 0


def test_a_long_description_loses_points_and_still_passes() -> None:
    words = [f"word{number}" for number in range(2000)]
    text = " ".join("".join(chr(97 + int(d)) for d in word[4:]) + "x" for word in words)
    assert len(text) > MAX_LENGTH

    assert PASS_MARK <= audit(text) < 100
