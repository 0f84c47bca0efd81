"""What sidecars state of models and datasets, and what becomes of contradictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from typing import TYPE_CHECKING, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.errors import BadInput
from benchrouter.tables.table import default_thresholds

if TYPE_CHECKING:
    from benchrouter.tables.layouts.part import Part

Value = TypeVar("Value")
Said = dict[str, list[tuple[Value, str]]]  # by model or dataset: values, and where they stand

BY_ORDER = "'first' keeps the first (on_conflict, --on-conflict)"
BY_VALUE = "name it (thresholds, --correct-above)"


def _agreed(
    what: str, said: Said[Value], on_conflict: str, notes: list[str], settled_by: str = BY_ORDER
) -> dict[str, Value]:
    """Return the first value of each name; another one is an error, or only noted."""
    agreed = {}
    for name, values in said.items():
        first, first_place = values[0]
        other = next(((v, place) for v, place in values if repr(v) != repr(first)), None)
        if other is not None:
            message = f"{what} {name!r} is {other[0]} in {other[1]}, but {first} in {first_place}"
            if on_conflict == "error":
                raise BadInput(f"{message}; expected one: {settled_by}")
            notes.append(f"{message}; the first is kept")
        agreed[name] = first
    return agreed


def of_models(
    parts: Sequence[Part], models: Sequence[str], on_conflict: str, notes: list[str]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return billions of parameters, shape (n_models,), and prices, shape (n_models, 2).

    Raises
    ------
    ValueError
        If two sidecars state different values, unless `on_conflict` lets the first stand.
    """
    params: Said[float] = {}
    prices: Said[tuple[float, float]] = {}
    for part in parts:
        for model, value in part.sidecar.params_b.items():
            params.setdefault(model, []).append((value, _place(part)))
        for model, price in part.sidecar.prices.items():
            prices.setdefault(model, []).append((price, _place(part)))
    wanted = set(models)
    params_of = _agreed(
        "number of parameters (billions) of model", _only(params, wanted), on_conflict, notes
    )
    prices_of = _agreed(
        "price (US$ per million tokens in, out) of model",
        _only(prices, wanted),
        on_conflict,
        notes,
    )
    nan = float("nan")
    return (
        np.array([params_of.get(model, nan) for model in models]),
        np.array([prices_of.get(model, (nan, nan)) for model in models]),
    )


def of_datasets(
    parts: Sequence[Part], on_conflict: str, notes: list[str], given: Set[str] = frozenset()
) -> tuple[dict[str, list[tuple[str, str]]], dict[str, float]]:
    """Return what sidecars state of the datasets that their parts hold.

    Parameters
    ----------
    parts : sequence of Part
    on_conflict : str
    notes : list of str
        Gets what was settled.
    given : set of str
        Datasets whose thresholds the caller states, "*" = all: those of sidecars are passed over.

    Returns
    -------
    metrics : dict of str to list of (str, str)
        By dataset: its distinct metrics, the first one first, each with where it stands.
    thresholds : dict of str to float

    Raises
    ------
    ValueError
        If two sidecars state different thresholds, unless `on_conflict` lets the first stand.
    """
    import pyarrow as pa

    metrics: dict[str, dict[str, str]] = {}
    thresholds: Said[float] = {}
    for part in parts:
        sidecar = part.sidecar
        for name in part.all_datasets.take(pa.array(part.kept)).unique().to_pylist():
            metric = sidecar.metrics.get(name, sidecar.metric)
            if metric:
                metrics.setdefault(name, {}).setdefault(metric, _place(part))
            if name in sidecar.thresholds and not given & {name, "*"}:
                stated = (sidecar.thresholds[name], _place(part))
                thresholds.setdefault(name, []).append(stated)
    return (
        {name: list(found.items()) for name, found in metrics.items()},
        _agreed(
            "threshold of dataset", thresholds, on_conflict, notes, f"{BY_VALUE}, or {BY_ORDER}"
        ),
    )


def thresholds_of(
    scores: NDArray[np.float32],
    codes: NDArray[np.int32],
    names: Sequence[str],
    stated: Mapping[str, float],
    given: Mapping[str, float | None] | None,
) -> NDArray[np.float64]:
    """Given before "*" before a sidecar's before 0.5 for scores in [0, 1] before none."""
    given = dict(given or {})
    for name, value in given.items():
        if name != "*" and name not in names:
            raise BadInput(
                f"thresholds (--correct-above) names the dataset {name!r}; there are {list(names)}"
            )
        if value is not None and not np.isfinite(value):
            raise BadInput(f"threshold of dataset {name!r} is {value}, expected a finite number")
    thresholds = default_thresholds(scores, codes, len(names))
    for i, name in enumerate(names):
        value = given.get(name, given.get("*", stated.get(name, thresholds[i])))
        thresholds[i] = np.nan if value is None else value
    return thresholds


def _place(part: Part) -> str:
    return part.sidecar.path or part.name


def _only(said: Said[Value], names: set[str]) -> Said[Value]:
    return {name: values for name, values in said.items() if name in names}
