"""RouterBench (arXiv 2403.12031): a wide table, with what every answer cost.

A row is a sample: ``sample_id, prompt, eval_name`` (the dataset), and per model its score
``<model>``, ``<model>|model_response`` and ``<model>|total_cost`` (US$). Answers and
``oracle_model_to_route_to`` are not read. Parquet, CSV or JSONL.

Its prompts are lists of texts in Python's notation: ``['Is it so?']``. Such a list is parsed, never
evaluated, and its texts are joined by line feeds. Any other prompt is taken as it is.

The published pickles are not read, since unpickling a file runs the code in it. If you trust the
file, convert it once::

    python -c 'import pandas; pandas.read_pickle("X.pkl").to_csv("X.csv", index=False)'
"""

from __future__ import annotations

import ast
import json
import re
import shlex
import warnings
import zlib
from collections.abc import Collection
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

from benchrouter.files.errors import BadInput
from benchrouter.tables.formats.choices import Choices
from benchrouter.tables.formats.long_rows import FormatReading
from benchrouter.tables.layouts.sidecar import Sidecar, read_sidecar
from benchrouter.tables.layouts.wide import COST
from benchrouter.tables.sources.open import SUFFIXES, column_names, open_source
from benchrouter.tables.sources.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

KEYS = {"dataset": "eval_name", "sample_id": "sample_id", "prompt": "prompt"}
COST_END = "|total_cost"
ANSWER_END = "|model_response"
PICKLES = (".pkl", ".pickle")
# A flat list of strings; Python's parser may crash on what nests deeply.
_TEXT = r"""(?:'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")"""
LIST = re.compile(rf"\[\s*(?:{_TEXT}(?:\s*,\s*{_TEXT})*(?:\s*,)?\s*)?\]")


def recognises(path: Path) -> bool:
    """Whether a file has RouterBench's columns, or is a pickle."""
    if path.suffix.lower() in PICKLES:
        return True
    if not (path.is_file() and path.name.lower().endswith(SUFFIXES)):
        return False
    import pyarrow as pa

    try:
        columns = column_names(path)
    except (OSError, EOFError, ValueError, zlib.error, pa.ArrowException):
        return False  # the reader of tables says what is wrong
    return has_columns(columns)


def read(path: Path, choices: Choices) -> list[FormatReading]:
    """Read one file.

    Parameters
    ----------
    path : Path
        ``.parquet``, ``.csv`` or ``.jsonl``, with or without a sidecar.
    choices : Choices
        `metric` has no column here.

    Returns
    -------
    list of FormatReading
        One, of a wide source.

    Raises
    ------
    ValueError
        If the file is a pickle, lacks a column or cannot be read.
    """
    if path.suffix.lower() in PICKLES:
        raise BadInput(
            f"{path}: is a pickle, which is not read, since unpickling runs what is in it; if you "
            f"trust it, convert it once: {conversion(path)}"
        )
    reading = reading_of(open_source(path), read_sidecar(path))
    return [reading if choices.metric is None else reading._replace(lacks=("score",))]


def conversion(pickle: Path) -> str:
    """Shell command that converts a pickle to a CSV beside it."""
    read, written = (json.dumps(str(path)) for path in (pickle, pickle.with_suffix(".csv")))
    code = f"import pandas; pandas.read_pickle({read}).to_csv({written}, index=False)"
    return f"python -c {shlex.quote(code)}"


def has_columns(columns: Collection[str]) -> bool:
    """Whether these are RouterBench's columns."""
    return set(KEYS.values()) <= set(columns) and bool(_models(columns))


def reading_of(source: Source, sidecar: Sidecar) -> FormatReading:
    """Read a table with RouterBench's columns, from a file or in memory.

    Raises
    ------
    ValueError
        If it lacks a column.
    """
    models = _models(source.columns)
    for theirs in KEYS.values():
        if theirs not in source.columns:
            raise BadInput(
                f"{source.name}: found no column {theirs!r} of RouterBench; it has "
                f"{source.list_columns()}"
            )
    if not models:
        raise BadInput(
            f"{source.name}: found no model with columns 'MODEL' and 'MODEL{COST_END}' of "
            f"RouterBench; it has {source.list_columns()}"
        )
    sidecar = replace(
        sidecar, model_columns=tuple(models), cost_columns=(), log_likelihood_columns=()
    )
    return FormatReading(_renamed(source, models), sidecar, layout="wide")


def _models(columns: Collection[str]) -> list[str]:
    """Columns for which there is also a column of costs or answers."""
    there = set(columns)
    return [name for name in columns if there & {name + COST_END, name + ANSWER_END}]


def _renamed(source: Source, models: list[str]) -> Source:
    """Give the columns our names, and decode the prompts."""
    import pyarrow as pa

    costs = {COST + m: m + COST_END for m in models if m + COST_END in source.columns}
    theirs = {**KEYS, **{m: m for m in models}, **costs}
    kind = source.columns["prompt"]
    text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
    decodes = text or pa.types.is_list(kind) or pa.types.is_large_list(kind)

    @cache
    def prompts() -> pa.ChunkedArray:
        found = [_prompt(cell) for cell in source.load("prompt").to_pylist()]
        return pa.chunked_array([pa.array(found, pa.large_string())])

    def load(ours: str) -> pa.ChunkedArray:
        return prompts() if ours == "prompt" and decodes else source.load(theirs[ours])

    columns = {ours: source.columns[name] for ours, name in theirs.items()}
    if decodes:
        columns["prompt"] = pa.large_string()
    return replace(
        source,
        columns=columns,
        load=load,
        load_coded=None,
        untyped=frozenset(ours for ours, name in theirs.items() if name in source.untyped),
        not_text={o: source.not_text[n] for o, n in theirs.items() if n in source.not_text},
    )


def _prompt(cell: str | list[object] | None) -> str | None:
    """Join a list of texts; return any other text as it stands."""
    texts: object = cell
    if isinstance(cell, str):
        if not LIST.fullmatch(cell):
            return cell
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of invalid escapes
                texts = ast.literal_eval(cell)
        except (ValueError, SyntaxError):  # an unknown escape
            return cell
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return cell if isinstance(cell, str) else None
    joined = "\n".join(texts)
    try:
        joined.encode()
    except UnicodeEncodeError:  # half of a surrogate pair
        return cell if isinstance(cell, str) else None
    return joined
