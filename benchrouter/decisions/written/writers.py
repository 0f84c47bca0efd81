"""Streams of decisions out: JSONL, Parquet and CSV files that appear when they are complete."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from collections.abc import Container, Sequence
from contextlib import AbstractContextManager, nullcontext, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypedDict

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.written import arrow_columns
from benchrouter.files.atomic import partial_of, put_file
from benchrouter.files.lines import compression_of
from benchrouter.files.os_errors import naming
from benchrouter.files.plain import finite

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

    from benchrouter.decisions.answers import Decisions
    from benchrouter.prompts.batches import PromptBatch

RESULTS = ("model", "score", "margin", "distance", "fallback")
CHANCE = ("chance",)  # written after them by the rule "auto"
FLAGS = ("fallback", "over_limit")  # bool; the others are float32, but for the model's name
DISTINCT = ("distance", "cost_usd", "chance")  # different for nearly every prompt
ROW_GROUP_BYTES = 16 << 20  # small groups read slowly, large ones are held in memory
SUFFIXES = (".jsonl", ".parquet", ".csv")  # the texts also with .gz or .zst


class Columns(TypedDict):
    """The columns of decisions, as `open_decisions` takes them."""

    prompt_column: str | None
    prefix: str
    further: Sequence[str]


def open_decisions(
    path: str | Path,
    *,
    prompt_column: str | None = "prompt",
    prefix: str = "",
    fields: pa.Schema | None = None,
    further: Sequence[str] = (),
) -> DecisionWriter:
    """Open a file for decisions, its format by its suffix.

    A record holds the input's other fields, the prompt, then ``model``, ``score``, ``margin``,
    ``distance`` and ``fallback``. The file is written under a temporary name beside `path` and
    renamed when `DecisionWriter.close` is called: a run that fails leaves nothing there.

    Parameters
    ----------
    path : str or Path
        Ends in ``.jsonl``, ``.parquet`` or ``.csv`` (the texts may be compressed: ``.gz``,
        ``.zst``); ``-`` writes JSONL to standard output, as it comes. A file that is there is
        replaced.
    prompt_column : str or None
        Name under which the prompt is written; None leaves it out.
    prefix : str
        Put before these names, for input that has such fields already.
    further : sequence of "chance", "cost_usd" and "over_limit"
        Written after those five; a chance that is not known is missing.
    fields : pyarrow.Schema, optional
        Other fields of the input and their types in a Parquet file, instead of those of the first
        batch.

    Raises
    ------
    ValueError
        If the suffix is another one, or `path` is there and no regular file.
    OSError
        If it cannot be written; so do the writer's methods. The error names `path`.
    """
    columns = Columns(prompt_column=prompt_column, prefix=prefix, further=further)
    if str(path) == "-":
        return JsonlWriter(None, columns)
    target, suffix = target_of(path)
    with naming(target):
        if suffix == ".parquet":
            return ParquetWriter(target, columns, fields)
        return JsonlWriter(target, columns) if suffix == ".jsonl" else CsvWriter(target, columns)


def target_of(path: str | Path) -> tuple[Path, str]:
    """Absolute path of an output file, links followed, and its format, one of `SUFFIXES`.

    Raises ValueError if the suffix is another one, or there cannot be such a file.
    """
    target = Path(os.path.realpath(path))
    compressed = compression_of(target) is not None
    suffix = Path(target.stem if compressed else target.name).suffix.lower()
    if suffix not in SUFFIXES or (compressed and suffix == ".parquet"):
        raise ValueError(
            f"output {path}: the suffix is none of {', '.join(SUFFIXES)} (.jsonl and .csv also "
            "with .gz or .zst)"
        )
    if target.exists() and not target.is_file():
        raise ValueError(f"output {path} is no regular file, expected a file name or '-'")
    if not target.parent.is_dir():
        raise ValueError(f"output {path}: there is no directory {target.parent}")
    return target, suffix


def fields_of(path: Path, prompt_column: str | None, further: Sequence[str] = ()) -> pa.Schema:
    """Other fields of the input, as they are in a Parquet file that `open_decisions` wrote.

    `prompt_column` and `further` are as they were given there.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    n_others = len(RESULTS) + len(further) + (prompt_column is not None)
    return pa.schema(list(pq.read_schema(path))[:-n_others])


