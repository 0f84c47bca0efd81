"""Candidates for an exact search on a CPU, in any order, each with a bound on its rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from benchrouter.files.arrays import Ids, Rows
from benchrouter.neighbours.by_faiss import has_faiss, largest_by_faiss
from benchrouter.neighbours.lists import Neighbours, no_neighbours

BLOCK_BYTES = 64 << 20  # of one block of similarities
BFLOAT16_ROUNDING = 2.0**-9  # half a unit in the last of its 8 bits
WIDE = 1 << 18  # records from which a block holds too few queries: blocks of records as well
TILE_QUERIES = 512  # at a time, where there are blocks of records as well

# Proposes `count` candidates for the queries at `rows`, in any order.
Propose = Callable[[Ids, int], Neighbours]
# Bounds proposed − true similarity of the queries at `rows`, given their lowest proposed one.
ErrorBound = Callable[[Ids, Rows], "Rows | float"]


def accumulation(dim: int) -> float:
    """Largest error of a float32 sum of `dim` products of unit rows, in whatever order."""
    return (dim + 4) * 2.0**-24 * 1.01


def float32_error(dim: int) -> ErrorBound:
    """Bound the error of proposals by float32 products."""
    return lambda rows, lowest: accumulation(dim)


def by_blas(queries: Rows, records: Rows) -> Propose:
    """Propose by products of BLAS, some queries at a time."""

    def propose(rows: Ids, count: int) -> Neighbours:
        asked = queries[rows]
        if len(asked) == 1:
            return largest((records @ asked[0])[None, :], count)
        if len(records) > WIDE:
            return _largest_by_tiles(asked, records, count)
        step = max(1, BLOCK_BYTES // (4 * len(records)))
        return _concatenate(
            largest(asked[start : start + step] @ records.T, count)
            for start in range(0, len(asked), step)
        )

    return propose


def by_faiss(queries: Rows, records: Rows) -> Propose:
    """Propose by faiss."""
    return lambda rows, count: largest_by_faiss(queries[rows], records, count)


class Bfloat16:
    """A copy of the records in bfloat16, whose products torch makes on a CPU with AMX."""

    def __init__(self, records: Rows) -> None:
        self._records, moved = _to_bfloat16(records)
        self._moved = float(moved.max())

    def proposals(self, queries: Rows) -> tuple[Propose, ErrorBound]:
        """Propose for some queries, float32 of shape (n_queries, dim)."""
        import torch

        asked, moved = _to_bfloat16(queries)
        accumulated = 2.0 * accumulation(queries.shape[1])

        def propose(rows: Ids, count: int) -> Neighbours:
            step = max(1, BLOCK_BYTES // (2 * len(self._records)))
            some = asked[torch.from_numpy(rows)]
            with torch.inference_mode():
                best = [
                    torch.topk(some[start : start + step] @ self._records.T, count, sorted=False)
                    for start in range(0, len(some), step)
                ]
            return _concatenate(
                Neighbours(b.indices.numpy(), b.values.float().numpy()) for b in best
            )

        # |q·x − q̃·x̃| ≤ |q − q̃||x| + |q̃||x − x̃| (Cauchy-Schwarz), |x| and |q̃| below 1.01.
        def error(rows: Ids, lowest: Rows) -> Rows:
            inputs = 1.01 * (moved[rows] + self._moved) + accumulated
            output = BFLOAT16_ROUNDING * (np.abs(lowest) + inputs)
            return np.asarray(inputs + output, dtype=np.float32)

        return propose, error


def largest(block: Rows, count: int) -> Neighbours:
    """Positions and values of the `count` largest of each row, in any order."""
    n = block.shape[1]
    ids = np.argpartition(block, n - count, axis=1)[:, n - count :]
    return Neighbours(ids, np.take_along_axis(block, ids, axis=1))


def largest_of(queries: Rows, records: Rows, count: int) -> Neighbours:
    """Records of the `count` largest similarities of each query, in any order."""
    find = largest_by_faiss if has_faiss() else _largest_by_tiles
    return find(queries, records, count)


def _largest_by_tiles(queries: Rows, records: Rows, count: int) -> Neighbours:
    """The same by products of some queries and some records at a time."""
    width = max(1, BLOCK_BYTES // (4 * TILE_QUERIES))
    found = []
    for start in range(0, len(queries), TILE_QUERIES):
        some = queries[start : start + TILE_QUERIES]
        best = no_neighbours((len(some), 0))
        for first in range(0, len(records), width):
            block = some @ records[first : first + width].T
            part = largest(block, min(count, block.shape[1]))
            ids = np.concatenate((best.ids, part.ids + first), axis=1)
            similarities = np.concatenate((best.similarities, part.similarities), axis=1)
            kept = largest(similarities, min(count, similarities.shape[1]))
            best = Neighbours(np.take_along_axis(ids, kept.ids, axis=1), kept.similarities)
        found.append(best)
    return _concatenate(found)


def _concatenate(parts: Iterable[Neighbours]) -> Neighbours:
    ids, similarities = zip(*parts, strict=True)
    return Neighbours(np.concatenate(ids), np.concatenate(similarities))


def _to_bfloat16(rows: Rows) -> tuple[Any, Rows]:
    """Rows rounded to bfloat16, and how far (Euclidean) that moved each."""
    import torch

    rounded = torch.empty(rows.shape, dtype=torch.bfloat16)
    moved = np.empty(len(rows), dtype=np.float32)
    for start in range(0, len(rows), 65536):
        block = torch.tensor(rows[start : start + 65536])
        rounded[start : start + 65536] = block
        off = block - rounded[start : start + 65536].float()
        moved[start : start + 65536] = torch.linalg.vector_norm(off, dim=1).numpy()
    return rounded, moved


@cache
def has_amx_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices in hardware and torch is there to use it."""
    cpuinfo = Path("/proc/cpuinfo")
    return (
        find_spec("torch") is not None
        and cpuinfo.exists()
        and "amx_bf16" in cpuinfo.read_text(errors="replace")
    )
