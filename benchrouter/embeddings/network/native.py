"""Tensors as the extension reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def as_numpy(tensor: Tensor) -> NDArray[Any]:
    """View a tensor on the CPU as an array; bfloat16, which NumPy lacks, as its bits.

    Returns
    -------
    array
        Of the same shape, sharing the tensor's memory; uint16 for bfloat16.
    """
    import torch

    shared = tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor
    array: NDArray[Any] = shared.numpy()
    return array
