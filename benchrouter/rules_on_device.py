"""The rules for single prompts on a CUDA device: embeddings in, decisions out, nothing between."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter import voting_cuda
from benchrouter.rules import BLOCK, Decided, Rule, Rules
from benchrouter.search_torch import TorchIndex
from benchrouter.stages import stage
from benchrouter.voting import Chosen

if TYPE_CHECKING:
    from torch import Tensor


class RulesOnDevice:
    """What :class:`benchrouter.rules.Rules` decides, with records and outcomes held on a device.

    Parameters
    ----------
    rules : Rules
    device : str
        "cuda:N".

    Attributes
    ----------
    models : tuple of str

    Raises
    ------
    NoCudaKernels
        If the extension was built without CUDA.
    """

    def __init__(self, rules: Rules, device: str) -> None:
        voting_cuda.check_built()
        self._rules = rules
        self.models = rules.fit.models
        self._kappa = rules.fit.settings.kappa
        self._index = TorchIndex(rules.fit.embeddings, device=device, verify=False)
        self._device = device
        self._arguments: dict[Rule, dict[str, Any]] = {}
        self._lock = threading.Lock()

    def decide(
        self,
        rows: Tensor,
        rule: Rule,
        k: int | None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Decided:
        """Choose a model for every prompt.

        Parameters
        ----------
        rows : float32 torch.Tensor, shape (n_prompts, dim)
            Unit rows on the device.
        rule : "auto", "mean", "raw" or "s3"
        k : int, optional
            Neighbours that vote, instead of the fit's.
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all; in the host's memory.

        Returns
        -------
        Decided
            Arrays of shape (n_prompts,), in the host's memory.

        Raises
        ------
        TypeError, ValueError
            If the rule or k is none, or the benchmark does not offer the rule.
        """
        import torch

        k = self._rules.check(rule, k)
        n, device = len(rows), rows.device
        kinds = (torch.int32, torch.float32, torch.float32, torch.float32, torch.bool)
        chosen: list[Any] = [torch.empty(n, dtype=kind, device=device) for kind in kinds]
        arguments = {
            **self._arguments_of(rule),
            **voting_cuda.to_device({"allowed": allowed}, self._device),
            "fallback_model": self._rules.fallback(rule, allowed),
        }
        for start in range(0, n, BLOCK):
            block = slice(start, start + BLOCK)
            with stage("search", self._device):
                neighbours = self._index.search(rows[block], max(k, self._kappa))
            with stage("decide", self._device):
                voting_cuda.decide(
                    neighbours.ids,
                    neighbours.similarities,
                    k=k,
                    weights=None,
                    out=Chosen(*(values[block] for values in chosen)),
                    **arguments,
                )
        return Decided(Chosen(*(values.cpu().numpy() for values in chosen)), None)

    def _arguments_of(self, rule: Rule) -> dict[str, Any]:
        """What the rule needs on every call; its arrays are copied to the device once."""
        with self._lock:
            if rule not in self._arguments:
                self._arguments[rule] = voting_cuda.to_device(
                    self._rules.arguments(rule), self._device
                )
            return self._arguments[rule]
