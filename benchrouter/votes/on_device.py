"""Votes and decisions on a CUDA device: what `votes.votes` does, for torch tensors.

Nothing leaves the device but the answer to whether a value was refused, so each call waits for the
kernels of its stream, torch's current one. The arithmetic is that of the CPU, in the same order:
the answers are equal bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from benchrouter import _core
from benchrouter.files.errors import Unavailable
from benchrouter.votes.outcomes import Chosen, PackedOutcomes, Votes

if TYPE_CHECKING:
    from torch import Tensor

NO_FAULT = (1 << 63) - 1


class NoCudaKernels(Unavailable, RuntimeError):
    """The extension was built without CUDA."""


def check_built() -> None:
    """Raise unless the extension was built with CUDA.

    Raises
    ------
    NoCudaKernels
        Saying how to build it.
    """
    if not _core.has_cuda:
        raise NoCudaKernels(
            "benchrouter was built without CUDA kernels: build it where nvcc 11.8 or newer is on "
            "PATH (BENCHROUTER_CUDA=ON makes the build fail without it)"
        )


def votes(
    neighbours: Tensor,
    outcomes: PackedOutcomes | Tensor,
    *,
    prior: Tensor,
    k: int | None,
    prior_weight: float,
    weights: Tensor | None,
    out: Votes | None,
) -> Votes:
    """Let the neighbours vote; as :func:`benchrouter.votes.votes.votes`, for tensors of one device.

    Parameters
    ----------
    neighbours, outcomes, prior, k, prior_weight, weights, out
        As there, with tensors for arrays.

    Returns
    -------
    Votes
        `out`, or new tensors.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was found and what was expected.
    RuntimeError
        If the extension was built without CUDA, or CUDA refuses to launch.
    """
    check_built()
    import torch

    check_tensors(neighbours=neighbours, prior=prior, weights=weights)
    bits, present, scores, n_models = split(outcomes)
    check_matrix(neighbours)
    _check_out(out, Votes)
    if out is None:
        shape = (neighbours.shape[0], len(prior))
        out = Votes(
            torch.empty(shape, dtype=torch.float32, device=neighbours.device),
            torch.empty(shape, dtype=torch.uint16, device=neighbours.device),
        )
    fault = no_fault(neighbours)
    with stream_of(neighbours.device) as stream:
        _core.votes_on_device(
            neighbours=capsule(neighbours),
            bits=capsule(bits),
            present=capsule(present),
            scores=capsule(scores),
            n_models=n_models,
            prior=capsule(prior),
            k=neighbours.shape[1] if k is None else k,
            prior_weight=prior_weight,
            weights=capsule(weights),
            out_votes=capsule(out.votes),
            out_support=capsule(out.support),
            fault=capsule(fault),
            stream=stream,
        )
    refuse(fault, neighbours, outcomes, prior, weights=weights)
    return out


def decide(
    neighbours: Tensor,
    similarities: Tensor,
    outcomes: PackedOutcomes | Tensor,
    *,
    prior: Tensor,
    preference: Tensor,
    k: int,
    kappa: int,
    rule: str,
    prior_weight: float,
    threshold: float,
    p_table: Tensor | None,
    p_start: float,
    p_step: float,
    distance_limit: float,
    fallback_model: int,
    allowed: Tensor | None,
    weights: Tensor | None,
    out: Chosen | None,
) -> Chosen:
    """Choose a model for every query; as :func:`benchrouter.votes.votes.decide`, for tensors.

    Parameters
    ----------
    neighbours, similarities, outcomes, prior, preference, k, kappa, rule, prior_weight, threshold
        As there, with tensors for arrays.
    p_table, p_start, p_step, distance_limit, fallback_model, allowed, weights, out
        As there, with tensors for arrays.

    Returns
    -------
    Chosen
        `out`, or new tensors.

    Raises
    ------
    TypeError, ValueError
        Naming the argument, what was found and what was expected.
    RuntimeError
        If the extension was built without CUDA, or CUDA refuses to launch.
    """
    check_built()
    check_tensors(
        neighbours=neighbours, similarities=similarities, prior=prior, preference=preference,
        p_table=p_table, allowed=allowed, weights=weights,
    )  # fmt: skip
    bits, present, scores, n_models = split(outcomes)
    check_matrix(neighbours)
    _check_out(out, Chosen)
    if out is None:
        out = Chosen(*new_chosen(len(neighbours), neighbours.device))
    fault = no_fault(neighbours)
    with stream_of(neighbours.device) as stream:
        _core.decide_on_device(
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
            rule=rule,
            prior_weight=prior_weight,
            threshold=threshold,
            p_table=capsule(p_table),
            p_start=p_start,
            p_step=p_step,
            distance_limit=distance_limit,
            fallback_model=fallback_model,
            allowed=capsule(allowed),
            weights=capsule(weights),
            out=tuple(capsule(tensor) for tensor in out),
            fault=capsule(fault),
            stream=stream,
        )
    refuse(
        fault, neighbours, outcomes, prior, preference=preference, p_table=p_table,
        weights=weights, similarities=similarities, allowed=allowed, fallback_model=fallback_model,
    )  # fmt: skip
    return out


def to_device(arguments: dict[str, Any], device: str) -> dict[str, Any]:
    """Copy arguments of :func:`benchrouter.votes.votes.votes` or ``decide`` to a device.

    Parameters
    ----------
    arguments : dict
        By name; NumPy arrays and packed outcomes become tensors, the rest stays what it is.
    device : str
    """
    import torch

    def moved(value: Any) -> Any:
        if isinstance(value, PackedOutcomes):
            return PackedOutcomes(moved(value.bits), moved(value.present), value.n_models)
        return torch.tensor(value, device=device) if isinstance(value, np.ndarray) else value

    return {name: moved(value) for name, value in arguments.items()}


def new_chosen(n_queries: int, device: Any) -> list[Any]:
    """Empty tensors for the decisions on some queries."""
    import torch

    kinds = (torch.int32, torch.float32, torch.float32, torch.float32, torch.bool)
    return [torch.empty(n_queries, dtype=kind, device=device) for kind in kinds]


def split(outcomes: Any) -> tuple[Any, Any, Any, int]:
    """Bits, presence mask, scores and number of models, as the extension takes outcomes."""
    if isinstance(outcomes, PackedOutcomes):
        check_tensors(bits=outcomes.bits, present=outcomes.present)
        return outcomes.bits, outcomes.present, None, outcomes.n_models
    check_tensors(outcomes=outcomes)
    return None, None, outcomes, 0


def check_tensors(**tensors: Any) -> None:
    """Refuse what is neither None nor a tensor."""
    import torch

    for name, tensor in tensors.items():
        if tensor is not None and not isinstance(tensor, torch.Tensor):
            raise TypeError(
                f"{name} must be a tensor, as neighbours is, got {type(tensor).__name__}"
            )


def check_matrix(neighbours: Tensor) -> None:
    """Refuse neighbours that have not two dimensions."""
    if neighbours.ndim != 2:
        shape = tuple(neighbours.shape)
        raise ValueError(f"neighbours must have 2 dimensions, got shape {shape}")


def _check_out(out: Any, kind: type[Votes] | type[Chosen]) -> None:
    if out is None:
        return
    if not isinstance(out, kind):
        raise TypeError(f"out must be {kind.__name__}, got {type(out).__name__}")
    check_tensors(**{f"out.{name}": tensor for name, tensor in out._asdict().items()})


def no_fault(neighbours: Tensor) -> Tensor:
    """A place for the kernels to say which value they refuse: none yet."""
    import torch

    return torch.full((1,), NO_FAULT, dtype=torch.int64, device=neighbours.device)


def capsule(tensor: Any) -> Any:
    """A tensor, or None, as the extension takes it."""
    return None if tensor is None else tensor.__dlpack__(stream=-1)  # -1: on the same stream


@contextmanager
def stream_of(device: Any) -> Iterator[int]:
    """Make a device torch's current one; gives its current stream."""
    import torch

    if device.type != "cuda":  # the extension says what is wrong
        yield 0
        return
    with torch.cuda.device(device):
        yield torch.cuda.current_stream(device).cuda_stream


