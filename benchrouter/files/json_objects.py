"""Read JSON objects: one from a line or a file, or one by one from many lines or a large array.

Python's decoder decides what is JSON: NaN and Infinity are numbers, whole numbers have any size,
and strings may hold U+2028. A key that occurs twice in one object is an error, since readers differ
in which value they take.

Reading an array takes memory for one item and one block. Errors name the line, or the item and its
line; where a file stops being JSON, line and column.
"""

from __future__ import annotations

import codecs
import json
import re
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import IO, Any

from benchrouter.files.errors import BadInput
from benchrouter.files.lines import BOM, LineFile, open_bytes, unpack_errors
from benchrouter.files.words import shown

BLOCK_BYTES = 1 << 18
# What an end of the text amid a value can hide: an escape, a literal, a number's rest.
CUT_CHARACTERS = 16
SHOWN_CHARACTERS = 80  # of a broken line, around its error
NOT_WHITE = re.compile(r"[^ \t\n\r]")
OBJECT = "a JSON object"

# An object, or what was found instead and what was expected.
Found = dict[str, Any] | str


class Decoder:
    """Decodes JSON and finds what JSON allows but no reader can take. Not thread-safe."""

    def __init__(self) -> None:
        self._decoder = json.JSONDecoder(object_pairs_hook=self._object)
        self._twice: list[str] = []

    def line(self, line: bytes) -> Found:
        """Decode a line that must be one object, or say what was found instead, and where."""
        self._twice.clear()
        try:
            # Faster than json.loads, which guesses the encoding of every line.
            text = line.decode()
            value: dict[str, Any] = self._decoder.decode(text)
        except UnicodeDecodeError as error:
            return f"{_not_utf8(error)} at column {len(line[: error.start].decode()) + 1}"
        except (ValueError, RecursionError) as error:
            why, at = _why(error, 0)
            start = max(0, min(at - SHOWN_CHARACTERS // 2, len(text) - SHOWN_CHARACTERS))
            found = shown(text[start : start + SHOWN_CHARACTERS].strip())
            column = f" at column {at + 1}" if at else ""
            return f"found {found}, expected {OBJECT} ({why}{column})"
        return self.wrong(value, text, 0, len(text)) or value

    def value(self, text: str, at: int) -> tuple[Any, int]:
        """Decode the value that begins at a character, and say where it ends."""
        self._twice.clear()
        return self._decoder.raw_decode(text, at)

    def twice(self) -> str:
        """Say which key the value just decoded has twice in one object; "" if none."""
        return _twice(self._twice[0]) if self._twice else ""

    def wrong(self, value: Any, text: str, start: int, end: int) -> str:
        """Say why the value just decoded, `text[start:end]`, cannot be taken; "" if it can."""
        if not isinstance(value, dict):
            return f"found {shown(value)}, expected {OBJECT}"
        if self._twice:
            return self.twice()
        escaped = text.find("\\ud", start, end) >= 0 or text.find("\\uD", start, end) >= 0
        return _half_pair(value) if escaped else ""

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) < len(pairs):
            # Only noted, so that what follows can be read.
            ((key, _),) = Counter(key for key, _ in pairs).most_common(1)
            self._twice.append(key)
        return found


def objects(path: Path) -> Generator[tuple[str, Found], None, None]:
    """Read the objects of a file, one a line or the items of one array.

    Parameters
    ----------
    path : Path
        UTF-8, with or without a byte order mark, also ``.gz`` or ``.zst``. Only line feeds end
        lines; blank lines are skipped.

    Yields
    ------
    place : str
        File and line, or item and the line in which it begins, from 1.
    found : dict or str
        The object, or what was found instead and what was expected.

    Raises
    ------
    ValueError
        If the file holds none, is not whole, or is an array that stops being JSON.
    """
    if _begins_array(path):
        yield from items(path)
        return
    decoder, n_found = Decoder(), 0
    with LineFile(path) as lines:
        for number, line in enumerate(lines, start=1):
            if line.strip():
                n_found += 1
                yield f"{path}, line {number}", decoder.line(line)
    if not n_found:
        raise BadInput(f"{path} is empty: found no JSON object")


def items(
    path: Path, key: str | None = None, *, half_pairs: bool = False
) -> Iterator[tuple[str, Found]]:
    """Read the objects of an array one by one.

    Parameters
    ----------
    path : Path
        As in `objects`.
    key : str or None
        Key of the array in the file's object; None = the file is the array.
    half_pairs : bool
        Whether strings may hold half of a surrogate pair, which is no text.

    Yields
    ------
    place, found
        As in `objects`.

    Raises
    ------
    ValueError
        As in `objects`, and for another key of the file's object that stands twice in one.
    """
    name, n_found = f"{path}" if key is None else f"{path}, {key}", 0
    with unpack_errors(path), open_bytes(path) as file:
        text = _Text(file, path)
        for value in _array(text) if key is None else _array_of_key(text, key):
            n_found += 1
            found = text.wrong(value, half_pairs=half_pairs) or value
            yield f"{name}, item {n_found} (line {text.line})", found
        text.end()
    if not n_found:
        raise BadInput(f"{name} is empty: found no JSON object")


def document(path: Path) -> dict[str, Any]:
    """Read a file that is one object.

    Raises
    ------
    ValueError
        If it is not.
    """
    with unpack_errors(path), open_bytes(path) as file:
        text = _Text(file, path)
        value: dict[str, Any] = text.value(OBJECT)
        wrong = text.wrong(value)
        text.end()
    if wrong:
        raise BadInput(f"{path}: {wrong}")
    return value


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
        raise BadInput(
            f"{place}: found an object with the keys {shown(list(first))}, expected "
            f"{', '.join(map(repr, keys))} among them"
        )


def _begins_array(path: Path) -> bool:
    with unpack_errors(path), open_bytes(path) as file:
        while block := file.read(BLOCK_BYTES):
            start = block.lstrip(BOM + b" \t\n\r")
            if start:
                return start.startswith(b"[")
    return False


def _array(text: _Text) -> Iterator[Any]:
    text.take("[")
    if text.next() == "]":
        text.take("]")
        return
    while True:
        yield text.value(OBJECT)
        if text.take(",]") == "]":
            return


def _array_of_key(text: _Text, key: str) -> Iterator[Any]:
    text.take("{")
    found: set[str] = set()
    more = text.next() != "}"
    while more:
        if text.next() != '"':
            raise text.error("a key")
        name = text.value("a key")
        if name in found:
            raise BadInput(f"{text.path}, line {text.line}: {_twice(name)}")
        found.add(name)
        text.take(":")
        if name == key:
            yield from _array(text)
        else:
            text.value("a JSON value")
            text.check_keys()
        more = text.next() == ","
        if more:
            text.take(",")
    text.take("}")
    if key not in found:
        raise BadInput(f"{text.path}: found the keys {shown(sorted(found))}, expected {key!r} too")


class _Text:
    """The text of a file; only the part being read is kept in memory.

    Attributes
    ----------
    path : Path
        For messages.
    line : int
        Where the last value begins, from 1.
    """

    def __init__(self, file: IO[bytes], path: Path) -> None:
        self.path = path
        self.line = 1
        self._file = file
        self._decode = codecs.getincrementaldecoder("utf-8-sig")()
        self._decoder = Decoder()
        self._text = ""
        self._start = 0  # of the last value
        self._at = 0
        self._whole = False
        self._counted = 0  # characters of the text that line and column count
        self._line, self._column = 1, 1

    def next(self) -> str:
        """Peek at the next character that is not white space; "" at the end."""
        while True:
            found = NOT_WHITE.search(self._text, self._at)
            self._at = found.start() if found else len(self._text)
            if found or self._whole:
                return found[0] if found else ""
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

    def value(self, expected: str) -> Any:
        """Pass and return the next value; `expected` says in messages what it should be."""
        if not self.next():
            raise self.error(expected)
        self._count(self._at)
        self.line = self._line
        while True:
            try:
                value, end = self._decoder.value(self._text, self._at)
            except (ValueError, RecursionError) as error:
                why, at = _why(error, self._at)
                cut = why.startswith("unterminated") or at >= len(self._text) - CUT_CHARACTERS
                if self._whole or not (isinstance(error, json.JSONDecodeError) and cut):
                    self._at = at
                    raise self.error(f"{expected} ({why})") from error
            else:
                # A number may continue in the next block, after "." or "e+".
                if end < len(self._text) - 2 or self._whole:
                    self._start, self._at = self._at, end
                    return value
            self._more()

    def wrong(self, value: Any, *, half_pairs: bool = False) -> str:
        """Say why the value just passed cannot be taken; "" if it can."""
        start = self._at if half_pairs else self._start  # where to look for halves of pairs
        return self._decoder.wrong(value, self._text, start, self._at)

    def check_keys(self) -> None:
        """Refuse the value just passed if a key stands twice in one of its objects."""
        if self._decoder.twice():
            raise BadInput(f"{self.path}, line {self.line}: {self._decoder.twice()}")

    def error(self, expected: str) -> ValueError:
        """Return the error of finding something else here."""
        self._count(self._at)
        rest = self._text[self._at : self._at + SHOWN_CHARACTERS // 2]
        found = shown(rest) if rest else "the file's end"
        return ValueError(f"{self._place()}: found {found}, expected {expected}")

    def _count(self, to: int) -> None:
        """Count lines and columns up to a character."""
        n_lines = self._text.count("\n", self._counted, to)
        if n_lines:
            self._line += n_lines
            self._column = to - self._text.rindex("\n", self._counted, to)
        else:
            self._column += to - self._counted
        self._counted = to

    def _more(self) -> None:
        """Read on; blocks grow with the text kept, so that a long value takes few attempts."""
        self._count(self._at)
        block = self._file.read(max(BLOCK_BYTES, len(self._text) - self._at))
        self._whole = not block
        try:
            text = self._decode.decode(block, final=self._whole)
        except UnicodeDecodeError as error:
            self._text += error.object[: error.start].decode()
            self._count(len(self._text))
            raise BadInput(f"{self._place()}: {_not_utf8(error)}") from error
        self._text = self._text[self._at :] + text
        self._at = self._counted = 0

    def _place(self) -> str:
        return f"{self.path}, line {self._line}, column {self._column}"


def _why(error: ValueError | RecursionError, start: int) -> tuple[str, int]:
    """Say why a value that begins at `start` is no JSON, and at which character."""
    if isinstance(error, json.JSONDecodeError):
        why, start = error.msg.removesuffix(" at").removesuffix(" starting"), error.pos
    elif isinstance(error, RecursionError):
        why = "nested too deeply"
    else:
        why = str(error).partition(";")[0]  # a whole number of thousands of digits
    return why[:1].lower() + why[1:], start


def _not_utf8(error: UnicodeDecodeError) -> str:
    return f"found text that is not UTF-8 (byte {error.object[error.start]:#04x}, {error.reason})"


def _twice(key: str) -> str:
    return f"found the key {shown(key)} twice in one object, expected it once"


def _half_pair(value: Any) -> str:
    """Message for half of a surrogate pair in a string: legal JSON, but no text; else ""."""
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        return f"found {error.object[error.start]!r}, half of a surrogate pair, expected text"
    except RecursionError:
        return "found values nested too deeply, expected fewer levels"
    return ""
