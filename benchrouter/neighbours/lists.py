"""Lists of the nearest records of every query, and their merges."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Ids, Rows


class Neighbours(NamedTuple):
    """Nearest records of each query, most similar first; equal similarity: lower number first."""

    ids: Ids
    """int64, shape (n_queries, k); −1 = there is no such neighbour."""
    similarities: Rows
    """float32 cosine similarity, same shape; −inf where the id is −1."""


def merge(lists: Neighbours, excluded: NDArray[np.bool_], k: int) -> Neighbours:
    """Nearest k of all but the excluded datasets, from lists per dataset.

    Parameters
    ----------
    lists : Neighbours
        Arrays of shape (n_queries, n_datasets, depth), as :meth:`Index.search_per_dataset` gives
        them, depth ≥ k.
    excluded : bool array, shape (n_datasets,)
        Datasets to leave out.
    k : int
        Neighbours wanted.

    Returns
    -------
    Neighbours
        Arrays of shape (n_queries, k).
    """
    n_queries = len(lists.ids)
    kept = ~excluded
    ids = lists.ids[:, kept].reshape(n_queries, -1)
    similarities = lists.similarities[:, kept].reshape(n_queries, -1)
    return nearest(Neighbours(ids, similarities), k)


def join(one: Neighbours, other: Neighbours, k: int) -> Neighbours:
    """Nearest k of two lists of every query.

    Parameters
    ----------
    one, other : Neighbours
        Arrays of shape (n_queries, any), in any order; −1 = none.
    k : int
        Neighbours wanted.

    Returns
    -------
    Neighbours
        Arrays of shape (n_queries, k).
    """
    ids = np.concatenate((one.ids, other.ids), axis=1)
    similarities = np.concatenate((one.similarities, other.similarities), axis=1)
    return nearest(Neighbours(ids, similarities), k)


def without_dropped(found: Neighbours, dropped: NDArray[np.bool_], k: int) -> Neighbours:
    """First k of every list that are not dropped.

    Parameters
    ----------
    found : Neighbours
        Arrays of shape (n_queries, n_columns), nearest first.
    dropped : bool array, same shape
    k : int
        Neighbours wanted; where fewer are left, the rest is −1.

    Returns
    -------
    Neighbours
        Arrays of shape (n_queries, min(k, n_columns)).
    """
    gone = dropped | (found.ids < 0)
    order = np.argsort(gone, axis=1, kind="stable")[:, :k]
    lost = np.take_along_axis(gone, order, axis=1)
    return Neighbours(
        np.where(lost, -1, np.take_along_axis(found.ids, order, axis=1)),
        np.where(lost, np.float32(-np.inf), np.take_along_axis(found.similarities, order, axis=1)),
    )


def nearest(candidates: Neighbours, k: int) -> Neighbours:
    """Best k of each row's candidates, by (similarity descending, id ascending).

    Parameters
    ----------
    candidates : Neighbours
        Arrays of shape (n_queries, n_candidates), in any order; −1 = none.
    k : int
        Neighbours wanted; beyond the candidates the rest is −1.

    Returns
    -------
    Neighbours
        Arrays of shape (n_queries, k).
    """
    ids, similarities = candidates
    found = no_neighbours((len(ids), k))
    width = min(k, ids.shape[1])
    # One sortable integer per candidate: the similarity's bits, made descending, above the id.
    bits = np.ascontiguousarray(similarities + np.float32(0)).view(np.int32).astype(np.int64)
    ascending = np.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
    keys = (-ascending << 32) | (ids & 0xFFFFFFFF)
    if width < ids.shape[1]:
        best = np.argpartition(keys, width - 1, axis=1)[:, :width]
        keys = np.take_along_axis(keys, best, axis=1)
        ids = np.take_along_axis(ids, best, axis=1)
        similarities = np.take_along_axis(similarities, best, axis=1)
    order = np.argsort(keys, axis=1)
    found.ids[:, :width] = np.take_along_axis(ids, order, axis=1)
    found.similarities[:, :width] = np.take_along_axis(similarities, order, axis=1)
    return found


def no_neighbours(shape: tuple[int, ...]) -> Neighbours:
    """Lists of a shape without a neighbour.

    Parameters
    ----------
    shape : tuple of int
        The last is the length of a list.
    """
    return Neighbours(np.full(shape, -1, np.int64), np.full(shape, -np.inf, np.float32))
