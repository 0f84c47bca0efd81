"""Explanations and choices for tasks, which take long: in threads beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.answers import Explanation, TaskDecision
from benchrouter.decisions.decider import Decider
from benchrouter.decisions.policy import Policy
from benchrouter.decisions.task import Score
from benchrouter.embeddings import Encoder
from benchrouter.embeddings.batching import windows
from benchrouter.files.arrays import Rows
from benchrouter.serving.messages import LONGEST, Prompt, text_of
from benchrouter.serving.requests import narrowed
from benchrouter.serving.routers import Served

Result = TypeVar("Result")
PIECE_CHARACTERS = 100_000  # of a task that are encoded before a cancellation is noticed


def explain(served: Served, device: str, prompt: Prompt, policy: Policy) -> Explanation:
    """Explain the decision on a prompt; `Engine.explain` without its thread."""
    text = text_of(prompt)[:LONGEST]
    row = served.encoders[device].encode_tensor([text], warn=False)
    policy = narrowed(policy, served.info.models)
    return served.deciders[device].explain(row, policy, prompt=text)


def choose(
    served: Served,
    device: str,
    prompts: Sequence[str],
    labels: NDArray[np.floating] | None,
    policy: Policy,
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
        models=policy.known_among(served.info.models) or policy.models,
        policy=policy,
    )


def embed(served: Served, device: str, texts: Sequence[str]) -> Rows:
    """Embeddings by the encoder of a router on a device, in the host's memory."""
    rows: Rows = served.encoders[device].encode_tensor(texts, warn=False).cpu().numpy()
    return rows


def warm_up(
    encoders: Mapping[str, Encoder], deciders: Mapping[str, Decider], policy: Policy
) -> None:
    """Encode and decide once on every device, which loads what is loaded at first need."""
    texts = ["warm-up", "warm-up " * 64]
    for device, encoder in encoders.items():
        deciders[device].rank(encoder.encode_tensor(texts, warn=False), policy, texts)


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
