"""The engine: requests from event loops and threads in, decisions out, in time and without fail."""

from __future__ import annotations

import asyncio
import atexit
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from queue import SimpleQueue
from typing import Any, TypeAlias, TypeVar, cast, overload

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import Explanation, TaskDecision
from benchrouter.decisions.policy import Policy as RoutePolicy
from benchrouter.decisions.task import Score
from benchrouter.embeddings import Encoder, as_unit_rows
from benchrouter.embeddings.batching import windows
from benchrouter.embeddings.devices import check_device
from benchrouter.router import Router
from benchrouter.serving.answer import CAUSES, Cause, Routed
from benchrouter.serving.decision_cache import DecisionCache
from benchrouter.serving.encoders import Encoders
from benchrouter.serving.messages import LONGEST, Message, Prompt, text_of
from benchrouter.serving.observer import Observer, Observers, log
from benchrouter.serving.pace import Pace
from benchrouter.serving.pending import Request, wait_for, wait_for_blocking
from benchrouter.serving.queue import Job, Queue
from benchrouter.serving.routers import RouterInfo, Shelf, Shelved, Source
from benchrouter.serving.worker import Worker

Prompts: TypeAlias = Prompt | Sequence[str] | Sequence[Sequence[Message]] | None
Result = TypeVar("Result")
CHARACTERS_PER_TOKEN = 4  # of English prose; only the size of batches depends on it
BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}
DRAIN_S = 30.0
EXIT_S = 5.0  # that an engine nobody closed has for it at the end of the program
LONGEST_S = 1e9  # 30 years; beyond 292, Python waits for nothing
PIECE_CHARACTERS = 100_000  # of a task that are encoded before it is asked whether anybody waits


