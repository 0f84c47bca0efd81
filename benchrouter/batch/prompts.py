"""Streams of prompts in: text, JSONL, CSV and Parquet files.

Every reader holds one batch in memory, so that memory does not grow with the number of prompts.
"""

from __future__ import annotations

import gzip
import json
import sys
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from benchrouter.batch.csv_records import CsvError, CsvRecords

if TYPE_CHECKING:
    import pyarrow as pa

FORMATS = ("txt", "jsonl", "parquet", "csv")
BOM = b"\xef\xbb\xbf"


@dataclass(frozen=True)
class PromptBatch:
    """Consecutive prompts of one file, with what else stood in their records.

    Attributes
    ----------
    prompts : list of str
    fields : list of dict, or pyarrow.RecordBatch
        The other fields of every record: dictionaries from text, JSONL and CSV (whose values stay
        the strings they are), columns of their own types from Parquet.
    rows : int64 array, shape (n_prompts,)
        Position of every prompt among the records of its file, from 0, skipped ones counted.
    first_row : int
        Position of the first record that this batch covers, kept or skipped.
    n_source_rows : int
        Number of records that this batch covers, kept and skipped.
    skipped : tuple of str
        One message for every bad record left out.
    """

    prompts: list[str]
    fields: list[dict[str, Any]] | pa.RecordBatch
    rows: NDArray[np.int64]
    first_row: int
    n_source_rows: int
    skipped: tuple[str, ...] = ()


def read_prompts(
    path: str | Path,
    *,
    prompt_column: str = "prompt",
    batch: int = 8192,
    on_error: str = "raise",
    format: str | None = None,
) -> Iterator[PromptBatch]:
    r"""Read prompts from a file, batch by batch.

    Text holds one prompt a line; lines end at ``\n`` (or ``\r\n``) and nowhere else. JSONL holds
    one object a line. CSV has a header, and a value of it stays the string it is. ``.txt``,
    ``.jsonl`` and ``.csv`` may be compressed (``.gz``). An empty prompt is a bad record, and so is
    an empty line, except for one at the very end of the file.

    Parameters
    ----------
    path : str or Path
        The file; ``-`` reads standard input.
    prompt_column : str
        Name of the field that holds the prompt.
    batch : int
        Records read at a time, at least 1.
    on_error : "raise" or "skip"
        Whether a bad record ends the reading or is left out and listed in ``skipped``.
    format : "txt", "jsonl", "parquet", "csv" or None
        None goes by the suffix; for standard input, a first byte ``{`` means JSONL and anything
        else text.

    Yields
    ------
    PromptBatch

    Raises
    ------
    ValueError
        For an argument out of range, an unknown suffix, a file without the column, or a bad
        record (the message names file, line or row, what was found and what was expected).
    FileNotFoundError
        If there is no such file.
    """
    if batch < 1:
        raise ValueError(f"batch is {batch}, expected at least 1")
    if on_error not in ("raise", "skip"):
        raise ValueError(f"on_error is {on_error!r}, expected 'raise' or 'skip'")
    if format is not None and format not in FORMATS:
        raise ValueError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
    name = "standard input" if str(path) == "-" else str(path)
    if format is None and str(path) != "-":
        format = _format_of(name)
    if format == "parquet":
        if str(path) == "-":
            raise ValueError("standard input cannot be Parquet, expected txt, jsonl or csv")
        return _parquet_batches(Path(path), prompt_column, batch, on_error)
    return _row_batches(name, str(path), format, prompt_column, batch, on_error)


def _format_of(name: str) -> str:
    suffixes = [s.lower().lstrip(".") for s in Path(name).suffixes]
    if suffixes and suffixes[-1] == "gz":
        suffixes.pop()
        if suffixes and suffixes[-1] == "parquet":
            raise ValueError(f"{name}: a gzipped Parquet file cannot be read, expected .parquet")
    if not suffixes or suffixes[-1] not in FORMATS:
        raise ValueError(
            f"{name}: the suffix says no format of prompts, expected .txt, .jsonl, .csv (also "
            "with .gz) or .parquet, or a format by name (--format)"
        )
    return suffixes[-1]


# --- records of text, JSONL and CSV: (prompt, fields), or a message that says what is wrong ------


