"""Threads that each run whole batches on one core.

On a CPU two batches side by side, each on one core, take less time than one after the other on two:
no core waits for another within an operator, and each batch stays in its core's own cache. The
threads are torch's own only in number: `torch.get_num_threads()` of them, so that OMP_NUM_THREADS
and torch.set_num_threads bind them too. A thread runs no OpenMP team of its own, and neither does
the extension (csrc/common/threads.hpp), so that no two pools wait for the same cores.
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
            if self._pool is None or self._process != os.getpid():  # threads survive no fork
                self._process = os.getpid()
                self._pool = _pool_of_single_threads(self.count)
            return self._pool


def _pool_of_single_threads(count: int) -> ThreadPoolExecutor:
    import torch

    usual = torch.get_num_threads()
    everyone = threading.Barrier(count + 1)

    def single() -> None:
        torch.get_num_threads()  # or the first operator would set this thread's number anew
        torch.set_num_threads(1)  # of this thread, and of threads that are yet to come
        everyone.wait()

    pool = ThreadPoolExecutor(count, thread_name_prefix="benchrouter-encoder")
    started = [pool.submit(single) for _ in range(count)]
    everyone.wait()
    torch.set_num_threads(usual)  # for those the number is as it was
    for future in started:
        future.result()
    return pool
