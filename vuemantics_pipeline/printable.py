"""Text from files and databases, made safe to store and to show."""

import unicodedata


def printable(text: str) -> str:
    """Escape control characters and broken UTF-8, which terminals, JSON and Postgres choke on."""
    return "".join(
        c.encode("unicode_escape").decode() if unicodedata.category(c) in ("Cc", "Cs") else c
        for c in text
    )
