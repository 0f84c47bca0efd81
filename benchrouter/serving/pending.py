"""A request that waits for its answers: prompts in, each answered once, whoever answers first."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.policy import Policy as RoutePolicy
from benchrouter.serving.answer import Routed
from benchrouter.serving.routers import Shelved


class Request:
    """Prompts that were asked for together.

    Parameters
    ----------
    found : Shelved
        The router as it was when they were asked.
    policy : RoutePolicy
    texts : sequence of (str or None)
        None where only an embedding is given, or the prompt is bad.
    rows : float32 array, shape (n_prompts, dim), optional
        Their embeddings.
    deadline : float
        On the clock of `time.monotonic`; infinite = none.

    Attributes
    ----------
    started : float
        On the same clock.
    is_over : bool
        Whether it was answered or cancelled: the rest of its prompts need no work.
    was_let_in : bool
        Whether there was room for it in the queue.
    """

    def __init__(
        self,
        found: Shelved,
        policy: RoutePolicy,
        texts: Sequence[str | None],
        rows: NDArray[np.float32] | None,
        deadline: float,
    ) -> None:
        self.found = found
        self.policy = policy
        self.texts = texts
        self.rows = rows
        self.deadline = deadline
        self.started = time.monotonic()
        self.is_over = len(texts) == 0
        self.was_let_in = False
        self._answers: list[Routed | None] = [None] * len(texts)
        self._left = len(texts)
        self._lock = threading.Lock()
        self._when_over: Callable[[], None] | None = None

    def answer(self, i: int, routed: Routed) -> bool:
        """Answer a prompt, unless it was answered before.

        Returns
        -------
        bool
            Whether this is its answer.
        """
        with self._lock:
            if self.is_over or self._answers[i] is not None:
                return False
            self._answers[i] = routed
            self._left -= 1
            self.is_over = self._left == 0
            tell = None
            if self.is_over:  # and not in a cycle with what tells, which would outlive its router
                tell, self._when_over = self._when_over, None
        if tell is not None:
            tell()
        return True

    def row(self, i: int) -> NDArray[np.float32]:
        """Embedding of a prompt, of a request that brings them."""
        assert self.rows is not None
        row: NDArray[np.float32] = self.rows[i]
        return row

    def cancel(self) -> None:
        """Want no answer any more."""
        with self._lock:
            self.is_over = True
            self._when_over = None

    def unanswered(self) -> list[int]:
        """Prompts without an answer."""
        with self._lock:
            return [i for i, found in enumerate(self._answers) if found is None]

    def answers(self) -> list[Routed]:
        """All answers, when it is over."""
        found = [routed for routed in self._answers if routed is not None]
        assert len(found) == len(self._answers)
        return found

    def when_over(self, tell: Callable[[], None]) -> None:
        """Call a function once it is over, from whichever thread ends it; at once if it is."""
        with self._lock:
            if not self.is_over:
                self._when_over = tell
                return
        tell()


class _Wakeup:
    """Wakes up those who wait in one event loop, all that are answered by then at once."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[Callable[[], None]] = deque()
        self._is_due = False

    def add(self, call: Callable[[], None]) -> None:
        """Call a function in the loop; from any thread.

        Raises
        ------
        RuntimeError
            If the loop is closed.
        """
        self._calls.append(call)
        if not self._is_due:
            self._is_due = True
            self.loop.call_soon_threadsafe(self._run)

    def _run(self) -> None:
        self._is_due = False  # before the first is taken: whoever adds later asks again
        while self._calls:
            self._calls.popleft()()


class _Local(threading.local):
    """Of the loop that ran in a thread last: loops that have ended are not kept."""

    wakeup: _Wakeup | None = None


_HERE = _Local()


async def wait_for(request: Request, expire: Callable[[], None]) -> None:
    """Wait in an event loop until a request is over; a cancelled wait cancels it.

    Parameters
    ----------
    request : Request
    expire : callable
        Called at its deadline; answers what is not answered.
    """
    loop = asyncio.get_running_loop()
    wakeup = _HERE.wakeup
    if wakeup is None or wakeup.loop is not loop:
        wakeup = _HERE.wakeup = _Wakeup(loop)
    future: asyncio.Future[None] = loop.create_future()

    def done() -> None:
        if not future.done():
            future.set_result(None)

    def tell() -> None:
        try:
            wakeup.add(done)
        except RuntimeError:  # the loop was closed: nobody waits any more
            request.cancel()

    request.when_over(tell)
    timer = None
    if request.deadline < float("inf"):
        timer = loop.call_later(max(0.0, request.deadline - time.monotonic()), expire)
    try:
        await future
    except BaseException:  # cancelled, or its loop has gone
        request.cancel()
        raise
    finally:
        if timer is not None:
            timer.cancel()


def wait_for_blocking(request: Request, expire: Callable[[], None]) -> None:
    """Wait in a thread until a request is over; an interrupted wait cancels it.

    Parameters
    ----------
    request : Request
    expire : callable
        Called at its deadline; answers what is not answered.
    """
    over = threading.Event()
    request.when_over(over.set)
    try:
        left = request.deadline - time.monotonic()
        if not over.wait(None if left == float("inf") else max(0.0, left)):
            expire()
            over.wait()
    except BaseException:
        request.cancel()
        raise
