"""JSONL as a source: one object a line; keys may differ from line to line.

Python's decoder defines the result. Arrow decodes batches of plain lines, where it gives the same
(`json_blocks`).
"""

from __future__ import annotations

import json
from array import array
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.json_objects import Decoder
from benchrouter.files.lines import BOM
from benchrouter.tables.sources.json_blocks import read_block, schema_of, type_of
from benchrouter.tables.sources.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

# Lines are decoded, then turned into columns: few enough to stay in the processor's cache.
BATCH_ROWS = 4096
BATCH_BYTES = 1 << 20

Needed = Callable[[Collection[str]], Collection[str] | None]


def read_jsonl(
    open_file: Callable[[], IO[bytes]],
    *,
    name: str,
    stem: str,
    needed: Needed = lambda columns: None,
) -> Source:
    """Read JSON lines; only line feeds end them, so strings may hold U+2028.

    Parameters
    ----------
    open_file : callable
        Opens the binary file at its start. Blank lines are no rows.
    name, stem : str
        As in `Source`.
    needed : callable
        Maps the names of the first columns found to those that will be loaded; None = all. Named
        columns keep each distinct text once (`Source.load_coded`); the others load as nulls.

    Returns
    -------
    Source
        Broken lines are listed in ``unreadable``.
    """
    with open_file() as file:
        lines = _read_lines(file, needed, by_blocks=True)
    if lines.not_text and lines.n_blocks:
        # Cells of mixed columns are shown as the file spells them, which Arrow does not tell.
        with open_file() as file:
            lines = _read_lines(file, needed, by_blocks=False)
    readable = np.ones(len(lines.numbers), dtype=bool)
    readable[[position for position, _ in lines.broken]] = False
    return Source(
        name=name,
        stem=stem,
        columns={key: _shown_type(column.type) for key, column in lines.columns.items()},
        load=lines.columns.__getitem__,
        load_coded=lines.columns.__getitem__ if lines.coded else None,
        positions=np.flatnonzero(readable),
        n_positions=len(lines.numbers),
        untyped=frozenset(lines.not_text),
        not_text=lines.not_text,
        lines=lambda: lines.numbers,
        unreadable=tuple(lines.broken),
    )


class _Lines(NamedTuple):
    """Columns of the readable lines, and the line numbers of all."""

    columns: dict[str, pa.ChunkedArray]
    not_text: dict[str, NDArray[np.bool_]]
    coded: bool
    numbers: NDArray[np.int64]
    broken: list[tuple[int, str]]
    n_blocks: int  # read by Arrow


def _read_lines(file: IO[bytes], needed: Needed, *, by_blocks: bool) -> _Lines:
    columns = _Columns(needed)
    numbers = array("q")
    broken: list[tuple[int, str]] = []
    n_blocks = 0
    decoder = Decoder()
    for first, lines in _batches(file):
        schema = schema_of(columns.kinds) if by_blocks and columns.n_rows else None
        table = None if schema is None else read_block(lines, schema)
        if table is not None:
            columns.append_table(table)
            numbers.extend(range(first, first + len(lines)))
            n_blocks += 1
            continue
        rows = []
        for number, line in enumerate(lines, start=first):
            found = decoder.line(line)
            if not isinstance(found, str):
                rows.append(found)
            elif line.strip():
                broken.append((len(numbers), found))
            else:
                continue
            numbers.append(number)
        columns.append(rows)
    joined, not_text = columns.joined()
    return _Lines(
        joined,
        not_text,
        columns.kept is not None,
        np.frombuffer(numbers, dtype=np.int64),
        broken,
        n_blocks,
    )


def _batches(file: IO[bytes]) -> Iterator[tuple[int, list[bytes]]]:
    """Batches of lines, each with the number of its first line."""
    number = 1
    while lines := file.readlines(BATCH_BYTES):
        if number == 1:
            lines[0] = lines[0].removeprefix(BOM)
        for start in range(0, len(lines), BATCH_ROWS):
            batch = lines[start : start + BATCH_ROWS]
            yield number, batch
            number += len(batch)


