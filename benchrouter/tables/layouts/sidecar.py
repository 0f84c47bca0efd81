"""The sidecar of a table: ``FILE.json`` describes ``FILE.parquet``."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchrouter.files.errors import BadInput
from benchrouter.files.json_objects import document
from benchrouter.files.words import shown
from benchrouter.tables.sources.columns import number
from benchrouter.tables.sources.open import split_suffix

OF_SUFFIX, OF_BYTES = "table_suffix", "table_bytes"
PRICES = "model_price_usd_per_million_tokens"
# As the public tables that state their repository's prices call it.
PRICE_KEYS = (PRICES, f"{PRICES}_as_stated_in_repo")


@dataclass(frozen=True)
class Sidecar:
    """Content of a sidecar. Missing keys are empty; unknown keys are ignored.

    Attributes
    ----------
    path : str
        The file, for messages.
    layout : str or None
        "wide" or "long".
    model_columns : tuple of str or None
        Columns of a wide table that hold scores, in the order of the models.
    key_columns : tuple of str
        Columns of dataset and sample_id.
    prompt_column : str or None
        Column of the prompt.
    cost_columns, log_likelihood_columns : tuple of str
        Columns ``cost::<model>`` and ``log_likelihood::<model>`` that must exist.
    params_b : dict of str to float
        Billions of parameters by model, where known.
    prices : dict of str to (float, float)
        US$ per million tokens in and out; NaN = unknown.
    metric : str
        Metric of every dataset that is not in `metrics`.
    metrics : dict of str to str
        Metric by dataset.
    thresholds : dict of str to float
        A score above it is correct; NaN = none is known.
    """

    path: str = ""
    layout: str | None = None
    model_columns: tuple[str, ...] | None = None
    key_columns: tuple[str, ...] = ()
    prompt_column: str | None = None
    cost_columns: tuple[str, ...] = ()
    log_likelihood_columns: tuple[str, ...] = ()
    params_b: Mapping[str, float] = field(default_factory=dict)
    prices: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    metric: str = ""
    metrics: Mapping[str, str] = field(default_factory=dict)
    thresholds: Mapping[str, float] = field(default_factory=dict)


def sidecar_path(path: Path) -> Path:
    """Path of a table's sidecar: its suffix replaced by ``.json``."""
    stem, _ = split_suffix(path)
    return path.with_name(f"{stem}.json")


def belonging_to(suffix: str, n_bytes: int) -> dict[str, Any]:
    """Keys of a sidecar that tell its table from others of the same stem, by suffix and size."""
    return {OF_SUFFIX: suffix, OF_BYTES: n_bytes}


def belongs(sidecar: Path, table: Path) -> bool:
    """Whether a sidecar describes a table; if it names none, it describes any of its stem."""
    return _is_of(document(sidecar), table)


def is_sidecar(path: Path) -> bool:
    """Whether a file is a JSON object with a key that only sidecars have."""
    own = {"model_columns", "key_columns", "prompt_column", "model_params_billion", "thresholds"}
    try:
        return not own.isdisjoint(document(path))
    except ValueError:
        return False


def read_sidecar(table: Path) -> Sidecar:
    """Read the sidecar of a table; an empty one if there is none.

    Raises
    ------
    ValueError
        If it is no JSON object, or a known key has a value of the wrong type.
    """
    path = sidecar_path(table)
    if not path.is_file():
        return Sidecar()
    try:
        values = document(path)
    except ValueError as error:
        raise BadInput(f"{error}; the file is the sidecar of {table}") from error
    if not _is_of(values, table):
        return Sidecar()
    n_bytes, found = values.get(OF_BYTES), table.stat().st_size
    if values.get(OF_SUFFIX) == split_suffix(table)[1] and n_bytes not in (None, found):
        raise BadInput(
            f"{path}: {OF_BYTES} is {shown(n_bytes)}, but {table} has {found} bytes: write the "
            f"table again, or, if the two do belong together, take {OF_BYTES} out of the sidecar"
        )
    return _checked(values, str(path))


