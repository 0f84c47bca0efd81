"""Requests that wait for their answers; each prompt takes the first answer that it gets."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from benchrouter.decisions.policy import Policy
from benchrouter.files.arrays import Rows
from benchrouter.serving.answer import Routed
from benchrouter.serving.routers import Served


class Pending:
    """The prompts of one request.

    Parameters
    ----------
    served : Served
        The router as it was when the request came.
    policy : Policy
    texts : sequence of (str or None)
        None where only an embedding is given, or the prompt is bad.
    rows : float32 array, shape (n_prompts, dim), optional
        Their embeddings.
    deadline_s : float
        Seconds from now; infinite = none.

    Attributes
    ----------
    started, deadline : float
        On the clock of `time.monotonic`.
    is_over : bool
        Whether it was answered or cancelled: the rest of its prompts need no work.
    was_let_in : bool
        Whether there was room for it in the queue.
    """

    def __init__(
        self,
        served: Served,
        policy: Policy,
        texts: Sequence[str | None],
        rows: Rows | None,
        deadline_s: float,
    ) -> None:
        self.served = served
        self.policy = policy
        self.texts = texts
        self.rows = rows
        self.started = time.monotonic()
        self.deadline = self.started + deadline_s
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
            if self.is_over:  # break the reference cycle, which would keep the router alive
                tell, self._when_over = self._when_over, None
        if tell is not None:
            tell()
        return True

    def cancel(self) -> None:
        """Want no more answers."""
        with self._lock:
            self.is_over = True
            self._when_over = None

    def unanswered(self) -> list[int]:
        """Prompts without an answer."""
        with self._lock:
            return [i for i, found in enumerate(self._answers) if found is None]

    def answers(self) -> list[Routed]:
        """All answers, once it is over."""
        answers = [routed for routed in self._answers if routed is not None]
        assert len(answers) == len(self._answers)
        return answers

    def when_over(self, tell: Callable[[], None]) -> None:
        """Call a function when it is over, in the thread that ends it; now if it is over."""
        with self._lock:
            if not self.is_over:
                self._when_over = tell
                return
        tell()


class _Wakeup:
    """Runs calls in an event loop, all that are due by then in one turn of the loop."""

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
        self._is_due = False  # first of all: calls that are added from now on schedule a new run
        while self._calls:
            self._calls.popleft()()


class _Local(threading.local):
    """The wakeup of the loop that ran last in a thread; ended loops are not kept."""

    wakeup: _Wakeup | None = None


_HERE = _Local()


async def wait_for(pending: Pending, expire: Callable[[], None]) -> None:
    """Wait in an event loop until a request is over; a cancelled wait cancels it.

    Parameters
    ----------
    pending : Pending
    expire : callable
        Called at its deadline; answers what is not answered.
    """
    if pending.is_over:
        return
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
        except RuntimeError:  # the loop is closed: nobody waits
            pending.cancel()

    pending.when_over(tell)
    timer = None
    if pending.deadline < float("inf"):
        timer = loop.call_later(max(0.0, pending.deadline - time.monotonic()), expire)
    try:
        await future
    except BaseException:  # cancelled, or the loop is closed
        pending.cancel()
        raise
    finally:
        if timer is not None:
            timer.cancel()


def wait_for_blocking(pending: Pending, expire: Callable[[], None]) -> None:
    """Wait in a thread until a request is over; an interrupted wait cancels it.

    Parameters
    ----------
    pending : Pending
    expire : callable
        Called at its deadline; answers what is not answered.
    """
    if pending.is_over:
        return
    over = threading.Event()
    pending.when_over(over.set)
    try:
        left = pending.deadline - time.monotonic()
        if not over.wait(None if left == float("inf") else max(0.0, left)):
            expire()
            over.wait()
    except BaseException:
        pending.cancel()
        raise
