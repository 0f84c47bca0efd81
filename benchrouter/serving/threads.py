"""Threads beside the devices' own: one for slow decisions, one that does something now and then."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue

from benchrouter.serving.observer import log


class Aside(threading.Thread):
    """Makes calls that take seconds, one after the other; what they raise is logged."""

    def __init__(self) -> None:
        super().__init__(name="benchrouter-aside", daemon=True)
        self._calls: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self.start()

    def put(self, call: Callable[[], None]) -> None:
        """Make a call after those that came before."""
        self._calls.put(call)

    def stop(self) -> None:
        """End after the calls that are waiting."""
        self._calls.put(None)

    def run(self) -> None:
        """Make the calls."""
        while (call := self._calls.get()) is not None:
            try:
                call()
            except BaseException:
                log.exception("a decision failed")


class Watch(threading.Thread):
    """Makes the same call every so many seconds; what it raises is logged."""

    def __init__(self, every_s: float, call: Callable[[], object]) -> None:
        super().__init__(name="benchrouter-reload", daemon=True)
        self._every_s = every_s
        self._call = call
        self._stopped = threading.Event()
        self.start()

    def stop(self) -> None:
        """Make no further call."""
        self._stopped.set()

    def run(self) -> None:
        """Call again and again."""
        while not self._stopped.wait(self._every_s):
            try:
                self._call()
            except Exception:
                log.exception("checking the routers' directories failed")
