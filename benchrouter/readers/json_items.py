"""Items of the one large array in a JSON file, in memory that one item and a block fill."""

from __future__ import annotations

import codecs
import json
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from benchrouter.readers.files import open_bytes, read_errors
from benchrouter.readers.source import shown

BLOCK_BYTES = 1 << 20
# What an end of the text amid a value can hide: an escape, a literal, a number's rest.
CUT_CHARACTERS = 16
WHITE = " \t\n\r"


def read_object(path: Path) -> dict[str, Any]:
    """Read a JSON file that holds an object; plain, ``.gz`` or ``.zst``.

    Raises
    ------
    ValueError
        If it is none, or an object in it has a key twice.
    """
    with open_bytes(path) as file:
        text = _Text(file, path)
        value = text.value()
        text.end()
    if not isinstance(value, dict):
        raise ValueError(f"{path}: found {shown(value)}, expected a JSON object")
    return value


def items(path: Path, key: str | None = None) -> Iterator[Any]:
    """Read the items of an array one by one.

    Parameters
    ----------
    path : Path
        Plain, ``.gz`` or ``.zst``.
    key : str or None
        Key of the array in the file's object; None = the file is the array.

    Yields
    ------
    object
        Items in the order of the file.

    Raises
    ------
    ValueError
        Names the file and the character where it is not JSON, and a key that is there twice.
    """
    with open_bytes(path) as file:
        text = _Text(file, path)
        if key is None:
            yield from _array(text)
        else:
            yield from _array_of_key(text, key)
        text.end()


def _array(text: _Text) -> Iterator[Any]:
    text.take("[")
    if text.next() == "]":
        text.take("]")
        return
    while True:
        yield text.value()
        if text.take(",]") == "]":
            return


def _array_of_key(text: _Text, key: str) -> Iterator[Any]:
    text.take("{")
    found: set[str] = set()
    more = text.next() != "}"
    while more:
        if text.next() != '"':
            raise text.error("a key")
        name = text.value()
        if name in found:
            raise ValueError(f"{text.path}: found the key {shown(name)} twice in an object")
        found.add(name)
        text.take(":")
        if name == key:
            yield from _array(text)
        else:
            text.value()
        more = text.next() == ","
        if more:
            text.take(",")
    text.take("}")
    if key not in found:
        raise ValueError(f"{text.path}: found the keys {sorted(found)}, expected {key!r} too")


class _Text:
    """The text of a file, of which only the part being read is kept."""

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.path = path
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self._text = ""
        self._at = 0
        self._dropped = 0
        self._whole = False

    def next(self) -> str:
        """Return the next character that is not white space, "" at the end, and stay before it."""
        while True:
            while self._at < len(self._text):
                if self._text[self._at] not in WHITE:
                    return self._text[self._at]
                self._at += 1
            if self._whole:
                return ""
            self._more()

    def take(self, expected: str) -> str:
        """Pass one of the characters expected."""
        found = self.next()
        if not found or found not in expected:
            raise self.error(" or ".join(repr(character) for character in expected))
        self._at += 1
        return found

    def end(self) -> None:
        """Refuse anything but white space to the file's end."""
        if self.next():
            raise self.error("the end")

    def error(self, expected: str) -> ValueError:
        """Return the error that something else stands here."""
        found = shown(self._text[self._at : self._at + 40]) if self.next() else "the file's end"
        return ValueError(
            f"{self.path}, character {self._dropped + self._at + 1}: found {found}, "
            f"expected {expected}"
        )

    def value(self) -> Any:
        """Pass and return the next value."""
        if not self.next():
            raise self.error("a JSON value")
        while True:
            try:
                value, end = self._decoder.raw_decode(self._text, self._at)
            except json.JSONDecodeError as error:
                if self._whole or not self._may_be_cut(error):
                    where = self._dropped + error.pos + 1
                    raise ValueError(f"{self.path}, character {where}: {error.msg}") from error
            except (ValueError, RecursionError) as error:
                where = self._dropped + self._at + 1
                raise ValueError(f"{self.path}, value at character {where}: {error}") from error
            else:
                # A number may go on in the next block, after "." or "e+".
                if end < len(self._text) - 2 or self._whole:
                    self._at = end
                    return value
            self._more()

    def _may_be_cut(self, error: json.JSONDecodeError) -> bool:
        unterminated = error.msg.startswith("Unterminated string")
        return unterminated or error.pos >= len(self._text) - CUT_CHARACTERS

    def _more(self) -> None:
        """Read on, as much as is kept at least: a long value is tried a few times only."""
        with read_errors(self.path):
            block = self._file.read(max(BLOCK_BYTES, len(self._text) - self._at))
        self._whole = not block
        try:
            text = self._decode.decode(block, final=self._whole)
        except UnicodeDecodeError as error:
            raise ValueError(f"{self.path}: found text that is not UTF-8 ({error})") from error
        self._dropped += self._at
        self._text = self._text[self._at :] + text
        self._at = 0

    @staticmethod
    def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"found the key {shown(twice)} twice in an object")
        return found
