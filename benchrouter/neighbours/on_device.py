"""Nearest benchmark records by exact cosine, in torch: for records that lie on a device.

The search of `neighbours.index`, for tensors: a fast product proposes candidates, their
similarities are computed again in float64 in a fixed order, and more candidates are taken where the
product's error could have hidden a neighbour. So the answer is that of the CPU's index, bit for
bit. It works on a CPU too.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.unit_rows import UNIT_TOLERANCE
from benchrouter.neighbours.by_faiss import FAISS_GPU_CANDIDATES, FaissOnDevice, faiss_devices
from benchrouter.neighbours.index import SPARE, check_count, check_unit_rows
from benchrouter.neighbours.lists import Neighbours
from benchrouter.neighbours.proposals import accumulation

if TYPE_CHECKING:
    from torch import Tensor

Proposal = Literal["auto", "torch", "faiss", "faiss-float16"]
PROPOSALS = ("auto", "torch", "faiss", "faiss-float16")

BLOCK_BYTES = {"cpu": 64 << 20, "cuda": 1 << 30}  # of one block of similarities, or of rows ranked
LEAST_BLOCK_BYTES = 1 << 20
QUERIES = 4096  # searched at a time
LANES = 16  # partial sums of a similarity, as in csrc/votes/kernels.cpp

_matmul_precision = threading.Lock()


class TorchIndex:
    """Exact nearest neighbours among unit rows that are held once, on one device.

    Parameters
    ----------
    embeddings : float32 array or torch.Tensor, shape (n_records, dim)
        Unit rows in C order; copied to the device unless they are a tensor there.
    device : str
        "cpu", "cuda" or "cuda:N", as torch names them.
    proposal : {"auto", "torch", "faiss", "faiss-float16"}
        What proposes candidates; the answer is the same. "torch": float32 products, never TF32.
        "faiss": faiss on the device, which reads the same rows; "faiss-float16": a rounded copy
        of them, half as large, and its rounding allowed for. "auto" takes faiss on a CUDA device
        that it can use, else torch.
    verify : bool
        Check the norm of every record.

    Raises
    ------
    TypeError, ValueError
        If the rows are not float32, two-dimensional, C-ordered and of unit norm; if faiss is asked
        for and is not there for the device.
    """

    def __init__(
        self,
        embeddings: NDArray[np.float32] | Tensor,
        *,
        device: str = "cpu",
        proposal: Proposal = "auto",
        verify: bool = True,
    ) -> None:
        import torch

        if proposal not in PROPOSALS:
            names = ", ".join(map(repr, PROPOSALS))
            raise ValueError(f"proposal must be one of {names}, got {proposal!r}")
        if isinstance(embeddings, torch.Tensor):
            self.records = embeddings.to(device)
            _check_rows(self.records, "embeddings", norms=verify)
        else:
            check_unit_rows(embeddings, "embeddings", norms=verify)
            self.records = torch.tensor(embeddings, device=device)
        self.proposal = _choose(proposal, self.records.device)
        self._rounded: Tensor | None = None
        self._rounding = 0.0
        if self.proposal == "faiss-float16":
            self._rounded, moved = _to_float16(self.records)
            self._rounding = float(moved.max()) if len(moved) else 0.0
        self._faiss = FaissOnDevice() if self.proposal.startswith("faiss") else None
        self._block_bytes = BLOCK_BYTES["cpu" if self.records.device.type == "cpu" else "cuda"]

    @property
    def n_records(self) -> int:
        """Number of records."""
        return int(self.records.shape[0])

    @property
    def dim(self) -> int:
        """Length of a row."""
        return int(self.records.shape[1])

    def search(self, queries: Tensor, k: int) -> Neighbours:
        """Find the k nearest records of every query.

        Parameters
        ----------
        queries : float32 torch.Tensor, shape (n_queries, dim)
            Unit rows on the device of the records.
        k : int
            At least 1; beyond the number of records the rest is filled with −1.

        Returns
        -------
        Neighbours
            Tensors of shape (n_queries, k) on the device: int64 and float32.

        Raises
        ------
        TypeError, ValueError
            If the queries are not unit float32 rows of this index's dim and device, or k < 1.
        torch.OutOfMemoryError
            If the device's memory does not hold blocks of `LEAST_BLOCK_BYTES` either.
        """
        import torch

        check_count(k, "k")
        _check_rows(queries, "queries", like=self.records)
        found = Neighbours(
            torch.full((len(queries), k), -1, device=queries.device),
            torch.full((len(queries), k), -torch.inf, device=queries.device),
        )
        if self.n_records == 0:
            return found
        with torch.inference_mode():
            for start in range(0, len(queries), QUERIES):
                some = slice(start, start + QUERIES)
                part = Neighbours(found.ids[some], found.similarities[some])
                self._backing_off(queries[some], k, part)
        return found

    def _backing_off(self, queries: Tensor, k: int, found: Neighbours) -> None:
        """Search; use smaller blocks from now on if the device runs out of memory."""
        import torch

        while True:
            try:
                return self._exact(queries, k, found)
            except torch.OutOfMemoryError:
                if self._block_bytes <= LEAST_BLOCK_BYTES:
                    raise
                self._block_bytes //= 2
            torch.cuda.empty_cache()

    def _exact(self, queries: Tensor, k: int, found: Neighbours) -> None:
        """Rank proposed candidates exactly, and take more where a neighbour may be hidden."""
        import torch

        pending = torch.arange(len(queries), device=queries.device)
        count = min(k + SPARE, self.n_records)
        while len(pending):
            asked = queries[pending]
            proposed, error = self._propose(asked, count)
            best = self._rank(asked, proposed.ids, min(k, count))
            width = best.ids.shape[1]
            found.ids[pending, :width] = best.ids
            found.similarities[pending, :width] = best.similarities
            if count == self.n_records:
                return
            lowest = torch.amin(proposed.similarities, dim=1)
            pending = pending[lowest + error >= best.similarities[:, -1]]  # waits for the device
            count = min(4 * count, self.n_records)

    def _propose(self, queries: Tensor, count: int) -> tuple[Neighbours, Tensor | float]:
        """Candidates in any order, and a bound on the error of their similarities."""
        accumulated = accumulation(self.dim)
        if self._faiss is None or count > FAISS_GPU_CANDIDATES:
            return self._largest(queries, count), accumulated
        if self._rounded is None:
            return self._faiss.search(queries, self.records, count), accumulated
        asked, moved = _to_float16(queries)
        # |q·x − q̃·x̃| ≤ |q − q̃||x| + |q̃||x − x̃| (Cauchy-Schwarz), |x| and |q̃| below 1.01.
        error = 1.01 * (moved + self._rounding) + accumulated
        return self._faiss.search(asked, self._rounded, count), error

    def _largest(self, queries: Tensor, count: int) -> Neighbours:
        """Records of the largest products, some records at a time."""
        import torch

        step = max(count, self._block_bytes // (4 * len(queries)))
        best: Neighbours | None = None
        with _full_float32():
            for start in range(0, self.n_records, step):
                block = queries @ self.records[start : start + step].T
                top = torch.topk(block, min(count, block.shape[1]), sorted=False)
                part = Neighbours(top.indices + start, top.values)
                best = part if best is None else _larger(best, part, count)
        assert best is not None
        return best

    def _rank(self, queries: Tensor, candidates: Tensor, k: int) -> Neighbours:
        """Best k candidates of every query by (similarity descending, record ascending)."""
        import torch

        similarities = torch.empty(candidates.shape, device=queries.device)
        pairs, flat = candidates.flatten(), similarities.view(-1)
        step = max(1, self._block_bytes // (16 * self.dim))
        for start in range(0, len(pairs), step):
            ids = pairs[start : start + step]
            owners = torch.arange(start, start + len(ids), device=queries.device)
            asked = queries[owners // candidates.shape[1]]
            flat[start : start + step] = _similarities(asked, self.records[ids])
        # One sortable integer for each: the similarity's bits, made descending, above the id.
        bits = (similarities + 0.0).view(torch.int32).long()
        ascending = torch.where(bits < 0, bits ^ 0x7FFFFFFF, bits)
        best = torch.topk((-ascending << 32) | candidates, k, largest=False, sorted=True).indices
        return Neighbours(candidates.gather(1, best), similarities.gather(1, best))


def _choose(proposal: Proposal, device: Any) -> str:
    usable = device.type == "cuda" and faiss_devices() > device.index
    if proposal == "auto":
        return "faiss" if usable else "torch"
    if proposal != "torch" and not usable:
        raise ValueError(
            f"proposal {proposal!r} on {device}: found {faiss_devices()} CUDA devices that faiss "
            "can use, expected this one (faiss-gpu: pip install 'benchrouter[gpu]')"
        )
    return proposal


def _check_rows(rows: Any, what: str, *, like: Tensor | None = None, norms: bool = True) -> None:
    import torch

    if not isinstance(rows, torch.Tensor):
        raise TypeError(f"{what} must be a torch.Tensor, got {type(rows).__name__}")
    if rows.dtype != torch.float32:
        raise TypeError(f"{what} must be torch.float32, got {rows.dtype}")
    if rows.ndim != 2 or not rows.is_contiguous():
        raise ValueError(f"{what} must be a C-ordered matrix, got shape {tuple(rows.shape)}")
    if like is not None and rows.shape[1] != like.shape[1]:
        raise ValueError(f"{what} have dim {rows.shape[1]}, index has dim {like.shape[1]}")
    if like is not None and rows.device != like.device:
        raise ValueError(f"{what} are on {rows.device}, index is on {like.device}")
    if not norms or len(rows) == 0:
        return
    norm = torch.linalg.vector_norm(rows, dim=1)
    bad = ~((norm - 1.0).abs() <= UNIT_TOLERANCE)
    if bad.any():
        row = int(bad.nonzero()[0])
        raise ValueError(f"{what} must have unit rows, row {row} has norm {float(norm[row]):.6g}")


def _larger(one: Neighbours, other: Neighbours, count: int) -> Neighbours:
    """Largest `count` of two lists of every query, in any order."""
    import torch

    ids = torch.cat((one.ids, other.ids), dim=1)
    similarities = torch.cat((one.similarities, other.similarities), dim=1)
    top = torch.topk(similarities, min(count, ids.shape[1]), sorted=False)
    return Neighbours(ids.gather(1, top.indices), top.values)


def _similarities(queries: Tensor, records: Tensor) -> Tensor:
    """Inner product of paired rows: 16 partial sums in float64, added as a tree.

    Products of two float32 are exact in float64, so fused or not, and on whatever device, the sums
    are those of csrc/votes/kernels.cpp.
    """
    import torch

    q, x = queries.double(), records.double()
    sums = torch.zeros((len(q), LANES), dtype=torch.float64, device=q.device)
    for start in range(0, q.shape[1], LANES):
        some = slice(start, start + LANES)
        width = min(LANES, q.shape[1] - start)
        sums[:, :width].addcmul_(q[:, some], x[:, some])
    while sums.shape[1] > 1:
        half = sums.shape[1] // 2
        sums = sums[:, :half] + sums[:, half:]
    return sums[:, 0].float()


def _to_float16(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Rows rounded to float16, and how far (Euclidean) that moved each."""
    import torch

    rounded = rows.half()
    moved = torch.empty(len(rows), device=rows.device)
    for start in range(0, len(rows), 65536):
        some = slice(start, start + 65536)
        moved[some] = torch.linalg.vector_norm(rows[some] - rounded[some].float(), dim=1)
    return rounded, moved


@contextmanager
def _full_float32() -> Iterator[None]:
    """Compute products in float32, not TF32; the process's setting is restored."""
    import torch

    with _matmul_precision:
        before = torch.get_float32_matmul_precision()
        if before == "highest":
            yield
            return
        torch.set_float32_matmul_precision("highest")
        try:
            yield
        finally:
            torch.set_float32_matmul_precision(before)
