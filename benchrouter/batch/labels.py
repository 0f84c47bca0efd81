"""A few labels of a task: which models were right on its first prompts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.batch.csv_records import CsvError, DecodedLines, csv_reader
from benchrouter.batch.line_file import LineFile

OTHER_COLUMNS = ("id", "sample_id", "dataset")  # beside the prompt; may stand there, are not read


def read_labels(
    path: str | Path,
    models: Sequence[str],
    prompts: Sequence[str],
    *,
    prompt_column: str = "prompt",
) -> NDArray[np.float32]:
    """Read labels: one column per model, row i for prompt i.

    Parameters
    ----------
    path : str or Path
        ``.csv``, ``.jsonl`` or ``.parquet``. An empty cell, null, or no column: unknown; so is an
        empty line of a CSV file of one column. If there is a column of prompts, it must repeat the
        prompts.
    models : sequence of str
        The router's models, in order.
    prompts : sequence of str
        Prompts of the task; the file may have fewer rows.
    prompt_column : str
        Name of that column.

    Returns
    -------
    float32 array, shape (n_labels, n_models)
        0, 1, or NaN for unknown.

    Raises
    ------
    ValueError
        For a file that cannot be read as what its suffix says, a column that is no model or stands
        there twice, no column that is one, a row of more or fewer cells than the header, more
        rows than prompts, another prompt than that of the row, or a value that is not 0, 1, true,
        false or empty. The message names the file, and line or row.
    """
    names, rows = _read(Path(path))
    known = [name for name in names if name in set(models)]
    unknown = [n for n in names if n not in {*models, *OTHER_COLUMNS, prompt_column}]
    if unknown:
        raise ValueError(f"{path}: found column {unknown[0]!r}, expected models {list(models)}")
    if not known:
        raise ValueError(f"{path}: found columns {names}, expected one of {list(models)} at least")
    if len(rows) > len(prompts):
        raise ValueError(f"{path}: found {len(rows)} rows of labels for {len(prompts)} prompts")
    labels = np.full((len(rows), len(models)), np.nan, dtype=np.float32)
    column = {model: m for m, model in enumerate(models)}
    for i, row in enumerate(rows):
        if prompt_column in row and row[prompt_column] != prompts[i]:
            raise ValueError(
                f"{path}, row {i + 1}: found prompt {row[prompt_column]!r:.60}, the task's prompt "
                f"there is {prompts[i]!r:.60}"
            )
        for name in known:
            labels[i, column[name]] = _label(row.get(name), f"{path}, row {i + 1}, {name}")
    return labels


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of the columns, and the rows."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _read_csv(path)
    if suffix == ".jsonl":
        return _read_jsonl(path)
    if suffix == ".parquet":
        return _read_parquet(path)
    raise ValueError(f"{path}: the suffix is none of .csv, .jsonl, .parquet")


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    rows: list[dict[str, Any]] = []
    with LineFile(path) as file:
        lines = DecodedLines(file)
        reader, header = csv_reader(lines, file.name)
        while True:
            where = f"{path}, line {reader.line_num + 1}"
            lines.forget()
            try:
                cells = next(reader)
            except StopIteration:
                return header, rows
            except CsvError as e:
                raise ValueError(
                    f"{where}: found no CSV record ({e}), expected {len(header)} cells"
                ) from e
            if lines.not_utf8:
                raise ValueError(f"{where}: found text that is not UTF-8 ({lines.not_utf8})")
            if not cells and len(header) == 1:
                cells = [""]  # an empty line is how a single empty cell may be written
            if len(cells) != len(header):
                raise ValueError(f"{where}: found {len(cells)} cells, expected {len(header)}")
            rows.append(dict(zip(header, cells, strict=True)))


def _read_jsonl(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    from benchrouter.readers.json_objects import Decoder

    rows: list[dict[str, Any]] = []
    decoder = Decoder()
    with LineFile(path) as file:
        for number, line in enumerate(file, start=1):
            found = decoder.line(line)
            if isinstance(found, str):
                raise ValueError(f"{path}, line {number}: {found}")
            rows.append(found)
    if not rows:
        raise ValueError(f"{path}: found an empty file, expected a JSON object a line")
    return list(dict.fromkeys(name for row in rows for name in row)), rows


def _read_parquet(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with open(path, "rb") as stream:
        try:
            file = pq.ParquetFile(stream)
            names = file.schema_arrow.names
            if len(set(names)) == len(names):
                return names, file.read().to_pylist()
        except (pa.ArrowInvalid, OSError) as e:
            raise ValueError(f"{path}: found no readable Parquet file ({e})") from e
    raise ValueError(f"{path}: found a column name twice in {names}")


def _label(value: Any, where: str) -> float:
    if value is None or value == "" or (isinstance(value, float) and math.isnan(value)):
        return math.nan
    if isinstance(value, str):
        value = {"true": 1, "false": 0}.get(value.strip().lower(), value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if number not in (0.0, 1.0):
        raise ValueError(f"{where}: found {value!r}, expected 0, 1 or nothing")
    return number
