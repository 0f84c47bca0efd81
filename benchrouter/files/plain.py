"""Values as plain data, for JSON."""

from __future__ import annotations

import math
from typing import Any


def plain(value: float) -> float | None:
    """Return a finite number, or None for NaN and infinities, which JSON lacks."""
    return value if math.isfinite(value) else None


def finite(value: Any) -> Any:
    """Apply :func:`plain` to every float in nested dicts, lists and tuples (which become lists)."""
    if isinstance(value, float):
        return plain(value)
    if isinstance(value, dict):
        return {name: finite(v) for name, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(v) for v in value]
    return value