class DecisionWriter:
    """Writes decisions batch by batch; see `open_decisions`.

    Used in a ``with`` block, it commits at the end of the block, or drops what was written if the
    block raised.

    Attributes
    ----------
    target : Path or None
        The file; None is standard output.
    """

    def __init__(self, target: Path | None, columns: Columns) -> None:
        self.target = target
        self._prompt_column = columns["prompt_column"]
        self._values = (*RESULTS[1:], *columns["further"])  # beside the model's name
        self._names = tuple(columns["prefix"] + name for name in (RESULTS[0], *self._values))
        self._partial = target and partial_of(target)

    def write(self, batch: PromptBatch, decisions: Decisions) -> None:
        """Write one batch.

        Raises
        ------
        ValueError
            If the batch and the decisions differ in length, an input field has the name of a
            result, or the format cannot hold a field.
        """
        if len(batch) != len(decisions):
            raise ValueError(f"{len(decisions)} decisions for {len(batch)} prompts")
        if len(batch):
            with self._naming():
                self._write(batch, decisions)

    def close(self) -> None:
        """Finish the file and give it its name."""
        with self._naming():
            self._finish()
            if self.target is not None and self._partial is not None:
                put_file(self._partial, self.target)

    def _naming(self) -> AbstractContextManager[None]:
        return nullcontext() if self.target is None else naming(self.target)

    def abort(self) -> None:
        """Drop what was written."""
        with suppress(Exception):
            self._finish()
        if self._partial is not None:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> DecisionWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is not None:
            self.abort()
            return
        try:
            self.close()
        except BaseException:
            self.abort()
            raise

    def _write(self, batch: PromptBatch, decisions: Decisions) -> None:
        raise NotImplementedError

    def _finish(self) -> None:
        raise NotImplementedError

    def _open_text(self) -> TextIO:
        if self._partial is None or self.target is None:
            return sys.stdout
        return open_text(self._partial, self.target)

    def _check_names(self, fields: Container[str | None], row: int) -> None:
        taken = [n for n in (*self._names, self._prompt_column) if n in fields]
        if taken:
            raise ValueError(
                f"input record {row} has a field {taken[0]!r} already, which the output needs: "
                "rename it, or give a prefix for the results (--prefix)"
            )


class JsonlWriter(DecisionWriter):
    """One JSON object a line; NaN and infinity are null."""

    def __init__(self, target: Path | None, columns: Columns) -> None:
        super().__init__(target, columns)
        self._file = self._open_text()

    def _write(self, batch: PromptBatch, decisions: Decisions) -> None:
        names = [json.dumps(n) for n in self._names]
        models = [json.dumps(m, ensure_ascii=False) for m in decisions.models]
        columns = [
            [models[i] for i in decisions.model.tolist()],
            *(_texts(arrow_columns.of(decisions, name), "null") for name in self._values),
        ]
        lines = []
        for i, fields in enumerate(_rows(batch)):
            self._check_names(fields, int(batch.rows[i]))
            record = dict(fields)
            if self._prompt_column is not None:
                record[self._prompt_column] = batch.prompts[i]
            results = ", ".join(f"{n}: {c[i]}" for n, c in zip(names, columns, strict=True))
            text = _json_text(record)
            lines.append(f"{text[:-1]}{', ' if record else ''}{results}}}\n")
        if self.target is None:
            # the terminal's own encoding may not hold every prompt
            sys.stdout.flush()
            stdout_write("".join(lines))
        else:
            self._file.write("".join(lines))

    def _finish(self) -> None:
        if self.target is None:
            sys.stdout.flush()
        else:
            self._file.close()


