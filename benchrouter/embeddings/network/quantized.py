"""Products in 8-bit integers: dynamic quantization, by oneDNN where the CPU has VNNI.

Weights are rounded once, each row of a matrix by its largest value. Each token is rounded by its
own largest value, so that an embedding does not depend on its batch. benchmarks/README.md has the
gain in speed and the loss in accuracy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchrouter import _core
from benchrouter.embeddings.network.native import as_numpy
from benchrouter.embeddings.network.products import TYPICAL_TOKENS

if TYPE_CHECKING:
    from torch import Tensor

LARGEST = 127  # of a quantized value
ZERO = 128  # the code of a token's 0: oneDNN's fast kernels want unsigned codes


class QuantizedProduct:
    """As :class:`benchrouter.embeddings.network.products.Product`, in 8-bit integers on a CPU.

    Parameters
    ----------
    weight : float32 tensor, shape (n_out, n_in)
    bias : float32 tensor, shape (n_out,)
    """

    def __init__(self, weight: Tensor, bias: Tensor) -> None:
        import torch

        scales = weight.abs().amax(dim=1).clamp(min=1e-30) / LARGEST
        quantized = torch.round(weight / scales[:, None]).to(torch.int8)
        operators = torch.ops.onednn
        self._packed = operators.qlinear_prepack(quantized, [TYPICAL_TOKENS, weight.shape[1]])
        self._scales = scales.contiguous()
        self._zeros = torch.zeros(len(weight), dtype=torch.int64)
        self._bias = as_numpy(bias.contiguous())
        self._product = operators.qlinear_pointwise.default

    def __call__(self, x: Tensor) -> Tensor:
        """As :class:`Product`."""
        return self._finished(x)

    def gelu(self, x: Tensor) -> Tensor:
        """As :class:`Product`."""
        return self._finished(x, gelu=True)

    def plus(self, x: Tensor, residual: Tensor) -> Tensor:
        """As :class:`Product`."""
        return self._finished(x, residual=residual)

    def _finished(self, x: Tensor, *, gelu: bool = False, residual: Tensor | None = None) -> Tensor:
        import torch

        quantized = torch.empty(x.shape, dtype=torch.uint8)
        scales = torch.empty(len(x))
        _core.quantize(as_numpy(x), as_numpy(quantized), as_numpy(scales))
        found: Tensor = self._product(
            quantized, 1.0, ZERO, self._packed, self._scales, self._zeros, None,
            1.0, 0, x.dtype, "none", [], "",
        )  # fmt: skip
        rest = None if residual is None else as_numpy(residual)
        _core.dequantize(as_numpy(found), as_numpy(scales), self._bias, rest, gelu)
        return found
