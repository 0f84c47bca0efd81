"""Where the time goes: seconds of every stage, measured only when asked for.

A stage is timed in the thread that runs it, so stages that overlap may add up to more than the
whole. The time that the main thread waits for a stage is counted apart.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Stages:
    """Seconds by name of the stage; many threads may add to them.

    Attributes
    ----------
    seconds : dict of str to float
        That the stages took.
    waited : dict of str to float
        That the main thread waited for stages in other threads (`benchrouter.prompts.read_ahead`).
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}
        self.waited: dict[str, float] = {}

    def add(self, name: str, seconds: float) -> None:
        """Add to a stage."""
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds

    def add_wait(self, name: str, seconds: float) -> None:
        """Add to the time that a stage was waited for."""
        with self._lock:
            self.waited[name] = self.waited.get(name, 0.0) + seconds

    def rest(self, whole: float) -> float:
        """Seconds of the whole that were spent neither in a stage nor waiting for one."""
        own = sum(s for name, s in self.seconds.items() if name not in self.waited)
        return max(0.0, whole - own - sum(self.waited.values()))


_measured: Stages | None = None


@contextmanager
def measuring() -> Iterator[Stages]:
    """Measure the stages that this process runs within the block.

    Raises
    ------
    RuntimeError
        If they are being measured already.
    """
    global _measured
    if _measured is not None:
        raise RuntimeError("the stages of this process are being measured already")
    _measured = stages = Stages()
    try:
        yield stages
    finally:
        _measured = None


@contextmanager
def stage(name: str, device: str = "cpu") -> Iterator[None]:
    """Time a block as a stage, if stages are being measured.

    Parameters
    ----------
    name : str
    device : str
        Where the work is done. A GPU finishes what it has before the clock is read.
    """
    stages = _measured
    if stages is None:
        yield
        return
    _wait_for(device)
    start = time.perf_counter()
    try:
        yield
    finally:
        _wait_for(device)
        stages.add(name, time.perf_counter() - start)


@contextmanager
def waiting_for(name: str) -> Iterator[None]:
    """Time a block as waiting for a stage of another thread, if stages are being measured."""
    stages = _measured
    if stages is None:
        yield
        return
    start = time.perf_counter()
    try:
        yield
    finally:
        stages.add_wait(name, time.perf_counter() - start)


def staged(items: Iterable[Item], name: str) -> Generator[Item, None, None]:
    """Yield the items, and time the making of each as a stage."""
    each = iter(items)
    while True:
        with stage(name):
            try:
                item = next(each)
            except StopIteration:
                return
        yield item


def _wait_for(device: str) -> None:
    if device != "cpu":
        import torch

        torch.cuda.synchronize(device)
