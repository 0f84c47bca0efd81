"""What the commands say about a table that may not be what was meant."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchrouter.tables.table import BenchmarkTable

SHOWN = 3  # names in a message


def without_threshold(table: BenchmarkTable) -> list[str]:
    """Say which datasets have no threshold, and which score is the reason: no or one message."""
    codes = np.flatnonzero(np.isnan(table.thresholds)).tolist()
    if not codes:
        return []
    names = _named([table.datasets[c] for c in codes])
    scores = table.scores[table.dataset == codes[0]]
    outside = np.argwhere((scores < 0) | (scores > 1))
    reason = ""
    if len(outside):
        row, m = outside[0].tolist()
        reason = (
            f" (in {table.datasets[codes[0]]!r} model {table.models[m]!r} has the score "
            f"{scores[row, m]:g}, outside [0, 1])"
        )
    what = "dataset has" if len(codes) == 1 else "datasets have"
    return [
        f"warning: {len(codes)} {what} no threshold between right and wrong: {names}{reason}; "
        "choose and route --rule s3 need one for every dataset: give --correct-above"
    ]


def odd_models(table: BenchmarkTable) -> list[str]:
    """Doubt numeric columns taken for models, if some leave [0, 1] and others do not.

    Parameters
    ----------
    table : BenchmarkTable
        As read.

    Returns
    -------
    list of str
        No or one message.
    """
    guessed = [source for source in table.origin.sources if source.guessed] if table.origin else []
    if not guessed:
        return []
    from benchrouter.tables.layouts.sidecar import sidecar_path

    names = {name for source in guessed for name in source.models}
    present = ~np.isnan(table.scores)
    low = table.scores.min(axis=0, initial=0.5, where=present)
    high = table.scores.max(axis=0, initial=0.5, where=present)
    outside = (low < 0) | (high > 1)
    odd = [m for m in np.flatnonzero(outside).tolist() if table.models[m] in names]
    if not odd or outside.all():
        return []
    first = odd[0]
    value = low[first] if low[first] < 0 else high[first]
    what = "it has" if len(odd) == 1 else f"{table.models[first]!r} has"
    return [
        f"note: taken for models, as numeric columns: {_named([table.models[m] for m in odd])}; "
        f"{what} values outside [0, 1], such as {value:g}, and other models have none: if that is "
        f"no model, name the models with --models, or by model_columns in "
        f"{sidecar_path(Path(guessed[0].name))}"
    ]


def lacking_values(table: BenchmarkTable, name: str, other: BenchmarkTable) -> list[str]:
    """Say how many values a further metric lacks, and which datasets of which models have none.

    Parameters
    ----------
    table : BenchmarkTable
    name : str
        Of the metric.
    other : BenchmarkTable
        With its scores, of the same records and models.

    Returns
    -------
    list of str
        No or one message.
    """
    present, there = ~np.isnan(table.scores), ~np.isnan(other.scores)
    lost = int((present & ~there).sum())
    if not lost:
        return []
    scores = np.zeros((table.n_datasets, table.n_models), dtype=np.int64)
    values = scores.copy()
    np.add.at(scores, table.dataset, present)
    np.add.at(values, table.dataset, present & there)
    none = (scores > 0) & (values == 0)
    where = []
    for d, dataset in enumerate(table.datasets):
        if none[d].any() and not values[d].any():
            where.append(repr(dataset))
        else:
            models = np.flatnonzero(none[d]).tolist()
            where += [f"{dataset!r} of {table.models[m]!r}" for m in models]
    more = f" and {len(where) - SHOWN:,} more" if len(where) > SHOWN else ""
    which = f"; there are none in {', '.join(where[:SHOWN])}{more}" if where else ""
    return [f"metric {name!r} lacks {lost:,} of {int(present.sum()):,} values{which}"]


def _named(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN:,} more" if len(names) > SHOWN else ""
    return ", ".join(map(repr, names[:SHOWN])) + more
