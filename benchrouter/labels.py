"""A few labels of a task: which models were right on its first prompts."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

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
        ``.csv``, ``.jsonl`` or ``.parquet``. An empty cell, null, or no column: unknown. If there
        is a column of prompts, it must repeat the prompts.
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
        For a column that is no model, no column that is one, more rows than prompts, another
        prompt than that of the row, or a value that is not 0, 1, true, false or empty.
    """
    rows = _rows(Path(path))
    names = list(dict.fromkeys(name for row in rows for name in row))
    known = [name for name in names if name in set(models)]
    unknown = [n for n in names if n not in {*models, *OTHER_COLUMNS, prompt_column}]
    if unknown:
        raise ValueError(f"{path}: found column {unknown[0]!r}, expected models {list(models)}")
    if rows and not known:
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


def _rows(path: Path) -> list[dict[str, Any]]:
    suffix = path.suffix.lower()
    if suffix == ".csv":
        with open(path, encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True, restkey="", restval="")
            return list(reader)
    if suffix == ".jsonl":
        rows = []
        with open(path, "rb") as stream:
            for number, line in enumerate(stream, start=1):
                where = f"{path}, line {number}"
                try:
                    row = json.loads(line)
                except ValueError as e:
                    raise ValueError(f"{where}: found text that is not JSON ({e})") from e
                if not isinstance(row, dict):
                    raise ValueError(f"{where}: found a {type(row).__name__}, expected an object")
                rows.append(row)
        return rows
    if suffix == ".parquet":
        import pyarrow.parquet as pq

        return list(pq.read_table(path).to_pylist())
    raise ValueError(f"{path}: the suffix is none of .csv, .jsonl, .parquet")


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