class _Columns:
    """Columns that grow by batches of rows.

    A batch of a column is a typed array, or a list if its values are mixed or nested. If only some
    columns are kept, texts are stored as codes (`_code_type`), numbered in order of appearance. A
    column's type is decided once all batches are in, so it does not depend on their ends.
    """

    def __init__(self, needed: Needed) -> None:
        self.needed = needed
        self.kept: Collection[str] | None = None
        self.n_rows = 0
        self.batches: dict[str, list[Any]] = {}
        self.filled: dict[str, int] = {}  # rows that the batches of a column hold
        self.codes: dict[str, dict[str, int]] = {}
        self.kinds: dict[str, set[type]] = {}

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
            values = [row.get(key) for row in batch]
            kinds = set(map(type, values))
            self.kinds[key] |= kinds
            if self._keeps(key):
                arrays.append(_array(values, kinds, self.codes.get(key)))
                self.filled[key] += len(batch)
        self.n_rows += len(batch)

    def append_table(self, table: pa.Table) -> None:
        """Add a batch of rows from `read_block`."""
        import pyarrow as pa

        for key in filter(self._keeps, table.column_names):
            column, codes = table.column(key).combine_chunks(), self.codes.get(key)
            if codes is not None and pa.types.is_large_string(column.type):
                column = _coded_again(column, codes)
            self._filled(key).append(column)
            self.filled[key] += table.num_rows
        self.n_rows += table.num_rows

    def _keeps(self, key: str) -> bool:
        return self.kept is None or key in self.kept

    def _filled(self, key: str) -> list[Any]:
        """Batches of a column, with nulls up to the last row."""
        import pyarrow as pa

        if key not in self.batches:
            self.batches[key], self.filled[key], self.kinds[key] = [], 0, set()
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
            Cells of mixed columns that were not text.
        """
        import pyarrow as pa

        joined: dict[str, pa.ChunkedArray] = {}
        not_text: dict[str, NDArray[np.bool_]] = {}
        for key in list(self.batches):
            # Free each column's batches as soon as it is joined.
            arrays, codes = self._filled(key), self.codes.pop(key, None)
            del self.batches[key]
            kind = type_of(self.kinds[key]) if self._keeps(key) else pa.null()
            try:
                if kind is not None:
                    joined[key] = _chunked(arrays, kind, codes)
                    continue
            except OverflowError:
                pass  # a whole number beyond int64, or beyond every float among floats
            joined[key], not_text[key] = _mixed(arrays, codes)
        return joined, not_text


def _new_codes() -> dict[str, int]:
    """An empty dictionary that numbers new texts on lookup."""
    codes: defaultdict[str, int] = defaultdict()
    codes.default_factory = codes.__len__
    return codes


def _code_type() -> pa.DataType:
    """Type of a batch of codes; it differs from int64, the type of whole numbers in a file."""
    import pyarrow as pa

    return pa.int32()


def _coded(values: list[Any], codes: dict[str, int]) -> pa.Array:
    """Encode texts, None as null; new texts are added to `codes`."""
    import pyarrow as pa

    if any(value is None for value in values):
        return pa.array([None if v is None else codes[v] for v in values], _code_type())
    numbers = np.fromiter(map(codes.__getitem__, values), np.int32, len(values))
    return pa.array(numbers, _code_type())


def _coded_again(column: pa.LargeStringArray, codes: dict[str, int]) -> pa.Array:
    """Encode an Arrow column; only its distinct texts become Python strings."""
    found = column.dictionary_encode()
    texts = found.dictionary.to_numpy(zero_copy_only=False).tolist()
    return _coded(texts, codes).take(found.indices)


def _array(values: list[Any], kinds: set[type], codes: dict[str, int] | None) -> Any:
    """Return a typed array, or the list itself if a type would lose information."""
    import pyarrow as pa

    kind = type_of(kinds)
    if kind is None or kinds >= {int, float}:
        return values
    if codes is not None and kind == pa.large_string():
        return _coded(values, codes)
    try:
        return pa.array(values, kind)
    except OverflowError:
        return values


def _chunked(arrays: list[Any], kind: pa.DataType, codes: dict[str, int] | None) -> pa.ChunkedArray:
    """Join batches of one type, and of nulls; OverflowError if a whole number does not fit."""
    import pyarrow as pa

    if codes is not None and kind == pa.large_string():
        numbers = pa.concat_arrays([array.cast(_code_type()) for array in arrays])
        texts = pa.array(list(codes), pa.large_string())
        return pa.chunked_array([pa.DictionaryArray.from_arrays(numbers, texts)])
    chunks = []
    for batch in arrays:
        if isinstance(batch, list):
            to_number = float if kind == pa.float64() else int
            chunks.append(pa.array([None if v is None else to_number(v) for v in batch], kind))
        else:
            # Not safe: whole numbers above 2^53 are rounded, as float() does.
            chunks.append(batch.cast(kind, safe=False))
    return pa.chunked_array(chunks, kind)


def _mixed(
    arrays: list[Any], codes: dict[str, int] | None
) -> tuple[pa.ChunkedArray, NDArray[np.bool_]]:
    """Join batches of several kinds as text, with a mask of the cells that were not."""
    import pyarrow as pa

    known = list(codes or ())
    values: list[Any] = []
    for batch in arrays:
        found = batch if isinstance(batch, list) else batch.to_pylist()
        is_coded = not isinstance(batch, list) and batch.type == _code_type()
        values += [None if v is None else known[v] for v in found] if is_coded else found
    texts, not_text = mixed_texts(values)
    if codes is None:
        column = pa.chunked_array([pa.array(texts, pa.large_string())])
    else:
        again = _new_codes()
        column = _chunked([_coded(texts, again)], pa.large_string(), again)
    return column, not_text


def mixed_texts(values: Sequence[Any]) -> tuple[list[str | None], NDArray[np.bool_]]:
    """Convert values to text, by JSON if they are not text, with a mask of those."""
    texts = [v if v is None or isinstance(v, str) else _dumped(v) for v in values]
    return texts, np.array([v is not None and not isinstance(v, str) for v in values])


def _dumped(value: object) -> str:
    try:
        return json.dumps(value, default=str)
    except RecursionError:
        return "a deeply nested value"


def _shown_type(kind: pa.DataType) -> pa.DataType:
    """Type of a column in the file: text is text, coded or not."""
    import pyarrow as pa

    return kind.value_type if pa.types.is_dictionary(kind) else kind
