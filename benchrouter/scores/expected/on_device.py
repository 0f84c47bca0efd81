"""The rule `auto` on a CUDA device: what `scores.expected.prompt_scores.expect` does, for tensors.

The arithmetic is that of the CPU, in the same order, in float64: expected scores differ by no more
than the device's exp and log do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from benchrouter import _core
from benchrouter._core import Expectation
from benchrouter.votes import on_device as votes_on_device
from benchrouter.votes.outcomes import Chosen, PackedOutcomes

if TYPE_CHECKING:
    from torch import Tensor


class ExpectedOnDevice(NamedTuple):
    """Decisions by expected score: `scores.expected.prompt_scores.ExpectedOnDevice` of tensors."""

    chosen: Chosen
    """Tensors of shape (n_prompts,)."""
    strange: Tensor
    """float32, same shape."""
    scores: Tensor | None
    """float32, shape (n_prompts, n_models), where they were asked for."""


class LearntOnDevice:
    """What the rule `auto` learnt, checked and copied to a device once.

    Parameters
    ----------
    learnt : dict
        Arguments of `_core.Expectation`, as `prompt_scores.Expectation.arrays` gives
        them.
    device : str

    Attributes
    ----------
    arguments : dict
        The same with tensors for arrays.

    Raises
    ------
    TypeError, ValueError
        As `_core.Expectation` does.
    """

    def __init__(self, learnt: dict[str, Any], device: str) -> None:
        Expectation(**learnt)  # looks at every value
        self.arguments = votes_on_device.to_device(learnt, device)


def expect(
    learnt: LearntOnDevice,
    queries: Tensor,
    neighbours: Tensor,
    similarities: Tensor,
    outcomes: PackedOutcomes | Tensor,
    *,
    prior: Tensor,
    preference: Tensor,
    k: int,
    kappa: int,
    distance_limit: float,
    fallback_model: int,
    home: int,
    allowed: Tensor | None = None,
    out: ExpectedOnDevice | None = None,
    with_scores: bool = False,
) -> ExpectedOnDevice:
    """Choose a model for every prompt; as `scores.expected.prompt_scores.expect`, for tensors.

    Parameters
    ----------
    learnt : LearntOnDevice
    queries, neighbours, similarities, outcomes, prior, preference, k, kappa, distance_limit
        As there, with tensors for arrays.
    fallback_model, home, allowed, with_scores
        As there, with tensors for arrays.
    out : ExpectedOnDevice, optional
        Tensors to write to, its scores included; by default new ones.

    Returns
    -------
    ExpectedOnDevice
        `out`, or new tensors.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was found and what was expected.
    RuntimeError
        If the extension was built without CUDA, or CUDA refuses to launch.
    """
    votes_on_device.check_built()
    import torch

    votes_on_device.check_tensors(
        neighbours=neighbours, similarities=similarities, queries=queries, prior=prior,
        preference=preference, allowed=allowed,
    )  # fmt: skip
    bits, present, scores, n_models = votes_on_device.split(outcomes)
    votes_on_device.check_matrix(neighbours)
    if out is None:
        n, device = len(neighbours), neighbours.device
        every = (n, len(prior))
        out = ExpectedOnDevice(
            Chosen(*votes_on_device.new_chosen(n, device)),
            torch.empty(n, dtype=torch.float32, device=device),
            torch.empty(every, dtype=torch.float32, device=device) if with_scores else None,
        )
    capsule = votes_on_device.capsule
    fault = votes_on_device.no_fault(neighbours)
    with votes_on_device.stream_of(neighbours.device) as stream:
        _core.expect_on_device(
            learnt={
                name: capsule(value) if isinstance(value, torch.Tensor) else value
                for name, value in learnt.arguments.items()
            },
            queries=capsule(queries),
            neighbours=capsule(neighbours),
            similarities=capsule(similarities),
            bits=capsule(bits),
            present=capsule(present),
            scores=capsule(scores),
            n_models=n_models,
            prior=capsule(prior),
            preference=capsule(preference),
            k=k,
            kappa=kappa,
            distance_limit=distance_limit,
            fallback_model=fallback_model,
            home=home,
            allowed=capsule(allowed),
            out=tuple(capsule(tensor) for tensor in out.chosen),
            out_strange=capsule(out.strange),
            out_scores=capsule(out.scores),
            fault=capsule(fault),
            stream=stream,
        )
    votes_on_device.refuse(
        fault, neighbours, outcomes, prior, preference=preference, similarities=similarities,
        allowed=allowed, fallback_model=fallback_model, queries=queries, home=home,
    )  # fmt: skip
    return out
