"""JSONL lines as a source: one object a line, keys may differ from line to line."""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.readers.source import Source, shown

if TYPE_CHECKING:
    import pyarrow as pa

# Lines are decoded, then turned into columns: few enough for their texts to stay in the cache.
BATCH_ROWS = 4096
BOM = b"\xef\xbb\xbf"
SHOWN_BYTES = 400  # of a broken line, more than a message shows

Needed = Callable[[Collection[str]], Collection[str] | None]


class _TwiceError(ValueError):
    """A key that stands twice in one object."""


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    row = dict(pairs)
    if len(row) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for key in keys if keys.count(key) > 1)
        raise _TwiceError(f"found the key {shown(twice)} twice in one object, expected it once")
    return row


_DECODER = json.JSONDecoder(object_pairs_hook=_object)


def read_jsonl(
    lines: Iterable[bytes], *, name: str, stem: str, needed: Needed = lambda columns: None
) -> Source:
    """Read lines that end in a line feed; U+2028 and its like may stand inside strings.

    Parameters
    ----------
    lines : iterable of bytes
        An open binary file. Blank lines are no rows.
    name, stem : str
        As in `Source`.
    needed : callable
        Names of the first columns found to those that will be loaded, or None for all. Where it
        names some, their distinct texts are kept once (`Source.load_coded`), and the values of
        the others are not kept: they are loaded as nulls.

    Returns
    -------
    Source
        Broken lines are listed in ``unreadable``.
    """
    columns = _Columns(needed)
    batch: list[dict[str, Any]] = []
    line_numbers = array("q")
    broken: list[tuple[int, str]] = []
    for number, line in enumerate(lines, start=1):
        if number == 1:
            line = line.removeprefix(BOM)
        try:
            batch.append(_row(line))
        except ValueError as error:
            if not line.strip():
                continue
            broken.append((len(line_numbers), str(error)))
        line_numbers.append(number)
        if len(batch) == BATCH_ROWS:
            columns.append(batch)
            batch = []
    columns.append(batch)
    readable = np.ones(len(line_numbers), dtype=bool)
    readable[[position for position, _ in broken]] = False
    joined, not_text = columns.joined()
    numbers = np.frombuffer(line_numbers, dtype=np.int64)
    return Source(
        name=name,
        stem=stem,
        columns={key: _shown_type(column.type) for key, column in joined.items()},
        load=joined.__getitem__,
        load_coded=None if columns.kept is None else joined.__getitem__,
        positions=np.flatnonzero(readable),
        n_positions=len(line_numbers),
        untyped=frozenset(not_text),
        not_text=not_text,
        lines=lambda: numbers,
        unreadable=tuple(broken),
    )


