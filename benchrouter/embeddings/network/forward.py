"""Forward passes of BERT and MPNet over the tokens of a batch, without padding between prompts.

All products of a layer run over one matrix of tokens, whatever prompts they belong to; only
attention looks at prompts, in runs of equal length. The arithmetic is that of transformers'
``BertModel`` and ``MPNetModel``, from the same checkpoint.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from benchrouter import _core
from benchrouter.embeddings.devices import multiplies_bfloat16
from benchrouter.embeddings.network.attention import native_attention, torch_attention
from benchrouter.embeddings.network.products import product_of
from benchrouter.embeddings.network.quantized import QuantizedProduct
from benchrouter.embeddings.weights.layout import EncoderFiles

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from benchrouter.embeddings.batching import Run
    from benchrouter.embeddings.network.products import Product

# MPNet's relative positions, fixed in its published code whatever the configuration says.
BUCKETS = 32
FARTHEST = 128


@dataclass(frozen=True)
class _Names:
    """What the parts of a layer are called in a checkpoint."""

    query: str
    key: str
    value: str
    attended: str
    norm: str


_NAMES = {
    "bert": _Names(
        "attention.self.query",
        "attention.self.key",
        "attention.self.value",
        "attention.output.dense",
        "attention.output.LayerNorm",
    ),
    "mpnet": _Names(
        "attention.attn.q",
        "attention.attn.k",
        "attention.attn.v",
        "attention.attn.o",
        "attention.LayerNorm",
    ),
}
_SHARED_NORM = "output.LayerNorm"
_UP, _DOWN = "intermediate.dense", "output.dense"


@dataclass(frozen=True)
class _Norm:
    weight: Tensor
    bias: Tensor
    eps: float

    def __call__(self, x: Tensor) -> Tensor:
        import torch.nn.functional as F

        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)


@dataclass(frozen=True)
class _Layer:
    query_key_value: Product
    attended: Product
    attention_norm: _Norm
    up: Product
    down: Product
    norm: _Norm


class _Parts:
    """The parts of a checkpoint, as the layers need them."""

    def __init__(
        self,
        weights: Mapping[str, Tensor],
        eps: float,
        device: torch.device,
        dtype: torch.dtype,
        is_quantized: bool,
    ) -> None:
        self._weights, self._eps = weights, eps
        self._device, self._dtype, self._is_quantized = device, dtype, is_quantized

    def placed(self, tensor: Tensor, dtype: torch.dtype) -> Tensor:
        return tensor.to(device=self._device, dtype=dtype).contiguous()

    def norm(self, name: str, dtype: torch.dtype) -> _Norm:
        weight, bias = (self._weights[f"{name}.{part}"] for part in ("weight", "bias"))
        return _Norm(self.placed(weight, dtype), self.placed(bias, dtype), self._eps)

    def product(self, *names: str) -> Product:
        import torch

        dtype = torch.float32 if self._is_quantized else self._dtype
        weight, bias = (
            self.placed(torch.cat([self._weights[f"{name}.{part}"] for name in names]), dtype)
            for part in ("weight", "bias")
        )
        return QuantizedProduct(weight, bias) if self._is_quantized else product_of(weight, bias)

    def layer(self, at: str, names: _Names) -> _Layer:
        return _Layer(
            self.product(at + names.query, at + names.key, at + names.value),
            self.product(at + names.attended),
            self.norm(at + names.norm, self._dtype),
            self.product(at + _UP),
            self.product(at + _DOWN),
            self.norm(at + _SHARED_NORM, self._dtype),
        )


class Forward:
    """Token numbers to hidden states.

    Parameters
    ----------
    config : mapping
        config.json of the checkpoint, for which `is_ours` is true.
    weights : mapping of str to Tensor
        Of the checkpoint, for which `fits` is true.
    device : torch.device
    dtype : torch.dtype
        Of the layers; token and position vectors are added and normalised in float32. int8: the
        products are quantized, and the rest runs in the CPU's fastest type.
    most_tokens : int
        Longest prompt, special tokens included.
    """

    def __init__(
        self,
        config: Mapping[str, Any],
        weights: Mapping[str, Tensor],
        device: torch.device,
        dtype: torch.dtype,
        most_tokens: int,
    ) -> None:
        import torch

        self.is_mpnet = config["model_type"] == "mpnet"
        self._heads = config["num_attention_heads"]
        is_quantized = dtype == torch.int8
        if is_quantized:
            dtype = torch.bfloat16 if multiplies_bfloat16() else torch.float32
        self._dtype = dtype
        parts = _Parts(weights, config["layer_norm_eps"], device, dtype, is_quantized)
        positions = weights["embeddings.position_embeddings.weight"]
        if not self.is_mpnet:  # every token of a prompt is of the first type
            positions = positions + weights["embeddings.token_type_embeddings.weight"][0]
        self._words = parts.placed(weights["embeddings.word_embeddings.weight"], torch.float32)
        self._positions = parts.placed(positions, torch.float32)
        self._norm = parts.norm("embeddings.LayerNorm", torch.float32)
        names = _NAMES[config["model_type"]]
        layers = range(config["num_hidden_layers"])
        self._layers = [parts.layer(f"encoder.layer.{i}.", names) for i in layers]
        # Without AVX2 the extension's attention gains nothing.
        has_simd = "avx2" in _core.simd_levels()
        self._is_native = has_simd and device.type == "cpu" and dtype != torch.float16
        self._bias: Tensor | None = None
        if self.is_mpnet:
            of_buckets = weights["encoder.relative_attention_bias.weight"]
            # One matrix serves every length: the bias of fewer tokens is its upper left corner.
            bias = of_buckets[_buckets(most_tokens)].permute(2, 0, 1)
            self._bias = parts.placed(bias, torch.float32 if self._is_native else dtype)

    def __call__(
        self,
        tokens: Tensor,
        positions: Tensor,
        runs: Sequence[Run],
        is_token: Tensor | None = None,
    ) -> Tensor:
        """Compute the last hidden states of a batch.

        Parameters
        ----------
        tokens, positions : int64 tensors, shape (n_tokens,)
            Prompt after prompt, in the order of the runs.
        runs : sequence of Run
            Prompts of equal length, side by side.
        is_token : bool tensor, shape (n_prompts, length), optional
            Of a single run with filler at the right; None = there is no filler.

        Returns
        -------
        tensor, shape (n_tokens, dim)
            In the dtype of the layers.
        """
        import torch.nn.functional as F

        x = F.embedding(tokens, self._words) + F.embedding(positions, self._positions)
        x = self._norm(x).to(self._dtype)
        native = self._is_native and is_token is None
        if native:
            runs_there = np.array(runs, dtype=np.int64)
        else:
            biases = [self._bias_of(run.length, is_token) for run in runs]
        for layer in self._layers:
            parts = layer.query_key_value(x)
            if native:
                attended = native_attention(parts, runs_there, self._heads, self._bias)
            else:
                attended = torch_attention(parts, runs, self._heads, biases)
            x = layer.attention_norm(layer.attended.plus(attended, x))
            x = layer.norm(layer.down.plus(layer.up.gelu(x), x))
        return x

    def _bias_of(self, length: int, is_token: Tensor | None) -> Tensor | None:
        """Bias of the attention scores, shape broadcastable to (prompts, heads, length, length)."""
        bias = None if self._bias is None else self._bias[None, :, :length, :length]
        if is_token is None:
            return bias
        seen = is_token[:, None, None, :]
        return seen if bias is None else bias.masked_fill(~seen, -math.inf)


def _buckets(length: int) -> Tensor:
    """Bucket of every relative position, int64 (length, length): key less query."""
    import torch

    at = torch.arange(length)
    relative = at[None, :] - at[:, None]
    of_a_side = BUCKETS // 2
    exact = of_a_side // 2
    distance = relative.abs()
    ratio = torch.log(distance.float() / exact) / math.log(FARTHEST / exact)
    far = exact + (ratio.clamp(min=0.0) * (of_a_side - exact)).long()
    bucket = torch.where(distance < exact, distance, far.clamp(max=of_a_side - 1))
    return bucket + (relative > 0).long() * of_a_side


def read_config(files: EncoderFiles) -> dict[str, Any]:
    """Read config.json, which `read_layout` has checked."""
    config: dict[str, Any] = json.loads((files.folder / "config.json").read_text(encoding="utf-8"))
    return config


def is_ours(config: Mapping[str, Any]) -> bool:
    """Whether `Forward` can run a configuration.

    Parameters
    ----------
    config : mapping
        As config.json has it.
    """
    architecture = config.get("model_type")
    if architecture not in _NAMES or config.get("hidden_act", "gelu") != "gelu":
        return False
    if not {"hidden_size", "num_attention_heads", "num_hidden_layers"} <= set(config):
        return False
    if config["hidden_size"] % config["num_attention_heads"] or "layer_norm_eps" not in config:
        return False
    if architecture == "mpnet":
        return config.get("relative_attention_num_buckets", BUCKETS) == BUCKETS
    absolute = config.get("position_embedding_type", "absolute") == "absolute"
    return absolute and not config.get("is_decoder") and not config.get("add_cross_attention")


def read_weights(files: EncoderFiles) -> dict[str, Tensor]:
    """Read all weights; the prefix "bert." or "mpnet." of their names is dropped.

    Raises
    ------
    ValueError
        If a file is not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    found: dict[str, Tensor] = {}
    for path in files.weights:
        try:
            found |= load_file(path)
        except (SafetensorError, OSError) as error:
            raise ValueError(f"{path}: found weights that do not load ({error})") from error
    return {name.removeprefix("bert.").removeprefix("mpnet."): w for name, w in found.items()}


