"""Search by faiss; the only file that imports it."""

from __future__ import annotations

import math
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Ids, Rows
from benchrouter.files.errors import BadRouter
from benchrouter.neighbours.lists import Neighbours

HNSW_SEARCH = 128  # efSearch; faiss's own 16 finds too little
FAISS_GPU_CANDIDATES = 2048  # the most that faiss finds on a device


@cache
def has_faiss() -> bool:
    """Whether faiss is installed."""
    return find_spec("faiss") is not None


def largest_by_faiss(queries: Rows, records: Rows, count: int) -> Neighbours:
    """Find the records of the largest inner products, by brute force.

    Parameters
    ----------
    queries, records : float32 array, shapes (n_queries, dim) and (n_records, dim)
    count : int
        At most n_records.

    Returns
    -------
    Neighbours
        Arrays of shape (n_queries, count), with faiss's own rounding and order of ties.
    """
    import faiss

    similarities, ids = faiss.knn(queries, records, count, metric=faiss.METRIC_INNER_PRODUCT)
    return Neighbours(ids, similarities)


class Approximate:
    """An approximate index of faiss; proposes candidates for :class:`Index`.

    Made by :meth:`train` or :meth:`read`. Safe to search from many threads.

    Parameters
    ----------
    index : faiss index
        Of inner products.
    content : uint8 array, optional
        The file of an index that was read, memory-mapped: faiss cannot write mapped lists again.
    """

    def __init__(self, index: Any, content: NDArray[np.uint8] | None = None) -> None:
        self._index = index
        self._content = content

    @classmethod
    def train(cls, embeddings: Rows, factory: str) -> Approximate:
        """Train an index on all records.

        Parameters
        ----------
        embeddings : float32 array, shape (n_records, dim)
            Unit rows.
        factory : str
            faiss's name of it: "IVF1024,Flat", "HNSW32", "IVF4096,PQ48" …; √lists of its inverted
            lists are searched for a query, and efSearch of a graph is 128.

        Raises
        ------
        ImportError
            If faiss is not installed.
        ValueError
            If faiss does not know the name, or cannot train it on so few records.
        """
        faiss = _faiss_for(factory)
        try:
            index = faiss.index_factory(embeddings.shape[1], factory, faiss.METRIC_INNER_PRODUCT)
            index.train(embeddings)
            index.add(embeddings)
        except RuntimeError as error:
            raise ValueError(
                f"faiss cannot make the index {factory!r} of {len(embeddings)} records × "
                f"{embeddings.shape[1]}: {str(error).splitlines()[-1]}"
            ) from error
        lists = faiss.try_extract_index_ivf(index)
        if lists is not None:
            lists.nprobe = math.ceil(math.sqrt(lists.nlist))
        inner = index
        if isinstance(index, faiss.IndexPreTransform):
            inner = faiss.downcast_index(index.index)
        if isinstance(inner, faiss.IndexHNSW):
            inner.hnsw.efSearch = HNSW_SEARCH
        return cls(index)

    @classmethod
    def read(cls, path: Path, factory: str) -> Approximate:
        """Read an index; its inverted lists are memory-mapped.

        Parameters
        ----------
        path : Path
            Stays readable to this object if it is replaced.
        factory : str
            Its name, for the error where faiss is missing.

        Raises
        ------
        ImportError
            If faiss is not installed.
        BadRouter
            If faiss cannot read the file.
        """
        faiss = _faiss_for(factory)
        try:
            index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP)
        except RuntimeError as error:
            raise BadRouter(f"{path} is damaged: {str(error).splitlines()[-1]}") from error
        return cls(index, np.memmap(path, np.uint8, mode="r"))

    @property
    def n_records(self) -> int:
        """Number of records."""
        return int(self._index.ntotal)

    @property
    def dim(self) -> int:
        """Length of a row."""
        return int(self._index.d)

    def search(self, queries: Rows, count: int) -> Ids:
        """Propose records.

        Parameters
        ----------
        queries : float32 array, shape (n_queries, dim)
        count : int

        Returns
        -------
        int64 array, shape (n_queries, count)
            −1 = no more were found.
        """
        ids: Ids = self._index.search(queries, count)[1]
        return ids

    def write(self, path: Path) -> None:
        """Write the index to a file.

        Raises
        ------
        OSError
            If it cannot be written; faiss's own writer, or NumPy's, would not say why.
        """
        with open(path, "wb") as file:
            if self._content is None:
                import faiss

                writer = faiss.PyCallbackIOWriter(file.write)  # type: ignore[attr-defined]
                faiss.write_index(self._index, writer)
            else:
                file.write(self._content.data)


class FaissOnDevice:
    """faiss on a CUDA device, with the resources of one worker; the rows stay where they are."""

    def __init__(self) -> None:
        import faiss

        self._resources = faiss.StandardGpuResources()
        self._lock = threading.Lock()  # its streams and memory serve one search at a time

    def search(self, queries: Any, records: Any, count: int) -> Neighbours:
        """Find the records of the largest inner products.

        Parameters
        ----------
        queries, records : float32 or float16 torch.Tensor, shapes (n, dim) and (n_records, dim)
            Both on one CUDA device, in C order and of one dtype.
        count : int
            At most FAISS_GPU_CANDIDATES, and n_records.

        Returns
        -------
        Neighbours
            Tensors of shape (n, count) on the device, nearest first.
        """
        import faiss
        import faiss.contrib.torch_utils  # lets faiss take tensors

        with self._lock:
            similarities, ids = faiss.knn_gpu(
                self._resources, queries, records, count,
                metric=faiss.METRIC_INNER_PRODUCT, device=records.device.index,
            )  # fmt: skip
        return Neighbours(ids, similarities)


def faiss_devices() -> int:
    """Number of CUDA devices that faiss can use; 0 where it is not installed, or for CPUs only."""
    if not has_faiss():
        return 0
    import faiss

    return int(faiss.get_num_gpus())


def _faiss_for(factory: str) -> Any:
    try:
        import faiss
    except ImportError as error:
        raise ImportError(
            f"the index {factory!r} needs faiss, which is not installed: "
            "pip install 'benchrouter[cpu]' (or faiss-cpu alone)"
        ) from error
    return faiss