class CsvWriter(DecisionWriter):
    """A header, then one line a prompt; a list or object of the input is written as JSON text."""

    def __init__(self, target: Path, columns: Columns) -> None:
        super().__init__(target, columns)
        self._file = self._open_text()
        self._csv = csv.writer(self._file, lineterminator="\n")
        self._others: list[str] | None = None

    def _write(self, batch: PromptBatch, decisions: Decisions) -> None:
        rows = _rows(batch)
        if self._others is None:
            self._others = list(dict.fromkeys(name for fields in rows for name in fields))
            self._write_header(int(batch.rows[0]))
        known = set(self._others)
        names = decisions.names()
        values = [_texts(arrow_columns.of(decisions, name), "") for name in self._values]
        for i, fields in enumerate(rows):
            _check_known(fields, known, int(batch.rows[i]), "CSV")
            cells = [csv_value(fields.get(name)) for name in self._others]
            if self._prompt_column is not None:
                cells.append(batch.prompts[i])
            self._csv.writerow([*cells, names[i], *(c[i] for c in values)])

    def _write_header(self, row: int) -> None:
        others = self._others or []
        self._check_names(others, row)
        prompt = [] if self._prompt_column is None else [self._prompt_column]
        self._csv.writerow([*others, *prompt, *self._names])

    def _finish(self) -> None:
        if self._others is None and not self._file.closed:
            self._write_header(0)
        self._file.close()


