"""The rules for single prompts on the CPU: neighbours to scores to decisions."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from benchrouter.decisions.backend import BLOCK, Decided, Scored
from benchrouter.decisions.plan import Plan
from benchrouter.decisions.rules import Rules
from benchrouter.embeddings.of_prompts import UnitRows, on_host
from benchrouter.files.arrays import Floats, Ids, Rows
from benchrouter.neighbours.index import Index
from benchrouter.neighbours.lists import Neighbours
from benchrouter.prompts.timing import stage
from benchrouter.scores.expected.prompt_scores import Expected, expect
from benchrouter.votes.outcomes import Chosen
from benchrouter.votes.votes import decide, votes


class OnCpu:
    """A `Backend` on the CPU.

    Parameters
    ----------
    rules : Rules
    index : Index
        Over the fit's embeddings.
    """

    def __init__(self, rules: Rules, index: Index) -> None:
        self.rules = rules
        self.index = index

    @cached_property
    def _of_expectation(self) -> dict[str, Any]:
        return self.rules.of_expectation()

    def decide(self, rows: UnitRows, plan: Plan) -> Decided:
        """Choose a model for every prompt; as :meth:`Backend.decide`."""
        rows = on_host(rows)
        n = len(rows)
        chosen = Chosen(
            np.empty(n, np.int32),
            np.empty(n, np.float32),
            np.empty(n, np.float32),
            np.empty(n, np.float32),
            np.empty(n, np.bool_),
        )
        strange = np.empty(n, np.float32) if plan.rule == "auto" else None
        for start in range(0, n, BLOCK):
            block = slice(start, start + BLOCK)
            neighbours = self.index.search(rows[block], plan.depth)
            out = Chosen._make(values[block] for values in chosen)
            if strange is None:
                self._vote(neighbours, plan, out)
            else:
                found = self._expect(rows[block], neighbours, plan, out=out)
                strange[block] = found.strange
        return Decided(chosen, self.rules.success(chosen.score, strange))

    def score(self, rows: UnitRows, plan: Plan) -> Scored:
        """Search and score a block of prompts; as :meth:`Backend.score`."""
        rows = on_host(rows)
        return self.score_on(rows, self.index.search(rows, plan.depth), plan)

    def score_on(self, rows: Rows, neighbours: Neighbours, plan: Plan) -> Scored:
        """Score prompts whose neighbours are known.

        Parameters
        ----------
        rows : float32 array, shape (n_prompts, dim)
            Unit rows.
        neighbours : Neighbours
            Arrays of shape (n_prompts, at least plan.depth).
        plan : Plan
        """
        if plan.rule == "auto":
            found = self._expect(rows, neighbours, plan, with_scores=True)
            assert found.scores is not None
            return Scored(neighbours, found.chosen, found.scores, found.strange)
        chosen = self._vote(neighbours, plan)
        scores = self.scores_of(neighbours.ids, plan, chosen.distance)
        return Scored(neighbours, chosen, scores, None)

    def scores_of(self, ids: Ids, plan: Plan, distance: Floats) -> Floats:
        """Score of every model by the votes of known neighbours.

        Parameters
        ----------
        ids : int64 array, shape (n_prompts, at least plan.k)
            Neighbours of the prompts, −1 = none.
        plan : Plan
            Of another rule than "auto".
        distance : float32 array, shape (n_prompts,)
            u of the prompts.

        Returns
        -------
        float32 array, shape (n_prompts, n_models)
        """
        outcomes, prior, prior_weight = self.rules.voting(plan.rule)
        voting = np.ascontiguousarray(ids[:, : plan.k])
        threads = self.index.threads
        found = votes(voting, outcomes, prior=prior, prior_weight=prior_weight, threads=threads)
        return self.rules.scores_of_votes(found.votes, distance, plan.rule)

    @stage("decide")
    def _vote(self, neighbours: Neighbours, plan: Plan, out: Chosen | None = None) -> Chosen:
        return decide(
            neighbours.ids,
            neighbours.similarities,
            k=plan.k,
            threads=self.index.threads,
            out=out,
            allowed=plan.narrowed,
            **self.rules.of_plan(plan),
            **self.rules.of_votes(plan.rule),
        )

    @stage("decide")
    def _expect(
        self,
        rows: Rows,
        neighbours: Neighbours,
        plan: Plan,
        *,
        out: Chosen | None = None,
        with_scores: bool = False,
    ) -> Expected:
        return expect(
            self.rules.expectation,
            rows,
            neighbours,
            allowed=plan.narrowed,
            threads=self.index.threads,
            out=out,
            with_scores=with_scores,
            **self.rules.of_plan(plan),
            **self._of_expectation,
        )
