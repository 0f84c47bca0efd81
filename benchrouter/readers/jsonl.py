"""JSONL lines as a source: one object a line, keys may differ from line to line."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.readers.source import Source, shown

if TYPE_CHECKING:
    import pyarrow as pa

BATCH_ROWS = 65_536
_DECODER = json.JSONDecoder()


def read_jsonl(lines: Iterable[bytes], *, name: str, stem: str) -> Source:
    """Read lines that end in a line feed; U+2028 and its like may stand inside strings.

    Parameters
    ----------
    lines : iterable of bytes
        An open binary file. Blank lines are no rows.
    name, stem : str
        As in `Source`.

    Returns
    -------
    Source
        Broken lines are listed in ``unreadable``.
    """
    columns: dict[str, list[Any]] = {}
    batch: list[dict[str, Any]] = []
    line_numbers: list[int] = []
    broken: list[tuple[int, str]] = []
    n_batched = 0
    for number, line in enumerate(lines, start=1):
        text = line[3:] if number == 1 and line.startswith(b"\xef\xbb\xbf") else line
        if not text.strip():
            continue
        line_numbers.append(number)
        try:
            batch.append(object_of(text))
        except ValueError as error:
            broken.append((len(line_numbers) - 1, str(error)))
        if len(batch) == BATCH_ROWS:
            _append(columns, batch, n_batched)
            n_batched += len(batch)
            batch = []
    _append(columns, batch, n_batched)
    readable = np.ones(len(line_numbers), dtype=bool)
    readable[[position for position, _ in broken]] = False
    joined, not_text = _join(columns)
    numbers = np.array(line_numbers, dtype=np.int64)
    return Source(
        name=name,
        stem=stem,
        columns={key: column.type for key, column in joined.items()},
        load=joined.__getitem__,
        positions=np.flatnonzero(readable),
        n_positions=len(line_numbers),
        untyped=frozenset(not_text),
        not_text=not_text,
        lines=lambda: numbers,
        unreadable=tuple(broken),
    )


def object_of(line: bytes, decoder: json.JSONDecoder = _DECODER) -> dict[str, Any]:
    """Decode one JSON object.

    Raises
    ------
    ValueError
        Says what was found instead.
    """
    try:
        # Faster than json.loads, which guesses the encoding of every line.
        row = decoder.decode(line.decode())
        if b"\\ud" in line or b"\\uD" in line:
            # Half a surrogate pair is legal JSON but no text.
            json.dumps(row, ensure_ascii=False).encode()
    except UnicodeError as error:
        raise ValueError(f"found text that is not UTF-8 ({error})") from error
    except (ValueError, RecursionError) as error:
        found = shown(line.decode("utf-8", "replace").strip())
        raise ValueError(f"found {found}, expected a JSON object ({error})") from error
    if not isinstance(row, dict):
        raise ValueError(f"found {shown(row)}, expected a JSON object")
    return row


def _append(columns: dict[str, list[Any]], batch: list[dict[str, Any]], n_before: int) -> None:
    """Add a batch of rows as one array per key, with nulls where a row lacks it."""
    import pyarrow as pa

    if not batch:
        return
    keys: dict[str, None] = {}
    for row in batch:
        if not keys.keys() >= row.keys():
            keys.update(dict.fromkeys(row))
    for key in keys:
        if key not in columns:
            columns[key] = [pa.nulls(n_before)] if n_before else []
    for key, arrays in columns.items():
        arrays.append(
            _array([row.get(key) for row in batch]) if key in keys else pa.nulls(len(batch))
        )


def _array(values: list[Any]) -> Any:
    """Return a typed array, or the list itself where its kinds are mixed or nested."""
    import pyarrow as pa

    kinds = set(map(type, values)) - {type(None)}
    if not kinds:
        return pa.nulls(len(values))
    if kinds == {str}:
        return pa.array(values, pa.large_string())
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


def _join(
    columns: dict[str, list[Any]],
) -> tuple[dict[str, pa.ChunkedArray], dict[str, NDArray[np.bool_]]]:
    """Give the batches of every key one type; mixed ones become text."""
    import pyarrow as pa

    joined: dict[str, pa.ChunkedArray] = {}
    not_text: dict[str, NDArray[np.bool_]] = {}
    for key, arrays in columns.items():
        kind = _common_type(arrays)
        if kind is not None:
            joined[key] = pa.chunked_array([array.cast(kind) for array in arrays], kind)
            continue
        values = [
            value
            for array in arrays
            for value in (array if isinstance(array, list) else array.to_pylist())
        ]
        texts, not_text[key] = mixed_texts(values)
        joined[key] = pa.chunked_array([pa.array(texts, pa.large_string())])
    return joined, not_text


def mixed_texts(values: Sequence[Any]) -> tuple[list[str | None], NDArray[np.bool_]]:
    """Give values of several kinds as text, JSON for what is none, and which were none."""
    texts = [v if v is None or isinstance(v, str) else json.dumps(v, default=str) for v in values]
    return texts, np.array([v is not None and not isinstance(v, str) for v in values])


def _common_type(arrays: list[Any]) -> Any:
    """Return the type that holds every batch without a change of meaning, or None."""
    import pyarrow as pa

    if any(isinstance(array, list) for array in arrays):
        return None
    types = {array.type for array in arrays} - {pa.null()}
    if len(types) <= 1:
        return types.pop() if types else pa.null()
    return pa.float64() if types == {pa.int64(), pa.float64()} else None
