"""Prompts that wait for a device: first in, first out, taken in batches of tokens."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import NamedTuple

from benchrouter.serving.pace import Pace
from benchrouter.serving.pending import Pending

# Work that is done too late is lost. A prompt is taken first if the time to its deadline is SAFE
# times the expected time of the batch, and into the room that is left if it is MARGIN times that.
SAFE, MARGIN = 3.0, 1.5
MOST_TIGHT = 1000  # prompts passed over in search of some that have more time left


class Job(NamedTuple):
    """One prompt of a request."""

    pending: Pending
    place: int
    n_tokens: int
    """Estimated, at least 1."""
    was_put_back: bool = False
    """Whether the device of another worker failed on it."""


class Taken(NamedTuple):
    """Jobs that a worker takes."""

    batch: list[Job]
    late: list[Job]
    """Jobs that would miss their deadline."""


class Queue:
    """Jobs of all requests; safe to share between threads.

    Parameters
    ----------
    most : int
        Prompts in the queue. Requests wait outside, in order, until there is room; a request with
        more prompts than `most` comes in when the queue is empty.
    pace : Pace
    """

    def __init__(self, most: int, pace: Pace) -> None:
        self.most = most
        self._pace = pace
        self._jobs: deque[Job] = deque()
        self._n_tokens = 0
        self._outside: deque[list[Job]] = deque()
        self._batches_at_work = 0
        self._closed = False
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Count the prompts in the queue and outside."""
        with self._changed:
            return len(self._jobs) + sum(map(len, self._outside))

    def put(self, jobs: list[Job]) -> bool:
        """Add the jobs of one request.

        Returns
        -------
        bool
            Whether the queue is open; otherwise nothing was added.
        """
        with self._changed:
            if self._closed:
                return False
            self._pace.arrived(time.monotonic(), len(jobs))
            self._outside.append(jobs)
            self._let_in()
            self._changed.notify_all()
            return True

    def take(self, timeout_s: float | None = None) -> Taken | None:
        """Wait for jobs and take a batch.

        Parameters
        ----------
        timeout_s : float, optional
            Longest wait.

        Returns
        -------
        Taken or None
            Empty if no job came in time; None once the queue is closed and empty.
        """
        with self._changed:
            while True:
                if not self._changed.wait_for(lambda: self._jobs or self._closed, timeout_s):
                    return Taken([], [])
                if not self._jobs:
                    return None
                self._wait_for_more()
                taken = self._pop()
                self._let_in()
                if taken.batch or taken.late:
                    self._batches_at_work += 1
                    return taken

    def done(self, taken: Taken, seconds: float | None) -> None:
        """Report that a batch is done, and its seconds; None = it failed."""
        with self._changed:
            if taken.batch and seconds is not None:
                self._pace.worked(sum(job.n_tokens for job in taken.batch), seconds)
            self._batches_at_work -= 1
            self._changed.notify_all()

    def put_back(self, jobs: list[Job]) -> None:
        """Put jobs back to the front, for another worker."""
        with self._changed:
            self._jobs.extendleft(job._replace(was_put_back=True) for job in reversed(jobs))
            self._n_tokens += sum(job.n_tokens for job in jobs)
            self._changed.notify_all()

    def wait_until_idle(self, timeout_s: float) -> bool:
        """Wait until no job waits and no batch is at work; False if that takes too long."""
        with self._changed:
            return self._changed.wait_for(
                lambda: not self._jobs and not self._outside and not self._batches_at_work,
                timeout_s,
            )

    def close(self) -> list[Job]:
        """Take no more jobs, wake up the workers, and return the jobs that are left."""
        with self._changed:
            self._closed = True
            left = [*self._jobs, *(job for jobs in self._outside for job in jobs)]
            self._jobs.clear()
            self._outside.clear()
            self._n_tokens = 0
            self._changed.notify_all()
            return left

    def _let_in(self) -> None:
        while self._jobs and self._jobs[0].pending.is_over:  # they would stay while no device works
            self._n_tokens -= self._jobs.popleft().n_tokens
        while self._outside:
            jobs = self._outside[0]
            if jobs[0].pending.is_over:
                self._outside.popleft()
                continue
            if self._jobs and len(self._jobs) + len(jobs) > self.most:
                return
            self._outside.popleft()
            jobs[0].pending.was_let_in = True
            self._jobs.extend(jobs)
            self._n_tokens += sum(job.n_tokens for job in jobs)

    def _wait_for_more(self) -> None:
        until = time.monotonic() + self._pace.wait_s()
        most = self._pace.batch_tokens()
        while not self._closed and self._n_tokens < most:
            left = until - time.monotonic()
            if left <= 0:
                return
            self._changed.wait(left)

    def _pop(self) -> Taken:
        """Take the jobs that are sure to be in time, then those that may be."""
        batch: list[Job] = []
        late: list[Job] = []
        tight: deque[Job] = deque()
        now, most, n_tokens = time.monotonic(), self._pace.batch_tokens(), 0

        def fits(job: Job) -> bool:
            return not batch or n_tokens + job.n_tokens <= most

        def in_time(job: Job, margin: float) -> bool:
            needed_s = margin * self._pace.expected_s(n_tokens + job.n_tokens)
            return now + needed_s <= job.pending.deadline

        while self._jobs and fits(self._jobs[0]) and len(tight) < MOST_TIGHT:
            job = self._jobs.popleft()
            self._n_tokens -= job.n_tokens
            if job.pending.is_over:
                continue
            if in_time(job, SAFE):
                batch.append(job)
                n_tokens += job.n_tokens
            else:
                tight.append(job)
        while tight and fits(tight[0]):
            job = tight.popleft()
            if in_time(job, MARGIN):
                batch.append(job)
                n_tokens += job.n_tokens
            else:
                late.append(job)
        self._jobs.extendleft(reversed(tight))
        self._n_tokens += sum(job.n_tokens for job in tight)
        if late and not batch:
            self._pace.was_too_slow()
        return Taken(batch, late)
