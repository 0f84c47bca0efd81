"""Chances of success by the rules other than "auto": scores of held-out records, calibrated."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.costs.isotonic import Isotonic, isotonic
from benchrouter.decisions.on_cpu import OnCpu
from benchrouter.decisions.plan import Plan, voters_of
from benchrouter.decisions.policy import Policy, Rule
from benchrouter.files.arrays import Ids
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores import formulas
from benchrouter.scores.held_out import sample_of, without_prompt
from benchrouter.votes.outcomes import unpack

SAME_PROMPTS = 8  # so many neighbours may be the prompt itself


class Calibrations:
    """Calibrations of one benchmark, each made at first need and kept.

    Parameters
    ----------
    cpu : OnCpu
    """

    def __init__(self, cpu: OnCpu) -> None:
        self._cpu = cpu
        self._made: dict[tuple[Rule, int], Isotonic] = {}

    def has(self, policy: Policy) -> bool:
        """Whether what a policy needs is there, or it needs nothing.

        Raises
        ------
        ValueError
            If the benchmark does not offer the policy's rule.
        """
        k = voters_of(self._cpu.rules.fit, policy)
        return not _needs(policy) or (policy.rule, k) in self._made

    def of(self, plan: Plan) -> Isotonic | None:
        """What a plan needs, made where it is not there; None where it needs nothing."""
        if not _needs(plan.policy):
            return None
        asked = plan.rule, plan.k
        if asked not in self._made:
            self._made[asked] = isotonic(*self.held_out_pairs(plan))
        return self._made[asked]

    def held_out_pairs(self, plan: Plan) -> tuple[NDArray[np.floating], NDArray[np.floating]]:
        """Predicted scores of records from all other records, and their correctness.

        Holding out whole datasets, as for p̂, would calibrate for prompts of kinds that the
        benchmark does not have, and be far from sure enough for those of kinds that it has.
        """
        fit, rows = self._cpu.rules.fit, self.sample()
        queries = np.ascontiguousarray(fit.embeddings[rows])
        near = self._cpu.index.search(queries, plan.depth + SAME_PROMPTS)
        found = without_prompt(near, rows, plan.depth)
        known = (found.ids >= 0).any(axis=1)
        found = Neighbours(found.ids[known], found.similarities[known])
        distance = formulas.prompt_distances(found.similarities).astype(np.float32)
        scores = self._cpu.scores_of(found.ids, plan, distance)
        assert fit.correct is not None
        return scores.ravel(), unpack(fit.correct, rows[known]).ravel()

    def sample(self) -> Ids:
        """All records, or in a large benchmark some of every dataset."""
        fit = self._cpu.rules.fit
        codes, seed = range(len(fit.datasets)), fit.settings.seed
        return np.sort(np.concatenate([sample_of(fit.dataset, code, seed) for code in codes]))


def _needs(policy: Policy) -> bool:
    return policy.min_success is not None and policy.rule != "auto"
