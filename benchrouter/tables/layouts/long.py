"""Long tables: a row is one model's score on one record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.tables.layouts.names import require
from benchrouter.tables.layouts.part import (
    NUMBER,
    TEXT,
    Part,
    distinct,
    join_codes,
    mark_duplicates,
)
from benchrouter.tables.layouts.sidecar import Sidecar
from benchrouter.tables.sources.bad_rows import BadRows
from benchrouter.tables.sources.columns import coded_texts, numbers
from benchrouter.tables.sources.source import Source

if TYPE_CHECKING:
    import pyarrow as pa


def read_long(source: Source, sidecar: Sidecar, names: Mapping[str, str], *, bad: BadRows) -> Part:
    """Read a long source.

    Parameters
    ----------
    source : Source
        Rows of (model, dataset, sample_id, prompt, score[, cost_usd, log_likelihood]).
    sidecar : Sidecar
        The source's.
    names : dict of str to str
        Our names to the columns of the source.
    bad : BadRows
        Collects bad rows; a bad row is left out, the rest of its record stays.

    Returns
    -------
    Part
        Records and models in the order of their first appearance.

    Raises
    ------
    ValueError
        Names the row and what was found.
    """
    # Only the sample_id tells which rows belong to one record.
    for ours in ("model", "sample_id", "prompt", "score"):
        require(source, ours, names.get(ours, ours))
    dataset, datasets = _coded(source, names, "dataset", bad)
    sample, sample_ids = _coded(source, names, "sample_id", bad)
    first, record = _records(join_codes(dataset, sample, len(sample_ids)))
    model, models = _coded(source, names, "model", bad)
    prompt, prompts = _prompts(source, names, record, len(first), bad)
    scores = _values(source, names, "score", bad)
    costs = _values(source, names, "cost_usd", bad)
    log_likelihoods = _values(source, names, "log_likelihood", bad)

    def key(row: int) -> str:
        names_of = (models, model), (datasets, dataset), (sample_ids, sample)
        found = [repr(values[int(codes[row])].as_py()) for values, codes in names_of]
        return f"(model {found[0]}, dataset {found[1]}, sample_id {found[2]})"

    dropped = mark_duplicates(record * max(len(models), 1) + model, key, bad)
    dropped = dropped[~np.isnan(scores[dropped])] if scores is not None else dropped

    rows = np.flatnonzero(bad.keep)
    kept, number = np.unique(record[rows], return_inverse=True)
    used, column = np.unique(model[rows], return_inverse=True)
    shape = (len(kept), len(used))

    def matrix(values: NDArray[np.float32] | None) -> NDArray[np.float32] | None:
        if values is None:
            return None
        filled = np.full(shape, np.nan, dtype=np.float32)
        filled[number, column] = values[rows]
        return filled

    bare = source.without_columns()

    @lru_cache(maxsize=1)
    def rows_by_record() -> NDArray[np.int64]:
        return np.argsort(number, kind="stable")

    def place(at_record: int, at_model: int | None) -> str:
        order = rows_by_record()
        start, end = np.searchsorted(number, [at_record, at_record + 1], sorter=order)
        here = order[start:end]
        if at_model is not None:
            here = here[column[here] == at_model]
        return bare.place(int(rows[here[0]]))

    import pyarrow as pa

    filled_scores = matrix(scores)
    assert filled_scores is not None  # required above
    first_kept, _ = distinct(number)
    found = models.take(pa.array(used)).to_pylist()
    return Part(
        name=source.name,
        layout="long",
        sidecar=sidecar,
        on_error=bad.on_error,
        models=found,
        known_models=found,
        all_datasets=datasets.take(pa.array(dataset[first])),
        all_sample_ids=sample_ids.take(pa.array(sample[first])),
        all_positions=np.arange(len(first), dtype=np.int64),
        n_positions=len(first),
        kept=kept,
        prompts=prompts.take(pa.array(prompt[rows[first_kept]])),
        scores=filled_scores,
        cost_usd=matrix(costs),
        log_likelihood=matrix(log_likelihoods),
        place=place,
        skipped=bad.messages(),
        duplicates=Counter(
            zip(
                datasets.take(pa.array(dataset[dropped])).to_pylist(),
                models.take(pa.array(model[dropped])).to_pylist(),
                strict=True,
            )
        ),
    )


def _coded(
    source: Source, names: Mapping[str, str], ours: str, bad: BadRows
) -> tuple[NDArray[np.int64], pa.LargeStringArray]:
    """Number of each row's text (−1 = bad), and the texts."""
    import pyarrow as pa

    if ours not in names:
        return np.zeros(source.n_rows, np.int64), pa.array([source.stem], pa.large_string())
    codes, values, missing = coded_texts(source, names[ours], integers=ours != "prompt")
    bad.add_cells(missing, names[ours], ours, TEXT)
    return codes, values


def _records(keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """First row of each record, and the record of each row (−1 where a row has no key)."""
    whole = np.flatnonzero(keys >= 0)
    first, number = distinct(keys[whole])
    record = np.full(len(keys), -1, dtype=np.int64)
    record[whole] = number
    return whole[first], record


def _prompts(
    source: Source,
    names: Mapping[str, str],
    record: NDArray[np.int64],
    n_records: int,
    bad: BadRows,
) -> tuple[NDArray[np.int64], pa.LargeStringArray]:
    """Read the prompts; rows that disagree with the first good row of their record are bad."""
    code, prompts = _coded(source, names, "prompt", bad)
    kept = np.flatnonzero(bad.keep)
    first = np.zeros(n_records, dtype=np.int64)
    # The last of repeated assignments wins, here the first row of the record.
    first[record[kept[::-1]]] = kept[::-1]
    differs = np.zeros(source.n_rows, dtype=bool)
    differs[kept] = code[kept] != code[first[record[kept]]]
    bad.add(
        differs,
        lambda row: (
            f"prompt is {source.cell(names['prompt'], row)}, but "
            f"{source.cell(names['prompt'], int(first[record[row]]))} for the same dataset and "
            f"sample_id in row {int(source.positions[first[record[row]]]) + 1}"
        ),
    )
    return code, prompts


def _values(
    source: Source, names: Mapping[str, str], ours: str, bad: BadRows
) -> NDArray[np.float32] | None:
    if ours not in names:
        return None
    values, wrong = numbers(source, names[ours])
    bad.add_cells(wrong, names[ours], ours, NUMBER)
    return values
