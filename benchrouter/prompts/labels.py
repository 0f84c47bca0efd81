"""A few labels of a task: which models were right on some of its prompts."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.atomic import partial_of, put_file
from benchrouter.files.csv_records import CsvRow, CsvRows
from benchrouter.files.errors import BadInput
from benchrouter.files.lines import LineFile

ROW = "row"  # column of the positions of the prompts, counted from 1
NOT_ASKED = "-"  # in a file to fill in: a model that need not be graded on the prompt
OTHER_COLUMNS = ("id", "sample_id", "dataset")  # beside the prompt; may stand there, are not read


def read_labels(
    path: str | Path,
    models: Sequence[str],
    prompts: Sequence[str],
    *,
    prompt_column: str = "prompt",
    any_scale: bool = False,
) -> NDArray[np.float32]:
    """Read labels: one column a model, one row a prompt.

    A row belongs to the prompt whose number, from 1, stands in its column `row`; without one, to
    the prompt with its text; with neither, row i belongs to prompt i.

    Parameters
    ----------
    path : str or Path
        ``.csv``, ``.jsonl`` or ``.parquet``. An empty cell, ``-``, null and a missing column mean
        unknown, and so does an empty line of a CSV file of one column.
    models : sequence of str
        The router's models, in order.
    prompts : sequence of str
        Prompts of the task; the file may have fewer rows.
    prompt_column : str
        Name of the column of their texts.
    any_scale : bool
        Whether scores may lie outside [0, 1].

    Returns
    -------
    float32 array, shape (n_labels, n_models)
        Scores of the first n_labels prompts, NaN = unknown.

    Raises
    ------
    ValueError
        For a file that is not what its suffix says, an unknown or doubled column, no column of a
        model, a row with more or fewer cells than the header, more rows than prompts, an unknown
        prompt, two rows for one prompt, or a value other than a number in [0, 1], true, false or
        empty. The message names the file, and line or row.
    """
    names, rows = _read(Path(path))
    known = [name for name in names if name in set(models)]
    unknown = [n for n in names if n not in {*models, *OTHER_COLUMNS, ROW, prompt_column}]
    if unknown:
        raise BadInput(f"{path}: found column {unknown[0]!r}, expected models {list(models)}")
    if not known:
        raise BadInput(f"{path}: found columns {names}, expected one of {list(models)} at least")
    if len(rows) > len(prompts):
        raise BadInput(f"{path}: found {len(rows)} rows of labels for {len(prompts)} prompts")
    numbers = [row.get(ROW) if ROW not in models else None for row in rows]
    texts = [row.get(prompt_column) if prompt_column not in models else None for row in rows]
    positions = _positions(numbers, texts, prompts, path)
    labels = np.full((max(positions, default=-1) + 1, len(models)), np.nan, dtype=np.float32)
    column = {model: m for m, model in enumerate(models)}
    for i, (row, position) in enumerate(zip(rows, positions, strict=True), start=1):
        for name in known:
            where = f"{path}, row {i}, {name}"
            labels[position, column[name]] = _label(row.get(name), where, any_scale)
    return labels


def _positions(
    numbers: Sequence[Any], texts: Sequence[Any], prompts: Sequence[str], path: str | Path
) -> list[int]:
    """Position of every row's prompt."""
    places: dict[str, list[int]] = {}
    for position in reversed(range(len(prompts))):
        places.setdefault(prompts[position], []).append(position)
    found: dict[int, int] = {}  # position -> row
    for i, (number, text) in enumerate(zip(numbers, texts, strict=True), start=1):
        where = f"{path}, row {i}"
        if number not in (None, ""):
            position = _row_number(number, len(prompts), where) - 1
            if text not in (None, prompts[position]):
                raise BadInput(
                    f"{where}: found prompt {text!r:.60}, the task's prompt {position + 1} is "
                    f"{prompts[position]!r:.60}"
                )
        elif text is None:
            position = i - 1
        elif text not in places:
            raise BadInput(f"{where}: found prompt {text!r:.60}, which is none of the task's")
        else:
            same = places[text]
            position = same.pop() if len(same) > 1 else same[0]
        if position in found:
            raise BadInput(
                f"{where}: found labels of prompt {position + 1} once more, after row "
                f"{found[position]}"
            )
        found[position] = i
    return list(found)


