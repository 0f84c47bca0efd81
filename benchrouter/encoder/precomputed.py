"""Embeddings in .npy files, with the fingerprint of their encoder beside them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.encoder.fingerprint import Fingerprint
from benchrouter.naming import naming
from benchrouter.replacing import write_array

# float16 rows of unit vectors stray from norm 1 by some 1e-4.
UNIT_TOLERANCE = 1e-3
# What rounding leaves of a division by the norm: such rows stay as they are, so that rows made
# unit once are the same rows when they are handed in again.
UNIT_ROUNDING = 5e-7
_ROWS_AT_ONCE = 512  # whose squares stay in a core's cache
_FORMAT = 1
_MAGIC = b"\x93NUMPY"


def load_embeddings(
    path: str | os.PathLike[str],
) -> tuple[NDArray[np.float16] | NDArray[np.float32], Fingerprint | None]:
    """Open embeddings without reading them into memory.

    Parameters
    ----------
    path : path
        A .npy file; its sidecar FILE.npy.json, where there is one, says which encoder made it.

    Returns
    -------
    embeddings : float16 or float32 array, shape (n_records, dim), memory-mapped and read-only
        As stored; `as_unit_rows` checks and widens them.
    fingerprint : Fingerprint or None
        None where there is no sidecar.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    IsADirectoryError
        If it is a directory.
    TypeError
        If the array is neither float16 nor float32.
    ValueError
        If the file is no .npy file, the array has not two axes, or the sidecar does not fit it.
    """
    path = Path(path)
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a directory, expected embeddings (.npy)")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected embeddings (.npy)")
    with path.open("rb") as file:
        start = file.read(len(_MAGIC))
    if start != _MAGIC and not start.startswith(b"PK"):  # NumPy would advise to unpickle it
        raise ValueError(f"{path}: found no readable .npy array (it does not begin as one)")
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: found no readable .npy array ({error})") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path}: found an archive of arrays, expected one .npy array")
    _check(array, str(path))
    return array, _read_sidecar(_sidecar(path), array)


def save_embeddings(
    path: str | os.PathLike[str],
    embeddings: NDArray[np.float16] | NDArray[np.float32],
    fingerprint: Fingerprint | None,
) -> None:
    """Write embeddings to a .npy file and their fingerprint to FILE.npy.json.

    Both are written beside and renamed into place; without a fingerprint an older sidecar is
    removed, for it would speak of other embeddings.

    Raises
    ------
    TypeError
        If the array is neither float16 nor float32.
    ValueError
        If the path does not end in .npy, the array has not two axes, or its rows are not as long
        as the fingerprint says.
    """
    path = Path(path)
    if path.suffix != ".npy":
        raise ValueError(f"{path}: found the suffix {path.suffix!r}, expected '.npy'")
    _check(embeddings, "embeddings")
    if fingerprint is not None and embeddings.shape[1] != fingerprint.dim:
        raise ValueError(
            f"embeddings have dim {embeddings.shape[1]}, the encoder has dim {fingerprint.dim}"
        )
    sidecar = _sidecar(path)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with naming(path):
            write_array(beside, embeddings)
            sidecar.unlink(missing_ok=True)
            beside.replace(path)
        if fingerprint is not None:
            described = {
                "format": _FORMAT,
                "shape": list(embeddings.shape),
                "fingerprint": fingerprint.to_dict(),
            }
            with naming(sidecar):
                beside.write_text(json.dumps(described, indent=1) + "\n", encoding="utf-8")
                beside.replace(sidecar)
    finally:
        beside.unlink(missing_ok=True)


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
            if as_given:  # which is the caller's
                return as_unit_rows(embeddings, what)
            rows /= norms[:, None]
    return out


def check_kind(dtype: np.dtype[Any], shape: tuple[int, ...], what: str) -> None:
    """Refuse what no array of embeddings has.

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


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def _read_sidecar(path: Path, array: NDArray[np.generic]) -> Fingerprint | None:
    if not path.is_file():
        return None
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(described, dict) or described.get("format") != _FORMAT:
            raise ValueError(f"expected a JSON object with format {_FORMAT}")
        fingerprint = Fingerprint.from_dict(described.get("fingerprint", {}))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: found no description of embeddings ({error})") from error
    if described.get("shape") != list(array.shape) or fingerprint.dim != array.shape[1]:
        raise ValueError(
            f"{path}: found shape {described.get('shape')} and dim {fingerprint.dim}, "
            f"the array beside it has shape {list(array.shape)}"
        )
    return fingerprint
