"""Prices of models in a file of their own: JSON as in a sidecar, or CSV."""

from __future__ import annotations

import math
from pathlib import Path

from benchrouter.files.errors import BadInput
from benchrouter.files.json_objects import document
from benchrouter.files.words import shown
from benchrouter.tables.layouts.names import require
from benchrouter.tables.layouts.sidecar import PRICE_KEYS, PRICES, stated_prices
from benchrouter.tables.sources.columns import number
from benchrouter.tables.sources.open import open_source

COLUMNS = ("model", "input_usd_per_million_tokens", "output_usd_per_million_tokens")


def read_prices(path: str | Path) -> dict[str, tuple[float, float]]:
    """Read the prices of models.

    Parameters
    ----------
    path : str or Path
        ``.json``: an object ``{model: [in, out]}``, by itself or under
        ``model_price_usd_per_million_tokens``, as in a table's sidecar. ``.csv``: columns
        ``model``, ``input_usd_per_million_tokens`` and ``output_usd_per_million_tokens``; others
        are ignored.

    Returns
    -------
    dict of str to (float, float)
        US$ per million tokens in and out; models without a price are left out.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        For an unknown suffix, a malformed file, a file without prices, a model twice, or a price
        that is not a number >= 0; the message names the file.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix == ".json":
        values = document(path)
        stated = any(key in values for key in PRICE_KEYS)
        prices = stated_prices(values if stated else {PRICES: values}, str(path))
    elif suffix == ".csv":
        prices = _read_csv(path)
    else:
        raise BadInput(f"{path}: the suffix is none of .json, .csv")
    known = {model: price for model, price in prices.items() if not math.isnan(sum(price))}
    if not known:
        raise BadInput(f"{path}: found no price, expected one of a model at least")
    return known


def _read_csv(path: Path) -> dict[str, tuple[float, float]]:
    source = open_source(path)
    for position, found in source.unreadable:
        raise BadInput(f"{source.place_of_position(position)}: {found}")
    for column in COLUMNS:
        require(source, column, column)
    prices: dict[str, tuple[float, float]] = {}
    rows = zip(*(source.load(column).to_pylist() for column in COLUMNS), strict=True)
    for row, (model, *texts) in enumerate(rows):
        if not model or model in prices:
            found = f"model {model!r} a second time" if model else "no model"
            raise BadInput(f"{source.place(row)}: found {found}, expected one row a model")
        usd_in, usd_out = (
            _price(text, f"{source.place(row)}, {column}")
            for text, column in zip(texts, COLUMNS[1:], strict=True)
        )
        prices[model] = usd_in, usd_out
    return prices


def _price(text: str, where: str) -> float:
    """Return the number of a cell; NaN for an empty one."""
    try:
        price = number(text)
    except ValueError:
        price = -math.inf
    if price is not None and price < 0:
        raise BadInput(f"{where}: found {shown(text)}, expected US$ of at least 0")
    return math.nan if price is None else price
