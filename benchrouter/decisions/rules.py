"""The rules for single prompts on one benchmark: what they take beside a prompt's neighbours."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter import _core
from benchrouter.decisions.costs.choice import beneath
from benchrouter.decisions.plan import Plan
from benchrouter.decisions.policy import Rule
from benchrouter.files.arrays import Array, Floats
from benchrouter.scores import formulas
from benchrouter.scores.evidence import verdicts
from benchrouter.scores.expected.prompt_scores import Success
from benchrouter.scores.fitted import Fit
from benchrouter.votes.outcomes import Outcomes

GRID = 1024  # steps of u over [0, 2] at which p̂ is tabulated


class Rules:
    """The rules on one benchmark; nothing here depends on where its records are searched.

    Parameters
    ----------
    fit : Fit
    """

    def __init__(self, fit: Fit) -> None:
        self.fit = fit

    def voting(self, rule: Rule) -> tuple[Outcomes, NDArray[np.float32], float]:
        """Outcomes that vote under a rule, the models' prior, and the weight of that prior.

        The prior is the score of a model where there is no evidence: its standing.
        """
        fit = self.fit
        if rule == "s3" and fit.correct is not None:
            return fit.correct, fit.prior, 0.0
        return fit.raw, fit.raw_prior, 1.0 if rule == "mean" else 0.0

    def of_votes(self, rule: Rule) -> dict[str, Any]:
        """Arguments of :func:`benchrouter.votes.votes.decide` that only depend on the rule.

        Parameters
        ----------
        rule : "mean", "raw" or "s3"
            One that the benchmark offers.
        """
        fit = self.fit
        outcomes, prior, prior_weight = self.voting(rule)
        return {
            "outcomes": outcomes,
            "prior": prior,
            "preference": fit.preferred,
            "kappa": fit.settings.kappa,
            "rule": "s3" if rule == "s3" else "mean",
            "prior_weight": prior_weight,
            "threshold": fit.settings.threshold,
            "p_table": self._p_table if rule == "s3" else None,
            "p_start": 0.0,
            "p_step": 2.0 / GRID,
            "distance_limit": fit.distance_limit,
        }

    def of_expectation(self) -> dict[str, Any]:
        """Arguments of the rule "auto", beside what it learnt, that do not depend on the policy."""
        fit = self.fit
        return {
            "outcomes": fit.raw,
            "prior": fit.raw_prior,
            "preference": fit.preferred,
            "k": fit.expectation.neighbours,
            "kappa": fit.settings.kappa,
            "distance_limit": fit.distance_limit,
        }

    @property
    def learnt(self) -> dict[str, Any]:
        """Arrays and numbers of the rule "auto", as the extension takes them."""
        return self.fit.expectation.arrays(self.fit.dataset, costs_known=self.fit.costs_known)

    @cached_property
    def expectation(self) -> _core.Expectation:
        """The same, checked and kept by the extension."""
        return _core.Expectation(**self.learnt)

    def of_plan(self, plan: Plan) -> dict[str, Any]:
        """Arguments of a decision by known neighbours that depend on the models allowed."""
        found: dict[str, Any] = {"fallback_model": self.fallback(plan.rule, plan.narrowed)}
        if plan.rule == "auto":
            found["home"] = self.home(plan.narrowed)
        return found

    def home(self, allowed: NDArray[np.bool_] | None) -> int:
        """Position of the model that the rule "auto" only leaves where that pays.

        The best on average; where it is not allowed, the one of the best standing.
        """
        best = self.fit.best_on_average
        return best if allowed is None or allowed[best] else self._best_standing("auto", allowed)

    def fallback(self, rule: Rule, allowed: NDArray[np.bool_] | None) -> int:
        """Position of the model to answer where evidence is too thin.

        The fit's fallback model; where it is not allowed, the one of the best standing.
        """
        own = self.fit.fallback
        return own if allowed is None or allowed[own] else self._best_standing(rule, allowed)

    def _best_standing(self, rule: Rule, allowed: NDArray[np.bool_]) -> int:
        standing = np.where(allowed, self.voting(rule)[1].astype(np.float64), -np.inf)
        return formulas.best_model(standing, self.fit.preferred)

    def success(self, score: Floats, strange: Floats | None) -> Success | None:
        """Chance of a correct answer of the models chosen.

        None by other rules than "auto", and where correctness is not known.
        """
        return None if strange is None else self.fit.expectation.success(score, strange)

    def scores_of_votes(self, voted: Floats, distance: Floats, rule: Rule) -> Floats:
        """Scores of all models from their votes, as the fused decisions round them.

        Parameters
        ----------
        voted : float32 array, shape (n_prompts, n_models)
        distance : float32 array, shape (n_prompts,)
            u of the prompts.
        rule : "mean", "raw" or "s3"

        Returns
        -------
        float32 array, shape (n_prompts, n_models)
        """
        if rule != "s3":
            return voted
        g_bar = verdicts(voted, self.fit.settings.threshold).astype(np.float64)
        p = [np.interp(distance, _grid(), column) for column in self._p_table.T]
        return formulas.s3(g_bar, np.stack(p, axis=1)).astype(np.float32)

    @cached_property
    def _p_table(self) -> NDArray[np.float32]:
        pairs = self.fit.pairs
        p_hat = formulas.smooth(_grid(), pairs.u, pairs.p, self.fit.settings.sigma)
        return np.where(np.isnan(p_hat), 0.5, p_hat).astype(np.float32)

    def counted(
        self, scores: Floats, strange: Floats | None, fallback: NDArray[np.bool_], plan: Plan
    ) -> Array:
        """Scores as they count in a choice.

        Where evidence is too thin, standings count, none above that of the fallback model. By the
        rule "auto" no model counts above the best on average that is not ahead of it by the margin,
        and none as its equal, where leads do not count, whose standing is not.

        Parameters
        ----------
        scores : float32 array, shape (n_prompts, n_models)
        strange : float32 array, shape (n_prompts,), or None
            By the rule "auto": chance that a prompt is of an unknown kind.
        fallback : bool array, shape (n_prompts,)
        plan : Plan

        Returns
        -------
        float64 array, shape (n_prompts, n_models)
        """
        counted = scores.astype(np.float64)
        if strange is not None:
            home = self.home(plan.allowed)
            own = counted[:, home]
            learnt = self.fit.expectation
            margin = learnt.kind(learnt.margin, strange)
            least = (own + margin).astype(np.float32)  # as the fused decisions round it
            short = counted < least[:, None]
            short[:, home] = False
            tolerance = learnt.kind(learnt.tolerance, strange)
            floor = (learnt.standing[home] - tolerance)[:, None]
            unequal = (margin > 0.0)[:, None] & (learnt.standing < floor)
            most = np.where(unequal, (own - tolerance)[:, None], own[:, None])
            counted = np.where(short, np.minimum(counted, np.nextafter(most, -np.inf)), counted)
        if fallback.any():
            standing = self.voting(plan.rule)[1].astype(np.float64)
            counted[fallback] = beneath(standing, self.fallback(plan.rule, plan.allowed))
        return np.asarray(counted)


def _grid() -> Array:
    return np.linspace(0.0, 2.0, GRID + 1)
