"""Values of JSON as cells of a row."""

from __future__ import annotations

import math
import re
from typing import Any

from benchrouter.readers.cells import BLANK, MISSING_TEXT, NUMBER
from benchrouter.readers.source import shown


def number(value: Any) -> float | None:
    """Take a number, also one that is written as text; true and false are 1 and 0.

    Parameters
    ----------
    value : object
        Of a JSON file.

    Returns
    -------
    float or None
        None where it is null, NaN, or (as text) empty, "NaN", "null" or "NA".

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if value is None:
        return None
    if isinstance(value, str):
        text = value.strip(BLANK)
        if text.lower() in MISSING_TEXT:
            return None
        if re.fullmatch(NUMBER, text, re.IGNORECASE):
            return float(text)
    elif isinstance(value, int | float):
        try:
            found = float(value)
        except OverflowError:
            found = math.inf
        return None if math.isnan(found) else found
    raise ValueError(f"{shown(value)}, expected a number or nothing")


def name(value: Any) -> str | None:
    """Take a text, or the digits of a whole number; None where it is null.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    raise ValueError(f"{shown(value)}, expected text or a whole number")


def number_at(values: dict[str, Any], key: str) -> float | None:
    """Take the `number` under a key; the error names it."""
    try:
        return number(values.get(key))
    except ValueError as error:
        raise ValueError(f"{key} is {error}") from error


def name_at(values: dict[str, Any], key: str) -> str | None:
    """Take the `name` under a key; the error names it."""
    try:
        return name(values.get(key))
    except ValueError as error:
        raise ValueError(f"{key} is {error}") from error


def text_at(values: dict[str, Any], key: str) -> str | None:
    """Take the text under a key, None where it is null.

    Raises
    ------
    ValueError
        If it is anything else.
    """
    value = values.get(key)
    if value is None or isinstance(value, str):
        return value
    raise ValueError(f"{key} is {shown(value)}, expected text")
