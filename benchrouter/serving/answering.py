"""Answers to pending prompts: decisions, kept decisions and fallbacks."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchrouter.serving.answer import CAUSES, Cause, Routed
from benchrouter.serving.decision_cache import DecisionCache
from benchrouter.serving.observer import Observers
from benchrouter.serving.pending import Pending, wait_for, wait_for_blocking
from benchrouter.serving.queue import Job
from benchrouter.serving.routers import Routers

CHARACTERS_PER_TOKEN = 4  # of English prose; only the size of batches depends on it


class Answering:
    """Answers each prompt once; safe to share between threads.

    Parameters
    ----------
    routers : Routers
    cache_size : int
        Decisions kept for equal requests; 0 = none.
    observers : Observers
    """

    def __init__(self, routers: Routers, cache_size: int, observers: Observers) -> None:
        self._routers = routers
        self._cache = DecisionCache(cache_size)
        self._observers = observers
        self._waited_for: set[Pending] = set()

    @property
    def waiting(self) -> list[Pending]:
        """Requests that somebody waits for."""
        return [pending for pending in list(self._waited_for) if not pending.is_over]

    def jobs(self, pending: Pending) -> list[Job]:
        """Answer what was decided before; the unanswered prompts that are left, as jobs."""
        info, jobs = pending.served.info, []
        for i in pending.unanswered():
            text, kept = None if pending.rows is not None else pending.texts[i], None
            if text is not None:
                kept = self._cache.get(info.name, info.version, pending.policy.key, text)
            if kept is not None:
                self._answer(pending, i, kept)
            else:
                jobs.append(Job(pending, i, 1 + len(text or "") // CHARACTERS_PER_TOKEN))
        return jobs

    def answer(self, job: Job, routed: Routed) -> None:
        """Answer by a decision, and keep it for equal requests."""
        pending, text = job.pending, job.pending.texts[job.place]
        if pending.rows is None and text is not None:
            self._cache.put(routed, pending.policy.key, text)
        self._answer(pending, job.place, routed)

    def give_up(self, pending: Pending, i: int, cause: Cause, why: str = "") -> None:
        """Answer by the fallback."""
        info = self._routers.now(pending.served).info
        ranking = pending.policy.known_among(info.standing) or info.standing
        routed = Routed(
            model=ranking[0],
            ranking=ranking,
            scores=(None,) * len(ranking),
            fallback=True,
            cause=cause,
            reason=CAUSES[cause] + (f": {why}" if why else ""),
            score=None,
            margin=None,
            distance=None,
            cost_usd=None,
            over_limit=None,
            truncated=False,
            cached=False,
            router=info.name,
            version=info.version,
        )
        self._answer(pending, i, routed)

    def give_up_jobs(self, jobs: list[Job], cause: Cause, why: str = "") -> None:
        """Answer by the fallback."""
        for job in jobs:
            self.give_up(job.pending, job.place, cause, why)

    def give_up_rest(self, pending: Pending, cause: Cause) -> None:
        """Answer by the fallback what is not answered yet."""
        for i in pending.unanswered():
            self.give_up(pending, i, cause)

    async def wait(self, pending: Pending) -> list[Routed]:
        """Wait in an event loop for the answers, no longer than until the deadline."""
        with self._awaited(pending):
            await wait_for(pending, lambda: self._expire(pending))
        return pending.answers()

    def wait_blocking(self, pending: Pending) -> list[Routed]:
        """Wait in a thread for the answers, no longer than until the deadline."""
        with self._awaited(pending):
            wait_for_blocking(pending, lambda: self._expire(pending))
        return pending.answers()

    @contextmanager
    def _awaited(self, pending: Pending) -> Iterator[None]:
        self._waited_for.add(pending)
        try:
            yield
        finally:
            self._waited_for.discard(pending)

    def _expire(self, pending: Pending) -> None:
        self.give_up_rest(pending, "deadline" if pending.was_let_in else "overloaded")

    def _answer(self, pending: Pending, i: int, routed: Routed) -> None:
        if pending.answer(i, routed):
            seconds = time.monotonic() - pending.started
            self._observers.answered(routed, pending.texts[i], seconds)
