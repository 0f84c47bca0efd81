"""Values as plain data, for JSON."""

from __future__ import annotations

import math
from typing import Any


def plain(value: float) -> float | None:
    """NaN and infinities, which JSON has no word for, as None.

    Parameters
    ----------
    value : float

    Returns
    -------
    float or None
    """
    return value if math.isfinite(value) else None


def finite(value: Any) -> Any:
    """Return `value` with :func:`plain` applied to every float in it, at any depth.

    Parameters
    ----------
    value : object
        Dicts, lists, tuples (which become lists) and plain values.

    Returns
    -------
    object
    """
    if isinstance(value, float):
        return plain(value)
    if isinstance(value, dict):
        return {name: finite(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value
