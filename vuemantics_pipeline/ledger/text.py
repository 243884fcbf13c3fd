"""Text from files, decoders and models, as Postgres can hold it."""


def storable(text: str) -> str:
    """Return text without NUL, and with every half of a surrogate pair replaced by '?'."""
    return text.replace("\0", "").encode(errors="replace").decode()
