"""Write files and directories whole or not at all."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

RENAME_EXCHANGE = 2  # linux/fs.h
AT_FDCWD = -100


@contextmanager
def replacing(target: Path) -> Iterator[Path]:
    """Fill a new directory that replaces `target` if nothing fails.

    Parameters
    ----------
    target : Path
        Absolute; made or replaced.

    Yields
    ------
    Path
        The empty directory to fill.

    Raises
    ------
    OSError
        If the parent cannot be written or the disk is full; `target` is then untouched.
    """
    beside = new_beside(target)
    try:
        yield beside
        for path in [*beside.rglob("*"), beside]:
            _sync(path)
        _put_in_place(beside, target)
        _sync(target.parent)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def write_array(path: Path, array: NDArray[Any]) -> None:
    """Write an array in C order as `numpy.save` does, but raise OSError on a full disk.

    `numpy.save` may fail silently there.
    """
    array = np.ascontiguousarray(array)
    with open(path, "wb") as file:
        header = np.lib.format.header_data_from_array_1_0(array)
        np.lib.format.write_array_header_1_0(file, header)
        file.write(array.reshape(-1).view(np.uint8).data)


def partial_of(target: Path) -> Path:
    """Hidden ``.partial`` name beside a file, under which this process writes it."""
    return target.with_name(f".{target.name}.{os.getpid()}.partial")


def put_file(partial: Path, target: Path) -> None:
    """Rename a closed, finished file to `target`, and flush both to the disk."""
    _sync(partial)
    os.replace(partial, target)
    _sync(target.parent)


def new_beside(target: Path) -> Path:
    """Make an empty, hidden directory with a unique name beside `target`."""
    path = target.parent / f".{target.name}.{uuid4().hex}"
    path.mkdir()
    return path


def _put_in_place(beside: Path, target: Path) -> None:
    """Rename a directory; exchange it with an earlier one in one step where the system can."""
    if not target.exists():
        os.rename(beside, target)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if hasattr(libc, "renameat2"):
        names = os.fsencode(beside), os.fsencode(target)
        if libc.renameat2(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0:
            return
    old = new_beside(target)
    os.rename(target, old / target.name)
    os.rename(beside, target)
    shutil.rmtree(old, ignore_errors=True)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