def _row_batches(
    name: str, path: str, format: str | None, prompt_column: str, batch: int, on_error: str
) -> Iterator[PromptBatch]:
    with _opened(path) as stream:
        if format is None:
            first = stream.peek(4)  # type: ignore[attr-defined]
            format = "jsonl" if first.removeprefix(BOM).startswith(b"{") else "txt"
        lines = _without_empty_end(lines_of(stream, name))
        if format == "txt":
            records = _txt_records(lines, name)
        elif format == "jsonl":
            records = _jsonl_records(lines, name, prompt_column)
        else:
            records = _csv_records(lines, name, prompt_column)
        yield from _batches(records, batch, on_error)


@contextmanager
def _opened(path: str) -> Iterator[BinaryIO]:
    if path == "-":
        yield sys.stdin.buffer
    elif path.lower().endswith(".gz"):
        with gzip.open(path, "rb") as stream:
            yield cast(BinaryIO, stream)
    else:
        with open(path, "rb") as stream:
            yield stream


def lines_of(stream: BinaryIO, name: str) -> Iterator[bytes]:
    """Lines with their ends, split at line feeds only, without a byte order mark."""
    try:
        for number, line in enumerate(stream):
            yield line.removeprefix(BOM) if number == 0 else line
    except (EOFError, zlib.error, gzip.BadGzipFile) as e:
        raise ValueError(f"{name}: not a whole gzip file: {e}") from e


