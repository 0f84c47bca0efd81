"""One thread for each device: it takes jobs, embeds their prompts and decides."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np

from benchrouter.decisions.ranking import Ranking
from benchrouter.embeddings.of_prompts import UnitRows
from benchrouter.files.arrays import Floats
from benchrouter.files.plain import plain
from benchrouter.serving.answer import CAUSES, Cause, Routed
from benchrouter.serving.answering import Answering
from benchrouter.serving.messages import LONGEST
from benchrouter.serving.observer import Observers, log
from benchrouter.serving.queue import Job, Queue
from benchrouter.serving.routers import RouterInfo, Routers, Served

RETRY_S = 1.0  # until a device that failed is tried again
HANG_S = 30.0  # at one batch, until a device counts as hanging
Item = TypeVar("Item")


class Worker(threading.Thread):
    """Takes batches from the queue and answers them on one device, until the queue is closed.

    Parameters
    ----------
    device : str
    queue : Queue
    routers : Routers
    answering : Answering
    observers : Observers
        Told of batches.
    aside : callable
        Takes a function without arguments, and calls it in another thread.

    Attributes
    ----------
    others : list of Worker
        Workers of other devices, set once all are made.
    failure : str or None
        Why the device failed at its last batch.
    """

    def __init__(
        self,
        device: str,
        queue: Queue,
        routers: Routers,
        answering: Answering,
        observers: Observers,
        aside: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__(name=f"benchrouter-{device}", daemon=True)
        self.device = device
        self.others: list[Worker] = []
        self.failure: str | None = None
        self._failed_at = 0.0
        self._busy_since: float | None = None
        self._queue = queue
        self._routers = routers
        self._answering = answering
        self._observers = observers
        self._aside = aside

    @property
    def trouble(self) -> str | None:
        """Why the device does not work; None if it works."""
        since = self._busy_since
        if since is not None and time.monotonic() - since > HANG_S:
            return f"it hangs: for {time.monotonic() - since:.0f} s it has been at one batch"
        return self.failure

    def run(self) -> None:
        """Take batches until there are none."""
        while self._work():
            pass

    def _work(self) -> bool:
        """Take a batch and answer it; False once the queue is closed and empty."""
        self._stand_back()
        taken = self._queue.take(None if self.failure is None else RETRY_S)
        if taken is None:
            return False
        if not taken.batch and not taken.late:
            self._probe()
            return True
        self._busy_since = start = time.monotonic()
        seconds = None
        try:
            self._answering.give_up_jobs(taken.late, "deadline")
            self._work_off(taken.batch)
            if self.failure is None:
                seconds = time.monotonic() - start
        except BaseException as e:  # even a panic in Rust must not end this thread
            log.exception("a batch failed on %s", self.device)
            self._answering.give_up_jobs(taken.batch, "error", str(e))
        finally:
            self._busy_since = None
            self._queue.done(taken, seconds)
        return True

    def _stand_back(self) -> None:
        """Leave the work to others for a while if this device failed and theirs did not."""
        while self.failure is not None and any(other.failure is None for other in self.others):
            left = self._failed_at + RETRY_S - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))

    def _probe(self) -> None:
        """Try a failed device while no prompt is there, so that it becomes ready again."""
        try:
            self._embed(["probe"], self._routers.get(self._routers.names[0]))
        except BaseException as e:
            self._failed(e)

    def _work_off(self, jobs: list[Job]) -> None:
        """Answer all jobs."""
        embedded = [job for job in jobs if job.pending.rows is not None]
        for own in _grouped(embedded, lambda job: id(job.pending.served)):
            rows = [job.pending.rows[job.place] for job in own if job.pending.rows is not None]
            self._decide(own, np.stack(rows), [False] * len(own))
        plain = [job for job in jobs if job.pending.rows is None]
        start, n_tokens = time.monotonic(), 0
        for own in _grouped(plain, lambda job: id(job.pending.served.encoders[self.device])):
            n_tokens += self._encode_and_decide(own)
        if n_tokens:
            self._observers.batch(self.device, len(plain), n_tokens, time.monotonic() - start)

    def _encode_and_decide(self, jobs: list[Job]) -> int:
        """Answer jobs of one encoder; how many tokens they had."""
        try:
            texts = [job.pending.texts[job.place] or "" for job in jobs]
            rows, truncated, n_tokens = self._embed(texts, jobs[0].pending.served)
        except BaseException as e:  # of any kind: torch, CUDA, tokenizers
            self._device_failed(jobs, e)
            return 0
        self._decide(jobs, rows, truncated)
        return n_tokens

    def _embed(self, texts: list[str], served: Served) -> tuple[UnitRows, list[bool], int]:
        """Rows of texts, which texts were too long, and the number of tokens."""
        if self.failure is not None and time.monotonic() < self._failed_at + RETRY_S:
            raise _StillBroken(self.failure)
        encoder = served.encoders[self.device]
        tokenised = encoder.tokenise(texts)
        rows = encoder.encode_tensor(tokenised, warn=False)
        if self.failure is not None:
            rows.cpu()  # wait for the device, which may fail again
            log.warning("%s works again", self.device)
            self.failure = None
        cut = [len(text) >= LONGEST for text in texts]
        return rows, (tokenised.truncated | np.array(cut)).tolist(), tokenised.n_tokens

    def _failed(self, error: BaseException) -> None:
        if not isinstance(error, _StillBroken):
            if self.failure is None:
                log.error("%s failed: %s", self.device, error)
            self.failure, self._failed_at = str(error) or type(error).__name__, time.monotonic()

    def _device_failed(self, jobs: list[Job], error: BaseException) -> None:
        self._failed(error)
        if any(other.failure is None for other in self.others):
            self._queue.put_back([job for job in jobs if not job.was_put_back])
            jobs = [job for job in jobs if job.was_put_back]
        self._answering.give_up_jobs(jobs, "encoder", str(error))

    def _decide(self, jobs: list[Job], rows: UnitRows, truncated: Sequence[bool]) -> None:
        """Decide on embedded jobs, those of like requests together."""
        for own in _grouped(range(len(jobs)), lambda i: _kind(jobs[i])):
            like, cut = [jobs[i] for i in own], [truncated[i] for i in own]
            pending = like[0].pending
            if pending.served.deciders[self.device].is_calibrated(pending.policy):
                self._rank(like, rows[own], cut)
            else:  # this takes seconds; nobody else should wait for it
                self._aside(partial(self._rank, like, rows[own], cut))

    def _rank(self, jobs: list[Job], rows: UnitRows, truncated: Sequence[bool]) -> None:
        """Rank the models for jobs of one router and policy, unless nobody waits any more."""
        if all(job.pending.is_over for job in jobs):
            return
        served, policy = self._routers.now(jobs[0].pending.served), jobs[0].pending.policy
        allowed = policy.known_among(served.info.models)
        if not allowed:
            self._answering.give_up_jobs(jobs, "no_model", f"{list(policy.models or ())}")
            return
        texts = [job.pending.texts[job.place] for job in jobs]
        if policy.models is not None:
            policy = replace(policy, models=allowed)
        prompts = None if None in texts else [text for text in texts if text is not None]
        try:
            ranking = served.deciders[self.device].rank(rows, policy, prompts)
        except BaseException as e:
            if self.device != "cpu" and isinstance(e, RuntimeError):  # as CUDA's errors are
                self._device_failed(jobs, e)
                return
            log.exception("router %r failed", served.info.name)
            self._answering.give_up_jobs(jobs, "error", str(e))
            return
        for i, job in enumerate(jobs):
            routed = routed_of(ranking, i, served.info, policy.rule, truncated[i])
            self._answering.answer(job, routed)


def start_workers(
    devices: Sequence[str],
    queue: Queue,
    routers: Routers,
    answering: Answering,
    observers: Observers,
    aside: Callable[[Callable[[], None]], None],
) -> list[Worker]:
    """Start one worker for each device; parameters as of :class:`Worker`."""
    shared = (queue, routers, answering, observers, aside)
    workers = [Worker(device, *shared) for device in devices]
    for worker in workers:
        worker.others = [other for other in workers if other is not worker]
        worker.start()
    return workers


class _StillBroken(RuntimeError):
    """The device failed a moment ago and was not tried."""


def routed_of(
    ranking: Ranking, i: int, info: RouterInfo, rule: str, truncated: bool = False
) -> Routed:
    """One decision of a ranking, as it is answered.

    Parameters
    ----------
    ranking : Ranking
    i : int
        Position of the prompt.
    info : RouterInfo
    rule : str
    truncated : bool
    """
    decisions = ranking.decisions
    order = ranking.order[i].tolist()
    names = tuple(decisions.models[m] for m in order)
    distance = float(decisions.distance[i])
    fallback = bool(decisions.fallback[i])
    limit = info.description["distance_limit"]
    cause: Cause | None = None
    scores = ranking.scores[i][order]
    over_limit = None if decisions.over_limit is None else bool(decisions.over_limit[i])
    reason = _reason(names, scores, rule)
    if fallback:
        cause = "far" if limit is not None and distance > limit else "no_votes"
        reason = CAUSES[cause]
        if cause == "far":
            reason += f": its distance is {distance:.3f}, theirs at most {limit:.3f}"
    elif over_limit:
        reason = f"no model is expected to cost as little as asked: {names[0]} is the cheapest"
    elif decisions.cost_usd is not None:
        reason = f"{names[0]} is the choice of the cost policy under the rule {rule!r}"
    return Routed(
        model=names[0],
        ranking=names,
        scores=tuple(plain(score) for score in scores.tolist()),
        fallback=fallback,
        cause=cause,
        reason=reason,
        score=plain(float(decisions.score[i])),
        margin=plain(float(decisions.margin[i])),
        distance=plain(distance),
        chance=_at(decisions.chance, i),
        chance_low=_at(decisions.chance_low, i),
        chance_high=_at(decisions.chance_high, i),
        cost_usd=_at(decisions.cost_usd, i),
        over_limit=over_limit,
        truncated=truncated,
        cached=False,
        router=info.name,
        version=info.version,
    )


def _reason(names: tuple[str, ...], scores: Floats, rule: str) -> str:
    """Why the first model is chosen if cost does not count."""
    if rule != "auto":
        return f"{names[0]} has the largest score under the rule {rule!r}"
    best = int(scores.argmax())
    if scores[best] == scores[0]:
        return f"{names[0]} has the largest expected score, {scores[0]:.3f}"
    return (
        f"{names[0]} is preferred: {names[best]} is ahead by {scores[best] - scores[0]:.3f}, but "
        "held-out records do not bear out such leads"
    )


def _at(values: Floats | None, i: int) -> float | None:
    return None if values is None else plain(float(values[i]))


def _kind(job: Job) -> Hashable:
    """What is equal for all prompts of one call of the router."""
    pending = job.pending
    return id(pending.served), pending.policy.key, pending.texts[job.place] is None


def _grouped(items: Sequence[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())