def fits(config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> bool:
    """Whether a checkpoint has every weight that the configuration needs, in its shape.

    Parameters
    ----------
    config : mapping
        For which `is_ours` is true.
    weights : mapping of str to Tensor
    """
    dim = config["hidden_size"]
    names = _NAMES[config["model_type"]]
    wide = config.get("intermediate_size")
    expected: dict[str, tuple[Any, ...]] = {
        "embeddings.LayerNorm.weight": (dim,),
        "embeddings.LayerNorm.bias": (dim,),
    }
    for kind, count in (
        ("word_embeddings", config.get("vocab_size")),
        ("position_embeddings", config.get("max_position_embeddings")),
        ("token_type_embeddings", config.get("type_vocab_size")),
    ):
        if kind != "token_type_embeddings" or config["model_type"] == "bert":
            expected[f"embeddings.{kind}.weight"] = (count, dim)
    if config["model_type"] == "mpnet":
        heads = config["num_attention_heads"]
        expected["encoder.relative_attention_bias.weight"] = (BUCKETS, heads)
    shapes: dict[str, tuple[Any, ...]] = {
        name: (dim, dim) for name in (names.query, names.key, names.value, names.attended)
    }
    shapes |= {_UP: (wide, dim), _DOWN: (dim, wide), names.norm: (dim,), _SHARED_NORM: (dim,)}
    for i in range(config["num_hidden_layers"]):
        for name, shape in shapes.items():
            expected[f"encoder.layer.{i}.{name}.weight"] = shape
            expected[f"encoder.layer.{i}.{name}.bias"] = shape[:1]
    return all(name in weights and weights[name].shape == s for name, s in expected.items())
