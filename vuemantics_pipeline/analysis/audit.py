"""A description -> a score that says whether it can be trusted to be one.

The rules are a table: what models get wrong, and what it costs. Each is enough to fail. All take
time in proportion to the length of the text, whatever the text is.
"""

import re
import unicodedata
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

PASS_MARK = 60
MIN_LENGTH = 50
MAX_LENGTH = 5000


@dataclass(frozen=True)
class Rule:
    """A way in which a text is no description.

    Attributes:
        name: for a person, and the same for every text.
        points: what it takes from the score of 100.
        applies: to a text without white space around it.
    """

    name: str
    points: int
    applies: Callable[[str], bool]


def audit(description: str) -> int:
    """Score a description from 0 (useless) to 100; PASS_MARK and above is fit for search.

    Every rule of the table that applies takes its points away.
    """
    text = description.strip()
    return max(0, 100 - sum(rule.points for rule in RULES if rule.applies(text)))


def faults(description: str) -> list[str]:
    """Name the rules that a description breaks, in the order of the table."""
    text = description.strip()
    return [rule.name for rule in RULES if rule.applies(text)]


def _is_empty(text: str) -> bool:
    return not any(character.isalnum() for character in text)


def _is_short(text: str) -> bool:
    return len(text) < MIN_LENGTH


def _is_long(text: str) -> bool:
    return len(text) > MAX_LENGTH


# Tokens that steer a model and never belong into its answer: ChatML and Llama 3, DeepSeek, Kimi,
# Llama 2, Gemma, BERT, the places of pictures, raw bytes, and Qwen2.5-VL's stray 'addCriterion'.
_CONTROL_TOKEN = re.compile(
    r"<\|[^|<>]{1,40}\|>|<｜[^｜<>]{1,40}｜>|◁/?think▷"  # noqa: RUF001
    r"|</?(?:s|think|image|video|unk|pad|bos|eos|mask)>|<unused\d{1,4}>|<0x[0-9A-F]{2}>"
    r"|<</?SYS>>|<(?:start|end)_of_(?:turn|image|text)>"
    r"|\[/?(?:INST|THINK)\]|\[(?:PAD|UNK|CLS|SEP|MASK)\]|\[img-\d{1,4}\]"
    r"|\baddCriterion\b"
)


def _has_control_tokens(text: str) -> bool:
    return _CONTROL_TOKEN.search(text) is not None


_LATIN = r"A-Za-z\u00c0-\u024f\u1e00-\u1eff"

# Words of Latin, Greek and Cyrillic letters are parted by spaces; Chinese, Japanese or Thai ones
# are not.
_SOUP = re.compile(rf"[{_LATIN}\u0370-\u052f]{{45}}|(\S)\1{{9}}|\ufffd")


def _is_soup(text: str) -> bool:
    """Letters without an end, one character over and over, or bytes that were no text."""
    return _SOUP.search(text) is not None


_LONGEST_PERIOD = 40
_REPEATS, _REPEATED_LENGTH = 4, 12
_GRAM = 8
_LEAST_TO_COUNT = 60


