"""The rules for single prompts on a CUDA device: embeddings in, decisions out, nothing between."""

from __future__ import annotations

import threading
from collections.abc import Iterable
from functools import cached_property
from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from benchrouter.decisions.backend import BLOCK, Decided, Scored
from benchrouter.decisions.plan import Plan
from benchrouter.decisions.policy import Rule
from benchrouter.decisions.rules import Rules
from benchrouter.embeddings.of_prompts import UnitRows, on_device
from benchrouter.neighbours.lists import Neighbours
from benchrouter.neighbours.on_device import TorchIndex
from benchrouter.prompts.timing import stage
from benchrouter.scores.expected import on_device as expected_on_device
from benchrouter.scores.expected.on_device import LearntOnDevice
from benchrouter.votes import on_device as votes_on_device
from benchrouter.votes.outcomes import Chosen

if TYPE_CHECKING:
    from torch import Tensor


class OnDevice:
    """A `Backend` on a CUDA device; the benchmark is copied there at first need.

    Parameters
    ----------
    rules : Rules
    device : str
        "cuda:N".

    Raises
    ------
    NoCudaKernels
        If the extension was built without CUDA.
    """

    def __init__(self, rules: Rules, device: str) -> None:
        votes_on_device.check_built()
        self.rules = rules
        self._device = device
        self._arguments: dict[Rule, dict[str, Any]] = {}
        self._lock = threading.RLock()

    def decide(self, rows: UnitRows, plan: Plan) -> Decided:
        """Choose a model for every prompt; as :meth:`Backend.decide`."""
        import torch

        rows = on_device(rows, self._device)
        chosen = votes_on_device.new_chosen(len(rows), rows.device)
        strange = torch.empty(len(rows), device=rows.device) if plan.rule == "auto" else None
        for start in range(0, len(rows), BLOCK):
            block = slice(start, start + BLOCK)
            neighbours = self._searched(rows[block], plan)
            out = Chosen._make(values[block] for values in chosen)
            if strange is None:
                self._vote(neighbours, plan, out)
            else:
                expected = expected_on_device.ExpectedOnDevice(out, strange[block], None)
                self._expect(rows[block], neighbours, plan, expected)
        on_host = Chosen._make(_on_host(chosen))
        of_prompts = None if strange is None else strange.cpu().numpy()
        return Decided(on_host, self.rules.success(on_host.score, of_prompts))

    def score(self, rows: UnitRows, plan: Plan) -> Scored:
        """Search and score a block of prompts; as :meth:`Backend.score`."""
        rows = on_device(rows, self._device)
        neighbours = self._searched(rows, plan)
        near = Neighbours._make(_on_host(neighbours))
        if plan.rule == "auto":
            found = self._expect(rows, neighbours, plan)
            assert found.scores is not None
            scores, strange = _on_host([found.scores, found.strange])
            return Scored(near, Chosen._make(_on_host(found.chosen)), scores, strange)
        chosen = Chosen._make(_on_host(self._vote(neighbours, plan)))
        of_rule = self._arguments_of(plan.rule)
        voted = votes_on_device.votes(
            neighbours.ids,
            of_rule["outcomes"],
            prior=of_rule["prior"],
            k=plan.k,
            prior_weight=of_rule["prior_weight"],
            weights=None,
            out=None,
        ).votes
        (on_host,) = _on_host([voted])
        scores = self.rules.scores_of_votes(on_host, chosen.distance, plan.rule)
        return Scored(near, chosen, scores, None)

    def _vote(self, neighbours: Neighbours, plan: Plan, out: Chosen | None = None) -> Chosen:
        with stage("decide", self._device):
            return votes_on_device.decide(
                neighbours.ids,
                neighbours.similarities,
                k=plan.k,
                weights=None,
                out=out,
                allowed=self._allowed(plan),
                **self.rules.of_plan(plan),
                **self._arguments_of(plan.rule),
            )

    def _expect(
        self,
        rows: Tensor,
        neighbours: Neighbours,
        plan: Plan,
        out: expected_on_device.ExpectedOnDevice | None = None,
    ) -> expected_on_device.ExpectedOnDevice:
        with stage("decide", self._device):
            return expected_on_device.expect(
                queries=rows,
                neighbours=neighbours.ids,
                similarities=neighbours.similarities,
                allowed=self._allowed(plan),
                out=out,
                with_scores=out is None,
                **self.rules.of_plan(plan),
                **self._arguments_of("auto"),
            )

    def _searched(self, rows: Tensor, plan: Plan) -> Neighbours:
        with self._lock:
            index = self._index
        with stage("search", self._device):
            return index.search(rows, plan.depth)

    @cached_property
    def _index(self) -> TorchIndex:
        return TorchIndex(self.rules.fit.embeddings, device=self._device, verify=False)

    def _allowed(self, plan: Plan) -> Tensor | None:
        moved = votes_on_device.to_device({"allowed": plan.narrowed}, self._device)
        return moved["allowed"]

    def _arguments_of(self, rule: Rule) -> dict[str, Any]:
        """What the rule needs on every call; its arrays are copied to the device once."""
        with self._lock:
            if rule not in self._arguments:
                auto = rule == "auto"
                given = self.rules.of_expectation() if auto else self.rules.of_votes(rule)
                self._arguments[rule] = votes_on_device.to_device(given, self._device)
                if auto:
                    learnt = LearntOnDevice(self.rules.learnt, self._device)
                    self._arguments[rule]["learnt"] = learnt
            return self._arguments[rule]


def _on_host(tensors: Iterable[Any]) -> list[NDArray[Any]]:
    return [tensor.cpu().numpy() for tensor in tensors]
