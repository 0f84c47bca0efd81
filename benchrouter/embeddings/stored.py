"""Embeddings in .npy files, with a sidecar that names their encoder."""

from __future__ import annotations

import json
import os
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.fingerprint import Fingerprint
from benchrouter.embeddings.unit_rows import _check, check_kind
from benchrouter.files.atomic import write_array
from benchrouter.files.opened import open_file
from benchrouter.files.os_errors import naming

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
    with open_stored(path) as file:
        shape, fortran, dtype = read_header(file, path)
        try:
            array = np.memmap(file, dtype, "r", file.tell(), shape, "F" if fortran else "C")
        except (ValueError, OSError) as error:
            raise ValueError(f"{path}: found no readable .npy array ({error})") from error
    return array, read_sidecar(path, shape)


def open_stored(path: Path) -> BufferedReader:
    """Open a .npy file; the errors are those of `load_embeddings`."""
    if path.is_dir():
        raise IsADirectoryError(f"{path}: is a directory, expected embeddings (.npy)")
    if not path.is_file():
        raise FileNotFoundError(f"{path}: found no such file, expected embeddings (.npy)")
    return open_file(path)


def read_header(file: BufferedReader, path: Path) -> tuple[tuple[int, int], bool, np.dtype[Any]]:
    """Shape, Fortran order and dtype of embeddings; `file` then stands before the first row."""
    start = file.read(len(_MAGIC))
    if start.startswith(b"PK"):
        raise ValueError(f"{path}: found an archive of arrays, expected one .npy array")
    if start != _MAGIC:
        raise ValueError(f"{path}: found no readable .npy array (it does not begin as one)")
    version = tuple(file.read(2))
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"{path}: found no readable .npy array (version {version})")
    try:
        if version == (1, 0):
            shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
        else:
            shape, fortran, dtype = np.lib.format.read_array_header_2_0(file)
    except (ValueError, EOFError) as error:
        raise ValueError(f"{path}: found no readable .npy array ({error})") from error
    if dtype.hasobject:
        raise ValueError(f"{path}: found no readable .npy array (it holds Python objects)")
    check_kind(dtype, shape, str(path))
    return (shape[0], shape[1]), fortran, dtype


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


def _sidecar(path: Path) -> Path:
    return path.with_name(path.name + ".json")


def read_sidecar(path: Path, shape: tuple[int, int]) -> Fingerprint | None:
    """Encoder of embeddings of this shape, from FILE.npy.json; None where there is no such file."""
    path = _sidecar(path)
    if not path.is_file():
        return None
    try:
        described = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(described, dict) or described.get("format") != _FORMAT:
            raise ValueError(f"expected a JSON object with format {_FORMAT}")
        fingerprint = Fingerprint.from_dict(described.get("fingerprint", {}))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path}: found no description of embeddings ({error})") from error
    if described.get("shape") != list(shape) or fingerprint.dim != shape[1]:
        raise ValueError(
            f"{path}: found shape {described.get('shape')} and dim {fingerprint.dim}, "
            f"the array beside it has shape {list(shape)}"
        )
    return fingerprint
