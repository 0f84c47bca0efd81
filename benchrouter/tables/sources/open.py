"""Open Parquet, CSV and JSONL files as sources; the suffix tells which."""

from __future__ import annotations

from functools import lru_cache, partial
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from benchrouter.files.errors import BadInput
from benchrouter.files.lines import open_bytes, unpack_errors
from benchrouter.files.opened import open_file
from benchrouter.files.words import check_distinct
from benchrouter.tables.sources.csv_file import csv_header, read_csv
from benchrouter.tables.sources.jsonl import Needed, read_jsonl
from benchrouter.tables.sources.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

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
    raise BadInput(f"{path}: found suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")


def open_source(path: Path, needed: Needed = lambda columns: None) -> Source:
    """Open one file.

    Parameters
    ----------
    path : Path
    needed : callable
        Which columns will be loaded, as in `read_jsonl`; other formats load on demand.

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
        raise BadInput(f"{path} is empty: found 0 bytes")
    with unpack_errors(path):
        source = _open(path, stem, suffix, needed)
    if source.n_positions == 0:
        raise BadInput(f"{path} is empty: found no data row")
    return source


def _open(path: Path, stem: str, suffix: str, needed: Needed) -> Source:
    if suffix == ".parquet":
        return _open_parquet(path, stem)
    if suffix.startswith(".csv"):
        return read_csv(path, stem)
    return read_jsonl(lambda: open_bytes(path), name=str(path), stem=stem, needed=needed)


def column_names(path: Path) -> list[str]:
    """Names of a file's columns; for JSONL, those of its first readable record."""
    import pyarrow.parquet as pq

    _, suffix = split_suffix(path)
    if suffix == ".parquet":
        return list(pq.read_schema(open_file(path)).names)
    if suffix.startswith(".csv"):
        return csv_header(path)
    with open_bytes(path) as lines:
        for line in lines:
            source = read_jsonl(partial(BytesIO, line), name=str(path), stem="")
            if source.n_rows:
                return list(source.columns)
    return []


def _open_parquet(path: Path, stem: str) -> Source:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(open_file(path))
        schema = file.schema_arrow
        names = list(schema.names)
    except (pa.ArrowException, UnicodeError) as error:
        raise BadInput(f"{path} is not a readable Parquet file: {error}") from error
    check_distinct(str(path), names)

    n_rows = file.metadata.num_rows

    def checked(file: pq.ParquetFile, column: str) -> pa.ChunkedArray:
        try:
            cells = file.read(columns=[column]).column(column)
            cells.validate(full=True)  # among others, that texts are UTF-8
        except (pa.ArrowException, OSError) as error:
            raise BadInput(f"{path}, column {column!r} cannot be read: {error}") from error
        if len(cells) != n_rows:
            raise BadInput(f"{path}, column {column!r}: found {len(cells)} rows, expected {n_rows}")
        return cells

    def load_coded(column: str) -> pa.ChunkedArray:
        return checked(pq.ParquetFile(open_file(path), read_dictionary=[column]), column)

    # Messages read one column row by row; caching more would only fill memory.
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
