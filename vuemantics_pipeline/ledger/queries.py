"""Loads the SQL of this room: `sql/<file>.sql` holds queries headed by `-- name: <query>`."""

import re
from functools import cache
from importlib import resources
from typing import LiteralString, cast

_NAME = re.compile(r"^-- name: (\w+)$", re.MULTILINE)


@cache
def queries(file: str) -> dict[str, LiteralString]:
    """Return the queries of `sql/<file>.sql` by name.

    Raises:
        ValueError: two queries of the file share a name.
    """
    text = (resources.files(__package__) / "sql" / f"{file}.sql").read_text()
    _, *parts = _NAME.split(text)
    names, bodies = parts[::2], parts[1::2]
    if len(set(names)) != len(names):
        raise ValueError(f"{file}.sql names a query twice: {names}")
    # The text ships with the package, so it is as literal as a string in a module.
    return {
        name: cast(LiteralString, body.strip()) for name, body in zip(names, bodies, strict=True)
    }
