"""What makes a table worth a second look before it is fitted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.tables.report.ranges import range_of

if TYPE_CHECKING:
    from benchrouter.tables.table import BenchmarkTable

# Fewer datasets than this say little of how a model does on others.
MIN_DATASETS = 3
SHOWN = 3  # names in a message
TOLERANCE = 1e-6  # metrics are computed in float32 by others as well


@dataclass(frozen=True)
class TableWarning:
    """One thing that is odd.

    Attributes
    ----------
    kind : str
        "metrics differ", "outside range", "all right", "all wrong" or "few datasets".
    names : tuple of str
        The dataset, or the models of "few datasets".
    message : str
        What was found.
    """

    kind: str
    names: tuple[str, ...]
    message: str


def warnings_of(table: BenchmarkTable) -> tuple[TableWarning, ...]:
    """Find what is odd, dataset by dataset, then about models."""
    low, high = _extremes(table)
    found = []
    for i in range(table.n_datasets):
        if np.isfinite(low[i]):  # it has a score
            found += _metrics_differ(table, i)
            found += _outside(table, i, float(low[i]), float(high[i]))
            found += _all_alike(table, i, low[i], high[i])
    return (*found, *_few_datasets(table))


def n_datasets_of(table: BenchmarkTable) -> NDArray[np.int64]:
    """Datasets with a score of each model, shape (n_models,)."""
    has = np.zeros((table.n_datasets, table.n_models), dtype=bool)
    np.logical_or.at(has, table.dataset, ~np.isnan(table.scores))
    return has.sum(axis=0)


def _extremes(table: BenchmarkTable) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Least and greatest score of each dataset; infinite where it has none."""
    present = ~np.isnan(table.scores)
    low = np.full(table.n_datasets, np.inf, dtype=np.float32)
    high = -low
    np.minimum.at(low, table.dataset, table.scores.min(axis=1, initial=np.inf, where=present))
    np.maximum.at(high, table.dataset, table.scores.max(axis=1, initial=-np.inf, where=present))
    return low, high


def _metrics_differ(table: BenchmarkTable, i: int) -> list[TableWarning]:
    name = table.datasets[i]
    stated = table.origin.metrics.get(name, ()) if table.origin is not None else ()
    if not stated:
        return []
    (first, first_place), *others = stated
    said = ", ".join(f"{metric!r} in {place}" for metric, place in others[:SHOWN])
    more = f" and {len(others) - SHOWN:,} more" if len(others) > SHOWN else ""
    return [
        TableWarning(
            "metrics differ",
            (name,),
            f"dataset {name!r}: its metric is {first!r} in {first_place}, but {said}{more}; "
            "their scores stand side by side under the first name",
        )
    ]


def _outside(table: BenchmarkTable, i: int, low: float, high: float) -> list[TableWarning]:
    metric = table.metrics[i]
    range_ = range_of(metric)
    if range_ is None or (low >= range_[0] - TOLERANCE and high <= range_[1] + TOLERANCE):
        return []
    rows = np.flatnonzero(table.dataset == i)
    scores = table.scores[rows]
    outside = np.argwhere((scores < range_[0] - TOLERANCE) | (scores > range_[1] + TOLERANCE))
    row, model = outside[0].tolist()
    name = table.datasets[i]
    return [
        TableWarning(
            "outside range",
            (name,),
            f"dataset {name!r}: scores outside the range of {metric!r}, [{range_[0]:g}, "
            f"{range_[1]:g}]: {len(outside):,}, such as {scores[row, model]:g} of model "
            f"{table.models[model]!r} on {table.sample_ids[rows[row]]!r}",
        )
    ]


def _all_alike(
    table: BenchmarkTable, i: int, low: np.float32, high: np.float32
) -> list[TableWarning]:
    # Rounded as the scores are; no score is above NaN, nor at most NaN.
    threshold = table.thresholds.astype(np.float32)[i]
    word = "right" if low > threshold else "wrong" if high <= threshold else None
    if word is None:
        return []
    name = table.datasets[i]
    return [
        TableWarning(
            f"all {word}",
            (name,),
            f"dataset {name!r}: every model is {word} on every record (correct is above "
            f"{threshold:g}, scores are from {low:g} to {high:g}): it tells no model from another",
        )
    ]


def _few_datasets(table: BenchmarkTable) -> list[TableWarning]:
    counts = n_datasets_of(table)
    few = np.flatnonzero(counts < MIN_DATASETS).tolist()
    if not few:
        return []
    named = ", ".join(f"{table.models[m]!r} ({counts[m]})" for m in few[:SHOWN])
    more = f" and {len(few) - SHOWN:,} more" if len(few) > SHOWN else ""
    which = "1 model has" if len(few) == 1 else f"{len(few):,} models have"
    return [
        TableWarning(
            "few datasets",
            tuple(table.models[m] for m in few),
            f"{which} scores in fewer than {MIN_DATASETS} datasets: {named}{more}",
        )
    ]
