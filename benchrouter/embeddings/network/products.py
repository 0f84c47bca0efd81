"""Products of tokens with a layer's weights, x·Wᵀ + b, fused with the next operation.

On a CPU oneDNN keeps each weight matrix in the order in which its kernels read it, and applies
GELU or adds the residual while the product is still in cache; F.linear goes to another library
for float32 and makes separate passes. benchmarks/README.md has the figures.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor

TYPICAL_TOKENS = 1024  # rows for which oneDNN chooses its order of weights; any number works


class Product(Protocol):
    """Weights (n_out, n_in) and bias (n_out,) of one dense layer; x has shape (n_tokens, n_in)."""

    def __call__(self, x: Tensor) -> Tensor:
        """x·Wᵀ + b."""

    def gelu(self, x: Tensor) -> Tensor:
        """GELU of the product, by the error function."""

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """Product and residual, shape (n_tokens, n_out), added."""


def product_of(weight: Tensor, bias: Tensor) -> Product:
    """Choose the fastest product for a device and dtype.

    Parameters
    ----------
    weight : tensor, shape (n_out, n_in)
    bias : tensor, shape (n_out,)
        On the same device, of the same dtype.
    """
    return PackedProduct(weight, bias) if can_pack(weight) else PlainProduct(weight, bias)


def can_pack(weight: Tensor) -> bool:
    """Whether this torch has oneDNN's products for the device and dtype of a weight matrix."""
    import torch

    operators = torch.ops.mkldnn
    return (
        weight.device.type == "cpu"
        and weight.dtype in (torch.float32, torch.bfloat16)
        and torch.backends.mkldnn.is_available()
        and hasattr(operators, "_linear_pointwise")
        and hasattr(operators, "_reorder_linear_weight")
    )


class PlainProduct:
    """By torch's own operators, on any device."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        self._weight = weight
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """As :class:`Product`."""
        import torch.nn.functional as F

        return F.linear(x, self._weight, self._bias)

    def gelu(self, x: Tensor) -> Tensor:
        """As :class:`Product`."""
        import torch.nn.functional as F

        return F.gelu(self(x))

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """As :class:`Product`."""
        return self(x).add_(residual)


class PackedProduct:
    """By oneDNN's fused operators, which torch.compile uses as well."""

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        import torch

        self._operators = torch.ops.mkldnn
        self._weight = self._operators._reorder_linear_weight(weight, TYPICAL_TOKENS)
        self._bias = bias

    def __call__(self, x: Tensor) -> Tensor:
        """As :class:`Product`."""
        found: Tensor = self._operators._linear_pointwise(
            x, self._weight, self._bias, "none", [], ""
        )
        return found

    def gelu(self, x: Tensor) -> Tensor:
        """As :class:`Product`."""
        found: Tensor = self._operators._linear_pointwise(
            x, self._weight, self._bias, "gelu", [], "none"
        )
        return found

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """As :class:`Product`."""
        found: Tensor = self._operators._linear_pointwise.binary(
            x, residual, self._weight, self._bias, "add"
        )
        return found