def _row(line: bytes) -> dict[str, Any]:
    try:
        row = _decoded(line.decode())
        if b"\\ud" in line or b"\\uD" in line:
            # Half a surrogate pair is legal JSON but no text.
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise ValueError(f"found text that is not UTF-8 ({error})") from error
    except _TwiceError:
        raise
    except (ValueError, RecursionError) as error:
        found = shown(line.strip()[:SHOWN_BYTES].decode("utf-8", "replace").strip())
        raise ValueError(f"found {found}, expected a JSON object ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"found {shown(row)}, expected a JSON object")
    return row


def _decoded(text: str) -> Any:
    """Return what JSONDecoder.decode does, which looks for blanks on both sides first."""
    try:
        value, end = _DECODER.scan_once(text, 0)
    except StopIteration:
        return _DECODER.decode(text)
    return value if text[end:] in ("\n", "\r\n", "") else _DECODER.decode(text)


class _Columns:
    """Columns that grow by batches of rows.

    A batch of a column is a typed array, or the list of its values where their kinds are mixed or
    nested. Where only some columns are kept, a batch of texts is an array of `_code_type`: numbers
    of the texts in order of first appearance.
    """

    def __init__(self, needed: Needed) -> None:
        self.needed = needed
        self.kept: Collection[str] | None = None
        self.n_rows = 0
        self.batches: dict[str, list[Any]] = {}
        self.filled: dict[str, int] = {}  # rows that the batches of a column hold
        self.codes: dict[str, dict[str, int]] = {}

    def append(self, batch: list[dict[str, Any]]) -> None:
        """Add a batch of rows, with nulls where a row lacks a key."""
        if not batch:
            return
        keys: dict[str, None] = {}
        for row in batch:
            if not keys.keys() >= row.keys():
                keys.update(dict.fromkeys(row))
        if self.n_rows == 0:
            self.kept = self.needed(keys)
        for key in keys:
            arrays = self._filled(key)
            if self.kept is None or key in self.kept:
                arrays.append(_array([row.get(key) for row in batch], self.codes.get(key)))
                self.filled[key] += len(batch)
        self.n_rows += len(batch)

    def _filled(self, key: str) -> list[Any]:
        """Batches of a column, with nulls up to the last row."""
        import pyarrow as pa

        if key not in self.batches:
            self.batches[key], self.filled[key] = [], 0
            if self.kept is not None:
                self.codes[key] = _new_codes()
        lacking = self.n_rows - self.filled[key]
        if lacking:
            self.batches[key].append(pa.nulls(lacking))
            self.filled[key] = self.n_rows
        return self.batches[key]

    def joined(self) -> tuple[dict[str, pa.ChunkedArray], dict[str, NDArray[np.bool_]]]:
        """Give the batches of every key one type; mixed ones become text.

        Returns
        -------
        columns : dict of str to pyarrow.ChunkedArray
        not_text : dict of str to bool array, shape (n_rows,)
            Which cells of the mixed columns were no text.
        """
        joined: dict[str, pa.ChunkedArray] = {}
        not_text: dict[str, NDArray[np.bool_]] = {}
        for key in list(self.batches):
            # Each column's batches go as soon as it is joined.
            arrays, codes = self._filled(key), self.codes.pop(key, None)
            del self.batches[key]
            kind = _common_type(arrays)
            if kind is None:
                joined[key], not_text[key] = _mixed(arrays, codes)
            else:
                joined[key] = _chunked(arrays, kind, codes)
        return joined, not_text


def _new_codes() -> dict[str, int]:
    """An empty dictionary that gives a text it lacks the next number."""
    codes: defaultdict[str, int] = defaultdict()
    codes.default_factory = codes.__len__
    return codes


def _code_type() -> pa.DataType:
    """Type of a batch of codes; whole numbers of a file are int64."""
    import pyarrow as pa

    return pa.int32()


def _coded(values: list[Any], codes: dict[str, int]) -> pa.Array:
    """Return the numbers of texts, null for None; new texts are added to `codes`."""
    import pyarrow as pa

    if any(value is None for value in values):
        return pa.array([None if v is None else codes[v] for v in values], _code_type())
    numbers = np.fromiter(map(codes.__getitem__, values), np.int32, len(values))
    return pa.array(numbers, _code_type())


def _array(values: list[Any], codes: dict[str, int] | None) -> Any:
    """Return a typed array, or the list itself where its kinds are mixed or nested."""
    import pyarrow as pa

    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {str}:
        return pa.array(values, pa.large_string()) if codes is None else _coded(values, codes)
    if kinds == {bool}:
        return pa.array(values, pa.bool_())
    try:
        if kinds == {int}:
            return pa.array(values, pa.int64())
        if kinds == {float}:
            return pa.array(values, pa.float64())
        if kinds == {int, float}:
            return pa.array([None if v is None else float(v) for v in values], pa.float64())
    except OverflowError:
        return values
    return values


def _common_type(arrays: list[Any]) -> Any:
    """Return the type that holds every batch without a change of meaning, or None."""
    import pyarrow as pa

    if any(isinstance(array, list) for array in arrays):
        return None
    types = {array.type for array in arrays} - {pa.null()}
    if len(types) <= 1:
        return types.pop() if types else pa.null()
    return pa.float64() if types == {pa.int64(), pa.float64()} else None


def _chunked(arrays: list[Any], kind: pa.DataType, codes: dict[str, int] | None) -> Any:
    """Join batches of one type, and of nulls."""
    import pyarrow as pa

    # Not safe: a whole number above 2^53 is rounded, as a mixed batch rounds it.
    chunks = [array.cast(kind, safe=False) for array in arrays]
    if codes is None or kind != _code_type():
        return pa.chunked_array(chunks, kind)
    texts = pa.array(list(codes), pa.large_string())
    return pa.chunked_array([pa.DictionaryArray.from_arrays(pa.concat_arrays(chunks), texts)])


def _mixed(
    arrays: list[Any], codes: dict[str, int] | None
) -> tuple[pa.ChunkedArray, NDArray[np.bool_]]:
    """Join batches of several kinds as text, and tell which cells were none."""
    import pyarrow as pa

    known = list(codes or ())
    texts: list[str | None] = []
    not_text: list[bool] = []
    for batch in arrays:
        values = batch if isinstance(batch, list) else batch.to_pylist()
        if not isinstance(batch, list) and batch.type == _code_type():
            values = [None if v is None else known[v] for v in values]
        texts += [v if v is None or isinstance(v, str) else _dumped(v) for v in values]
        not_text += [v is not None and not isinstance(v, str) for v in values]
    if codes is None:
        column = pa.chunked_array([pa.array(texts, pa.large_string())])
    else:
        again = _new_codes()
        column = _chunked([_coded(texts, again)], _code_type(), again)
    return column, np.array(not_text)


def _dumped(value: object) -> str:
    try:
        return json.dumps(value)
    except RecursionError:
        return "a deeply nested value"


def _shown_type(kind: pa.DataType) -> pa.DataType:
    """Type of a column as the file has it: texts are texts, coded or not."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind
