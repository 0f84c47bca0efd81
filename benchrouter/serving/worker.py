"""A thread for every device: jobs to embeddings to decisions."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.ranking import Ranking
from benchrouter.files.plain import plain
from benchrouter.serving.answer import CAUSES, Cause, Routed
from benchrouter.serving.messages import LONGEST
from benchrouter.serving.observer import log
from benchrouter.serving.queue import Job, Queue
from benchrouter.serving.routers import RouterInfo, Shelf, Shelved

RETRY_S = 1.0  # after which a device that failed is tried again
HANG_S = 30.0  # at one batch, after which a device counts as one that hangs
Item = TypeVar("Item")


class Worker(threading.Thread):
    """Works off the queue on one device, until it is closed.

    Parameters
    ----------
    device : str
    queue : Queue
    shelf : Shelf
    answer : callable
        Takes a job and its answer.
    give_up : callable
        Takes a job, a cause and more words; answers by the fallback.
    tell_batch : callable
        Takes the device, the number of prompts and of tokens, and the seconds.
    aside : callable
        Takes a function without arguments, and calls it in another thread.
    """

    def __init__(
        self,
        device: str,
        queue: Queue,
        shelf: Shelf,
        answer: Callable[[Job, Routed], None],
        give_up: Callable[[Job, Cause, str], None],
        tell_batch: Callable[[str, int, int, float], None],
        aside: Callable[[Callable[[], None]], None],
    ) -> None:
        super().__init__(name=f"benchrouter-{device}", daemon=True)
        self.device = device
        self.others: list[Worker] = []
        self.failure: str | None = None
        self._failed_at = 0.0
        self._busy_since: float | None = None
        self._queue = queue
        self._shelf = shelf
        self._answer = answer
        self._give_up = give_up
        self._tell_batch = tell_batch
        self._aside = aside

    @property
    def trouble(self) -> str | None:
        """Why the device does not work, None where it does."""
        since = self._busy_since
        if since is not None and time.monotonic() - since > HANG_S:
            return f"it hangs: for {time.monotonic() - since:.0f} s it has been at one batch"
        return self.failure

    def run(self) -> None:
        """Take batches until there are none."""
        while self._work():
            pass

    def _work(self) -> bool:
        """Take a batch and work it off; whether there may be another."""
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
            for job in taken.late:
                self._give_up(job, "deadline", "")
            self._work_off(taken.batch)
            if self.failure is None:
                seconds = time.monotonic() - start
        except BaseException as e:  # a panic in Rust, say: nothing may end this thread
            log.exception("a batch failed on %s", self.device)
            for job in taken.batch:
                self._give_up(job, "error", str(e))
        finally:
            self._busy_since = None
            self._queue.done(taken, seconds)
        return True

    def _stand_back(self) -> None:
        """Leave the work to others for a while where this device failed and theirs have not."""
        while self.failure is not None and any(other.failure is None for other in self.others):
            left = self._failed_at + RETRY_S - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.05))

    def _probe(self) -> None:
        """Try a device that failed while nobody asks for it, so that it can be ready again."""
        try:
            self._embed(["probe"], self._shelf.get(self._shelf.names[0]))
        except BaseException as e:
            self._failed(e)

    def _work_off(self, jobs: list[Job]) -> None:
        """Answer all jobs."""
        start, n_tokens = time.monotonic(), 0
        embedded = [job for job in jobs if job.request.rows is not None]
        for own in _grouped(embedded, lambda job: id(job.request.found)):
            rows = np.stack([job.request.row(job.place) for job in own])
            self._decide(own, rows, [False] * len(own))
        jobs = [job for job in jobs if job.request.rows is None]
        for own in _grouped(jobs, lambda job: id(job.request.found.encoders[self.device])):
            try:
                texts = [job.request.texts[job.place] or "" for job in own]
                rows, truncated, n = self._embed(texts, own[0].request.found)
            except BaseException as e:  # of any kind: torch, CUDA, tokenizers
                self._device_failed(own, e)
                continue
            n_tokens += n
            self._decide(own, rows, truncated)
        if n_tokens:
            self._tell_batch(self.device, len(jobs), n_tokens, time.monotonic() - start)

    def _embed(
        self, texts: list[str], shelved: Shelved
    ) -> tuple[NDArray[np.float32], list[bool], int]:
        """Rows of texts, which of them were too long, and the tokens."""
        if self.failure is not None and time.monotonic() < self._failed_at + RETRY_S:
            raise _StillBroken(self.failure)
        encoder = shelved.encoders[self.device]
        tokenised = encoder.tokenise(texts)
        rows = encoder.encode_tensor(tokenised, warn=False).cpu().numpy()
        if self.failure is not None:
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
        for job in jobs:
            self._give_up(job, "encoder", str(error))

    def _decide(
        self, jobs: list[Job], rows: NDArray[np.float32], truncated: Sequence[bool]
    ) -> None:
        """Decide on jobs whose embeddings are known, those of like requests together."""
        for own in _grouped(range(len(jobs)), lambda i: _kind(jobs[i])):
            like, cut = [jobs[i] for i in own], [truncated[i] for i in own]
            policy, router = like[0].request.policy, like[0].request.found.router
            if router.decider.is_calibrated(policy):
                self._rank(like, rows[own], cut)
            else:  # this takes seconds, for which nobody else is to wait
                self._aside(partial(self._rank, like, rows[own], cut))

    def _rank(self, jobs: list[Job], rows: NDArray[np.float32], truncated: Sequence[bool]) -> None:
        """Rank the models for jobs of one router and policy, unless nobody waits any more."""
        if all(job.request.is_over for job in jobs):
            return
        found, policy = self._shelf.now(jobs[0].request.found), jobs[0].request.policy
        allowed = policy.known_among(found.info.models)
        if not allowed:
            for job in jobs:
                self._give_up(job, "no_model", f"{list(policy.models or ())}")
            return
        texts = [job.request.texts[job.place] for job in jobs]
        try:
            ranking = found.router.rank(
                None if None in texts else [text for text in texts if text is not None],
                embeddings=rows,
                policy=policy if policy.models is None else replace(policy, models=allowed),
            )
        except BaseException as e:
            log.exception("router %r failed", found.info.name)
            for job in jobs:
                self._give_up(job, "error", str(e))
            return
        for i, job in enumerate(jobs):
            self._answer(job, routed_of(ranking, i, found.info, policy.rule, truncated[i]))


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

    Returns
    -------
    Routed
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


def _reason(names: tuple[str, ...], scores: NDArray[np.float32], rule: str) -> str:
    """Why the first of the models in their order is chosen where cost does not count."""
    if rule != "auto":
        return f"{names[0]} has the largest score under the rule {rule!r}"
    best = int(scores.argmax())
    if scores[best] == scores[0]:
        return f"{names[0]} has the largest expected score, {scores[0]:.3f}"
    return (
        f"{names[0]} is preferred: {names[best]} is ahead by {scores[best] - scores[0]:.3f}, but "
        "held-out records do not bear out such leads"
    )


def _at(values: NDArray[np.float32] | None, i: int) -> float | None:
    return None if values is None else plain(float(values[i]))


def _kind(job: Job) -> Hashable:
    """What prompts that are decided on in one call have in common."""
    request = job.request
    return id(request.found), request.policy.key, request.texts[job.place] is None


def _grouped(items: Sequence[Item], key: Callable[[Item], Hashable]) -> list[list[Item]]:
    groups: dict[Hashable, list[Item]] = {}
    for item in items:
        groups.setdefault(key(item), []).append(item)
    return list(groups.values())
