"""Threads that each run whole batches on one core.

On a CPU two batches side by side, each on one core, are faster than one after the other on two: no
core waits for another within an operator, and each batch stays in its core's cache. There are
`torch.get_num_threads()` threads, so that OMP_NUM_THREADS and torch.set_num_threads limit them too.
No thread runs an OpenMP team of its own, nor does the extension (csrc/common/threads.hpp), so that
no two pools compete for the same cores.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

Batch = TypeVar("Batch")
Result = TypeVar("Result")


class Workers:
    """Threads for the batches of one encoder, started when first needed; safe to share.

    Parameters
    ----------
    count : int
        Threads; with 1 everything runs in the caller's.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self._lock = threading.Lock()
        self._pool: ThreadPoolExecutor | None = None
        self._process = os.getpid()

    def map(self, run: Callable[[Batch], Result], batches: Sequence[Batch]) -> Iterator[Result]:
        """Run a function on every batch.

        Parameters
        ----------
        run : callable
        batches : sequence
            A single batch runs in the caller's thread, with as many cores as torch may use.

        Yields
        ------
        object
            Results in the order of the batches. The first error reaches the caller.
        """
        if self.count == 1 or len(batches) < 2:
            yield from map(run, batches)
            return
        yield from self._started().map(run, batches)

    def _started(self) -> ThreadPoolExecutor:
        with self._lock:
            if self._pool is None or self._process != os.getpid():  # threads do not survive a fork
                self._process = os.getpid()
                self._pool = _pool_of_single_threads(self.count)
            return self._pool


def _pool_of_single_threads(count: int) -> ThreadPoolExecutor:
    import torch

    usual = torch.get_num_threads()
    everyone = threading.Barrier(count + 1)

    def single() -> None:
        torch.get_num_threads()  # otherwise the first operator would reset this thread's number
        torch.set_num_threads(1)  # for this thread and for new ones
        everyone.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="benchrouter-encoder")
    started = [pool.submit(single) for _ in range(count)]
    everyone.wait()
    torch.set_num_threads(usual)  # new threads get the usual number again
    for future in started:
        future.result()
    return pool
