"""Nearest benchmark records by exact cosine.

A search has two steps. A fast method proposes a few more candidates than asked for, with a known
rounding error. Each candidate's similarity is then computed again as the float32 rounding of a
float64 sum, and the best k are kept by (similarity, lower record number). Where the error could
have hidden a neighbour, more candidates are taken. So the answer is exact, and depends neither on
the method nor on the batch. On a CPU with VNNI both steps are one, in C++ (`neighbours.codes`).
Only an approximate index (`neighbours.by_faiss`), if one is asked for, may miss a neighbour.
"""

from __future__ import annotations

import threading
from typing import Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from benchrouter import _core
from benchrouter.embeddings.unit_rows import UNIT_TOLERANCE
from benchrouter.files.arrays import Ids, Rows
from benchrouter.neighbours import proposals
from benchrouter.neighbours.by_faiss import Approximate, has_faiss
from benchrouter.neighbours.codes import MOST_DIMENSIONS, Codes
from benchrouter.neighbours.lists import Neighbours, no_neighbours
from benchrouter.neighbours.proposals import (
    Bfloat16,
    ErrorBound,
    Propose,
    accumulation,
    float32_error,
    has_amx_bfloat16,
    largest,
    largest_of,
)
from benchrouter.prompts.timing import stage

Proposal = Literal["auto", "int8", "blas", "faiss", "bfloat16"]

SPARE = 8  # candidates beyond k: ties and rounding at the boundary seldom need more
SPARE_BFLOAT16 = 45  # its rounding hides more
FEW_QUERIES = 8  # up to here one pass of BLAS over the records beats faiss (benchmarks/peers.py)
BFLOAT16_WORK = 1 << 34  # multiplications from which loading torch and converting pay
CANDIDATES = 1 << 23  # ranked at a time where many are needed
MOST_BFLOAT16 = 1 << 21  # records; beyond, its blocks hold too few queries, and its copy is large
APPROXIMATE_PER_NEIGHBOUR = 4  # candidates that an approximate index proposes for each


