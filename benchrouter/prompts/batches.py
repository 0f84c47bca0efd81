"""Streams of prompts in: text, JSONL, CSV and Parquet files.

Every reader holds one batch in memory, so that memory does not grow with the number of prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from functools import cached_property
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Counts, Ids
from benchrouter.files.errors import BadInput
from benchrouter.files.lines import COMPRESSIONS, LineFile
from benchrouter.prompts.parquet_rows import open_parquet, rows_from, wrong_prompts
from benchrouter.prompts.read_ahead import made_ahead
from benchrouter.prompts.records import Record, records_of
from benchrouter.prompts.rejected import RAW_CHARACTERS, Rejected
from benchrouter.prompts.timing import staged

if TYPE_CHECKING:
    import pyarrow as pa

Item = TypeVar("Item")
Counted = tuple["PromptBatch", NDArray[Any] | None, Counts | None]  # with embeddings, and tokens

FORMATS = ("txt", "jsonl", "parquet", "csv")


@dataclass(frozen=True)
class PromptBatch:
    """Consecutive prompts of one file, with what else stood in their records.

    Attributes
    ----------
    texts : list of str, or pyarrow.StringArray
        The prompts as they were read: a column from Parquet, turned into Python strings only when
        `prompts` is asked for.
    fields : list of dict, or pyarrow.RecordBatch
        The other fields of every record: dictionaries from text, JSONL and CSV (whose values are
        strings), columns of their own types from Parquet.
    rows : int64 array, shape (n_prompts,)
        Position of every prompt among the records of its file, from 0, bad ones counted.
    first_row : int
        Position of the first record that this batch covers, good or bad.
    n_source_rows : int
        Number of records that this batch covers, good and bad.
    rejected : tuple of Rejected
        The bad records, left out of `texts`.
    share : float or None
        Share of the file that has been read, 0 to 1; None where its size is not known.
    """

    texts: list[str] | pa.StringArray
    fields: list[dict[str, Any]] | pa.RecordBatch
    rows: Ids
    first_row: int
    n_source_rows: int
    rejected: tuple[Rejected, ...] = ()
    share: float | None = None

    def __len__(self) -> int:
        """Count the prompts."""
        return len(self.texts)

    @cached_property
    def prompts(self) -> list[str]:
        """The prompts."""
        if isinstance(self.texts, list):
            return self.texts
        prompts: list[str] = self.texts.to_pylist()
        return prompts

    @property
    def column(self) -> pa.StringArray:
        """The prompts as a column."""
        import pyarrow as pa

        return pa.array(self.texts, pa.string()) if isinstance(self.texts, list) else self.texts

    @property
    def end_row(self) -> int:
        """Position after the last record that this batch covers."""
        return self.first_row + self.n_source_rows

    @property
    def skipped(self) -> tuple[str, ...]:
        """One message for every bad record."""
        return tuple(record.message for record in self.rejected)


class PromptFile:
    r"""A file of prompts, opened once however often it is read.

    Text holds one prompt a line; lines end at ``\n`` (or ``\r\n``) and nowhere else. JSONL holds
    one object a line. CSV has a header, and its values stay strings. ``.txt``, ``.jsonl`` and
    ``.csv`` may be compressed (``.gz``, ``.zst``). An empty prompt is a bad record, and so is an
    empty line, except for one at the very end of the file.

    Parameters
    ----------
    path : str or Path
        The file; ``-`` is standard input, which can be read once.
    prompt_column : str
        Name of the field that holds the prompt.
    batch : int
        Records read at a time, at least 1.
    on_error : "raise" or "skip"
        Whether a bad record ends the reading, or is left out and listed in ``rejected``.
    format : "txt", "jsonl", "parquet", "csv" or None
        None goes by the suffix; for standard input, a first byte ``{`` means JSONL and anything
        else text.

    Attributes
    ----------
    name : str
        The file, for messages.
    path, prompt_column, batch, on_error
        As they were given.
    format : str or None
        None only for standard input.

    Raises
    ------
    ValueError
        For an argument out of range, or an unknown suffix.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        prompt_column: str = "prompt",
        batch: int = 8192,
        on_error: str = "raise",
        format: str | None = None,
    ) -> None:
        self.is_stdin = str(path) == "-"
        if batch < 1:
            raise BadInput(f"batch is {batch}, expected at least 1")
        if on_error not in ("raise", "skip"):
            raise BadInput(f"on_error is {on_error!r}, expected 'raise' or 'skip'")
        if format is not None and format not in FORMATS:
            raise ValueError(f"format is {format!r}, expected one of {', '.join(FORMATS)}")
        if format is None and not self.is_stdin:
            format = format_of(path)
        if format == "parquet" and self.is_stdin:
            raise BadInput("standard input cannot be Parquet, expected txt, jsonl or csv")
        self.path = path
        self.name = "standard input" if self.is_stdin else str(path)
        self.format = format
        self.on_error = on_error
        self.prompt_column = prompt_column
        self.batch = batch
        self._opened: BufferedReader | None = None
        self._was_read = False

    @property
    def opened(self) -> BufferedReader | None:
        """The file, opened when first asked for; None for standard input.

        Raises
        ------
        OSError
        """
        if self._opened is None and not self.is_stdin:
            self._opened = open(self.path, "rb")  # noqa: SIM115  closed by close()
        return self._opened

    def batches(self, first_row: int = 0, part_size: int | None = None) -> Iterator[PromptBatch]:
        """Read the file, batch by batch.

        Parameters
        ----------
        first_row : int
            Records to pass over: their prompts are not decoded, and bad ones not reported.
        part_size : int, optional
            No batch reaches across a multiple of so many records: read from such a row on, a file
            gives the batches that it gives when it is read from the start.

        Raises
        ------
        ValueError
            For a file without the column, a compressed file that is not whole, or a bad record (the
            message names file, line or row, what was found and what was expected).
        OSError
            If the file cannot be opened, or read for a second time.
        """
        file = self.opened
        if file is not None and self._was_read:
            file.seek(0)
        self._was_read = True
        cut = _Cut(first_row, self.batch, part_size)
        if self.format == "parquet":
            assert file is not None
            return _parquet_batches(file, self.name, self.prompt_column, cut, self.on_error)
        lines = LineFile(self.path, file)
        return _line_batches(lines, self.format, self.prompt_column, cut, self.on_error)

    def close(self) -> None:
        """Close the file; standard input stays open."""
        if self._opened is not None:
            self._opened.close()

    def __enter__(self) -> PromptFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read_prompts(
    path: str | Path, *, first_row: int = 0, part_size: int | None = None, **options: Any
) -> Generator[PromptBatch, None, None]:
    """Read a file of prompts once, batch by batch.

    Parameters
    ----------
    path : str or Path
    first_row, part_size
        As in `PromptFile.batches`.
    **options
        As in `PromptFile`.

    Raises
    ------
    ValueError, OSError
        As `PromptFile` and its `batches` do, the first of them when this is called.
    """
    file = PromptFile(path, **options)

    def batches() -> Generator[PromptBatch, None, None]:
        with file:
            yield from file.batches(first_row, part_size)

    return batches()


