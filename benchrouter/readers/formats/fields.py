"""Fields of JSON objects, checked one by one."""

from __future__ import annotations

import math
from typing import Any

from benchrouter.readers.cells import MISSING_TEXT
from benchrouter.readers.source import shown

_KINDS = {
    dict: "a JSON object",
    list: "a list",
    str: "text",
    int: "a whole number",
    float: "a number",
}


class BadField(Exception):
    """A field is not what it should be: says what was found and what was expected."""


def field_of(holder: dict[str, Any], key: str, *kinds: type) -> Any:
    """Return a field that is of one of some kinds; true and false are no numbers.

    Raises
    ------
    BadField
        If it is missing or of another kind.
    """
    value = holder.get(key)
    if isinstance(value, kinds) and not isinstance(value, bool):
        return value
    named = [kind for kind in kinds if kind is not int or float not in kinds]
    expected = " or ".join(_KINDS[kind] for kind in named)
    found = shown(value) if key in holder else "missing"
    raise BadField(f"{key} is {found}, expected {expected}")


def object_of(value: Any) -> dict[str, Any]:
    """Return a value that is a JSON object.

    Raises
    ------
    BadField
        If it is none.
    """
    if not isinstance(value, dict):
        raise BadField(f"found {shown(value)}, expected a JSON object")
    return value


def number_of(holder: dict[str, Any], key: str) -> float | None:
    """Return a field that is a number; None for null, NaN and the texts that stand for it.

    Raises
    ------
    BadField
        If it is missing, no number, or too large for 64 bits.
    """
    value = holder.get(key)
    if isinstance(value, str) and value.strip().lower() in MISSING_TEXT:
        return None
    if value is None and key in holder:
        return None
    try:
        number = float(field_of(holder, key, int, float))
    except OverflowError as error:
        raise BadField(f"{key} is {shown(value)}, expected a number of 64 bits") from error
    return None if math.isnan(number) else number


def text_of(holder: dict[str, Any], key: str) -> str:
    """Return a field that is text, not blank perhaps.

    Raises
    ------
    BadField
        If it is missing, no text, or text that UTF-8 cannot hold.
    """
    text: str = field_of(holder, key, str)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # Half a surrogate pair is legal JSON but no text.
        raise BadField(f"{key} is {shown(text)}, expected text that UTF-8 can hold") from error
    return text


def name_of(holder: dict[str, Any], key: str) -> str:
    """Return a field that is text and not blank.

    Raises
    ------
    BadField
        If it is anything else.
    """
    name = text_of(holder, key)
    if not name.strip():
        raise BadField(f"{key} is {shown(name)}, expected a name")
    return name
