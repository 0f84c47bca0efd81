"""Softmax attention within every prompt of a batch without padding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchrouter import _core
from benchrouter.embeddings.network.native import as_numpy

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from benchrouter.embeddings.batching import Run


def native_attention(
    query_key_value: Tensor, runs: NDArray[np.int64], heads: int, bias: Tensor | None
) -> Tensor:
    """By the extension, in the calling thread; all arithmetic is float32.

    Faster than torch's operator where prompts are short and heads narrow (benchmarks/README.md).

    Parameters
    ----------
    query_key_value : float32 or bfloat16 tensor, shape (n_tokens, 3·dim)
        On the CPU, contiguous.
    runs : int64 array, shape (n_runs, 2)
        Prompts of equal length, side by side: how many, and their tokens.
    heads : int
    bias : float32 tensor, shape (heads, length, length), or None
        Of at least the longest prompt; added to the scores.

    Returns
    -------
    tensor, shape (n_tokens, dim)
        In the dtype given.
    """
    n_tokens, width = query_key_value.shape
    attended = query_key_value.new_empty((n_tokens, width // 3))
    _core.attention(
        as_numpy(query_key_value),
        runs,
        heads,
        None if bias is None else as_numpy(bias),
        as_numpy(attended),
    )
    return attended


def torch_attention(
    query_key_value: Tensor, runs: Sequence[Run], heads: int, biases: Sequence[Tensor | None]
) -> Tensor:
    """By torch's scaled_dot_product_attention, on any device.

    Parameters
    ----------
    query_key_value : tensor, shape (n_tokens, 3·dim)
    runs : sequence of Run
    heads : int
    biases : sequence of tensor or None
        Of each run: its attn_mask.

    Returns
    -------
    tensor, shape (n_tokens, dim)
    """
    import torch
    import torch.nn.functional as F

    dim = query_key_value.shape[1] // 3
    found, start = [], 0
    for run, bias in zip(runs, biases, strict=True):
        stop = start + run.prompts * run.length
        parts = query_key_value[start:stop].view(*run, 3, heads, dim // heads)
        query, key, value = parts.permute(2, 0, 3, 1, 4).unbind(0)
        attended = F.scaled_dot_product_attention(query, key, value, attn_mask=bias)
        found.append(attended.transpose(1, 2).reshape(stop - start, dim))
        start = stop
    return found[0] if len(found) == 1 else torch.cat(found)