class ParquetWriter(DecisionWriter):
    """Columns of the input with their types (from JSONL: those of the first batch)."""

    def __init__(self, target: Path, columns: Columns, fields: pa.Schema | None = None) -> None:
        super().__init__(target, columns)
        self._schema = fields
        self._writer: pq.ParquetWriter | None = None
        self._pending: list[pa.RecordBatch] = []
        self._pending_bytes = 0

    def _write(self, batch: PromptBatch, decisions: Decisions) -> None:
        import pyarrow as pa

        found = self._others(batch)
        fields, columns = list(found.schema), list(found.columns)
        if self._prompt_column is not None:
            fields.append(pa.field(self._prompt_column, pa.string()))
            columns.append(batch.column)
        columns += [
            arrow_columns.names(decisions),
            *(arrow_columns.values(arrow_columns.of(decisions, name)) for name in self._values),
        ]
        fields += [
            pa.field(name, column.type)
            for name, column in zip(self._names, columns[-len(self._names) :], strict=True)
        ]
        schema = pa.schema(fields)
        self._open(schema)
        self._pending.append(pa.RecordBatch.from_arrays(columns, schema=schema))
        self._pending_bytes += self._pending[-1].nbytes
        if self._pending_bytes >= ROW_GROUP_BYTES:
            self._write_row_group()

    def _write_row_group(self) -> None:
        import pyarrow as pa

        if self._pending and self._writer is not None:
            self._writer.write_table(pa.Table.from_batches(self._pending))
            self._pending, self._pending_bytes = [], 0

    @staticmethod
    def _type(name: str) -> pa.DataType:
        import pyarrow as pa

        return pa.bool_() if name in FLAGS else pa.float32()

    def _others(self, batch: PromptBatch) -> pa.RecordBatch:
        import pyarrow as pa

        first = self._schema is None
        if not isinstance(batch.fields, list):
            found = batch.fields
        else:
            names = dict.fromkeys(name for fields in batch.fields for name in fields)
            if self._schema is not None:
                for i, fields in enumerate(batch.fields):
                    _check_known(fields, set(self._schema.names), int(batch.rows[i]), "Parquet")
                names = dict.fromkeys(self._schema.names)
            columns = {name: self._column(batch, name) for name in names}
            found = pa.RecordBatch.from_pydict(columns)
        if first:
            self._schema = found.schema
            self._check_names(found.schema.names, int(batch.rows[0]))
        return found

    def _column(self, batch: PromptBatch, name: str) -> pa.Array:
        """One field of a batch as a column, of the type it had in the first batch."""
        import pyarrow as pa

        end = batch.first_row + batch.n_source_rows - 1
        where = f"input records {batch.first_row} to {end}: field {name!r}"
        try:
            column = pa.array([fields.get(name) for fields in _rows(batch)])
        except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as e:
            raise ValueError(f"{where} does not keep one type ({e}); write .jsonl") from e
        if self._schema is None or column.type == self._schema.field(name).type:
            return column
        expected = self._schema.field(name).type
        if pa.types.is_null(column.type) or (
            pa.types.is_integer(column.type) and pa.types.is_floating(expected)
        ):
            return column.cast(expected)
        raise ValueError(
            f"{where} is {column.type}, in the first batch it was {expected}; write .jsonl"
        )

    def _open(self, schema: pa.Schema) -> None:
        import pyarrow.parquet as pq

        if self._writer is None:
            self._writer = pq.ParquetWriter(
                self._partial, schema, use_dictionary=self._with_dictionary(schema)
            )

    def _with_dictionary(self, schema: pa.Schema) -> list[str]:
        """Columns to be written with a dictionary: all but numbers that seldom recur."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        empty = pa.BufferOutputStream()  # the columns that a list or an object has inside
        pq.ParquetWriter(empty, schema).close()
        leaves = pq.ParquetFile(pa.BufferReader(empty.getvalue())).schema
        results = zip(self._values, self._names[1:], strict=True)
        distinct = [name for value, name in results if value in DISTINCT]
        paths = [leaves.column(i).path for i in range(len(leaves))]
        return [path for path in paths if path not in distinct]

    def _finish(self) -> None:
        import pyarrow as pa

        if self._writer is None:
            kinds = [pa.string(), *map(self._type, self._values)]
            prompt = [] if self._prompt_column is None else [(self._prompt_column, pa.string())]
            others = [] if self._schema is None else list(self._schema)
            self._open(pa.schema([*others, *prompt, *zip(self._names, kinds, strict=True)]))
        self._write_row_group()
        if self._writer is not None:
            self._writer.close()


def _texts(values: NDArray[np.float32] | NDArray[np.bool_], missing: str) -> list[str]:
    """Shortest decimal text of every float32, `missing` for NaN and infinity; flags in words."""
    import pyarrow as pa

    if values.dtype == np.bool_:
        return ["true" if flag else "false" for flag in values.tolist()]
    texts = arrow_columns.values(values).cast(pa.string()).to_pylist()
    if not np.isfinite(values).all():
        texts = [t if ok else missing for t, ok in zip(texts, np.isfinite(values), strict=True)]
    return texts


def _rows(batch: PromptBatch) -> list[dict[str, Any]]:
    return batch.fields if isinstance(batch.fields, list) else batch.fields.to_pylist()


def _check_known(fields: dict[str, Any], known: set[str], row: int, format: str) -> None:
    if not known.issuperset(fields):
        new = next(name for name in fields if name not in known)
        raise ValueError(
            f"input record {row} has a field {new!r} that no record of the first batch has, and "
            f"{format} needs its columns at the start; write .jsonl"
        )


def _json_text(record: dict[str, Any]) -> str:
    try:
        return json.dumps(record, ensure_ascii=False, allow_nan=False, default=_json_value)
    except ValueError:  # NaN or infinity, from Parquet
        return json.dumps(finite(record), ensure_ascii=False, allow_nan=False, default=_json_value)


def _json_value(value: object) -> str:
    """Text of a date, time or decimal; JSON has no such types."""
    import datetime
    import decimal

    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, datetime.timedelta)):
        return str(value)
    raise ValueError(f"JSON cannot hold a {type(value).__name__}; write .parquet")


def csv_value(value: object) -> str:
    """Text of a field: nothing for null, JSON for a list or object."""
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if isinstance(value, (bool, list, dict)):
        return json.dumps(value, ensure_ascii=False, default=_json_value)
    if isinstance(value, (int, float)):
        return repr(value)
    return _json_value(value)


def stdout_write(text: str) -> None:
    """Write to standard output as UTF-8: the terminal's own encoding may not hold every prompt."""
    buffer = getattr(sys.stdout, "buffer", None)
    if buffer is None:
        sys.stdout.write(text)
    else:
        buffer.write(text.encode())


def open_text(partial: Path, target: Path) -> TextIO:
    """Open a text file for writing, compressed as its final name says."""
    compression = compression_of(target)
    if compression is None:
        return open(partial, "w", encoding="utf-8", newline="")
    import pyarrow as pa

    stream: Any = pa.CompressedOutputStream(str(partial), compression)
    return io.TextIOWrapper(stream, encoding="utf-8", newline="")
