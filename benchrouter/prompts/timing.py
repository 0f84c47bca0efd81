"""Where the time goes: seconds of every stage of the line, measured only when asked for.

A stage is timed in the thread that runs it, so that stages which overlap may add up to more than
the whole. What one of them costs the thread that uses it is the time it is waited for.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Stages:
    """Seconds by name of the stage; safe to add to from many threads.

    Attributes
    ----------
    seconds : dict of str to float
        Taken by the stages.
    waited : dict of str to float
        Waited for those that run in threads of their own (`benchrouter.prompts.read_ahead`).
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
        """What of a whole was no stage, and no waiting for one, of the thread that was timed.

        Parameters
        ----------
        whole : float
            Seconds.

        Returns
        -------
        float
            At least 0.
        """
        own = sum(s for name, s in self.seconds.items() if name not in self.waited)
        return max(0.0, whole - own - sum(self.waited.values()))


_measured: Stages | None = None


@contextmanager
def measuring() -> Iterator[Stages]:
    """Measure the stages that this process runs within the block.

    Yields
    ------
    Stages
        Filled as the work goes on.

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
        Where the block's work is done: a GPU is waited for before the clock is read, which it is
        not where nothing is measured.
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
    """Time a block as waiting for a stage of another thread, if stages are being measured.

    Parameters
    ----------
    name : str
    """
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
    """Time the making of items as a stage.

    Parameters
    ----------
    items : iterable
        Makes them when asked for the next.
    name : str

    Yields
    ------
    object
        The items.
    """
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