def _without_empty_end(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Leave out one empty line behind the last record: many editors add it."""
    held: bytes | None = None
    for number, line in enumerate(lines):
        if held is not None:
            yield held
        held = line if number > 0 and line in (b"\n", b"\r\n") else None
        if held is None:
            yield line


def _batches(
    records: Iterable[tuple[str, dict[str, Any]] | str], batch: int, on_error: str
) -> Iterator[PromptBatch]:
    prompts: list[str] = []
    fields: list[dict[str, Any]] = []
    rows: list[int] = []
    skipped: list[str] = []
    first = end = 0
    for row, record in enumerate(records):
        end = row + 1
        if isinstance(record, str):
            if on_error == "raise":
                raise ValueError(record)
            skipped.append(record)
        else:
            prompts.append(record[0])
            fields.append(record[1])
            rows.append(row)
        if end - first == batch:
            yield _batch(prompts, fields, rows, first, end, skipped)
            prompts, fields, rows, skipped = [], [], [], []
            first = end
    if end > first:
        yield _batch(prompts, fields, rows, first, end, skipped)


def _batch(
    prompts: list[str],
    fields: list[dict[str, Any]] | pa.RecordBatch,
    rows: list[int],
    first: int,
    end: int,
    skipped: list[str],
) -> PromptBatch:
    return PromptBatch(
        prompts, fields, np.array(rows, dtype=np.int64), first, end - first, tuple(skipped)
    )


def _txt_records(lines: Iterable[bytes], name: str) -> Iterator[tuple[str, dict[str, Any]] | str]:
    for number, line in enumerate(lines, start=1):
        where = f"{name}, line {number}"
        try:
            prompt = line.removesuffix(b"\n").removesuffix(b"\r").decode()
        except UnicodeDecodeError as e:
            yield f"{where}: found text that is not UTF-8 ({e.reason}), expected a prompt"
            continue
        wrong = _wrong_prompt(prompt, where)
        yield wrong or (prompt, {})


def _jsonl_records(
    lines: Iterable[bytes], name: str, prompt_column: str
) -> Iterator[tuple[str, dict[str, Any]] | str]:
    for number, line in enumerate(lines, start=1):
        where = f"{name}, line {number}"
        try:
            # as text: from bytes, json guesses the encoding of every line anew
            record = json.loads(line.decode(), parse_constant=_not_json)
        except UnicodeDecodeError as e:
            yield f"{where}: found text that is not UTF-8 ({e.reason}), expected a JSON object"
            continue
        except (ValueError, RecursionError) as e:
            found = "an empty line" if not line.strip() else f"text that is not JSON ({e})"
            yield f"{where}: found {found}, expected one JSON object a line"
            continue
        if not isinstance(record, dict):
            yield f"{where}: found a JSON {type(record).__name__}, expected an object"
            continue
        if prompt_column not in record:
            yield f"{where}: found no field {prompt_column!r}, expected a prompt"
            continue
        if b"\\u" in line and not _encodable(record):
            yield f"{where}: found half a surrogate pair, expected Unicode text"
            continue
        prompt = record.pop(prompt_column)
        wrong = _wrong_prompt(prompt, where)
        yield wrong or (prompt, record)


def _not_json(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON number")


def _encodable(record: dict[str, Any]) -> bool:
    try:
        json.dumps(record, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return False
    return True


def _csv_records(
    lines: Iterable[bytes], name: str, prompt_column: str
) -> Iterator[tuple[str, dict[str, Any]] | str]:
    reader, header = csv_reader(lines, name)
    if prompt_column not in header:
        raise ValueError(f"{name}, line 1: found columns {header}, expected {prompt_column!r}")
    while True:
        where = f"{name}, line {reader.line_num + 1}"
        try:
            cells = next(reader)
        except StopIteration:
            return
        except CsvError as e:
            yield f"{where}: found no CSV record ({e}), expected {len(header)} cells"
            continue
        if len(cells) != len(header):
            yield f"{where}: found {len(cells)} cells, expected {len(header)}"
            continue
        record = dict(zip(header, cells, strict=True))
        prompt = record.pop(prompt_column)
        wrong = _wrong_prompt(prompt, where)
        yield wrong or (prompt, record)


def csv_reader(lines: Iterable[bytes], name: str) -> tuple[CsvRecords, list[str]]:
    """Start reading CSV.

    Parameters
    ----------
    lines : iterable of bytes
        With their ends.
    name : str
        The file, for messages.

    Returns
    -------
    reader : CsvRecords
        Stands behind the header; raises `CsvError` for a record that is not CSV.
    header : list of str
        Names of the columns, all different.

    Raises
    ------
    ValueError
        For an empty file, a header that is not CSV or names a column twice, and, while records
        are read, for bytes that are not UTF-8.
    """
    reader = CsvRecords(_decoded(lines, name))
    try:
        header = next(reader)
    except StopIteration:
        raise ValueError(f"{name}: found an empty file, expected a header line") from None
    except CsvError as e:
        raise ValueError(f"{name}, line 1: found no CSV header ({e})") from e
    if len(set(header)) < len(header):
        raise ValueError(f"{name}, line 1: found a column name twice in {header}")
    return reader, header


def _decoded(lines: Iterable[bytes], name: str) -> Iterator[str]:
    for number, line in enumerate(lines, start=1):
        try:
            yield line.decode()
        except UnicodeDecodeError as e:
            raise ValueError(
                f"{name}, line {number}: found text that is not UTF-8 ({e.reason})"
            ) from e


def _wrong_prompt(prompt: object, where: str) -> str | None:
    if not isinstance(prompt, str):
        found = "null" if prompt is None else f"a prompt of type {type(prompt).__name__}"
        return f"{where}: found {found}, expected text"
    if not prompt.strip():
        return f"{where}: found an empty prompt, expected text"
    return None


# --- Parquet -------------------------------------------------------------------------------------


def _parquet_batches(
    path: Path, prompt_column: str, batch: int, on_error: str
) -> Iterator[PromptBatch]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.exists():
        raise FileNotFoundError(2, "No such file or directory", str(path))
    try:
        file = pq.ParquetFile(path)
    except (pa.ArrowInvalid, OSError) as e:
        raise ValueError(f"{path}: found no readable Parquet file ({e})") from e
    with file:
        names = file.schema_arrow.names
        if names.count(prompt_column) != 1:
            raise ValueError(f"{path}: found columns {names}, expected one {prompt_column!r}")
        kind = file.schema_arrow.field(prompt_column).type
        value = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (pa.types.is_string(value) or pa.types.is_large_string(value)):
            raise ValueError(f"{path}: column {prompt_column!r} is {kind}, expected string")
        others = [n for n in names if n != prompt_column]
        first = 0
        for found in file.iter_batches(batch_size=batch):
            prompts = found.column(prompt_column).to_pylist()
            wrong = [_wrong_prompt(p, f"{path}, row {first + i}") for i, p in enumerate(prompts)]
            kept = [i for i, message in enumerate(wrong) if message is None]
            skipped = [message for message in wrong if message is not None]
            if skipped and on_error == "raise":
                raise ValueError(skipped[0])
            fields = found.select(others)
            if skipped:
                fields = fields.take(pa.array(kept, type=pa.int64()))
                prompts = [prompts[i] for i in kept]
            rows = [first + i for i in kept]
            yield _batch(prompts, fields, rows, first, first + len(wrong), skipped)
            first += len(wrong)
