"""The rules for single prompts on a CUDA device: embeddings in, decisions out, nothing between."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.rules import BLOCK, Decided, Rule, Rules
from benchrouter.neighbours.on_device import TorchIndex
from benchrouter.prompts.timing import stage
from benchrouter.scores.expected import on_device as expected_on_device
from benchrouter.scores.expected.on_device import LearntOnDevice
from benchrouter.scores.expected.prompt_scores import Expected
from benchrouter.votes import on_device as votes_on_device
from benchrouter.votes.outcomes import Chosen

if TYPE_CHECKING:
    from torch import Tensor

OF_EXPECT = ("outcomes", "prior", "preference", "kappa", "distance_limit")


class RulesOnDevice:
    """What `decisions.rules.Rules` decides, with records and outcomes held on a device.

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
        votes_on_device.check_built()
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
        if rule == "auto":
            expected = self.expect(rows, k, allowed)
            return Decided(
                expected.chosen, self._rules.success(expected.chosen.score, expected.strange)
            )
        k = self._rules.check(rule, k)
        chosen = votes_on_device.new_chosen(len(rows), rows.device)
        arguments = {
            **self._arguments_of(rule),
            **votes_on_device.to_device({"allowed": allowed}, self._device),
            "fallback_model": self._rules.fallback(rule, allowed),
        }
        for block, neighbours in self._searched(rows, max(k, self._kappa)):
            with stage("decide", self._device):
                votes_on_device.decide(
                    neighbours.ids,
                    neighbours.similarities,
                    k=k,
                    weights=None,
                    out=Chosen(*(values[block] for values in chosen)),
                    **arguments,
                )
        return Decided(Chosen(*(values.cpu().numpy() for values in chosen)), None)

    def expect(
        self,
        rows: Tensor,
        k: int | None = None,
        allowed: NDArray[np.bool_] | None = None,
        *,
        with_scores: bool = False,
    ) -> Expected:
        """Decide by the rule "auto".

        Parameters
        ----------
        rows : float32 torch.Tensor, shape (n_prompts, dim)
            Unit rows on the device.
        k : None
            Other numbers of neighbours are not offered.
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all; in the host's memory.
        with_scores : bool
            Whether all expected scores are wanted too.

        Returns
        -------
        Expected
            Arrays in the host's memory.

        Raises
        ------
        ValueError
            If k is given.
        """
        import torch

        k = self._rules.check("auto", k)
        n, device = len(rows), rows.device
        chosen = votes_on_device.new_chosen(n, device)
        strange = torch.empty(n, device=device)
        scores = torch.empty((n, len(self.models)), device=device) if with_scores else None
        arguments = {
            **self._arguments_of("auto"),
            **votes_on_device.to_device({"allowed": allowed}, self._device),
            "fallback_model": self._rules.fallback("auto", allowed),
            "home": self._rules.home(allowed),
        }
        for block, neighbours in self._searched(rows, max(k, self._kappa)):
            with stage("decide", self._device):
                expected_on_device.expect(
                    queries=rows[block],
                    neighbours=neighbours.ids,
                    similarities=neighbours.similarities,
                    out=expected_on_device.Expected(
                        Chosen(*(values[block] for values in chosen)),
                        strange[block],
                        None if scores is None else scores[block],
                    ),
                    **arguments,
                )
        return Expected(
            Chosen(*(values.cpu().numpy() for values in chosen)),
            strange.cpu().numpy(),
            None if scores is None else scores.cpu().numpy(),
        )

    def _searched(self, rows: Tensor, k: int) -> Iterator[tuple[slice, Any]]:
        """Blocks of prompts, and their neighbours on the device."""
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            with stage("search", self._device):
                neighbours = self._index.search(rows[block], k)
            yield block, neighbours

    def _arguments_of(self, rule: Rule) -> dict[str, Any]:
        """What the rule needs on every call; its arrays are copied to the device once."""
        with self._lock:
            if rule not in self._arguments:
                given = self._rules.arguments(rule)
                if rule == "auto":
                    given = {name: given[name] for name in OF_EXPECT}
                    given["learnt"] = LearntOnDevice(self._rules.learnt, self._device)
                    given["k"] = self._rules.check("auto", None)
                self._arguments[rule] = votes_on_device.to_device(given, self._device)
            return self._arguments[rule]
