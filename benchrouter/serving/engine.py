"""The engine: prompts in from event loops and threads, decisions out in time."""

from __future__ import annotations

import asyncio
import atexit
import threading
import time
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import Explanation, TaskDecision
from benchrouter.decisions.decider import Decider
from benchrouter.decisions.policy import Policy
from benchrouter.decisions.task import Score
from benchrouter.embeddings import Encoder
from benchrouter.embeddings.devices import check_device
from benchrouter.files.arrays import Rows
from benchrouter.router import Router
from benchrouter.serving import requests, tasks
from benchrouter.serving.answer import Routed
from benchrouter.serving.answering import Answering
from benchrouter.serving.encoders import Encoders, Loading
from benchrouter.serving.messages import Prompt
from benchrouter.serving.observer import Observer, Observers, log
from benchrouter.serving.pace import Pace
from benchrouter.serving.pending import Pending
from benchrouter.serving.queue import Queue
from benchrouter.serving.routers import RouterInfo, Routers, Source
from benchrouter.serving.threads import Aside, Watch
from benchrouter.serving.worker import start_workers

BATCH_TOKENS = {"cpu": 4096, "cuda": 32768}
DRAIN_S = 30.0
EXIT_S = 5.0  # for an engine that nobody closed, at the end of the program


class Engine:
    """Routes prompts for many callers at once; safe to use from event loops and threads.

    Prompts that come within a moment of each other are embedded and decided together, on each
    device by a thread of its own. How long that moment is, and how many tokens go into a batch,
    follows from the load.

    Parameters
    ----------
    routers : path, Router, or mapping of str to path or Router
        A single one is named "default". Directories are read again when they change; requests in
        flight keep the router that they found.
    encoder : Encoder or str, optional
        A loaded encoder, or where the routers' encoder is found if not under its recorded name.
    devices : sequence of str
        "cpu", "cuda", "cuda:N": one worker for each, which encodes there. Routers that are read
        from directories are searched there as well, if the CUDA kernels were built; routers in
        memory are searched where they are.
    loading : Loading, optional
        Arithmetic and threads of what is loaded here.
    max_batch_tokens : int, optional
        Most tokens of a batch; by default 4,096 on a CPU and 32,768 on a GPU. On a slow device
        batches are smaller, so that one takes no more than a fourth of `deadline_s`.
    max_wait_s : float
        Longest wait of a prompt for others to join it; it does not wait if none are expected.
    max_queue : int
        Prompts that may wait for a device. Further requests wait until there is room.
    deadline_s : float, optional
        Time to answer a request that brings no deadline of its own; None = no limit.
    cache_size : int
        Decisions kept for equal requests; 0 = none.
    reload_every_s : float, optional
        How often directories are checked for changes; None = only by :meth:`reload`.
    policy : Policy
        Of requests that bring none; its models also hold for requests whose policy names none.
        A router that cannot offer it is refused: here with an error, at a reload by keeping the
        old one.
    observers : sequence of Observer
        Told of answers, batches and reloads.

    Raises
    ------
    EncoderNotFound, ImportError, TypeError, ValueError
        If a router or its encoder cannot be read, a device is absent, or an argument is invalid.

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
        loading: Loading | None = None,
        max_batch_tokens: int | None = None,
        max_wait_s: float = 0.002,
        max_queue: int = 4096,
        deadline_s: float | None = 0.5,
        cache_size: int = 10_000,
        reload_every_s: float | None = 2.0,
        policy: Policy | None = None,
        observers: Sequence[Observer] = (),
    ) -> None:
        sources = routers if isinstance(routers, Mapping) else {"default": routers}
        if not sources:
            raise ValueError("routers: found none, expected at least one")
        requests.check_range("max_wait_s", max_wait_s, 0, requests.LONGEST_S)
        requests.check_range("max_queue", max_queue, 1)
        requests.check_range("cache_size", cache_size, 0)
        if max_batch_tokens is not None:
            requests.check_range("max_batch_tokens", max_batch_tokens, 1)
        if reload_every_s is not None:
            requests.check_range("reload_every_s", reload_every_s, 0.01, requests.LONGEST_S)
        loading = loading or Loading()
        self._deadline_s = requests.deadline_of(deadline_s)
        self._policy = requests.with_default(policy, Policy())
        self._observers = Observers(observers)
        self._devices = [check_device(device) for device in devices]
        if not self._devices:
            raise ValueError("devices: found none, expected at least one")
        self._encoders = Encoders(encoder, self._devices, loading.dtype)
        self._routers = Routers(sources, self._devices, loading.threads, self._prepare)
        self._answering = Answering(self._routers, cache_size, self._observers)
        kind = "cpu" if self._devices == ["cpu"] else "cuda"
        pace = Pace(max_wait_s, max_batch_tokens or BATCH_TOKENS[kind], self._deadline_s)
        self._queue = Queue(max_queue, pace)
        self._is_closed = False
        self._aside = Aside()
        self._workers = start_workers(
            *(self._devices, self._queue, self._routers, self._answering),
            *(self._observers, self._aside.put),
        )
        self._beside: list[Aside | Watch] = [self._aside]
        if reload_every_s is not None:
            self._beside.append(Watch(reload_every_s, self.reload))
        # torch aborts the program if its threads still run at the end.
        atexit.register(self._end)

    # --- routing ---------------------------------------------------------------------------------

    async def route(
        self,
        prompt: Prompt | None,
        *,
        router: str | None = None,
        policy: Policy | None = None,
        deadline_s: float | None = None,
        embedding: Rows | None = None,
    ) -> Routed:
        """Choose a model for one prompt.

        Parameters
        ----------
        prompt : str, or chat messages
            Chat messages are a list of dicts with a "role" (:func:`text_of` says which of their
            text counts). May be None if an embedding is given.
        router : str, optional
            Name; needed if there are several and none is named "default".
        policy : Policy, optional
            Instead of the engine's.
        deadline_s : float, optional
            Seconds, instead of the engine's; infinite = no limit.
        embedding : float16 or float32 array, shape (dim,), optional
            Unit vector, instead of encoding the prompt.

        Returns
        -------
        Routed
            A bad prompt, a missed deadline, or a device or router that fails is answered with the
            fallback model (the best allowed by standing) and the cause.

        Raises
        ------
        UnknownRouter
            If no router has that name.
        TypeError, ValueError
            If the policy, the deadline or the embedding is invalid, the prompt is a list of
            prompts, or the router's benchmark does not offer what the policy asks for.
        """
        asked = requests.one(prompt, embedding)
        answers = await self._answering.wait(self._ask(asked, router, policy, deadline_s))
        return answers[0]

    async def route_many(
        self,
        prompts: Sequence[Prompt] | None,
        *,
        router: str | None = None,
        policy: Policy | None = None,
        deadline_s: float | None = None,
        embeddings: Rows | None = None,
    ) -> list[Routed]:
        """Choose a model for each of several prompts; the deadline is for all of them.

        Parameters
        ----------
        prompts : sequence of prompts
            Each as in :meth:`route`. May be None if embeddings are given.
        router, policy, deadline_s
            As in :meth:`route`.
        embeddings : float16 or float32 array, shape (n_prompts, dim), optional
            Unit rows, instead of encoding the prompts.

        Raises
        ------
        UnknownRouter, TypeError, ValueError
            As :meth:`route` does, and if `prompts` is a single prompt.
        """
        asked = requests.many(prompts, embeddings)
        return await self._answering.wait(self._ask(asked, router, policy, deadline_s))

    def route_blocking(
        self,
        prompt: Prompt | None,
        *,
        router: str | None = None,
        policy: Policy | None = None,
        deadline_s: float | None = None,
        embedding: Rows | None = None,
    ) -> Routed:
        """Do what :meth:`route` does from a thread that runs no event loop."""
        asked = requests.one(prompt, embedding)
        return self._answering.wait_blocking(self._ask(asked, router, policy, deadline_s))[0]

    def route_many_blocking(
        self,
        prompts: Sequence[Prompt] | None,
        *,
        router: str | None = None,
        policy: Policy | None = None,
        deadline_s: float | None = None,
        embeddings: Rows | None = None,
    ) -> list[Routed]:
        """Do what :meth:`route_many` does from a thread that runs no event loop."""
        asked = requests.many(prompts, embeddings)
        return self._answering.wait_blocking(self._ask(asked, router, policy, deadline_s))

    async def explain(
        self, prompt: Prompt, *, router: str | None = None, policy: Policy | None = None
    ) -> Explanation:
        """Show the neighbours that voted on a prompt; works in a thread beside the event loop.

        Parameters
        ----------
        prompt, router, policy
            As in :meth:`route`. Models that the policy does not allow are shown as well; if it
            allows none of the router's, all are allowed.

        Raises
        ------
        BadPrompt, UnknownRouter, TypeError, ValueError
            Unlike :meth:`route`, also for a bad prompt.
        """
        served, policy = self._routers.get(router), requests.with_default(policy, self._policy)
        return await tasks.in_thread(
            lambda: tasks.explain(served, self._devices[0], prompt, policy)
        )

    async def choose(
        self,
        prompts: Sequence[str],
        labels: NDArray[np.floating] | None = None,
        *,
        router: str | None = None,
        score: Score = "auto",
        label_threshold: float | None = None,
        policy: Policy | None = None,
    ) -> TaskDecision:
        """Choose one model for a task; works in a thread beside the event loop.

        A cancelled call returns once the thread has ended, within one piece of the prompts.

        Parameters
        ----------
        prompts : sequence of str
        labels : float array, shape (n_labels, n_models), optional
        router : str, optional
        score : "auto", "s1", "s2" or "s3"
        label_threshold : float, optional
            As in `Router.choose`.
        policy : Policy, optional
            Models that may be chosen, and how cost counts; its rule and k are for prompts. By
            default the engine's.

        Raises
        ------
        UnknownRouter, TypeError, ValueError
            As `Router.choose` does.
        """
        served, policy = self._routers.get(router), requests.with_default(policy, self._policy)
        unwanted = threading.Event()
        return await tasks.in_thread(
            lambda: tasks.choose(
                *(served, self._devices[0], prompts, labels, policy),
                score=score,
                label_threshold=label_threshold,
                unwanted=unwanted,
            ),
            unwanted,
        )

    # --- state -----------------------------------------------------------------------------------

    @property
    def routers(self) -> dict[str, RouterInfo]:
        """Every router as it is served now, by name."""
        return {name: self._routers.get(name).info for name in self._routers.names}

    @property
    def ready(self) -> bool:
        """Whether the engine is open and a device works."""
        return not self._is_closed and any(
            worker.is_alive() and worker.trouble is None for worker in self._workers
        )

    @property
    def failures(self) -> dict[str, str]:
        """What is wrong with the devices that failed or hang, by device."""
        found = {worker.device: worker.trouble for worker in self._workers}
        return {device: trouble for device, trouble in found.items() if trouble is not None}

    @property
    def queued(self) -> int:
        """Prompts that wait for a device."""
        return len(self._queue)

    @property
    def capacity(self) -> int:
        """Prompts that may wait for a device; further ones wait for room."""
        return self._queue.most

    def reload(self, name: str | None = None) -> list[str]:
        """Check the directories now, of one router or all, and read those that have changed.

        Returns
        -------
        list of str
            Routers with a new version. One that cannot be read stays as it was;
            :attr:`routers` has the error.

        Raises
        ------
        UnknownRouter
            If no router has that name.
        """
        changed = []
        for each in self._routers.names if name is None else [self._routers.get(name).info.name]:
            found = self._routers.reload(each)
            if found is None:
                continue
            self._observers.reloaded(each, found.info.version, found.info.error)
            if found.info.error is None:
                log.info("router %r is now version %s", each, found.info.version)
                changed.append(each)
        return changed

    def drain(self, timeout_s: float = DRAIN_S) -> bool:
        """Answer what was asked; prompts that come from now on get the fallback.

        Returns
        -------
        bool
            Whether all were answered in time.
        """
        self._is_closed = True
        until = time.monotonic() + timeout_s
        is_idle = self._queue.wait_until_idle(timeout_s)
        while is_idle and self._answering.waiting:  # for slow decisions
            if time.monotonic() > until:
                return False
            time.sleep(0.01)
        return is_idle

    def close(self, timeout_s: float = DRAIN_S) -> None:
        """Drain, and end the threads; what is left then gets the fallback."""
        self.drain(timeout_s)
        self._answering.give_up_jobs(self._queue.close(), "closed")
        for each in self._beside:
            each.stop()
        for thread in (*self._workers, *self._beside):
            thread.join(timeout_s)
        for pending in self._answering.waiting:  # for a device that hangs
            self._answering.give_up_rest(pending, "closed")
        atexit.unregister(self._end)

    def _has_threads(self) -> bool:
        """Whether a device's thread lives; none does after a fork."""
        return any(worker.is_alive() for worker in self._workers)

    def _end(self) -> None:
        if self._has_threads():
            self.close(EXIT_S)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Engine:
        return self

    async def __aexit__(self, *_: object) -> None:
        await asyncio.to_thread(self.close)

    # --- within ----------------------------------------------------------------------------------

    def _ask(
        self,
        asked: requests.Asked,
        router: str | None,
        policy: Policy | None,
        deadline_s: float | None,
    ) -> Pending:
        """Make a request, answer what can be answered at once, and queue the rest."""
        served = self._routers.get(router)
        policy = requests.with_default(policy, self._policy)
        policy.refuse_budget("and these come one by one")
        served.router.decider.check(requests.narrowed(policy, served.info.models))
        seconds = self._deadline_s if deadline_s is None else requests.deadline_of(deadline_s)
        pending, bad = requests.pending_of(asked, served, policy, seconds)
        for i, why in bad.items():
            self._answering.give_up(pending, i, "bad_prompt", why)
        jobs = self._answering.jobs(pending)
        why = "" if self._is_closed or self._has_threads() else "it was made before a fork"
        if jobs and (why or self._is_closed or not self._queue.put(jobs)):
            self._answering.give_up_jobs(jobs, "closed", why)
        return pending

    def _prepare(self, router: Router, deciders: Mapping[str, Decider]) -> dict[str, Encoder]:
        """Load the encoders of a router, and use all of it once before the first prompt comes."""
        encoders = self._encoders.of(router)
        tasks.warm_up(encoders, deciders, requests.narrowed(self._policy, router.models))
        return encoders
