"""Where the time goes: seconds of every stage of the line, measured only when asked for.

A stage is timed in the thread that runs it, so that stages which overlap may add up to more than
the whole.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TypeVar

Item = TypeVar("Item")


class Stages:
    """Seconds by name of the stage; safe to add to from many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.seconds: dict[str, float] = {}

    def add(self, name: str, seconds: float) -> None:
        """Add to a stage."""
        with self._lock:
            self.seconds[name] = self.seconds.get(name, 0.0) + seconds


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


def staged(items: Iterable[Item], name: str) -> Iterator[Item]:
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
