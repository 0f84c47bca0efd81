"""Embeddings as unit rows of float32."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

# float16 rows of unit vectors stray from norm 1 by some 1e-4.
UNIT_TOLERANCE = 1e-3
# Error of a division by the norm. Rows this near to unit norm stay as they are, so that unit rows
# do not change when they are passed again.
UNIT_ROUNDING = 5e-7
_ROWS_AT_ONCE = 512  # their squares fit in a core's cache


def as_unit_rows(
    embeddings: NDArray[np.float16] | NDArray[np.float32],
    what: str = "embeddings",
    *,
    copy: bool = True,
) -> NDArray[np.float32]:
    """Widen embeddings to float32 and divide each row by its float32 norm, if that is not 1.

    Parameters
    ----------
    embeddings : float16 or float32 array, shape (n_records, dim)
        Rows whose norm is within 1e-3 of 1.
    what : str
        The argument or file that errors name.
    copy : bool
        False: return what is given where it is such an array already.

    Returns
    -------
    float32 array, shape (n_records, dim)
        A new, C-contiguous array; its rows come back unchanged when given again.

    Raises
    ------
    TypeError
        If the array is neither float16 nor float32.
    ValueError
        If it has not two axes, or a row is not finite or not of unit norm.
    """
    _check(embeddings, what)
    flags = embeddings.flags
    as_given = not copy and embeddings.dtype == np.float32 and flags.c_contiguous
    as_given = as_given and flags.writeable  # torch warns of others
    out: NDArray[Any] = embeddings
    out = np.asarray(out) if as_given else np.array(out, np.float32, order="C")
    for start in range(0, len(out), _ROWS_AT_ONCE):
        rows = out[start : start + _ROWS_AT_ONCE]
        with np.errstate(over="ignore", invalid="ignore"):
            norms = np.linalg.norm(rows, axis=1)
            bad = np.flatnonzero(~(np.abs(norms - 1) <= UNIT_TOLERANCE))
        if len(bad):
            _refuse_row(rows[bad[0]], norms[bad[0]], start + int(bad[0]), what)
        norms[np.abs(norms - 1) <= UNIT_ROUNDING] = 1.0
        if (norms != 1.0).any():
            if as_given:  # the caller's array, which stays as it is
                return as_unit_rows(embeddings, what)
            rows /= norms[:, None]
    return out


def check_kind(dtype: np.dtype[Any], shape: tuple[int, ...], what: str) -> None:
    """Refuse a dtype or shape that embeddings cannot have.

    Parameters
    ----------
    dtype : dtype
        float16 or float32, in the machine's byte order.
    shape : tuple of int
        (n_records, dim), dim at least 1.
    what : str
        The argument or file that errors name.

    Raises
    ------
    TypeError
        For another dtype.
    ValueError
        For another shape.
    """
    if dtype not in (np.float16, np.float32):
        raise TypeError(f"{what} must be float16 or float32, got {dtype}")
    if len(shape) != 2 or shape[1] == 0:
        raise ValueError(f"{what}: found shape {shape}, expected (n_records, dim)")


def _refuse_row(row: NDArray[np.float32], norm: np.float32, number: int, what: str) -> None:
    if not np.isfinite(row).all():
        raise ValueError(f"{what}, row {number}: found NaN or infinity, expected finite values")
    raise ValueError(
        f"{what}, row {number}: found norm {norm:.6g}, expected 1 within {UNIT_TOLERANCE:g}"
    )


def _check(array: NDArray[np.generic], what: str) -> None:
    if not isinstance(array, np.ndarray):
        raise TypeError(f"{what} must be a NumPy array, got {type(array).__name__}")
    check_kind(array.dtype, array.shape, what)
