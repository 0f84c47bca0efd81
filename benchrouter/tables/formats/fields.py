"""Fields of JSON objects; of another kind, a ValueError that says what was expected."""

from __future__ import annotations

from typing import Any

from benchrouter.files.errors import BadInput
from benchrouter.files.json_objects import OBJECT
from benchrouter.files.words import shown
from benchrouter.tables.sources.columns import number

_KINDS = {dict: OBJECT, list: "a list", str: "text", int: "a whole number"}


def field_of(holder: dict[str, Any], key: str, *kinds: type) -> Any:
    """Return a field of one of these kinds; true and false are no numbers."""
    value = holder.get(key)
    if isinstance(value, kinds) and not isinstance(value, bool):
        return value
    raise _error(holder, key, " or ".join(_KINDS[kind] for kind in kinds))


def object_of(value: Any) -> dict[str, Any]:
    """Return a value that is a JSON object."""
    if not isinstance(value, dict):
        raise BadInput(f"found {shown(value)}, expected {OBJECT}")
    return value


def member(holder: dict[str, Any], key: str, place: object = "") -> dict[str, Any]:
    """Return an object within an object; empty if it is missing, null or an empty list."""
    if holder.get(key) in (None, []):
        return {}
    try:
        found: dict[str, Any] = field_of(holder, key, dict)
    except ValueError as error:
        raise BadInput(f"{place}: {error}" if place else str(error)) from error
    return found


def number_at(holder: dict[str, Any], key: str) -> float | None:
    """Return a field as a finite number, by the rules of `columns.number`; None if missing."""
    try:
        return number(holder.get(key))
    except ValueError as error:
        raise BadInput(f"{key} is {error}") from error


def text_at(holder: dict[str, Any], key: str) -> str | None:
    """Return a field that is text, None if it is null or missing."""
    return None if holder.get(key) is None else text_of(holder, key)


def name_at(holder: dict[str, Any], key: str) -> str | None:
    """Return a field that is text, or the digits of a whole number; None if null or missing."""
    value = holder.get(key)
    return None if value is None else str(field_of(holder, key, str, int))


def text_of(holder: dict[str, Any], key: str) -> str:
    """Return a field that is text, which may be blank."""
    text: str = field_of(holder, key, str)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        # Half a surrogate pair is legal JSON but no text.
        raise _error(holder, key, "text that UTF-8 can hold") from error
    return text


def name_of(holder: dict[str, Any], key: str) -> str:
    """Return a field that is text and not blank."""
    name = text_of(holder, key)
    if not name.strip():
        raise _error(holder, key, "a name")
    return name


def _error(holder: dict[str, Any], key: str, expected: str) -> ValueError:
    found = shown(holder[key]) if key in holder else "missing"
    return ValueError(f"{key} is {found}, expected {expected}")
