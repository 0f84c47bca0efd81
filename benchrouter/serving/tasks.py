"""Explanations and choices for tasks, which take long: in threads beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import Explanation, TaskDecision
from benchrouter.decisions.policy import RoutePolicy
from benchrouter.decisions.task import Score
from benchrouter.embeddings import Encoder
from benchrouter.embeddings.batching import windows
from benchrouter.files.arrays import Rows
from benchrouter.router import Router
from benchrouter.serving.messages import LONGEST, Prompt, text_of
from benchrouter.serving.routers import Served

Result = TypeVar("Result")
PIECE_CHARACTERS = 100_000  # of a task that are encoded before a cancellation is noticed


def explain(served: Served, device: str, prompt: Prompt, policy: RoutePolicy) -> Explanation:
    """Explain the decision on a prompt; `Engine.explain` without its thread."""
    text = text_of(prompt)[:LONGEST]
    return served.router.explain(
        text,
        embedding=embed(served, device, [text])[0],
        rule=policy.rule,
        k=policy.k,
        policy=policy.cost_policy,
        models=policy.allowed_of(served.info.models) or None,
    )


def choose(
    served: Served,
    device: str,
    prompts: Sequence[str],
    labels: NDArray[np.floating] | None,
    policy: RoutePolicy,
    *,
    score: Score,
    label_threshold: float | None,
    unwanted: threading.Event,
) -> TaskDecision:
    """Choose one model for a task; `Engine.choose` without its thread, which `unwanted` ends."""
    texts = [text[:LONGEST] for text in prompts]
    pieces = [np.empty((0, served.info.description["dim"]), np.float32)]
    for piece in windows(texts, len(texts), PIECE_CHARACTERS):
        if unwanted.is_set():
            raise asyncio.CancelledError
        pieces.append(embed(served, device, piece))
    return served.router.choose(
        prompts,
        labels,
        embeddings=np.concatenate(pieces),
        score=score,
        label_threshold=label_threshold,
        models=policy.allowed_of(served.info.models) or policy.models,
        policy=policy.cost_policy,
    )


def embed(served: Served, device: str, texts: Sequence[str]) -> Rows:
    """Embeddings by the encoder of a router on a device, in the host's memory."""
    rows: Rows = served.encoders[device].encode_tensor(texts, warn=False).cpu().numpy()
    return rows


def warm_up(router: Router, encoders: Iterable[Encoder], policy: RoutePolicy) -> None:
    """Encode and decide once, so that the first prompt need not wait for what is made at need."""
    texts, rows = ["warm-up", "warm-up " * 64], None
    for encoder in encoders:
        rows = encoder.encode_tensor(texts, warn=False).cpu().numpy()
    router.rank(
        texts,
        embeddings=rows,
        rule=policy.rule,
        k=policy.k,
        policy=policy.cost_policy,
        models=policy.allowed_of(router.models) or None,
    )


async def in_thread(call: Callable[[], Result], unwanted: threading.Event | None = None) -> Result:
    """Await a call in a thread; a cancellation sets `unwanted` and still awaits the call's end."""
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
