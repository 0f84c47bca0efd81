"""Read columns as numbers or text, with a mask of the bad cells."""

from __future__ import annotations

import math
import re
from contextlib import suppress
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.errors import BadInput
from benchrouter.files.words import shown
from benchrouter.tables.sources.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

# Trimmed from both ends before a cell counts as empty; the same set as in table.py.
BLANK = " \t\n\r\x0b\x0c"
MISSING_TEXT = ("", "nan", "null", "na")
NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$|^[+-]?inf(inity)?$"
INTEGER = r"^[+-]?[0-9]+$"


def numbers(source: Source, column: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Read a column as numbers.

    Returns
    -------
    values : float32 array, shape (n_rows,)
        NaN where the cell is null, NaN, or (as text) empty, "NaN", "null" or "NA". True and
        false are 1 and 0.
    bad : bool array, shape (n_rows,)
        Cells that are not a finite float32 number.
    """
    import pyarrow as pa

    cells = source.load(column)
    kind = cells.type
    if pa.types.is_null(kind):
        return np.full(source.n_rows, np.nan, np.float32), np.zeros(source.n_rows, bool)
    if pa.types.is_dictionary(kind):
        cells = cells.cast(kind.value_type)
        kind = kind.value_type
    if _is_string(kind):
        return _numbers_of_text(cells)
    if pa.types.is_boolean(kind):
        cells = cells.cast(pa.uint8())
    elif pa.types.is_decimal(kind):
        cells = cells.cast(pa.float64())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return np.full(source.n_rows, np.nan, np.float32), _present(cells)
    values = cells.cast(pa.float32(), safe=False).to_numpy(zero_copy_only=False)
    values = np.asarray(values, dtype=np.float32)
    return values, np.isinf(values)


def number(value: object, *, finite: bool = True) -> float | None:
    """Read one cell or JSON value as a number, by the rules of `numbers`; None if it is missing.

    Raises
    ------
    ValueError
        If it is no number, too large for 64 bits, or infinite although `finite`.
    """
    found: float | None = None
    if isinstance(value, float):
        found = value
    elif isinstance(value, str):
        text = value.strip(BLANK).lower()
        text = {"true": "1", "false": "0"}.get(text, text)
        if text in MISSING_TEXT:
            return None
        if re.match(NUMBER, text):
            found = float(text)
    elif isinstance(value, int):
        with suppress(OverflowError):
            found = float(value)
    elif value is None:
        return None
    if found is None or (finite and math.isinf(found)):
        expected = "a finite number" if finite else "a number"
        raise BadInput(f"{shown(value)}, expected {expected} or nothing")
    return None if math.isnan(found) else found


def is_numeric(source: Source, column: str) -> bool:
    """Whether a column is numeric by its type or, in a CSV, has at least one number."""
    import pyarrow as pa

    kind = source.columns[column]
    if column in source.untyped:
        values, _ = numbers(source, column)
        return not bool(np.all(np.isnan(values)))
    return bool(
        pa.types.is_integer(kind)
        or pa.types.is_floating(kind)
        or pa.types.is_decimal(kind)
        or pa.types.is_boolean(kind)
    )


def texts(
    source: Source, column: str, *, integers: bool = True
) -> tuple[pa.LargeStringArray, NDArray[np.bool_]]:
    """Read a column as text.

    Parameters
    ----------
    source : Source
    column : str
    integers : bool
        Whether whole numbers count as text, by their digits.

    Returns
    -------
    values : large string array, length n_rows
        Null where the cell is missing or blank.
    bad : bool array, shape (n_rows,)
        Cells that are missing, blank or, in mixed columns, not text.

    Raises
    ------
    ValueError
        If the column has another type.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    kind = _text_kind(source, column, integers)
    values = _combined(source.load(column).cast(kind).cast(pa.large_string()))
    bad = _blank(values) | _foreign(source, column, values, integers)
    if bad.any():
        values = pc.if_else(pa.array(bad), None, values)
    return values, bad


def coded_texts(
    source: Source, column: str, *, integers: bool = True
) -> tuple[NDArray[np.int64], pa.LargeStringArray, NDArray[np.bool_]]:
    """Read a column of few distinct texts as codes; see `texts`.

    Returns
    -------
    codes : int64 array, shape (n_rows,)
        Index into `values`; −1 where the cell is bad.
    values : large string array
        The distinct texts.
    bad : bool array, shape (n_rows,)
        As in `texts`.
    """
    import pyarrow as pa

    kind = _text_kind(source, column, integers)
    if source.load_coded is not None and _is_string(source.columns[column]):
        cells = source.load_coded(column)
    else:
        cells = source.load(column).cast(kind).dictionary_encode()
    coded = cells.unify_dictionaries().combine_chunks()
    values = coded.dictionary.cast(pa.large_string())
    codes = coded.indices.fill_null(-1).to_numpy(zero_copy_only=False).astype(np.int64)
    # The last entry is for the code −1.
    bad = np.append(_blank(values), True)[codes]
    if column in source.not_text:
        bad |= _foreign(source, column, values.take(coded.indices), integers)
    codes[bad] = -1
    return codes, values, bad


def _text_kind(source: Source, column: str, integers: bool) -> pa.DataType:
    """Return the type of the cells; refuse one that is not text."""
    import pyarrow as pa

    kind = source.columns[column]
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    whole = integers and pa.types.is_integer(kind)
    if not (_is_string(kind) or whole or pa.types.is_null(kind)):
        expected = "text or whole numbers" if integers else "text"
        raise BadInput(
            f"{source.name}: column {column!r} holds {kind} ({source.cell(column, 0)} in its "
            f"first row), expected {expected}"
        )
    return kind


def _blank(values: pa.LargeStringArray) -> NDArray[np.bool_]:
    """Mask of null, empty and blank texts."""
    import pyarrow as pa
    import pyarrow.compute as pc

    heads = pa.array(["", *BLANK], pa.large_string())
    # Trimming copies; few texts begin with a blank.
    maybe = _mask(
        pc.is_in(pc.utf8_slice_codeunits(values, start=0, stop=1), value_set=heads), null=True
    )
    maybe |= ~_mask(values.is_valid(), null=False)
    rows = np.flatnonzero(maybe)
    blank = np.zeros(len(values), dtype=bool)
    trimmed = pc.utf8_trim(values.take(pa.array(rows)), characters=BLANK)
    blank[rows] = _mask(pc.equal(pc.utf8_length(trimmed), 0), null=True)
    return blank


def _foreign(
    source: Source, column: str, values: pa.LargeStringArray, integers: bool
) -> NDArray[np.bool_]:
    """Mask of the cells of a mixed column that were neither text nor an allowed whole number."""
    import pyarrow.compute as pc

    if column not in source.not_text:
        return np.zeros(source.n_rows, dtype=bool)
    foreign = source.not_text[column]
    if integers:
        foreign = foreign & ~_mask(pc.match_substring_regex(values, INTEGER), null=True)
    return foreign


def _numbers_of_text(cells: pa.ChunkedArray) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.ascii_lower(pc.utf8_trim(_combined(cells.cast(pa.large_string())), characters=BLANK))
    missing = pc.is_in(text, value_set=pa.array(MISSING_TEXT, pa.large_string()))
    text = pc.if_else(missing, None, text)
    text = pc.if_else(pc.equal(text, "true"), "1", pc.if_else(pc.equal(text, "false"), "0", text))
    number = pc.match_substring_regex(text, NUMBER)
    bad = ~_mask(number, null=True)
    values = pc.if_else(number, text, None).cast(pa.float32()).to_numpy(zero_copy_only=False)
    values = np.asarray(values, dtype=np.float32)
    return values, bad | np.isinf(values)


def _is_string(kind: pa.DataType) -> bool:
    import pyarrow as pa

    return bool(
        pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)
    )


def _combined(cells: pa.ChunkedArray | pa.Array) -> pa.Array:
    """One array; a chunked array of large strings always fits."""
    import pyarrow as pa

    if not isinstance(cells, pa.ChunkedArray):
        return cells
    return pa.concat_arrays(cells.chunks) if cells.num_chunks else pa.array([], cells.type)


def _mask(flags: pa.Array, *, null: bool) -> NDArray[np.bool_]:
    return np.asarray(flags.fill_null(null).to_numpy(zero_copy_only=False), dtype=bool)


def _present(cells: pa.ChunkedArray) -> NDArray[np.bool_]:
    return np.asarray(cells.is_valid().to_numpy(), dtype=bool)