def _row_number(value: Any, n_prompts: int, where: str) -> int:
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (number.is_integer() and 1 <= number <= n_prompts):
        raise BadInput(
            f"{where}: found {ROW} {value!r}, expected the number of a prompt, 1 to {n_prompts}"
        )
    return int(number)


def write_labels(
    path: str | Path,
    models: Sequence[str],
    prompts: Sequence[str],
    labels: NDArray[np.floating] | None,
    ask: Sequence[int],
    of_models: Sequence[str],
    *,
    prompt_column: str = "prompt",
) -> None:
    """Write known labels and those to fill in as a CSV file that :func:`read_labels` reads.

    Parameters
    ----------
    path : str or Path
        Made or replaced, in one step.
    models : sequence of str
        The router's models, in order.
    prompts : sequence of str
        Prompts of the task.
    labels : float array, shape (n_labels, n_models), or None
        Known labels of the first prompts, NaN = unknown.
    ask : sequence of int
        Positions of the prompts to grade.
    of_models : sequence of str
        Models to grade on them: their cells are empty, those of other models are ``-``.
    prompt_column : str
        Name of the column of prompts.
    """
    known = np.empty((0, len(models))) if labels is None else labels
    graded = ~np.isnan(known)
    columns = [m for m, name in enumerate(models) if graded[:, m].any() or name in of_models]
    names = [models[m] for m in columns]
    if len(ask):
        asked = [["" if name in of_models else NOT_ASKED for name in names]] * len(ask)
    else:
        asked = []
    so_far = np.flatnonzero(graded.any(axis=1))
    cells = [[f"{known[i, m]:g}" if graded[i, m] else NOT_ASKED for m in columns] for i in so_far]
    partial = partial_of(Path(path))
    try:
        with open(partial, "w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow([ROW, prompt_column, *names])
            for position, of_row in zip([*so_far, *ask], [*cells, *asked], strict=True):
                writer.writerow([position + 1, prompts[position], *of_row])
        put_file(partial, Path(path))
    finally:
        partial.unlink(missing_ok=True)


def _read(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    """Names of the columns, and the rows."""
    suffix = path.suffix.lower()
    if suffix == ".csv":
        return _read_csv(path)
    if suffix == ".jsonl":
        return _read_jsonl(path)
    if suffix == ".parquet":
        return _read_parquet(path)
    raise BadInput(f"{path}: the suffix is none of .csv, .jsonl, .parquet")


def _read_csv(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    found: list[dict[str, Any]] = []
    with LineFile(path) as file:
        rows = CsvRows(file, file.name)
        for row in rows:
            if row.is_empty and len(rows.header) == 1:  # as a single empty cell may be written
                row = CsvRow(row.line, [""], "", row.raw)
            if row.wrong:
                raise BadInput(f"{path}, line {row.line}: {row.wrong}")
            found.append(dict(zip(rows.header, row.cells, strict=True)))
    return rows.header, found


def _read_jsonl(path: Path) -> tuple[list[str], list[dict[str, Any]]]:
    from benchrouter.files.json_objects import Decoder

    rows: list[dict[str, Any]] = []
    decoder = Decoder()
    with LineFile(path) as file:
        for number, line in enumerate(file, start=1):
            found = decoder.line(line)
            if isinstance(found, str):
                raise BadInput(f"{path}, line {number}: {found}")
            rows.append(found)
    if not rows:
        raise BadInput(f"{path}: found an empty file, expected a JSON object a line")
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
            raise BadInput(f"{path}: found no readable Parquet file ({e})") from e
    raise BadInput(f"{path}: found a column name twice in {names}")


def _label(value: Any, where: str, any_scale: bool) -> float:
    if value in (None, "", NOT_ASKED) or (isinstance(value, float) and math.isnan(value)):
        return math.nan
    if isinstance(value, str):
        value = {"true": 1, "false": 0}.get(value.strip().lower(), value)
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if any_scale and math.isfinite(number):
        return number
    if any_scale or not 0.0 <= number <= 1.0:
        expected = "a finite number" if any_scale else "a score from 0 to 1"
        other = "" if any_scale else "; of another scale with --label-threshold alone"
        raise BadInput(f"{where}: found {value!r}, expected {expected} or nothing{other}")
    return number
