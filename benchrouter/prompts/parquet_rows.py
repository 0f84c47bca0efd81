"""Rows of a Parquet file from any row on, in batches with given ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from io import BufferedReader
from typing import TYPE_CHECKING

from benchrouter.files.errors import BadInput
from benchrouter.prompts.records import wrong_prompt

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq


def open_parquet(opened: BufferedReader, name: str, prompt_column: str) -> pq.ParquetFile:
    """Start reading a Parquet file, which needs one column of strings named `prompt_column`.

    Raises
    ------
    ValueError
        If it is no Parquet file, or has no such column; the message begins with `name`.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(opened)
    except (pa.ArrowInvalid, OSError) as e:
        raise BadInput(f"{name}: found no readable Parquet file ({e})") from e
    names = file.schema_arrow.names
    if names.count(prompt_column) != 1:
        raise BadInput(f"{name}: found columns {names}, expected one {prompt_column!r}")
    kind = file.schema_arrow.field(prompt_column).type
    value = kind.value_type if pa.types.is_dictionary(kind) else kind
    if not (pa.types.is_string(value) or pa.types.is_large_string(value)):
        raise BadInput(f"{name}: column {prompt_column!r} is {kind}, expected string")
    return file


def rows_from(
    file: pq.ParquetFile, first_row: int, batch: int, end_of: Callable[[int], int], *, name: str
) -> Iterator[pa.RecordBatch]:
    """Read rows from `first_row` on; whole row groups before it are not decoded.

    Parameters
    ----------
    batch : int
        Rows decoded at a time.
    end_of : callable
        First row of a batch to the row after its last one.
    name : str
        The file, for messages.

    Raises
    ------
    ValueError
        If a row group is damaged.
    """
    group = start = 0
    while group < file.num_row_groups:
        n_rows = file.metadata.row_group(group).num_rows
        if start + n_rows > first_row:
            break
        group, start = group + 1, start + n_rows
    surplus = first_row - start
    held: list[pa.RecordBatch] = []
    n_wanted = end_of(first_row) - first_row
    pieces = file.iter_batches(batch, row_groups=range(group, file.num_row_groups))
    for piece in _readable(pieces, name):
        passed = min(surplus, len(piece))
        surplus -= passed
        rest = piece.slice(passed)
        while len(rest):
            held.append(rest.slice(0, n_wanted))
            rest = rest.slice(len(held[-1]))
            n_wanted -= len(held[-1])
            if n_wanted == 0:
                first_row += sum(map(len, held))
                yield from _joined(held)
                held, n_wanted = [], end_of(first_row) - first_row
    yield from _joined(held)


def wrong_prompts(texts: pa.Array, *, name: str) -> dict[int, str]:
    """What is wrong with the prompts of a column, by position; see `records.wrong_prompt`.

    Parameters
    ----------
    texts : pyarrow.Array
        Strings, or a dictionary of strings.
    name : str
        The file, for messages.

    Raises
    ------
    ValueError
        If a text is not UTF-8.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    try:
        texts.validate(full=True)
    except pa.ArrowInvalid as e:
        raise BadInput(f"{name}: found rows that cannot be read ({e})") from e
    # A visible character of ASCII makes a prompt; texts without one are looked at one by one.
    plain = pc.match_substring_regex(texts.cast(pa.string()), "[!-~]")
    if plain.null_count == 0 and pc.all(plain).as_py():
        return {}
    unsure = [i for i, visible in enumerate(plain.to_pylist()) if not visible]
    found = {i: wrong_prompt(texts[i].as_py()) for i in unsure}
    return {i: reason for i, reason in found.items() if reason is not None}


def _readable(pieces: Iterator[pa.RecordBatch], name: str) -> Iterator[pa.RecordBatch]:
    import pyarrow as pa

    try:
        yield from pieces
    except (pa.ArrowException, OSError) as e:
        raise BadInput(f"{name}: found rows that cannot be read ({e})") from e


def _joined(pieces: list[pa.RecordBatch]) -> list[pa.RecordBatch]:
    """Pieces as one batch (more only where one would hold 2 GiB of text in a column)."""
    import pyarrow as pa

    if len(pieces) < 2:
        return pieces
    joined: list[pa.RecordBatch] = pa.Table.from_batches(pieces).combine_chunks().to_batches()
    return joined