def _repeats(text: str) -> bool:
    """A model caught in a loop: the text says a part of itself over and over.

    Either a few characters stand five times in a row, or half of the text, or of its second half,
    was said before. Numbers that count up while the rest repeats are no progress.
    """
    even = " ".join(text.lower().split())
    if any(_has_period(even, period) for period in range(1, _LONGEST_PERIOD + 1)):
        return True
    uncounted = re.sub(r"\d+", "0", even)
    return _is_said_before(uncounted) or _is_said_before(uncounted[len(uncounted) // 2 :])


def _has_period(text: str, period: int) -> bool:
    needed = max(_REPEATS * period, _REPEATED_LENGTH)
    run = 0
    for character, before in zip(text[period:], text, strict=False):
        run = run + 1 if character == before else 0
        if run >= needed:
            return True
    return False


def _is_said_before(text: str) -> bool:
    if len(text) < _LEAST_TO_COUNT:
        return False
    grams = [text[start : start + _GRAM] for start in range(len(text) - _GRAM + 1)]
    return len(set(grams)) < 0.5 * len(grams)


_LEAST_WORDS = 12
_LEAST_MEAN_LENGTH = 2.7
_MOST_ODD = 0.2
_MOST_SCRIPTS = 4
_LEAST_SENTENCE = 16

# Japanese writes in three scripts, and Korean and Chinese share one: together they count as one.
_EAST_ASIAN = {"CJK", "HIRAGANA", "KATAKANA", "HANGUL", "BOPOMOFO", "IDEOGRAPHIC"}

_LATIN_WORD = re.compile(rf"[{_LATIN}]+")
# Of other scripts, whose words hold marks, joiners and points of their own, nothing is known here.
_PLAIN_WORD = re.compile(r"[A-Za-z\u0080-\U0010ffff]+(?:[-'./&][A-Za-z\u0080-\U0010ffff]+)*")
_NUMBER = re.compile(r"\d\S{0,15}")
_HUMP = re.compile(r"[a-z][A-Z]")


def _is_no_language(text: str) -> bool:
    """Symbols, scripts at random, code, or crumbs of words: nothing that a person would say."""
    visible = [character for character in text if not character.isspace()]
    written = sum(unicodedata.category(character)[0] in "LM" for character in visible)
    return (
        written < 0.6 * len(visible)
        or _script_count(text) > _MOST_SCRIPTS
        or _is_code(text)
        or _is_crumbs(text)
    )


def _script_count(text: str) -> int:
    """How many scripts have two different letters or more in a text, by the letters' names."""
    letters = {letter for letter in unicodedata.normalize("NFKC", text) if letter.isalpha()}
    scripts = Counter(
        re.split("[ -]", unicodedata.name(letter, "UNNAMED"), maxsplit=1)[0] for letter in letters
    )
    return len({"" if name in _EAST_ASIAN else name for name in scripts if scripts[name] > 1})


def _is_code(text: str) -> bool:
    tokens = text.split()
    odd = sum(map(_is_odd, tokens))
    return len(tokens) >= _LEAST_WORDS and odd > _MOST_ODD * len(tokens)


def _is_odd(token: str) -> bool:
    """Whether a token is neither a word nor a number in ordinary punctuation."""
    inner = [place for place, character in enumerate(token) if character.isalnum()]
    if not inner:
        return len(token) > 1
    bare = token[inner[0] : inner[-1] + 1]
    if any(unicodedata.east_asian_width(some) == "W" and some.isalpha() for some in bare):
        # A whole sentence may be one token, and hold a foreign name.
        return len(bare) < _LEAST_SENTENCE and _LATIN_WORD.search(bare) is not None
    return _HUMP.search(bare) is not None or not (
        _PLAIN_WORD.fullmatch(bare) or _NUMBER.fullmatch(bare)
    )


def _is_crumbs(text: str) -> bool:
    words = _LATIN_WORD.findall(text)
    return len(words) >= _LEAST_WORDS and sum(map(len, words)) < _LEAST_MEAN_LENGTH * len(words)


_BOX = re.compile(r"\bbbox(?:_2d)?\b|\[\s*+\d++(?:\.\d++)?+(?:\s*+,\s*+\d++(?:\.\d++)?+){3}\s*+\]")
_FENCE = re.compile(r"```\w*+")


def _is_data(text: str) -> bool:
    """JSON, or the corners of boxes: an answer to another question."""
    bare = _FENCE.sub("", text).strip()
    return (bare[:1] in {"{", "["} and bare[-1:] in {"}", "]"}) or _BOX.search(text) is not None


# How a text begins that is about its author, in the languages models fall into.
_EXCUSE = re.compile(
    r"\W*(?:(?:sorry|unfortunately)\b"
    r"|i(?:['’]m| am) (?:sorry|unable|not able|afraid|happy to help)|i apologi[sz]e\b"  # noqa: RUF001
    r"|i (?:can(?:no|['’])?t|can not|don['’]?t|do not|won['’]?t) "  # noqa: RUF001
    r"|please (?:provide|upload|share|attach)\b"
    r"|(?:there is )?no (?:image|picture|photo) (?:is|was|has been|provided|attached)\b"
    r"|(?:es )?tut mir leid|ich kann (?:das|dieses|kein|nicht)"
    r"|désolée?\b|je (?:suis désolée?|ne peux pas)\b|lo siento\b|no puedo\b"
    r"|desculpe\b|não posso\b|mi dispiace\b|извините|к сожалению"
    r"|对不起|很?抱歉|我无法|申し訳|すみません|죄송)",
    re.IGNORECASE,
)
_SELF = re.compile(
    r"\bas an ai\b|\bi(?:['’]m| am) (?:an ai|a (?:large )?language model|a text-based)\b",  # noqa: RUF001
    re.IGNORECASE,
)


def _is_refusal(text: str) -> bool:
    return _EXCUSE.match(text) is not None or _SELF.search(text) is not None


RULES = (
    Rule("empty", 100, _is_empty),
    Rule("too short", 50, _is_short),
    Rule("too long", 50, _is_long),
    Rule("control tokens", 50, _has_control_tokens),
    Rule("character soup", 60, _is_soup),
    Rule("loop", 60, _repeats),
    Rule("not a language", 60, _is_no_language),
    Rule("data, not prose", 50, _is_data),
    Rule("refusal", 60, _is_refusal),
)