def refuse(
    fault: Tensor,
    neighbours: Tensor,
    outcomes: PackedOutcomes | Tensor,
    prior: Tensor,
    *,
    preference: Tensor | None = None,
    p_table: Tensor | None = None,
    weights: Tensor | None = None,
    similarities: Tensor | None = None,
    allowed: Tensor | None = None,
    fallback_model: int = 0,
    queries: Tensor | None = None,
    home: int | None = None,
) -> None:
    """Raise for the first value that the kernels, or the checks here, do not take."""
    import torch

    given = {"prior": prior, "p_table": p_table, "queries": queries}
    finite = {name: values for name, values in given.items() if values is not None}
    fine = [torch.isfinite(values).all() for values in finite.values()]
    if preference is not None:
        places = torch.arange(len(preference), device=preference.device)
        fine.append((preference.sort().values == places).all())
    if allowed is not None:
        fine.append(allowed[fallback_model])
        if home is not None:
            fine.append(allowed[home])
    place, *passed = torch.cat([fault, torch.stack(fine).long()]).tolist()  # the only wait
    if not all(passed):
        for name, values in finite.items():
            _core.check_finite(name, values.cpu().numpy())
        _refuse_models(preference, allowed, fallback_model, home)
    if place == NO_FAULT:
        return
    place, column = divmod(place, neighbours.shape[1])
    row, number = divmod(place, len(_core.device_faults))
    kind = _core.device_faults[number]
    votes_of = outcomes.bits if isinstance(outcomes, PackedOutcomes) else outcomes
    if kind == "score":
        row = int(neighbours[row, column])
        column = int(torch.isinf(votes_of[row]).nonzero()[0])
    values = {"id": neighbours, "weight": weights, "similarity": similarities, "score": votes_of}
    refused = values[kind]
    assert refused is not None
    _core.refuse_fault(kind, refused[row, column].item(), row, column, len(votes_of))


def _refuse_models(
    preference: Tensor | None, allowed: Tensor | None, fallback_model: int, home: int | None
) -> None:
    """Raise for an order of models that is none, or a model that is needed and not allowed."""
    assert preference is not None
    _core.check_preference(preference.cpu().numpy())
    if allowed is not None:
        best_on_average = -1 if home is None else home
        _core.check_allowed(allowed.cpu().numpy(), fallback_model, best_on_average)
