"""Token vectors to one unit row a prompt, in float32 whatever the network's dtype."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from benchrouter.embeddings.batching import Run


def pool(hidden: Tensor, mask: Tensor, pooling: str) -> Tensor:
    """Pool the token vectors of each row.

    Parameters
    ----------
    hidden : float tensor, shape (n_rows, n_tokens, dim)
        Last hidden state.
    mask : int64 tensor, shape (n_rows, n_tokens)
        1 on tokens, 0 on the filler at the right.
    pooling : {"mean", "cls", "max"}

    Returns
    -------
    float32 tensor, shape (n_rows, dim)

    Raises
    ------
    ValueError
        If the pooling is another.
    """
    if pooling == "cls":
        return hidden[:, 0].float()
    present = mask.unsqueeze(-1)
    if pooling == "mean":
        return (hidden.float() * present).sum(dim=1) / present.sum(dim=1)
    if pooling == "max":
        return hidden.float().masked_fill(present == 0, float("-inf")).amax(dim=1)
    raise ValueError(f"pooling must be mean, cls or max, got {pooling!r}")


def pool_runs(hidden: Tensor, runs: Sequence[Run], pooling: str) -> Tensor:
    """Pool the token vectors of a batch without padding.

    Parameters
    ----------
    hidden : float tensor, shape (n_tokens, dim)
    runs : sequence of Run
        Prompts of equal length, side by side.
    pooling : {"mean", "cls", "max"}

    Returns
    -------
    float32 tensor, shape (n_prompts, dim)

    Raises
    ------
    ValueError
        If the pooling is another.
    """
    import torch

    found, start = [], 0
    for run in runs:
        stop = start + run.prompts * run.length
        vectors = hidden[start:stop].view(run.prompts, run.length, -1)
        if pooling == "mean":
            found.append(vectors.mean(dim=1, dtype=torch.float32))
        elif pooling == "cls":
            found.append(vectors[:, 0].float())
        elif pooling == "max":
            found.append(vectors.amax(dim=1).float())
        else:
            raise ValueError(f"pooling must be mean, cls or max, got {pooling!r}")
        start = stop
    return torch.cat(found)


def unit_rows(rows: Tensor) -> Tensor:
    """Divide each row of a float32 tensor by its Euclidean norm."""
    return rows / rows.norm(dim=1, keepdim=True)