def _is_of(values: dict[str, Any], table: Path) -> bool:
    of = values.get(OF_SUFFIX)
    if of is None:
        return True
    _, suffix = split_suffix(table)
    return suffix == of or (isinstance(of, str) and suffix in (f"{of}.gz", f"{of}.zst"))


def _checked(values: dict[str, Any], path: str) -> Sidecar:
    layout = values.get("layout")
    if layout not in (None, "wide", "long"):
        raise BadInput(f"{path}: layout is {shown(layout)}, expected 'wide' or 'long'")
    models = _names(values, "model_columns", path)
    metric = values.get("metric")
    return Sidecar(
        path=path,
        layout=layout,
        model_columns=models or None,
        key_columns=_names(values, "key_columns", path),
        prompt_column=_text(values.get("prompt_column"), "prompt_column", path),
        cost_columns=_names(values, "cost_columns", path),
        log_likelihood_columns=_names(values, "log_likelihood_columns", path),
        params_b=_params(_mapping(values, "model_params_billion", path), path),
        prices=stated_prices(values, path),
        metric=metric if isinstance(metric, str) else "",
        metrics={
            dataset: _text(name, f"metrics of {dataset!r}", path) or ""
            for dataset, name in _mapping(values, "metrics", path).items()
        },
        thresholds={
            dataset: _number(value, f"thresholds of {dataset!r}", path)
            for dataset, value in _mapping(values, "thresholds", path).items()
        },
    )


def stated_prices(values: dict[str, Any], path: str) -> dict[str, tuple[float, float]]:
    """Prices in a sidecar: US$ per million tokens in and out, by model; NaN = unknown.

    Raises
    ------
    ValueError
        For anything but an object of pairs of numbers.
    """
    key = next((key for key in PRICE_KEYS if key in values), PRICES)
    return {
        model: _price(price, f"{key} of {model!r}", path)
        for model, price in _mapping(values, key, path).items()
    }


def _names(values: dict[str, Any], key: str, path: str) -> tuple[str, ...]:
    names = values.get(key) or []
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise BadInput(f"{path}: {key} is {shown(names)}, expected a list of column names")
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise BadInput(f"{path}: {key} names {twice[0]!r} more than once")
    return tuple(names)


def _mapping(values: dict[str, Any], key: str, path: str) -> dict[str, Any]:
    mapping = values.get(key) or {}
    if not isinstance(mapping, dict):
        raise BadInput(f"{path}: {key} is {shown(mapping)}, expected a JSON object")
    return mapping


def _text(value: object, what: str, path: str) -> str | None:
    if value is None or isinstance(value, str):
        return value
    raise BadInput(f"{path}: {what} is {shown(value)}, expected text")


def _number(value: object, what: str, path: str) -> float:
    """Return a finite number, or NaN for nothing."""
    try:
        found = number(value)
    except ValueError as error:
        raise BadInput(f"{path}: {what} is {error}") from error
    return math.nan if found is None else found


def _params(mapping: dict[str, Any], path: str) -> dict[str, float]:
    params_b = {}
    for model, value in mapping.items():
        billions = _number(value, f"model_params_billion of {model!r}", path)
        if billions < 0:
            raise BadInput(
                f"{path}: model_params_billion of {model!r} is {billions}, expected >= 0 or null"
            )
        if not math.isnan(billions):
            params_b[model] = billions
    return params_b


def _price(value: object, what: str, path: str) -> tuple[float, float]:
    if value is None:
        return math.nan, math.nan
    if not isinstance(value, list) or len(value) != 2:
        raise BadInput(f"{path}: {what} is {shown(value)}, expected [US$ in, US$ out]")
    price = _number(value[0], what, path), _number(value[1], what, path)
    if min(price) < 0 or max(price) < 0:
        raise BadInput(f"{path}: {what} is {shown(value)}, expected prices >= 0 or null")
    return price
