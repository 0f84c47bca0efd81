"""Decisions on groups of prompts as a file, one row a group."""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from benchrouter.decisions.written.writers import csv_value, open_text, stdout_write, target_of
from benchrouter.files.atomic import partial_of, put_file
from benchrouter.files.os_errors import naming
from benchrouter.files.plain import plain

if TYPE_CHECKING:
    from pathlib import Path

    import pyarrow as pa

    from benchrouter.decisions.answers import TaskDecision

RESULTS = {
    "n_prompts": "int64",
    "model": "string",
    "score": "double",
    "runner_up": "string",
    "margin": "double",
    "expected_accuracy": "double",
    "interval_low": "double",
    "interval_high": "double",
    "best_on_average": "string",
    "probability": "double",
    "distance": "double",
    "fallback": "bool",
    "reason": "string",
    "warning": "string",
}
OF_COSTS = {"cost_usd": "double", "over_limit": "bool"}


def group_table(
    column: str,
    decisions: Iterable[tuple[Hashable, TaskDecision]],
    *,
    prefix: str = "",
    further: Sequence[str] = (),
) -> pa.Table:
    """Decisions as a table, one row a group.

    The group's column comes first, then `RESULTS`, null where unknown. ``score`` is the chosen
    model's value of the score that was maximised. ``margin`` is its lead over ``runner_up``, the
    best of the other models that may be chosen; it is below 0 on a fallback, or where a cheaper
    model was taken. ``interval_low`` and ``interval_high`` are the ends of the 80 % interval of
    ``expected_accuracy``. The others are the attributes of
    `benchrouter.decisions.answers.TaskDecision` with these names.

    Parameters
    ----------
    column : str
        Name of the groups' column.
    decisions : iterable of (group, TaskDecision)
    prefix : str
        Put before the names of the results.
    further : sequence of str
        Those of `OF_COSTS` that are written as well: ``cost_usd``, the expected cost of the chosen
        model on a prompt of the group, and ``over_limit``.

    Raises
    ------
    ValueError
        If `column` is the name of a result, or the groups do not fit one type.
    """
    import pyarrow as pa

    check_column(column, prefix, further)
    groups: list[Any] = []
    rows: list[dict[str, Any]] = []
    for group, decision in decisions:
        groups.append(group)
        rows.append(_row(decision))
    try:
        columns = [pa.array(groups)]
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as e:
        raise ValueError(f"the groups in {column!r} do not fit one type ({e})") from e
    kinds = {**RESULTS, **{name: OF_COSTS[name] for name in further}}
    for name, kind in kinds.items():
        columns.append(pa.array([row[name] for row in rows], pa.type_for_alias(kind)))
    return pa.table(columns, names=[column, *(prefix + name for name in kinds)])


def check_column(column: str, prefix: str, further: Sequence[str] = ()) -> None:
    """Raise ValueError if the groups' column has the name of a result; see `group_table`."""
    if column in (prefix + name for name in (*RESULTS, *further)):
        raise ValueError(
            f"the groups' column {column!r} has the name of a result: give a prefix for the "
            "results (--prefix)"
        )


def _row(decision: TaskDecision) -> dict[str, Any]:
    values = getattr(decision, decision.score)
    chosen = decision.models.index(decision.model)
    is_other = decision.allowed & (np.arange(len(values)) != chosen)
    others = np.where(is_other, values, np.nan)
    second = None if np.isnan(others).all() else int(np.nanargmax(others))
    low, high = decision.interval or (None, None)
    return {
        **{name: getattr(decision, name, None) for name in RESULTS},
        "cost_usd": decision.expected_cost_usd,
        "over_limit": decision.over_limit,
        "score": plain(float(values[chosen])),
        "runner_up": None if second is None else decision.models[second],
        "margin": None if second is None else plain(float(values[chosen] - others[second])),
        "interval_low": low,
        "interval_high": high,
        "probability": plain(decision.probability),
    }


@contextmanager
def open_table(path: str | Path) -> Iterator[Callable[[pa.Table], None]]:
    """Open a file for one table, its format by its suffix.

    The file is written under a temporary name beside `path` and renamed at the end of the block;
    a block that fails leaves nothing there.

    Parameters
    ----------
    path : str or Path
        Ends in ``.jsonl``, ``.parquet`` or ``.csv`` (the texts may be compressed: ``.gz``,
        ``.zst``); ``-`` writes JSONL to standard output. A file that is there is replaced.

    Yields
    ------
    callable
        Takes the table.

    Raises
    ------
    ValueError
        If the suffix is another one, or `path` is there and no regular file.
    OSError
        If it cannot be written; the error names `path`.
    """
    if str(path) == "-":
        yield _to_stdout
        return
    target, suffix = target_of(path)
    partial = partial_of(target)
    with naming(target):
        partial.touch()  # an error appears before the work

    def write(table: pa.Table) -> None:
        with naming(target):
            if suffix == ".parquet":
                import pyarrow.parquet as pq

                pq.write_table(table, partial)
            else:
                with open_text(partial, target) as file:
                    (_put_jsonl if suffix == ".jsonl" else _put_csv)(table, file)

    try:
        yield write
        with naming(target):
            put_file(partial, target)
    finally:
        partial.unlink(missing_ok=True)


def _to_stdout(table: pa.Table) -> None:
    lines = io.StringIO()
    _put_jsonl(table, lines)
    sys.stdout.flush()
    stdout_write(lines.getvalue())


def _put_jsonl(table: pa.Table, file: TextIO) -> None:
    for row in _plain_groups(table).to_pylist():
        file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")


def _put_csv(table: pa.Table, file: TextIO) -> None:
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(table.column_names)
    for row in zip(*(c.to_pylist() for c in _plain_groups(table).columns), strict=True):
        writer.writerow([csv_value(value) for value in row])


def _plain_groups(table: pa.Table) -> pa.Table:
    """The table, with groups as text if JSON and CSV lack their type, such as dates."""
    import pyarrow as pa

    kind = table.column(0).type
    known = (pa.types.is_string, pa.types.is_boolean, pa.types.is_integer, pa.types.is_floating)
    if any(is_known(kind) for is_known in known):
        return table
    return table.set_column(0, table.column_names[0], table.column(0).cast(pa.string()))
