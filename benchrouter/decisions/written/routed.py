"""Batches of prompts through a router, each with its decisions."""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchrouter.decisions.answers import Decisions
    from benchrouter.decisions.policy import CostPolicy, Rule
    from benchrouter.prompts.batches import PromptBatch
    from benchrouter.prompts.token_column import Counted
    from benchrouter.router import Router


def route_batches(
    router: Router,
    batches: Iterable[Counted],
    *,
    rule: Rule = "auto",
    k: int | None = None,
    policy: CostPolicy | None = None,
    models: Sequence[str] | None = None,
) -> Generator[tuple[PromptBatch, Decisions | None], None, None]:
    """Route batches as they come.

    Parameters
    ----------
    router : Router
    batches : iterable of (PromptBatch, embeddings, tokens)
        Embeddings of the prompts, float16 or float32, shape (n_prompts, dim), or None; their
        tokens, int64, shape (n_prompts,), or None.
    rule : "auto", "mean", "raw" or "s3"
    k : int, optional
        Neighbours that vote by the last three, instead of the router's.
    policy : CostPolicy, optional
        How cost counts; without it only scores do.
    models : sequence of str, optional
        Models that may be chosen, by default all.

    Yields
    ------
    (PromptBatch, Decisions or None)
        All batches in order; None for one without a prompt.
    """
    waiting: deque[PromptBatch] = deque()

    def feed() -> Iterator[tuple[list[str] | None, Any, Any]]:
        for batch, block, tokens in batches:
            waiting.append(batch)
            if len(batch):
                needed = block is None or policy is not None  # which may count the tokens
                yield batch.prompts if needed else None, block, tokens

    routed = router.route_stream(feed(), rule=rule, k=k, policy=policy, models=models)
    for decisions in routed:
        while not len(waiting[0]):
            yield waiting.popleft(), None
        yield waiting.popleft(), decisions
    while waiting:
        yield waiting.popleft(), None
