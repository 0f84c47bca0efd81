"""JSON objects of a file, one by one: a line each, or the elements of one array."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from benchrouter.batch.line_file import LineFile
from benchrouter.readers.source import shown

SUFFIXES = (".json", ".jsonl")  # also with .gz or .zst
HALF_PAIR = re.compile(r"\\ud[89ab]", re.IGNORECASE)
_SPACE = re.compile(r"[ \t\n\r]*")


class Record(NamedTuple):
    """One object."""

    line: int
    """Where it begins, from 1."""
    value: dict[str, Any]
    """Empty if it cannot be read."""
    wrong: str = ""
    """Why it cannot be read: what was found and what was expected."""


def has_json_suffix(path: Path) -> bool:
    """Whether a file's name ends as these do."""
    name = path.name.lower()
    return name.removesuffix(".gz").removesuffix(".zst").endswith(SUFFIXES)


def json_records(path: Path) -> Iterator[Record]:
    """Read the objects of a file; NaN and Infinity are numbers.

    Parameters
    ----------
    path : Path
        JSON or JSONL, UTF-8, with or without a byte order mark; ``.gz`` and ``.zst`` are
        decompressed. Lines are cut at line feeds only.

    Yields
    ------
    Record
        A line is held at a time, of an array its whole text.

    Raises
    ------
    ValueError
        If a compressed file is not whole, or the file is an array that breaks off.
    """
    with LineFile(path) as file:
        lines = iter(file)
        n_blank, first = 0, b""
        for first in lines:
            if first.strip():
                break
            n_blank += 1
        if first.lstrip().startswith(b"["):
            yield from _of_array(b"".join([b"\n" * n_blank, first, *lines]), path)
        else:
            yield from _of_lines(chain([first], lines), n_blank + 1)


class _Decoder:
    """Decodes, and notes what JSON allows but no reader can take."""

    def __init__(self) -> None:
        self._twice: list[str] = []
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            keys = [key for key, _ in pairs]
            self._twice.append(next(key for key in keys if keys.count(key) > 1))
        return found

    def record(self, text: str, at: int, line: int) -> tuple[Record, int]:
        """Decode the value that begins at `at`, and say where it ends."""
        self._twice.clear()
        value, end = self._decoder.raw_decode(text, at)
        wrong = ""
        if not isinstance(value, dict):
            wrong = f"found {shown(value)}, expected a JSON object"
        elif self._twice:
            wrong = f"found the key {self._twice[0]!r} twice in an object, expected it once"
        elif HALF_PAIR.search(text, at, end):
            try:
                json.dumps(value, ensure_ascii=False).encode()
            except UnicodeEncodeError:
                wrong = "found half of a surrogate pair, expected text"
        return Record(line, {} if wrong else value, wrong), end


def _of_lines(lines: Iterator[bytes], first: int) -> Iterator[Record]:
    decoder = _Decoder()
    for number, line in enumerate(lines, start=first):
        if not line.strip():
            continue
        try:
            text = line.decode().strip()
            record, end = decoder.record(text, 0, number)
            if end < len(text):
                found = f"found {shown(text[end:])} after the object, expected the line's end"
                record = Record(number, {}, found)
        except UnicodeDecodeError as error:
            record = Record(number, {}, f"found text that is not UTF-8 ({error})")
        except (ValueError, RecursionError) as error:
            found = shown(line.decode("utf-8", "replace").strip())
            record = Record(number, {}, f"found {found}, expected a JSON object ({error})")
        yield record


def _of_array(data: bytes, path: Path) -> Iterator[Record]:
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ValueError(f"{path}, line {line}: found text that is not UTF-8 ({error})") from error
    decoder = _Decoder()
    at = _after_space(text, text.index("[") + 1)
    line = text.count("\n", 0, at) + 1
    while text[at : at + 1] != "]":
        try:
            record, end = decoder.record(text, at, line)
        except (ValueError, RecursionError) as error:
            found = shown(text[at : at + 80])
            raise ValueError(
                f"{path}, line {line}: found {found}, expected a JSON object ({error})"
            ) from error
        yield record
        then = _after_space(text, end)
        if text[then : then + 1] not in ("]", ","):
            found = shown(text[then : then + 80])
            line += text.count("\n", at, then)
            raise ValueError(f"{path}, line {line}: found {found}, expected ',' or ']'")
        after = then if text[then] == "]" else _after_space(text, then + 1)
        line += text.count("\n", at, after)
        at = after
    rest = text[at + 1 :].strip()
    if rest:
        raise ValueError(f"{path}, line {line}: found {shown(rest[:80])} after the array")


def _after_space(text: str, at: int) -> int:
    space = _SPACE.match(text, at)
    return space.end() if space else at
