"""Decisions as columns of Arrow, by their buffers.

`pyarrow.array` looks whether it is given something of pandas's, and imports pandas for that where
it is installed, which takes longer than to write 200,000 decisions.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    import pyarrow as pa

    from benchrouter.decisions.answers import Decisions


def of(decisions: Decisions, name: str) -> NDArray[Any]:
    """One attribute of decisions.

    Parameters
    ----------
    decisions : Decisions
    name : str

    Returns
    -------
    float32 or bool array, shape (n_prompts,)
        NaN where it is not known of any.
    """
    found = getattr(decisions, name)
    return np.full(len(decisions), np.nan, np.float32) if found is None else found


def values(array: NDArray[Any]) -> pa.Array:
    """Values as a column without nulls.

    Parameters
    ----------
    array : float32 or bool array, shape (n,)

    Returns
    -------
    pyarrow.FloatArray or pyarrow.BooleanArray
    """
    import pyarrow as pa

    if array.dtype == np.bool_:
        return _column(pa.bool_(), len(array), np.packbits(array, bitorder="little"))
    return _column(pa.float32(), len(array), np.ascontiguousarray(array, np.float32))


def names(decisions: Decisions) -> pa.StringArray:
    """Name of the chosen model of every prompt.

    Parameters
    ----------
    decisions : Decisions

    Returns
    -------
    pyarrow.StringArray
    """
    import pyarrow as pa

    codes = _column(pa.int32(), len(decisions), np.ascontiguousarray(decisions.model, np.int32))
    texts = [name.encode() for name in decisions.models]
    ends = np.cumsum([0, *map(len, texts)], dtype=np.int32)
    models = pa.StringArray.from_buffers(
        len(texts), pa.py_buffer(ends), pa.py_buffer(b"".join(texts))
    )
    return models.take(codes)


def _column(kind: pa.DataType, n: int, buffer: NDArray[Any]) -> pa.Array:
    import pyarrow as pa

    return pa.Array.from_buffers(kind, n, [None, pa.py_buffer(buffer)])
