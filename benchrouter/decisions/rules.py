"""The rules for single prompts: neighbours to scores to a decision, and its explanation."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter import _core
from benchrouter.decisions.answers import Explanation, Neighbour
from benchrouter.decisions.costs.cost_policy import beneath
from benchrouter.neighbours.index import Index, check_count
from benchrouter.neighbours.lists import Neighbours
from benchrouter.prompts.timing import stage
from benchrouter.scores import formulas
from benchrouter.scores.evidence import verdicts
from benchrouter.scores.expected.prompt_scores import Expected, Success, expect, reason_of
from benchrouter.scores.fitted import Fit
from benchrouter.votes.outcomes import Chosen, Outcomes, unpack
from benchrouter.votes.votes import decide, votes

Rule = Literal["auto", "mean", "raw", "s3"]
RULES = ("auto", "mean", "raw", "s3")
BLOCK = 16384  # prompts searched and decided at a time: bounds memory, not speed
AMONG = ", among the models allowed"
GRID = 1024  # steps of u over [0, 2] at which p̂ is tabulated
SHOWN = 10  # neighbours of an explanation by the rule "auto", of up to 32 that vote
MOST_NEIGHBOURS = 65535  # support is counted in 16 bits


class Decided(NamedTuple):
    """Decisions on some prompts."""

    chosen: Chosen
    """Arrays of shape (n_prompts,)."""
    success: Success | None
    """By the rule "auto", where correctness is known."""


class Scored(NamedTuple):
    """Scores of all models on some prompts."""

    scores: NDArray[np.float32]
    """float32, shape (n_prompts, n_models)."""
    strange: NDArray[np.float32] | None
    """float32, shape (n_prompts,): chance that a prompt is of an unknown kind, by rule "auto"."""


class Rules:
    """The rules on one benchmark, with what they need at every prompt.

    Parameters
    ----------
    fit : Fit
    index : Index
        Over the fit's embeddings.
    """

    def __init__(self, fit: Fit, index: Index) -> None:
        self._fit = fit
        self._index = index

    @property
    def fit(self) -> Fit:
        """The benchmark."""
        return self._fit

    @property
    def index(self) -> Index:
        """Over its embeddings."""
        return self._index

    def decide(
        self,
        rows: NDArray[np.float32],
        rule: Rule,
        k: int | None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Decided:
        """Choose a model for every prompt.

        Parameters
        ----------
        rows : float32 array, shape (n_prompts, dim)
            Unit rows.
        rule : "auto", "mean", "raw" or "s3"
        k : int, optional
            Neighbours that vote, instead of the fit's.
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all.

        Returns
        -------
        Decided
            Arrays of shape (n_prompts,).

        Raises
        ------
        TypeError, ValueError
            If the rule or k is none, or the benchmark does not offer the rule.
        """
        k = self.check(rule, k)
        n = len(rows)
        chosen = Chosen(
            np.empty(n, np.int32),
            np.empty(n, np.float32),
            np.empty(n, np.float32),
            np.empty(n, np.float32),
            np.empty(n, np.bool_),
        )
        strange = np.empty(n, np.float32) if rule == "auto" else None
        for start in range(0, n, BLOCK):
            block = slice(start, start + BLOCK)
            neighbours = self._index.search(rows[block], max(k, self._fit.settings.kappa))
            out = Chosen(
                chosen.model[block],
                chosen.score[block],
                chosen.margin[block],
                chosen.distance[block],
                chosen.fallback[block],
            )
            if strange is not None:
                strange[block] = self.expect(
                    rows[block], neighbours, out=out, allowed=allowed
                ).strange
            else:
                self.decide_on(rows[block], neighbours, rule, k, out, allowed)
        return Decided(chosen, self.success(chosen.score, strange))

    def success(
        self, score: NDArray[np.float32], strange: NDArray[np.float32] | None
    ) -> Success | None:
        """Chance of a correct answer of the models chosen.

        Parameters
        ----------
        score : float32 array, shape (n_prompts,)
            Theirs.
        strange : float32 array, shape (n_prompts,), or None
            Of the prompts, by the rule "auto".

        Returns
        -------
        Success or None
            None by other rules, and where correctness is not known.
        """
        return None if strange is None else self._fit.expectation.success(score, strange)

    def explain(
        self,
        prompt: str | None,
        row: NDArray[np.float32],
        rule: Rule,
        k: int | None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Explanation:
        """Decide on one prompt, and show on what.

        Parameters
        ----------
        prompt : str, optional
            Only repeated in the explanation.
        row : float32 array, shape (1, dim)
            Its embedding.
        rule : "auto", "mean", "raw" or "s3"
        k : int, optional
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all; the others are shown all the same.

        Returns
        -------
        Explanation
        """
        k = self.check(rule, k)
        fit = self._fit
        neighbours = self._index.search(row, max(k, fit.settings.kappa))
        chosen, scored = self.decide_and_score(row, neighbours, rule, k, allowed)
        model, distance = int(chosen.model[0]), float(chosen.distance[0])
        voting = np.ascontiguousarray(neighbours.ids[:, :k])
        predicted = scored.scores[0].astype(np.float64)
        voters = voting[0][voting[0] >= 0]
        shown = voters[:SHOWN] if rule == "auto" else voters
        fallback = bool(chosen.fallback[0])
        plain = Explanation(
            prompt=prompt,
            rule=rule,
            model=fit.models[model],
            reason=self._reason(fallback, distance, predicted, rule, allowed),
            score=float(chosen.score[0]),
            margin=float(chosen.margin[0]),
            distance=distance,
            fallback=fallback,
            models=fit.models,
            scores=predicted,
            support=self.support(voting, rule)[0],
            neighbours=[
                self._neighbour(record, similarity, 1.0 / len(voters))
                for record, similarity in zip(
                    shown.tolist(), neighbours.similarities[0].tolist(), strict=False
                )
            ],
            n_voting=len(voters),
        )
        if scored.strange is None:
            return plain
        strange = float(scored.strange[0])
        pulls = fit.expectation.pulls(row[0], voters, fit.dataset, unpack(fit.raw, voters), strange)
        plain = replace(
            plain,
            standing=fit.expectation.standing,
            pulls=pulls,
            strange=strange,
            reason=plain.reason
            if fallback
            else self._reason_of_expected(model, predicted, strange, allowed),
        )
        if fit.expectation.calibration is None:
            return plain
        chance = fit.expectation.chance(predicted, scored.strange)
        low, high = fit.expectation.interval(chance, scored.strange)
        return replace(plain, chance=chance, chance_low=low, chance_high=high)

    def check(self, rule: Rule, k: int | None) -> int:
        """Refuse a rule or a number of neighbours that the benchmark does not offer.

        Parameters
        ----------
        rule : "auto", "mean", "raw" or "s3"
        k : int, optional
            Instead of the fit's.

        Returns
        -------
        int
            k, or the fit's where none is given.

        Raises
        ------
        TypeError, ValueError
            Naming what was found and what was expected.
        """
        if rule not in RULES:
            raise ValueError(f"rule must be one of {', '.join(map(repr, RULES))}, got {rule!r}")
        if rule == "s3" and (self._fit.correct is None or len(self._fit.pairs.u) == 0):
            raise ValueError(
                "the rule 's3' needs p̂, and this benchmark gives none: it takes at least two "
                "datasets, each with a correctness threshold; use 'mean' or 'raw'"
            )
        if rule == "auto":
            if k is not None:
                raise ValueError(
                    "k is for the rules 'mean', 'raw' and 's3': 'auto' has the number of "
                    f"neighbours that held-out records chose, {self._fit.expectation.neighbours}"
                )
            return self._fit.expectation.neighbours
        if k is None:
            return self._fit.settings.k
        check_count(k, "k")
        if k > MOST_NEIGHBOURS:
            raise ValueError(f"k must be at most {MOST_NEIGHBOURS}, got {k}")
        return int(k)

    def decide_on(
        self,
        rows: NDArray[np.float32],
        neighbours: Neighbours,
        rule: Rule,
        k: int,
        out: Chosen | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Chosen:
        """Choose a model for prompts whose neighbours are known.

        Parameters
        ----------
        rows : float32 array, shape (n_prompts, dim)
            Unit rows.
        neighbours : Neighbours
            Arrays of shape (n_prompts, at least max(k, kappa)).
        rule : "auto", "mean", "raw" or "s3"
            One that the benchmark offers.
        k : int
            Neighbours that vote.
        out : Chosen, optional
            Arrays to write to.
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all.

        Returns
        -------
        Chosen
            Arrays of shape (n_prompts,).
        """
        if rule == "auto":
            return self.expect(rows, neighbours, out=out, allowed=allowed).chosen
        with stage("decide"):
            return decide(
                neighbours.ids,
                neighbours.similarities,
                k=k,
                threads=self._index.threads,
                out=out,
                allowed=allowed,
                fallback_model=self.fallback(rule, allowed),
                **self.arguments(rule),
            )

    def decide_and_score(
        self,
        rows: NDArray[np.float32],
        neighbours: Neighbours,
        rule: Rule,
        k: int,
        allowed: NDArray[np.bool_] | None = None,
    ) -> tuple[Chosen, Scored]:
        """Choose models, and score all of them.

        Parameters
        ----------
        rows, neighbours, rule, k, allowed
            As in :meth:`decide_on`.

        Returns
        -------
        chosen : Chosen
            Arrays of shape (n_prompts,).
        scored : Scored
        """
        if rule == "auto":
            found = self.expect(rows, neighbours, allowed=allowed, with_scores=True)
            assert found.scores is not None
            return found.chosen, Scored(found.scores, found.strange)
        chosen = self.decide_on(rows, neighbours, rule, k, allowed=allowed)
        return chosen, self.scores_of_models(rows, neighbours, rule, k, chosen.distance)

    @stage("decide")
    def expect(
        self,
        rows: NDArray[np.float32],
        neighbours: Neighbours,
        *,
        out: Chosen | None = None,
        allowed: NDArray[np.bool_] | None = None,
        with_scores: bool = False,
    ) -> Expected:
        """Decide by the rule "auto".

        Parameters
        ----------
        rows : float32 array, shape (n_prompts, dim)
            Unit rows.
        neighbours : Neighbours
            Arrays of shape (n_prompts, at least max(k, kappa)).
        out : Chosen, optional
            Arrays to write to.
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all.
        with_scores : bool
            Whether all expected scores are wanted too.

        Returns
        -------
        Expected
        """
        fit = self._fit
        return expect(
            self._learnt,
            rows,
            neighbours,
            fit.raw,
            prior=fit.raw_prior,
            preference=fit.preferred,
            k=fit.expectation.neighbours,
            kappa=fit.settings.kappa,
            distance_limit=fit.distance_limit,
            fallback_model=self.fallback("auto", allowed),
            home=self.home(allowed),
            allowed=allowed,
            threads=self._index.threads,
            out=out,
            with_scores=with_scores,
        )

    @cached_property
    def _learnt(self) -> Any:
        return _core.Expectation(**self.learnt)

    @property
    def learnt(self) -> dict[str, Any]:
        """Arrays and numbers of the rule "auto", as the extension takes them."""
        fit = self._fit
        return fit.expectation.arrays(fit.dataset, costs_known=fit.costs_known)

    def home(self, allowed: NDArray[np.bool_] | None) -> int:
        """Position of the model that the rule "auto" only leaves where that pays.

        Parameters
        ----------
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all.

        Returns
        -------
        int
            The best on average; where it is not allowed, the one of the best standing.
        """
        best = self._fit.best_on_average
        return best if allowed is None or allowed[best] else self._best_standing("auto", allowed)

    def _best_standing(self, rule: Rule, allowed: NDArray[np.bool_]) -> int:
        standing = np.where(allowed, self.prior(rule).astype(np.float64), -np.inf)
        return formulas.best_model(standing, self._fit.preferred)

    def fallback(self, rule: Rule, allowed: NDArray[np.bool_] | None) -> int:
        """Position of the model to answer where evidence is too thin.

        Parameters
        ----------
        rule : "auto", "mean", "raw" or "s3"
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all.

        Returns
        -------
        int
            The fit's fallback model; where it is not allowed, the one of the best standing.
        """
        if allowed is None or allowed[self._fit.fallback]:
            return self._fit.fallback
        return self._best_standing(rule, allowed)

    def prior(self, rule: Rule) -> NDArray[np.float32]:
        """Score of every model where there is no evidence: its standing.

        Parameters
        ----------
        rule : "auto", "mean", "raw" or "s3"

        Returns
        -------
        float32 array, shape (n_models,)
        """
        return self._voting(rule)[1]

    def arguments(self, rule: Rule) -> dict[str, Any]:
        """Arguments of :func:`benchrouter.votes.votes.decide` that only depend on the rule.

        Parameters
        ----------
        rule : "auto", "mean", "raw" or "s3"
            One that the benchmark offers.

        Returns
        -------
        dict
        """
        settings = self._fit.settings
        outcomes, prior, prior_weight = self._voting(rule)
        return {
            "outcomes": outcomes,
            "prior": prior,
            "preference": self._fit.preferred,
            "kappa": settings.kappa,
            "rule": "s3" if rule == "s3" else "mean",
            "prior_weight": prior_weight,
            "threshold": settings.threshold,
            "p_table": self._p_table if rule == "s3" else None,
            "p_start": 0.0,
            "p_step": 2.0 / GRID,
            "distance_limit": self._fit.distance_limit,
        }

    def _voting(self, rule: Rule) -> tuple[Outcomes, NDArray[np.float32], float]:
        """Outcomes that vote under a rule, the models' prior, and the weight of that prior."""
        if rule == "s3" and self._fit.correct is not None:
            return self._fit.correct, self._fit.prior, 0.0
        return self._fit.raw, self._fit.raw_prior, 1.0 if rule == "mean" else 0.0

    @cached_property
    def _p_table(self) -> NDArray[np.float32]:
        pairs = self._fit.pairs
        p_hat = formulas.smooth(_grid(), pairs.u, pairs.p, self._fit.settings.sigma)
        return np.where(np.isnan(p_hat), 0.5, p_hat).astype(np.float32)

    def scores_of_models(
        self,
        rows: NDArray[np.float32],
        neighbours: Neighbours,
        rule: Rule,
        k: int,
        distance: NDArray[np.float32],
    ) -> Scored:
        """Score of every model on every prompt.

        Parameters
        ----------
        rows : float32 array, shape (n_prompts, dim)
            Unit rows.
        neighbours : Neighbours
            Arrays of shape (n_prompts, at least max(k, kappa)).
        rule : "auto", "mean", "raw" or "s3"
            One that the benchmark offers.
        k : int
            Neighbours that vote.
        distance : float32 array, shape (n_prompts,)
            u of the prompts.

        Returns
        -------
        Scored
            As the fused decisions round them.
        """
        if rule == "auto":
            expected = self.expect(rows, neighbours, with_scores=True)
            assert expected.scores is not None
            return Scored(expected.scores, expected.strange)
        outcomes, prior, prior_weight = self._voting(rule)
        voted = votes(
            np.ascontiguousarray(neighbours.ids[:, :k]),
            outcomes,
            prior=prior,
            prior_weight=prior_weight,
            threads=self._index.threads,
        ).votes
        if rule != "s3":
            return Scored(voted, None)
        g_bar = verdicts(voted, self._fit.settings.threshold).astype(np.float64)
        p = [np.interp(distance, _grid(), column) for column in self._p_table.T]
        return Scored(formulas.s3(g_bar, np.stack(p, axis=1)).astype(np.float32), None)

    def support(self, voting: NDArray[np.int64], rule: Rule) -> NDArray[np.int64]:
        """Count the neighbours on which each model was run.

        Parameters
        ----------
        voting : int64 array, shape (n_prompts, k)
            The neighbours that vote, −1 = none.
        rule : "auto", "mean", "raw" or "s3"

        Returns
        -------
        int64 array, shape (n_prompts, n_models)
        """
        outcomes, prior, _ = self._voting(rule)
        found = votes(voting, outcomes, prior=prior, threads=self._index.threads)
        return found.support.astype(np.int64)

    def counted(
        self,
        scored: Scored,
        fallback: NDArray[np.bool_],
        rule: Rule,
        allowed: NDArray[np.bool_] | None,
    ) -> NDArray[np.float64]:
        """Scores as they count in a choice.

        Where evidence is too thin, standings count, none above that of the fallback model. By the
        rule "auto" no model counts above the best on average that is not ahead of it by the margin,
        and none as its equal, where leads do not count, whose standing is not.

        Parameters
        ----------
        scored : Scored
        fallback : bool array, shape (n_prompts,)
        rule : "auto", "mean", "raw" or "s3"
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all.

        Returns
        -------
        float64 array, shape (n_prompts, n_models)
        """
        counted = scored.scores.astype(np.float64)
        if scored.strange is not None:
            home = self.home(allowed)
            own = counted[:, home]
            learnt = self._fit.expectation
            margin = learnt.kind(learnt.margin, scored.strange)
            least = (own + margin).astype(np.float32)  # as the fused decisions round it
            short = counted < least[:, None]
            short[:, home] = False
            tolerance = learnt.kind(learnt.tolerance, scored.strange)
            floor = (learnt.standing[home] - tolerance)[:, None]
            unequal = (margin > 0.0)[:, None] & (learnt.standing < floor)
            most = np.where(unequal, (own - tolerance)[:, None], own[:, None])
            counted = np.where(short, np.minimum(counted, np.nextafter(most, -np.inf)), counted)
        if fallback.any():
            standing = self.prior(rule).astype(np.float64)
            counted[fallback] = beneath(standing, self.fallback(rule, allowed))
        return np.asarray(counted)

    def _reason(
        self,
        fallback: bool,
        distance: float,
        predicted: NDArray[np.float64],
        rule: Rule,
        allowed: NDArray[np.bool_] | None,
    ) -> str:
        counted = predicted if allowed is None else np.where(allowed, predicted, -np.inf)
        best = self._fit.models[formulas.best_model(counted, self._fit.preferred)]
        limit = self._fit.distance_limit
        if not fallback:
            of = "" if allowed is None or allowed.all() else AMONG
            return f"{best} has the largest score under the rule {rule!r}{of}"
        if distance > limit:
            return (
                f"the prompt's distance {distance:.3f} lies beyond {limit:.3f}, the 99th "
                "percentile of the benchmark's own held-out prompts (the largest score was "
                f"{best}'s)"
            )
        return "no neighbour of the prompt has a score"

    def _reason_of_expected(
        self,
        model: int,
        predicted: NDArray[np.float64],
        strange: float,
        allowed: NDArray[np.bool_] | None,
    ) -> str:
        fit = self._fit
        among = predicted if allowed is None else np.where(allowed, predicted, -np.inf)
        of = "" if allowed is None or allowed.all() else AMONG
        home = self.home(allowed)
        return reason_of(fit.expectation, fit.models, model, home, among, strange) + of

    def _neighbour(self, record: int, similarity: float, weight: float) -> Neighbour:
        fit = self._fit
        row = unpack(fit.raw, np.array([record]))[0].tolist()
        return Neighbour(
            dataset=fit.datasets[fit.dataset[record]],
            sample_id=fit.sample_ids[record],
            prompt=fit.prompts[record],
            similarity=similarity,
            weight=weight,
            scores={
                name: None if np.isnan(value) else value
                for name, value in zip(fit.models, row, strict=True)
            },
        )


def _grid() -> NDArray[np.float64]:
    return np.linspace(0.0, 2.0, GRID + 1)
