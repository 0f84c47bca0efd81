"""Words of messages: values shortened, and numbers with their nouns."""

from __future__ import annotations


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