class Engine:
    """Routes prompts for many callers at once; safe to use from event loops and threads.

    Prompts that come within a moment of each other are embedded and decided together, on each
    device by a thread of its own. How long that moment is, and how many tokens go into a batch,
    follows from the load.

    Parameters
    ----------
    routers : path, Router, or mapping of str to path or Router
        A single one is named "default". Directories are read again when they change; requests in
        flight are answered by the router that they found.
    encoder : Encoder or str, optional
        A loaded encoder, or where the routers' encoder is found if not under its recorded name.
    devices : sequence of str
        "cpu", "cuda", "cuda:N": one worker for each.
    dtype : str
        Arithmetic of encoders that are loaded here, as in `Encoder.load`.
    max_batch_tokens : int, optional
        Most tokens of a batch; by default 4,096 on a CPU and 32,768 on a GPU. On a slow device
        batches are smaller, so that one takes no more than a fourth of `deadline_s`.
    max_wait_s : float
        Longest wait of a prompt for others to join it; none where none are to be expected.
    max_queue : int
        Prompts that may wait for a device. Requests that find no room wait for it in turn.
    deadline_s : float, optional
        In which a request is answered, unless it brings its own; None = never given up.
    cache_size : int
        Decisions kept for equal requests; 0 = none.
    reload_every_s : float, optional
        How often directories are looked at; None = only by :meth:`reload`.
    policy : RoutePolicy
        Of requests that bring none; its models are also those of requests whose policy names none.
        A router that cannot offer it is not served: an error at
        first, and when directories are read again.
    observers : sequence of Observer
        Told of answers, batches and reloads.
    threads : int
        Of search and votes, 0 = all.

    Raises
    ------
    EncoderNotFound, ImportError, TypeError, ValueError
        If a router or its encoder cannot be read, a device is absent, or an argument is wrong.

    Examples
    --------
    >>> with Engine("router") as engine:  # doctest: +SKIP
    ...     engine.route_blocking("What is 17 times 24?").model
    'maths-13b'
    """

    def __init__(
        self,
        routers: Source | Mapping[str, Source],
        *,
        encoder: Encoder | str | None = None,
        devices: Sequence[str] = ("cpu",),
        dtype: str = "auto",
        max_batch_tokens: int | None = None,
        max_wait_s: float = 0.002,
        max_queue: int = 4096,
        deadline_s: float | None = 0.5,
        cache_size: int = 10_000,
        reload_every_s: float | None = 2.0,
        policy: RoutePolicy | None = None,
        observers: Sequence[Observer] = (),
        threads: int = 0,
    ) -> None:
        sources = routers if isinstance(routers, Mapping) else {"default": routers}
        if not sources:
            raise ValueError("routers: found none, expected at least one")
        _check_at_least("max_wait_s", max_wait_s, 0, LONGEST_S)
        _check_at_least("max_queue", max_queue, 1)
        _check_at_least("cache_size", cache_size, 0)
        if max_batch_tokens is not None:
            _check_at_least("max_batch_tokens", max_batch_tokens, 1)
        if reload_every_s is not None:
            _check_at_least("reload_every_s", reload_every_s, 0.01, LONGEST_S)
        self._deadline_s = _deadline(deadline_s)
        self._policy = RoutePolicy() if policy is None else _policy(policy)
        self._observers = Observers(observers)
        self._cache = DecisionCache(cache_size)
        devices = [check_device(device) for device in devices]
        if not devices:
            raise ValueError("devices: found none, expected at least one")
        encoder = (
            encoder if isinstance(encoder, (Encoder, str)) or encoder is None else str(encoder)
        )
        self._encoders = Encoders(encoder, devices, dtype)
        self._shelf = Shelf(sources, threads, lambda router: self._warm_up(router, devices))
        kind = "cpu" if devices == ["cpu"] else "cuda"
        pace = Pace(max_wait_s, max_batch_tokens or BATCH_TOKENS[kind], self._deadline_s)
        self._queue = Queue(max_queue, pace)
        self._is_closed = False
        self._waiting: set[Request] = set()
        self._aside: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._workers = [
            Worker(
                *(device, self._queue, self._shelf),
                *(self._answer_job, self._give_up_job, self._observers.batch),
                self._aside.put,
            )
            for device in devices
        ]
        for worker in self._workers:
            worker.others = [other for other in self._workers if other is not worker]
            worker.start()
        self._beside = [_thread("benchrouter-aside", self._work_aside)]
        self._stop_watching = threading.Event()
        if reload_every_s is not None:
            self._beside.append(_thread("benchrouter-reload", self._watch, reload_every_s))
        # A thread that is torn out of torch when the program ends aborts it.
        atexit.register(self._end)

    # --- routing ---------------------------------------------------------------------------------

    @overload
    async def route(  # type: ignore[overload-overlap] # a str is a sequence of str as well
        self,
        prompt: str | Sequence[Message],
        *,
        router: str | None = ...,
        policy: RoutePolicy | None = ...,
        deadline_s: float | None = ...,
        embeddings: NDArray[np.float32] | None = ...,
    ) -> Routed: ...
    @overload
    async def route(
        self,
        prompt: Sequence[str] | Sequence[Sequence[Message]],
        *,
        router: str | None = ...,
        policy: RoutePolicy | None = ...,
        deadline_s: float | None = ...,
        embeddings: NDArray[np.float32] | None = ...,
    ) -> list[Routed]: ...
    @overload
    async def route(
        self,
        prompt: None,
        *,
        router: str | None = ...,
        policy: RoutePolicy | None = ...,
        deadline_s: float | None = ...,
        embeddings: NDArray[np.float32],
    ) -> Any: ...
    async def route(
        self,
        prompt: Prompts,
        *,
        router: str | None = None,
        policy: RoutePolicy | None = None,
        deadline_s: float | None = None,
        embeddings: NDArray[np.float32] | None = None,
    ) -> Any:
        """Choose a model for a prompt, or for each of a list.

        Parameters
        ----------
        prompt : str, chat messages, or a list of them
            Chat messages are a list of dicts with a "role" (:func:`text_of` says which text of
            them counts). A list of dicts is one prompt, a list of str or of lists are many.
        router : str, optional
            Name; needed where there are several and none is named "default".
        policy : RoutePolicy, optional
            Instead of the engine's.
        deadline_s : float, optional
            Seconds, instead of the engine's; infinite = none.
        embeddings : float16 or float32 array, shape (dim,) or (n_prompts, dim), optional
            Unit rows, instead of encoding the prompts.

        Returns
        -------
        Routed, or list of Routed for a list of prompts
            A bad prompt, a missed deadline, a device or a router that fails are answered by the
            fallback model (the best allowed by standing), with the cause.

        Raises
        ------
        UnknownRouter
            If no router has that name.
        TypeError, ValueError
            If the policy, the deadline or the embeddings are none, or the router's benchmark does
            not offer what the policy asks for.
        """
        request, is_single = self._request(prompt, router, policy, deadline_s, embeddings)
        if not request.is_over:
            with self._awaited(request):
                await wait_for(request, lambda: self._expire(request))
        answers = request.answers()
        return answers[0] if is_single else answers

    @overload
    def route_blocking(  # type: ignore[overload-overlap]
        self,
        prompt: str | Sequence[Message],
        *,
        router: str | None = ...,
        policy: RoutePolicy | None = ...,
        deadline_s: float | None = ...,
        embeddings: NDArray[np.float32] | None = ...,
    ) -> Routed: ...
    @overload
    def route_blocking(
        self,
        prompt: Sequence[str] | Sequence[Sequence[Message]],
        *,
        router: str | None = ...,
        policy: RoutePolicy | None = ...,
        deadline_s: float | None = ...,
        embeddings: NDArray[np.float32] | None = ...,
    ) -> list[Routed]: ...
    @overload
    def route_blocking(
        self,
        prompt: None,
        *,
        router: str | None = ...,
        policy: RoutePolicy | None = ...,
        deadline_s: float | None = ...,
        embeddings: NDArray[np.float32],
    ) -> Any: ...
    def route_blocking(
        self,
        prompt: Prompts,
        *,
        router: str | None = None,
        policy: RoutePolicy | None = None,
        deadline_s: float | None = None,
        embeddings: NDArray[np.float32] | None = None,
    ) -> Any:
        """Choose a model from a thread; not from one that runs an event loop.

        Parameters, returns and raises as :meth:`route`.
        """
        request, is_single = self._request(prompt, router, policy, deadline_s, embeddings)
        if not request.is_over:
            with self._awaited(request):
                wait_for_blocking(request, lambda: self._expire(request))
        answers = request.answers()
        return answers[0] if is_single else answers

    async def explain(
        self, prompt: Prompt, *, router: str | None = None, policy: RoutePolicy | None = None
    ) -> Explanation:
        """Show the neighbours that voted on a prompt, in a thread beside the event loop.

        Parameters
        ----------
        prompt, router, policy
            As in :meth:`route`; models that a policy does not allow are shown all the same, and
            all count where the router knows none of those that it does.

        Returns
        -------
        Explanation

        Raises
        ------
        BadPrompt, UnknownRouter, TypeError, ValueError
            Unlike :meth:`route`, also for a bad prompt.
        """
        return await _in_thread(lambda: self._explain(prompt, router, policy))

    async def choose(
        self,
        prompts: Sequence[str],
        labels: NDArray[np.floating] | None = None,
        *,
        router: str | None = None,
        score: Score = "auto",
        label_threshold: float | None = None,
        policy: RoutePolicy | None = None,
    ) -> TaskDecision:
        """Choose one model for a task, in a thread beside the event loop.

        Where that is cancelled, the thread ends within a piece of the prompts, which is waited for.

        Parameters
        ----------
        prompts : sequence of str
        labels : float array, shape (n_labels, n_models), optional
        router : str, optional
        score : "auto", "s1", "s2" or "s3"
        label_threshold : float, optional
            As in `Router.choose`.
        policy : RoutePolicy, optional
            Models that may be chosen, and how cost counts; its rule and k are for prompts. By
            default the engine's.

        Returns
        -------
        TaskDecision

        Raises
        ------
        UnknownRouter, TypeError, ValueError
            As `Router.choose` does.
        """
        unwanted = threading.Event()
        return await _in_thread(
            lambda: self._choose(prompts, labels, router, score, label_threshold, policy, unwanted),
            unwanted,
        )

    # --- state -----------------------------------------------------------------------------------

    @property
    def routers(self) -> dict[str, RouterInfo]:
        """Every router as it is served now, by name."""
        return {name: self._shelf.get(name).info for name in self._shelf.names}

    @property
    def ready(self) -> bool:
        """Whether it is open and a device works."""
        return not self._is_closed and any(
            worker.is_alive() and worker.trouble is None for worker in self._workers
        )

    @property
    def failures(self) -> dict[str, str]:
        """What is wrong with the devices that failed, or hang, by device."""
        found = {worker.device: worker.trouble for worker in self._workers}
        return {device: trouble for device, trouble in found.items() if trouble is not None}

    @property
    def queued(self) -> int:
        """Prompts that wait for a device."""
        return len(self._queue)

    @property
    def capacity(self) -> int:
        """Prompts that may wait for a device before others wait for them."""
        return self._queue.most

    def reload(self, name: str | None = None) -> list[str]:
        """Look at the directories now, and read those that have changed.

        Parameters
        ----------
        name : str, optional
            Of one router; by default all.

        Returns
        -------
        list of str
            Routers that are served in a new version. One that could not be read stays as it was;
            :attr:`routers` has the error.

        Raises
        ------
        UnknownRouter
            If no router has that name.
        """
        changed = []
        for each in self._shelf.names if name is None else [self._shelf.get(name).info.name]:
            found = self._shelf.reload(each)
            if found is None:
                continue
            self._observers.reloaded(each, found.info.version, found.info.error)
            if found.info.error is None:
                log.info("router %r is now version %s", each, found.info.version)
                changed.append(each)
        return changed

    def drain(self, timeout_s: float = DRAIN_S) -> bool:
        """Take no new prompts, and wait for those that are there; new ones get the fallback.

        Returns
        -------
        bool
            Whether all were answered in time.
        """
        self._is_closed = True
        until = time.monotonic() + timeout_s
        is_idle = self._queue.wait_until_idle(timeout_s)
        while is_idle and any(not request.is_over for request in list(self._waiting)):
            if time.monotonic() > until:  # of what is decided aside
                return False
            time.sleep(0.01)
        return is_idle

    def close(self, timeout_s: float = DRAIN_S) -> None:
        """Drain, and end the threads; what is left by then gets the fallback."""
        self.drain(timeout_s)
        self._stop_watching.set()
        for job in self._queue.close():
            self._give_up_job(job, "closed", "")
        self._aside.put(None)
        for thread in (*self._workers, *self._beside):
            thread.join(timeout_s)
        for request in list(self._waiting):  # for a device that hangs
            for i in request.unanswered():
                self._give_up(request, i, "closed", "")
        atexit.unregister(self._end)

    def _has_threads(self) -> bool:
        """Whether a device's thread lives: in a process forked later none does."""
        return any(worker.is_alive() for worker in self._workers)

    def _end(self) -> None:
        if self._has_threads():
            self.close(EXIT_S)

    def __enter__(self) -> Engine:
        """Return the engine."""
        return self

    def __exit__(self, *_: object) -> None:
        """Close it."""
        self.close()

    async def __aenter__(self) -> Engine:
        """Return the engine."""
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close it, without blocking the event loop."""
        await asyncio.to_thread(self.close)

    # --- requests --------------------------------------------------------------------------------

    def _request(
        self,
        prompt: Prompts,
        router: str | None,
        policy: RoutePolicy | None,
        deadline_s: float | None,
        embeddings: NDArray[np.float32] | None,
    ) -> tuple[Request, bool]:
        """Make a request, answer what can be answered at once, and queue the rest."""
        shelved = self._shelf.get(router)
        info = shelved.info
        policy = self._policy_of(policy)
        policy.refuse_budget("and these come one by one")
        shelved.router.decider.check(_among(policy, info.models))
        seconds = self._deadline_s if deadline_s is None else _deadline(deadline_s)
        is_single = _is_single(prompt, embeddings)
        prompts = cast(list[Prompt | None], [prompt] if is_single else list(prompt or ()))
        rows = None
        if embeddings is not None:
            rows = _rows(embeddings, info.description["dim"])
            if prompt is None and not is_single:
                prompts = [None] * len(rows)
            if len(prompts) != len(rows):
                raise ValueError(f"{len(prompts)} prompts came with {len(rows)} embeddings")
        texts: list[str | None] = []
        bad: dict[int, str] = {}
        for i, each in enumerate(prompts):
            try:
                texts.append(None if each is None and rows is not None else text_of(each)[:LONGEST])  # type: ignore[arg-type]
            except Exception as e:  # BadPrompt, or whatever a strange object raises
                texts.append(None)
                bad[i] = str(e)
        request = Request(shelved, policy, texts, rows, time.monotonic() + seconds)
        for i, why in bad.items():
            if rows is None:
                self._give_up(request, i, "bad_prompt", why)
        jobs = list(self._jobs(request))
        why = "" if self._is_closed or self._has_threads() else "it was made before a fork"
        if jobs and (why or self._is_closed or not self._queue.put(jobs)):
            for job in jobs:
                self._give_up_job(job, "closed", why)
        return request, is_single

    @contextmanager
    def _awaited(self, request: Request) -> Iterator[None]:
        """Know of a request as long as somebody waits for it."""
        self._waiting.add(request)
        try:
            yield
        finally:
            self._waiting.discard(request)

    def _jobs(self, request: Request) -> Iterable[Job]:
        """Jobs of the prompts that are neither answered nor kept from before."""
        info = request.found.info
        for i in request.unanswered():
            text = request.texts[i]
            if request.rows is None and text is not None:
                found = self._cache.get(info.name, info.version, request.policy.key, text)
                if found is not None:
                    self._answer(request, i, found)
                    continue
            length = 0 if request.rows is not None else len(text or "")
            yield Job(request, i, 1 + length // CHARACTERS_PER_TOKEN)

    def _answer_job(self, job: Job, routed: Routed) -> None:
        request, text = job.request, job.request.texts[job.place]
        if request.rows is None and text is not None:
            self._cache.put(routed, request.policy.key, text)
        self._answer(request, job.place, routed)

    def _give_up_job(self, job: Job, cause: Cause, why: str) -> None:
        self._give_up(job.request, job.place, cause, why)

    def _answer(self, request: Request, i: int, routed: Routed) -> None:
        if request.answer(i, routed):
            seconds = time.monotonic() - request.started
            self._observers.answered(routed, request.texts[i], seconds)

    def _give_up(self, request: Request, i: int, cause: Cause, why: str) -> None:
        """Answer by the fallback."""
        info = self._shelf.now(request.found).info
        ranking = request.policy.known_among(info.standing) or info.standing
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
        self._answer(request, i, routed)

    def _expire(self, request: Request) -> None:
        cause: Cause = "deadline" if request.was_let_in else "overloaded"
        for i in request.unanswered():
            self._give_up(request, i, cause, "")

    def _explain(
        self, prompt: Prompt, router: str | None, policy: RoutePolicy | None
    ) -> Explanation:
        shelved = self._shelf.get(router)
        policy = self._policy_of(policy)
        text = text_of(prompt)[:LONGEST]
        return shelved.router.explain(
            text,
            embedding=self._embedded([text], shelved)[0],
            policy=_among(policy, shelved.info.models),
        )

    def _choose(
        self,
        prompts: Sequence[str],
        labels: NDArray[np.floating] | None,
        router: str | None,
        score: Score,
        label_threshold: float | None,
        policy: RoutePolicy | None,
        unwanted: threading.Event,
    ) -> TaskDecision:
        shelved, policy = self._shelf.get(router), self._policy_of(policy)
        texts = [text[:LONGEST] for text in prompts]
        pieces = [np.empty((0, shelved.info.description["dim"]), np.float32)]
        for piece in windows(texts, len(texts), PIECE_CHARACTERS):
            if unwanted.is_set():
                raise asyncio.CancelledError
            pieces.append(self._embedded(piece, shelved))
        rows = np.concatenate(pieces)
        return shelved.router.choose(
            prompts,
            labels,
            embeddings=rows,
            score=score,
            label_threshold=label_threshold,
            models=policy.known_among(shelved.info.models) or policy.models,
            policy=policy,
        )

    def _policy_of(self, policy: RoutePolicy | None) -> RoutePolicy:
        """Policy of a request that brings one or none."""
        own = self._policy
        found = own if policy is None else _policy(policy)
        if own.models is None or found.models is not None:
            return found
        return replace(found, models=own.models)

    def _embedded(self, texts: Sequence[str], shelved: Shelved) -> NDArray[np.float32]:
        encoder = shelved.encoders[self._workers[0].device]
        rows: NDArray[np.float32] = encoder.encode_tensor(texts, warn=False).cpu().numpy()
        return rows

    def _warm_up(self, router: Router, devices: Sequence[str]) -> dict[str, Encoder]:
        """Load what a router needs and use it once, before the first prompt comes."""
        encoders, rows = {device: self._encoders.of(router, device) for device in devices}, None
        texts, policy = ["warm-up", "warm-up " * 64], self._policy
        for encoder in encoders.values():
            rows = encoder.encode_tensor(texts, warn=False).cpu().numpy()
        router.rank(texts, embeddings=rows, policy=_among(policy, router.models))
        return encoders

    def _work_aside(self) -> None:
        """Make what decisions wait for that take seconds, one after the other."""
        while (call := self._aside.get()) is not None:
            try:
                call()
            except BaseException:
                log.exception("a decision failed")

    def _watch(self, every_s: float) -> None:
        while not self._stop_watching.wait(every_s):
            try:
                self.reload()
            except Exception:
                log.exception("looking at the routers' directories failed")


def _thread(name: str, work: Callable[..., None], *arguments: object) -> threading.Thread:
    """A thread that works already."""
    thread = threading.Thread(target=work, args=arguments, name=name, daemon=True)
    thread.start()
    return thread


async def _in_thread(call: Callable[[], Result], unwanted: threading.Event | None = None) -> Result:
    """Await a call in a thread; where that is cancelled, tell it and await its end all the same."""
    working = asyncio.ensure_future(asyncio.to_thread(call))
    try:
        return await asyncio.shield(working)
    except asyncio.CancelledError:
        if unwanted is not None:
            unwanted.set()
        await asyncio.wait([working])
        if not working.cancelled():
            working.exception()  # seen, though nobody asks for it
        raise


def _is_single(prompt: object, embeddings: NDArray[np.float32] | None) -> bool:
    """Whether it is one prompt: a str, or a list of messages; a list of them is many."""
    if prompt is None:
        return embeddings is None or np.ndim(embeddings) == 1
    if isinstance(prompt, (str, bytes, bytearray)) or not isinstance(prompt, Sequence):
        return True
    return len(prompt) > 0 and isinstance(prompt[0], Mapping)


def _rows(embeddings: NDArray[np.float32], dim: int) -> NDArray[np.float32]:
    rows = as_unit_rows(embeddings[None] if np.ndim(embeddings) == 1 else embeddings, "embeddings")
    if rows.shape[1] != dim:
        raise ValueError(f"embeddings have dim {rows.shape[1]}, the router's have dim {dim}")
    return rows


def _policy(policy: RoutePolicy) -> RoutePolicy:
    if not isinstance(policy, RoutePolicy):
        raise TypeError(f"policy must be a RoutePolicy, got {type(policy).__name__}")
    return policy


def _among(policy: RoutePolicy, models: Sequence[str]) -> RoutePolicy:
    """A policy of the models that a router has; of all where it has none of those allowed."""
    if policy.models is None:
        return policy
    return replace(policy, models=policy.known_among(models) or None)


def _deadline(seconds: float | None) -> float:
    if seconds is None:
        return math.inf
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise ValueError(f"deadline_s must be seconds above 0, got {seconds!r}")
    return float(seconds) if seconds < LONGEST_S else math.inf


def _check_at_least(name: str, value: float, least: float, most: float = math.inf) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not value >= least:
        raise ValueError(f"{name} must be at least {least}, got {value!r}")
    if value > most:
        raise ValueError(f"{name} must be at most {most:g}, got {value!r}")
