"""JSON files of other people's formats: one object a line, or an array of them."""

from __future__ import annotations

import zlib
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from benchrouter.batch.line_file import COMPRESSIONS, LineFile
from benchrouter.readers.jsonl import object_of
from benchrouter.readers.source import shown

HEAD_BYTES = 200


def bare_name(path: Path) -> str:
    """Name of a file without the suffix of its compression."""
    return path.stem if path.suffix.lower() in COMPRESSIONS else path.name


def head(path: Path) -> bytes:
    """First bytes of a file, decompressed; none if it cannot be read."""
    try:
        with closing(LineFile(path)) as file:
            return file.start(HEAD_BYTES)
    except (OSError, EOFError, ValueError, zlib.error):
        return b""


def objects(path: Path) -> Generator[tuple[str, dict[str, Any] | str], None, None]:
    """Read the objects of a file: a line each, or the items of one array.

    Parameters
    ----------
    path : Path
        Also with ``.gz`` or ``.zst``.

    Yields
    ------
    place : str
        File and line or item, from 1.
    found : dict or str
        The object, or what was found in its place and what was expected.

    Raises
    ------
    ValueError
        If the file is cut off or empty.
    """
    blank = True
    with closing(LineFile(path)) as lines:
        for number, line in enumerate(lines, start=1):
            if not line.strip():
                continue
            if blank and line.lstrip().startswith(b"["):
                yield from _items(path, line + b"".join(lines))
                return
            blank = False
            yield f"{path}, line {number}", _object_or_why(line)
    if blank:
        raise ValueError(f"{path} is empty: found no JSON object")


def document(path: Path) -> dict[str, Any]:
    """Read a file that is one JSON object.

    Raises
    ------
    ValueError
        If it is not.
    """
    with closing(LineFile(path)) as lines:
        found = _object_or_why(b"".join(lines))
    if isinstance(found, str):
        raise ValueError(f"{path}: {found}")
    return found


def check_keys(path: Path, keys: Sequence[str]) -> None:
    """Refuse a file whose first object lacks keys.

    Raises
    ------
    ValueError
        Names those that it has and those expected.
    """
    with closing(objects(path)) as found:
        place, first = next(found)
    if isinstance(first, str):
        place, first = str(path), document(path)
    if not set(keys) <= set(first):
        raise ValueError(
            f"{place}: found an object with the keys {shown(list(first))}, expected "
            f"{', '.join(map(repr, keys))} among them"
        )


def member(values: dict[str, Any], key: str, place: object = "") -> dict[str, Any]:
    """Return an object within an object; an empty one if it is missing or null.

    Raises
    ------
    ValueError
        If it is of another kind.
    """
    found = values.get(key)
    if found is None or found == []:
        return {}
    if not isinstance(found, dict):
        where = f"{place}: " if place else ""
        raise ValueError(f"{where}{key} is {shown(found)}, expected a JSON object")
    return found


def _items(path: Path, text: bytes) -> Iterator[tuple[str, dict[str, Any] | str]]:
    # Decoded as the one value of an object, so that text and keys are checked as in a line.
    found = _object_or_why(b'{"items": ' + text + b"}")
    if isinstance(found, str):
        yield str(path), found
        return
    for number, item in enumerate(found["items"], start=1):
        good = isinstance(item, dict)
        yield (
            f"{path}, item {number}",
            item if good else f"found {shown(item)}, expected a JSON object",
        )


def _object_or_why(text: bytes) -> dict[str, Any] | str:
    try:
        return object_of(text)
    except ValueError as error:
        return str(error)