def read_ahead(path: str | Path, batches: Iterable[Item]) -> Generator[Item, None, None]:
    """Read the next batches of a file in a thread, while the caller uses those before.

    A pipe is read in the caller's thread, because a thread that waits for a pipe cannot be stopped.

    Parameters
    ----------
    path : str or Path
        The file; ``-`` is standard input.
    batches : iterable
        Reads it.

    Returns
    -------
    generator
        Of the same batches, at most two of them ahead.
    """
    timed = staged(batches, "read")
    return made_ahead(timed, name="read") if Path(path).is_file() else timed


def format_of(path: str | Path) -> str:
    """Format of a file of prompts, by its suffix.

    Raises
    ------
    ValueError
        If the suffix says none.
    """
    suffixes = [s.lower() for s in Path(path).suffixes]
    if suffixes and suffixes[-1] in COMPRESSIONS:
        suffixes.pop()
        if suffixes and suffixes[-1] == ".parquet":
            raise BadInput(f"{path}: a compressed Parquet file cannot be read, expected .parquet")
    if not suffixes or suffixes[-1][1:] not in FORMATS:
        raise BadInput(
            f"{path}: the suffix says no format of prompts, expected .txt, .jsonl, .csv (also "
            "with .gz or .zst) or .parquet, or a format by name (--format)"
        )
    return suffixes[-1][1:]


