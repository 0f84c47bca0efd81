"""A file of embeddings beside a file of prompts, read in step with it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.stored import read_header
from benchrouter.embeddings.unit_rows import check_kind

if TYPE_CHECKING:
    from benchrouter.prompts.batches import PromptBatch


class EmbeddingFile:
    """A ``.npy`` file of embeddings, read forward by file offset.

    It is not mapped into memory: the pages of a map count as the reader's own memory.

    Parameters
    ----------
    path : str or Path
        float16 or float32 array, shape (n_rows, dim), C order.

    Raises
    ------
    ValueError
        If the file is no such array, or is shorter than its header says.
    TypeError
        If it holds another dtype.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._file = open(self.path, "rb")  # noqa: SIM115  closed by close()
        try:
            self.n_rows, self.dim, self.dtype = self._header()
        except BaseException:
            self._file.close()
            raise
        self.n_read = 0

    def _header(self) -> tuple[int, int, np.dtype[Any]]:
        try:
            shape, fortran, dtype = read_header(self._file)
        except ValueError as e:
            raise ValueError(f"{self.path}: found no .npy array ({e})") from e
        check_kind(dtype, shape, str(self.path))
        if fortran and min(shape) > 1:
            raise ValueError(f"{self.path}: embeddings are in Fortran order, expected C order")
        expected = self._file.tell() + math.prod(shape) * dtype.itemsize
        found = self.path.stat().st_size
        if found != expected:
            raise ValueError(f"{self.path}: found {found} bytes, expected {expected}")
        return shape[0], shape[1], dtype

    def take(self, n: int) -> NDArray[Any]:
        """Return the next `n` rows, fewer at the end; shape (<= n, dim), the file's dtype."""
        rows: NDArray[Any] = np.empty((min(n, self.n_rows - self.n_read), self.dim), self.dtype)
        view = rows.reshape(-1).view(np.uint8).data
        done = 0
        while done < len(view):
            got = self._file.readinto(view[done:])
            if not got:
                raise ValueError(f"{self.path}: the file became shorter while it was read")
            done += got
        self.n_read += len(rows)
        return rows

    def skip(self, n: int) -> None:
        """Pass over the next `n` rows, fewer at the end."""
        n = min(n, self.n_rows - self.n_read)
        self._file.seek(n * self.dim * self.dtype.itemsize, os.SEEK_CUR)
        self.n_read += n

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> EmbeddingFile:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def with_embeddings(
    batches: Iterable[PromptBatch], path: str | Path | None, *, first_row: int = 0
) -> Iterator[tuple[PromptBatch, NDArray[Any] | None]]:
    """Pair every batch of prompts with the rows of an embeddings file that belong to it.

    The file has one row for every record of the prompts' file, skipped ones included.

    Parameters
    ----------
    batches : iterable of PromptBatch
        All the batches of one file from `first_row` on, in order.
    path : str or Path, or None
        See `EmbeddingFile`; None = there are no embeddings.
    first_row : int
        Records that were passed over, and whose embeddings are.

    Yields
    ------
    (PromptBatch, float16 or float32 array of shape (n_prompts, dim), or None)

    Raises
    ------
    ValueError
        If there are more or fewer embeddings than records; the message names both numbers.
    """
    if path is None:
        yield from ((batch, None) for batch in batches)
        return
    n_records = first_row
    with EmbeddingFile(path) as file:
        file.skip(first_row)
        short = False
        for batch in batches:
            n_records = batch.end_row
            short = short or n_records > file.n_rows
            if short:  # read on to the end, so that the message can name both numbers
                continue
            block = file.take(batch.n_source_rows)
            kept = batch.rows - batch.first_row
            yield batch, block if len(kept) == len(block) else block[kept]
        if n_records != file.n_rows:
            raise ValueError(f"{path} has {file.n_rows} embeddings, the prompts are {n_records}")
