"""Words of messages: values shortened, and numbers with their nouns."""

from __future__ import annotations

from collections.abc import Sequence


def counted(n: int, noun: str) -> str:
    """Return a number of things in words."""
    return f"{n:,} {noun}" if n == 1 else f"{n:,} {noun}s"


def shown(value: object, limit: int = 80) -> str:
    """Return ``repr(value)``, cut to `limit` characters."""
    try:
        text = repr(value)
    except RecursionError:
        text = "a deeply nested value"
    return text if len(text) <= limit else text[: limit - 1] + "…"


def check_distinct(where: str, columns: Sequence[str]) -> None:
    """Refuse two columns of one name."""
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise ValueError(f"{where}: found several columns named {twice[0]!r}, expected one")