class Index:
    """Exact nearest neighbours among unit rows. Safe to search from many threads.

    Parameters
    ----------
    embeddings : float32 array, shape (n_records, dim)
        Unit rows in C order. Not copied, so they may be memory-mapped; with codes of 8 bits or
        products of bfloat16, copies of a quarter or a half of their size come beside them.
    threads : int
        Threads of the final ranking, 0 = all.
    proposal : {"auto", "int8", "blas", "faiss", "bfloat16"}
        What proposes candidates; the answer is the same. "auto" takes bfloat16 products through
        torch for large batches on a CPU with AMX, codes of 8 bits on one with VNNI (but for the
        first few queries, which are not worth making codes), and else a BLAS product for a few
        queries and faiss for many (a BLAS product where faiss is not installed).
    verify : bool
        Check the norm of every record.
    approximate : Approximate, optional
        Over the first records or all; proposes candidates in :meth:`search` instead, without a
        proof that it misses none. Records beyond its own are searched exactly.

    Raises
    ------
    TypeError, ValueError
        If the rows are not float32, two-dimensional, C-ordered and of unit norm.
    """

    def __init__(
        self,
        embeddings: Rows,
        *,
        threads: int = 0,
        proposal: Proposal = "auto",
        verify: bool = True,
        approximate: Approximate | None = None,
    ) -> None:
        if proposal not in get_args(Proposal):
            known = ", ".join(map(repr, get_args(Proposal)))
            raise ValueError(f"proposal must be one of {known}, got {proposal!r}")
        check_unit_rows(embeddings, "embeddings", norms=verify)
        self.embeddings = embeddings
        self.threads = threads
        self.proposal = proposal
        self.approximate = approximate
        self._lock = threading.Lock()
        self._codes: Codes | None = None
        self._bfloat16: Bfloat16 | None = None
        self._asked = False

    @property
    def n_records(self) -> int:
        """Number of records."""
        return int(self.embeddings.shape[0])

    @property
    def dim(self) -> int:
        """Length of a row."""
        return int(self.embeddings.shape[1])

    @stage("search")
    def search(self, queries: Rows, k: int) -> Neighbours:
        """Find the k nearest records of every query.

        Parameters
        ----------
        queries : float32 array, shape (n_queries, dim)
            Unit rows.
        k : int
            At least 1; beyond the number of records the rest is filled with −1.

        Returns
        -------
        Neighbours
            Arrays of shape (n_queries, k).

        Raises
        ------
        TypeError, ValueError
            If the queries are not unit float32 rows of this index's dim, or k < 1.
        """
        check_unit_rows(queries, "queries", dim=self.dim)
        check_count(k, "k")
        if self.n_records == 0 or len(queries) == 0:
            return no_neighbours((len(queries), k))
        if self.approximate is not None:
            return self._approximately(self.approximate, queries, k)
        kind = self._kind(len(queries)) if self.proposal == "auto" else self.proposal
        self._asked = True
        if kind == "int8":
            return self._coded().search(queries, k)
        if kind == "bfloat16":
            (propose, error), spare = self._rounded().proposals(queries), SPARE_BFLOAT16
        else:
            propose_by = proposals.by_faiss if kind == "faiss" else proposals.by_blas
            propose, error = propose_by(queries, self.embeddings), float32_error(self.dim)
            spare = SPARE
        return self._exact(queries, propose, error, self.n_records, k, spare)

    def search_per_dataset(
        self,
        queries: Rows,
        k: int,
        dataset: NDArray[np.int32],
        n_datasets: int,
        *,
        skip: int | None = None,
        keep: int | None = None,
    ) -> Neighbours:
        """Find the k nearest records of every query in each dataset.

        Any exclusion of datasets is then a merge of these short lists (:func:`merge`).

        Parameters
        ----------
        queries : float32 array, shape (n_queries, dim)
            Unit rows.
        k : int
            Neighbours per dataset.
        dataset : int32 array, shape (n_records,)
            Dataset code of every record of this index.
        n_datasets : int
            Number of datasets.
        skip : int, optional
            A dataset that is left out: its lists stay empty.
        keep : int, optional
            Only the best `keep` of a query's lists together are wanted; the others may be missing.

        Returns
        -------
        Neighbours
            Arrays of shape (n_queries, n_datasets, k).
        """
        check_unit_rows(queries, "queries", dim=self.dim)
        members = {code: np.flatnonzero(dataset == code) for code in range(n_datasets)}
        members = {code: ids for code, ids in members.items() if len(ids) and code != skip}
        found = no_neighbours((len(queries), n_datasets, k))
        error = float32_error(self.dim)
        wide = self.n_records > proposals.WIDE
        rows_at_once = max(1, proposals.BLOCK_BYTES // (4 * max(self.n_records, 1)))
        step = proposals.TILE_QUERIES if wide else rows_at_once
        for start in range(0, len(queries), step):
            some = queries[start : start + step]
            everyone = np.arange(len(some))
            largest_in = (self._among if wide else self._block)(some, members)
            first = {
                code: largest_in[code](everyone, min(k + SPARE, len(ids)))
                for code, ids in members.items()
            }
            floor = _floor([best.similarities for best in first.values()], k, keep, len(some))
            floor -= 2.0 * accumulation(self.dim)
            for code, ids in members.items():
                propose = _propose_first(largest_in[code], ids, first[code])
                best = self._exact(some, propose, error, len(ids), k, SPARE, floor)
                found.ids[start : start + step, code] = best.ids
                found.similarities[start : start + step, code] = best.similarities
        return found

    def _block(self, queries: Rows, members: dict[int, Ids]) -> dict[int, Propose]:
        """Largest similarities within each dataset, from one block of all of them."""
        block = queries @ self.embeddings.T

        def within(columns: Rows) -> Propose:
            return lambda rows, count: largest(
                columns if len(rows) == len(columns) else columns[rows], count
            )

        return {code: within(block[:, _as_slice(ids)]) for code, ids in members.items()}

    def _among(self, queries: Rows, members: dict[int, Ids]) -> dict[int, Propose]:
        """The same, where such a block would be too large."""

        def within(ids: Ids) -> Propose:
            return lambda rows, count: largest_of(
                queries[rows], self.embeddings[_as_slice(ids)], count
            )

        return {code: within(ids) for code, ids in members.items()}

    def _approximately(self, approximate: Approximate, queries: Rows, k: int) -> Neighbours:
        """Rank exactly what the approximate index proposes."""
        count = min(APPROXIMATE_PER_NEIGHBOUR * k + SPARE, self.n_records)
        indexed = approximate.n_records
        candidates = approximate.search(queries, count)
        if indexed < self.n_records:
            newer = self.embeddings[indexed:]
            near = largest_of(queries, newer, min(count, len(newer)))
            candidates = np.concatenate((candidates, near.ids + indexed), axis=1)
        return Neighbours(*_core.rank(queries, self.embeddings, candidates, k, self.threads))

    def _exact(
        self,
        queries: Rows,
        propose: Propose,
        error: ErrorBound,
        n_records: int,
        k: int,
        spare: int,
        floor: Rows | None = None,
    ) -> Neighbours:
        """Rank proposed candidates exactly, and take more where a neighbour may be hidden.

        Candidates below a query's floor are dropped.
        """
        found = no_neighbours((len(queries), k))
        pending = np.arange(len(queries))
        count = min(k + spare, n_records)
        while len(pending):
            unsure = []
            step = max(1, CANDIDATES // count)
            for start in range(0, len(pending), step):
                rows = pending[start : start + step]
                proposed = propose(rows, count)
                candidates = proposed.ids
                if floor is not None:
                    wanted = proposed.similarities >= floor[rows, None]
                    candidates = np.where(wanted, candidates, -1)
                asked = queries if len(rows) == len(queries) else queries[rows]
                ids, similarities = _core.rank(asked, self.embeddings, candidates, k, self.threads)
                found.ids[rows] = ids
                found.similarities[rows] = similarities
                if count < n_records:
                    lowest = proposed.similarities.min(axis=1)
                    hidden = lowest + error(rows, lowest)
                    doubtful = hidden >= similarities[:, -1]
                    if floor is not None:
                        doubtful &= lowest >= floor[rows]
                    unsure.append(rows[doubtful])
            pending = np.concatenate(unsure) if unsure else pending[:0]
            count = min(4 * count, n_records)
        return found

    def _kind(self, n_queries: int) -> Proposal:
        """The fastest way to propose candidates for so many queries."""
        work = n_queries * self.n_records * self.dim
        if work >= BFLOAT16_WORK and self.n_records <= MOST_BFLOAT16 and has_amx_bfloat16():
            return "bfloat16"
        few = n_queries <= FEW_QUERIES
        if _core.has_vnni and self.dim <= MOST_DIMENSIONS and (self._asked or not few):
            return "int8"
        return "blas" if few or not has_faiss() else "faiss"

    def _coded(self) -> Codes:
        with self._lock:
            if self._codes is None:
                self._codes = Codes(self.embeddings, self.threads)
            return self._codes

    def _rounded(self) -> Bfloat16:
        with self._lock:
            if self._bfloat16 is None:
                self._bfloat16 = Bfloat16(self.embeddings)
            return self._bfloat16


def check_count(value: object, name: str, least: int = 1) -> None:
    """Raise unless `value` is an integer of at least `least`.

    Raises
    ------
    TypeError, ValueError
        Naming `name`, what was found and what was expected.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise TypeError(f"{name} must be an integer, got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, got {value}")


def check_unit_rows(
    rows: NDArray[Any], what: str, *, dim: int | None = None, norms: bool = True
) -> None:
    """Raise unless `rows` is a C-ordered float32 matrix of unit rows (and of the given dim).

    Norms are checked to within 1e-3, unless `norms` is false.

    Raises
    ------
    TypeError, ValueError
        Naming `what`, what was found and what was expected.
    """
    if not isinstance(rows, np.ndarray) or rows.dtype != np.float32:
        found = getattr(rows, "dtype", type(rows).__name__)
        raise TypeError(f"{what} must be a float32 array, got {found}")
    if rows.ndim != 2 or not rows.flags.c_contiguous:
        raise ValueError(f"{what} must be a C-ordered matrix, got shape {rows.shape}")
    if dim is not None and rows.shape[1] != dim:
        raise ValueError(f"{what} have dim {rows.shape[1]}, index has dim {dim}")
    if not norms:
        return
    for start in range(0, len(rows), 65536):
        block = rows[start : start + 65536]
        norm = np.sqrt(np.einsum("ij,ij->i", block, block))
        bad = np.flatnonzero(~(np.abs(norm - 1.0) <= UNIT_TOLERANCE))
        if len(bad):
            raise ValueError(
                f"{what} must have unit rows, row {start + bad[0]} has norm {norm[bad[0]]:.6g}"
            )


def _propose_first(largest: Propose, ids: Ids, first: Neighbours) -> Propose:
    """Propose records of a dataset by their own numbers; `first` was found before."""

    def propose(rows: Ids, count: int) -> Neighbours:
        if count == first.ids.shape[1]:
            best = Neighbours(first.ids[rows], first.similarities[rows])
        else:
            best = largest(rows, count)
        return Neighbours(ids[best.ids], best.similarities)

    return propose


def _as_slice(ids: Ids) -> Ids | slice:
    """Consecutive ids as a slice, which needs no copy."""
    whole = len(ids) == ids[-1] - ids[0] + 1
    return slice(int(ids[0]), int(ids[-1]) + 1) if whole else ids


def _floor(lists: list[Rows], k: int, keep: int | None, n_queries: int) -> Rows:
    """Similarity of the `keep`-th best among the best k of every list; −inf = no floor."""
    best = [-np.partition(-part, min(k, part.shape[1]) - 1)[:, :k] for part in lists]
    if keep is None or sum(part.shape[1] for part in best) <= keep:
        return np.full(n_queries, -np.inf, dtype=np.float32)
    return np.asarray(-np.partition(-np.concatenate(best, axis=1), keep - 1)[:, keep - 1])
