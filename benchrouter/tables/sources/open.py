"""Parquet, CSV and JSONL files as sources; the suffix decides."""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.lines import compression_of, open_bytes, unpack_errors
from benchrouter.tables.sources.jsonl import Needed, read_jsonl
from benchrouter.tables.sources.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

# Arrow wants every record of a CSV within a block.
BLOCK_BYTES = 1 << 26
CHECKED_BYTES = 1 << 20
SUFFIXES = (".parquet", ".csv", ".csv.gz", ".csv.zst", ".jsonl", ".jsonl.gz", ".jsonl.zst")


def split_suffix(path: Path) -> tuple[str, str]:
    """Split a file's name into its stem and its known suffix.

    Raises
    ------
    ValueError
        If the suffix is none of `SUFFIXES`.
    """
    for suffix in sorted(SUFFIXES, key=len, reverse=True):
        if path.name.lower().endswith(suffix) and len(path.name) > len(suffix):
            return path.name[: -len(suffix)], suffix
    raise ValueError(f"{path}: found suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")


def open_source(path: Path, needed: Needed = lambda columns: None) -> Source:
    """Open one file.

    Parameters
    ----------
    path : Path
    needed : callable
        Which columns will be loaded, as in `read_jsonl`; other formats load what is asked for.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IsADirectoryError
        If it is a directory.
    ValueError
        If it is empty, is not what its suffix says, or names a column twice.
    """
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a directory, expected a file")
    stem, suffix = split_suffix(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    if path.stat().st_size == 0:
        raise ValueError(f"{path} is empty: found 0 bytes")
    with unpack_errors(path):
        source = _open(path, stem, suffix, needed)
    if source.n_positions == 0:
        raise ValueError(f"{path} is empty: found no data row")
    return source


def _open(path: Path, stem: str, suffix: str, needed: Needed) -> Source:
    if suffix == ".parquet":
        return _open_parquet(path, stem)
    if suffix.startswith(".csv"):
        return _open_csv(path, stem)
    return read_jsonl(lambda: open_bytes(path), name=str(path), stem=stem, needed=needed)


def column_names(path: Path) -> list[str]:
    """Names of the columns of a file, of its first readable record for JSONL; reads no values."""
    import pyarrow.parquet as pq

    _, suffix = split_suffix(path)
    if suffix == ".parquet":
        return list(pq.read_schema(path).names)
    if suffix.startswith(".csv"):
        return _csv_header(path)
    with open_bytes(path) as lines:
        for line in lines:
            source = read_jsonl(partial(BytesIO, line), name=str(path), stem="")
            if source.n_rows:
                return list(source.columns)
    return []


def check_distinct(name: str, columns: list[str]) -> None:
    """Refuse two columns of one name."""
    twice = sorted({column for column in columns if columns.count(column) > 1})
    if twice:
        raise ValueError(f"{name}: found several columns named {twice[0]!r}, expected one")


def _open_parquet(path: Path, stem: str) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        schema = file.schema_arrow
        names = list(schema.names)
    except (pa.ArrowException, UnicodeError) as error:
        raise ValueError(f"{path} is not a readable Parquet file: {error}") from error
    check_distinct(str(path), names)

    n_rows = file.metadata.num_rows

    def checked(file: pq.ParquetFile, column: str) -> pa.ChunkedArray:
        try:
            cells = file.read(columns=[column]).column(column)
            cells.validate(full=True)  # among others, that texts are UTF-8
        except (pa.ArrowException, OSError) as error:
            raise ValueError(f"{path}, column {column!r} cannot be read: {error}") from error
        if len(cells) != n_rows:
            raise ValueError(
                f"{path}, column {column!r}: found {len(cells)} rows, expected {n_rows}"
            )
        return cells

    def load_coded(column: str) -> pa.ChunkedArray:
        return checked(pq.ParquetFile(path, read_dictionary=[column]), column)

    # Messages about one column look at it row by row; more columns would only fill memory.
    @lru_cache(maxsize=1)
    def load(column: str) -> pa.ChunkedArray:
        return checked(file, column)

    return Source(
        name=str(path),
        stem=stem,
        columns=dict(zip(names, schema.types, strict=True)),
        load=load,
        load_coded=load_coded,
        positions=np.arange(n_rows, dtype=np.int64),
        n_positions=n_rows,
    )


def _open_csv(path: Path, stem: str) -> Source:
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    _check_utf8(path)
    names = _csv_header(path)
    check_distinct(str(path), names)
    ragged: list[tuple[int, str]] = []

    def note(row: Any) -> str:
        # Arrow counts the header as row 1; positions count data rows from 0.
        position = row.number - 2
        ragged.append(
            (position, f"found {row.actual_columns} fields, expected {row.expected_columns}")
        )
        return "skip"

    try:
        table = arrow_csv.read_csv(
            pa.input_stream(str(path), compression=compression_of(path)),
            # Row numbers of ragged rows are only told without threads.
            read_options=arrow_csv.ReadOptions(use_threads=False, block_size=BLOCK_BYTES),
            parse_options=arrow_csv.ParseOptions(newlines_in_values=True, invalid_row_handler=note),
            # Text as it stands: "007" is a sample_id, and "NA" may be a prompt.
            convert_options=arrow_csv.ConvertOptions(
                column_types=dict.fromkeys(names, pa.large_string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        why = str(error)
        if "straddling" in why:
            why = f"found a record of more than {BLOCK_BYTES} bytes: is a quote not closed?"
        raise ValueError(f"{path}: {why}") from error
    _check_quotes(path, table)
    n_positions = table.num_rows + len(ragged)
    readable = np.ones(n_positions, dtype=bool)
    readable[[position for position, _ in ragged]] = False
    return Source(
        name=str(path),
        stem=stem,
        columns=dict(zip(table.schema.names, table.schema.types, strict=True)),
        load=table.column,
        positions=np.flatnonzero(readable),
        n_positions=n_positions,
        untyped=frozenset(names),
        lines=_csv_lines(path, n_positions),
        unreadable=tuple(ragged),
    )


def _csv_header(path: Path) -> list[str]:
    with open_bytes(path) as file:
        try:
            for row in csv.reader(_decoded(file)):
                if row:
                    return row
        except (UnicodeDecodeError, csv.Error) as error:
            raise ValueError(f"{path}: the header cannot be read: {error}") from error
    raise ValueError(f"{path} is empty: found no header")


def _decoded(file: IO[bytes]) -> Iterator[str]:
    """Lines as text, cut at line feeds only, without a byte-order mark."""
    for number, line in enumerate(file):
        yield line.decode("utf-8-sig" if number == 0 else "utf-8")


def _csv_lines(path: Path, n_positions: int) -> Callable[[], NDArray[np.int64] | None]:
    """First line of every data row; None unless Python's reader counts the same rows."""

    @lru_cache(maxsize=1)
    def lines() -> NDArray[np.int64] | None:
        starts = []
        try:
            with open_bytes(path) as file:
                reader = csv.reader(_decoded(file))
                start = 1
                for row in reader:
                    if row:
                        starts.append(start)
                    start = reader.line_num + 1
        except csv.Error:
            return None
        data = np.array(starts[1:], dtype=np.int64)
        return data if len(data) == n_positions else None

    return lines


def _check_utf8(path: Path) -> None:
    """Refuse a file that is not UTF-8; Arrow would not look at rows with too many fields."""
    decoder = codecs.getincrementaldecoder("utf-8")()
    n_lines = 0
    with open_bytes(path) as file:
        while block := file.read(CHECKED_BYTES):
            try:
                decoder.decode(block)
            except UnicodeDecodeError as error:
                line = n_lines + error.object[: error.start].count(b"\n") + 1
                raise ValueError(f"{path}, line {line}: found invalid UTF8 data") from error
            n_lines += block.count(b"\n")
    try:
        decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}, line {n_lines + 1}: found invalid UTF8 data") from error


def _check_quotes(path: Path, table: pa.Table) -> None:
    """Refuse a last field that swallowed the rest of the file for want of a closing quote."""
    if table.num_rows == 0 or table.num_columns == 0:
        return
    last = table.column(table.num_columns - 1)[table.num_rows - 1].as_py()
    if "\n" not in last:
        return
    with open_bytes(path) as file:
        n_quotes = sum(line.count(b'"') for line in file)
    if n_quotes % 2:
        raise ValueError(
            f"{path}, row {table.num_rows}: found an opening quote without a closing one"
        )
