"""A description -> a score that says whether it can be trusted to be one."""

import re
import zlib
from collections.abc import Callable

PASS_MARK = 60
MIN_LENGTH = 50
MAX_LENGTH = 5000

# Tokens that steer a model and never belong into its answer: ChatML, Llama, Gemma, BERT.
_CONTROL_TOKEN = re.compile(
    r"<\|[^|<>]{1,40}\|>|</?s>|\[/?INST\]|<</?SYS>>|<(?:start|end)_of_turn>|</?think>"
    r"|\[(?:PAD|UNK|CLS|SEP|MASK)\]"
)


def audit(description: str) -> int:
    """Score a description from 0 (useless) to 100; PASS_MARK and above is fit for search.

    Every rule of the table that applies takes its points away.
    """
    text = description.strip()
    return max(0, 100 - sum(points for points, applies in _RULES if applies(text)))


def _is_empty(text: str) -> bool:
    return not any(character.isalnum() for character in text)


def _is_short(text: str) -> bool:
    return len(text) < MIN_LENGTH


def _is_long(text: str) -> bool:
    return len(text) > MAX_LENGTH


def _has_control_tokens(text: str) -> bool:
    return _CONTROL_TOKEN.search(text) is not None


def _is_soup(text: str) -> bool:
    """Letters that form no words, one character over and over, or bytes that were no text.

    Only Latin letters must be parted by spaces: Chinese, Japanese or Thai words are not.
    """
    return re.search(r"[A-Za-z\u00c0-\u024f]{45}|(\S)\1{9}|\ufffd", text) is not None


def _repeats(text: str) -> bool:
    """A model caught in a loop: the text says a small part of itself over and over.

    Longer loops than a word or a sentence give themselves away by how far the text deflates.
    """
    words = text.lower().split()
    if re.search(r"\b(\w+)(?:\W+\1\b){4}", text.lower()):
        return True
    sentences = [part.strip() for part in re.split(r"[.!?\n]+", text.lower()) if part.strip()]
    if len(sentences) >= 4 and len(set(sentences)) <= len(sentences) / 2:
        return True
    encoded = text.encode(errors="replace")
    return len(words) >= 40 and len(zlib.compress(encoded)) < 0.2 * len(encoded)


def _is_mostly_symbols(text: str) -> bool:
    visible = [character for character in text if not character.isspace()]
    return sum(map(str.isalpha, visible)) < 0.6 * len(visible)


# Points taken away, and when.
_RULES: tuple[tuple[int, Callable[[str], bool]], ...] = (
    (100, _is_empty),
    (50, _is_short),
    (20, _is_long),
    (50, _has_control_tokens),
    (60, _is_soup),
    (60, _repeats),
    (50, _is_mostly_symbols),
)