@dataclass(frozen=True)
class _Cut:
    """Where batches begin and end."""

    first_row: int
    batch: int
    part_size: int | None

    def end(self, row: int) -> int:
        """Row after the batch that begins at `row`."""
        end = row + self.batch
        if self.part_size is not None:
            end = min(end, row - row % self.part_size + self.part_size)
        return end


def _line_batches(
    file: LineFile, format: str | None, prompt_column: str, cut: _Cut, on_error: str
) -> Iterator[PromptBatch]:
    if format is None:
        format = "jsonl" if file.begins_with(b"{") else "txt"
    records = records_of(
        _without_empty_end(file),
        format,
        name=file.name,
        prompt_column=prompt_column,
        first_row=cut.first_row,
    )
    yield from _batches(records, cut, on_error, lambda: file.share)


def _without_empty_end(lines: Iterable[bytes]) -> Iterator[bytes]:
    """Leave out one empty line after the last record: many editors add it."""
    held: bytes | None = None
    for number, line in enumerate(lines):
        if held is not None:
            yield held
        held = line if number > 0 and line in (b"\n", b"\r\n") else None
        if held is None:
            yield line


def _batches(
    records: Iterable[Record | Rejected],
    cut: _Cut,
    on_error: str,
    share: Callable[[], float | None],
) -> Iterator[PromptBatch]:
    prompts: list[str] = []
    fields: list[dict[str, Any]] = []
    rows: list[int] = []
    rejected: list[Rejected] = []
    first = end = cut.first_row
    full = cut.end(first)

    def batch() -> PromptBatch:
        positions = np.array(rows, dtype=np.int64)
        return PromptBatch(prompts, fields, positions, first, end - first, tuple(rejected), share())

    for row, record in enumerate(records, start=first):
        end = row + 1
        if isinstance(record, Rejected):
            if on_error == "raise":
                raise BadInput(record.message)
            rejected.append(record)
        else:
            prompts.append(record[0])
            fields.append(record[1])
            rows.append(row)
        if end == full:
            yield batch()
            prompts, fields, rows, rejected = [], [], [], []
            first, full = end, cut.end(end)
    if end > first:
        yield batch()


def _parquet_batches(
    opened: BufferedReader, name: str, prompt_column: str, cut: _Cut, on_error: str
) -> Iterator[PromptBatch]:
    import pyarrow as pa

    file = open_parquet(opened, name, prompt_column)
    others = [n for n in file.schema_arrow.names if n != prompt_column]
    n_rows = file.metadata.num_rows
    first = cut.first_row
    for found in rows_from(file, first, cut.batch, cut.end, name=name):
        texts, fields = found.column(prompt_column), found.select(others)
        wrong = wrong_prompts(texts, name=name)
        rejected = tuple(
            Rejected(name, first + i, None, reason, _cut_short(texts[i].as_py()))
            for i, reason in wrong.items()
        )
        if rejected and on_error == "raise":
            raise BadInput(rejected[0].message)
        end = first + len(found)
        rows = np.arange(first, end)
        if rejected:
            kept = np.delete(np.arange(len(found)), list(wrong))
            texts, fields = texts.take(pa.array(kept)), fields.take(pa.array(kept))
            rows = rows[kept]
        yield PromptBatch(
            texts.cast(pa.string()), fields, rows, first, end - first, rejected, end / n_rows
        )
        first = end


def _cut_short(prompt: str | None) -> str | None:
    return None if prompt is None else prompt[:RAW_CHARACTERS]
