"""Records in codes of 8 bits, by which :mod:`benchrouter._core` finds nearest records exactly."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchrouter import _core
from benchrouter.neighbours.lists import Neighbours

MOST_DIMENSIONS = _core.most_coded_dimensions


class Codes:
    """Codes of unit rows: a quarter of their memory, beside them.

    A record is a scale times integers in [−127, 127], plus a remainder whose norm is kept. By
    Cauchy-Schwarz the error of a product of codes has a known bound. Products of integers, four
    times as fast as those of float32 on a CPU with VNNI, therefore rule out all records but a few,
    which are compared in float64.

    Parameters
    ----------
    embeddings : float32 array, shape (n_records, dim)
        Unit rows in C order, dim at most MOST_DIMENSIONS. Not copied.
    threads : int
        0 = all.
    """

    def __init__(self, embeddings: NDArray[np.float32], threads: int = 0) -> None:
        n_records, dim = embeddings.shape
        group, step = _core.code_layout
        groups, steps = -(-n_records // group), -(-dim // step)
        self._embeddings = embeddings
        self._threads = threads
        self._values = np.empty((groups, steps, group, step), dtype=np.uint8)
        self._scales = np.empty((groups, group), dtype=np.float32)
        self._errors = np.empty((groups, group), dtype=np.float32)
        self._norm, self._error = _core.encode_records(
            embeddings, self._values, self._scales, self._errors, threads
        )

    def search(self, queries: NDArray[np.float32], k: int) -> Neighbours:
        """Find the k nearest records of every query.

        Parameters
        ----------
        queries : float32 array, shape (n_queries, dim)
            In C order.
        k : int
            At least 1.

        Returns
        -------
        Neighbours
            Arrays of shape (n_queries, k); similarities are the float32 rounding of float64 sums.

        Raises
        ------
        ValueError
            If a similarity is not finite.
        """
        found = _core.search(
            queries, self._embeddings, self._values, self._scales, self._errors,
            self._norm, self._error, k, self._threads,
        )  # fmt: skip
        return Neighbours(*found)
