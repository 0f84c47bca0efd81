"""A file of embeddings beside a file of prompts, read in step with it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.stored import open_stored, read_header, read_sidecar
from benchrouter.prompts.batches import PromptBatch


class EmbeddingFile:
    """A ``.npy`` file of embeddings, read forward.

    It is not mapped into memory, because the pages of a map count as the reader's own memory.

    Parameters
    ----------
    path : str or Path
        float16 or float32 array, shape (n_rows, dim), C order.

    Attributes
    ----------
    file : binary file
        Open for as long as this is.
    n_rows, dim : int
    dtype : dtype
    fingerprint : Fingerprint or None
        Of the encoder, from the sidecar FILE.npy.json; None where there is no sidecar.

    Raises
    ------
    OSError
        If the file cannot be opened.
    TypeError
        If it holds another dtype.
    ValueError
        If it is no such array, has another size than its header says, or has a bad sidecar.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.file = open_stored(self.path)
        try:
            shape, fortran, self.dtype = read_header(self.file, self.path)
            if fortran and min(shape) > 1:
                raise ValueError(f"{path}: embeddings are in Fortran order, expected C order")
            self._start = self.file.tell()
            expected = self._start + math.prod(shape) * self.dtype.itemsize
            found = os.fstat(self.file.fileno()).st_size
            if found != expected:
                raise ValueError(f"{path}: found {found} bytes, expected {expected}")
            self.fingerprint = read_sidecar(self.path, shape)
        except BaseException:
            self.file.close()
            raise
        self.n_rows, self.dim = shape
        self.n_read = 0

    def go_to(self, row: int) -> None:
        """Continue with this row, or at the end if there are fewer rows."""
        self.n_read = min(row, self.n_rows)
        self.file.seek(self._start + self.n_read * self.dim * self.dtype.itemsize)

    def take(self, n: int) -> NDArray[Any]:
        """Return the next `n` rows, fewer at the end; shape (<= n, dim), the file's dtype."""
        rows: NDArray[Any] = np.empty((min(n, self.n_rows - self.n_read), self.dim), self.dtype)
        view = rows.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            got = self.file.readinto(view[done:])
            if not got:
                raise ValueError(f"{self.path}: the file became shorter while it was read")
            done += got
        self.n_read += len(rows)
        return rows

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    def __enter__(self) -> EmbeddingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def with_embeddings(
    batches: Iterable[PromptBatch], file: EmbeddingFile | None, *, first_row: int = 0
) -> Iterator[tuple[PromptBatch, NDArray[Any] | None]]:
    """Pair every batch of prompts with its rows of an embeddings file.

    The file has one row for every record of the prompts' file, bad ones included.

    Parameters
    ----------
    batches : iterable of PromptBatch
        All the batches of one file from `first_row` on, in order.
    file : EmbeddingFile, optional
        Read from `first_row` on; it stays open.
    first_row : int
        Records passed over, in both files.

    Yields
    ------
    (PromptBatch, float16 or float32 array of shape (n_prompts, dim), or None without a file)

    Raises
    ------
    ValueError
        If there are more or fewer embeddings than records; the message names both numbers.
    """
    if file is None:
        yield from ((batch, None) for batch in batches)
        return
    n_records = first_row
    file.go_to(first_row)
    for batch in batches:
        n_records = batch.end_row
        if n_records > file.n_rows:  # read on to the end, so that the message can name both numbers
            continue
        block = file.take(batch.n_source_rows)
        kept = batch.rows - batch.first_row
        yield batch, block if len(kept) == len(block) else block[kept]
    if n_records != file.n_rows:
        raise ValueError(f"{file.path} has {file.n_rows} embeddings, the prompts are {n_records}")
