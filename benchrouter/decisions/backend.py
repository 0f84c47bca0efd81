"""What searches and scores prompts: one interface, implemented on the CPU and on a CUDA device."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.plan import Plan
from benchrouter.decisions.rules import Rules
from benchrouter.embeddings.of_prompts import UnitRows
from benchrouter.files.arrays import Floats
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores.expected.prompt_scores import Success
from benchrouter.votes.outcomes import Chosen

BLOCK = 16384  # prompts searched and decided at a time: bounds memory, not speed


class Decided(NamedTuple):
    """Decisions on some prompts; all arrays lie in the host's memory."""

    chosen: Chosen
    """Arrays of shape (n_prompts,)."""
    success: Success | None
    """By the rule "auto", where correctness is known."""
    cost_usd: Floats | None = None
    """float32, shape (n_prompts,): expected cost of the chosen model, where costs count."""
    over_limit: NDArray[np.bool_] | None = None
    """bool, same shape: whether the cheapest model costs more than `max_cost_usd`."""


class Scored(NamedTuple):
    """Some prompts with the scores of all models; all arrays lie in the host's memory."""

    neighbours: Neighbours
    """Arrays of shape (n_prompts, plan.depth)."""
    chosen: Chosen
    """Arrays of shape (n_prompts,): the decisions where cost does not count."""
    scores: Floats
    """float32, shape (n_prompts, n_models)."""
    strange: Floats | None
    """float32, shape (n_prompts,): chance that a prompt is of an unknown kind, by rule "auto"."""


class Backend(Protocol):
    """Searches a benchmark and scores prompts by it. Safe to use from many threads.

    Rows may lie in the host's memory or on a device: those that lie elsewhere than the benchmark
    are copied there.
    """

    rules: Rules

    def decide(self, rows: UnitRows, plan: Plan) -> Decided:
        """Choose a model for every prompt, where cost only decides ties.

        No array of shape (n_prompts, n_models) is made.

        Parameters
        ----------
        rows : float32 array or torch.Tensor, shape (n_prompts, dim)
            Unit rows.
        plan : Plan
            Its costs do not count.
        """
        ...

    def score(self, rows: UnitRows, plan: Plan) -> Scored:
        """Search and score a block of prompts by every model.

        Parameters
        ----------
        rows : float32 array or torch.Tensor, shape (n_prompts, dim)
            Unit rows.
        plan : Plan
            Its costs do not count.
        """
        ...


def full_name(device: str) -> str:
    """Full name of a device that a router can be on.

    Parameters
    ----------
    device : str
        "cpu", "cuda" or "cuda:N".

    Raises
    ------
    ValueError
        If this machine has no such device.
    NoCudaKernels
        If the extension was built without kernels for it.
    """
    if device == "cpu":
        return device
    from benchrouter.embeddings.devices import check_device
    from benchrouter.votes.on_device import check_built

    device = check_device(device)
    check_built()
    return device
