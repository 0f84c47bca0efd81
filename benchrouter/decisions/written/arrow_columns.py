"""Decisions as columns of Arrow, by their buffers.

`pyarrow.array` imports pandas, where it is installed, to see whether it is given a Series. That
takes longer than writing 200,000 decisions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

    from benchrouter.decisions.answers import Decisions


def of(decisions: Decisions, name: str) -> NDArray[np.float32] | NDArray[np.bool_]:
    """One attribute of decisions, float32 or bool, shape (n_prompts,); NaN if it is not known."""
    found: NDArray[np.float32] | NDArray[np.bool_] | None = getattr(decisions, name)
    return np.full(len(decisions), np.nan, np.float32) if found is None else found


def values(array: NDArray[np.float32] | NDArray[np.bool_]) -> pa.Array:
    """Values of shape (n,) as a column without nulls."""
    import pyarrow as pa

    if array.dtype == np.bool_:
        return _column(
            pa.bool_(),
            len(array),
            np.packbits(array.astype(np.bool_, copy=False), bitorder="little"),
        )
    return _column(pa.float32(), len(array), np.ascontiguousarray(array, np.float32))


def names(decisions: Decisions) -> pa.StringArray:
    """Name of the chosen model of every prompt."""
    import pyarrow as pa

    codes = _column(pa.int32(), len(decisions), np.ascontiguousarray(decisions.model, np.int32))
    texts = [name.encode() for name in decisions.models]
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    models = pa.StringArray.from_buffers(
        len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(texts))
    )
    return models.take(codes)


def _column(kind: pa.DataType, n: int, buffer: NDArray[np.generic]) -> pa.Array:
    import pyarrow as pa

    return pa.Array.from_buffers(kind, n, [None, pa.py_buffer(buffer)])
