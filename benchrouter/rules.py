"""The three rules for single prompts: neighbours to votes to a decision, and its explanation."""

from __future__ import annotations

from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchrouter import scores
from benchrouter.decisions import Explanation, Neighbour
from benchrouter.evidence import verdicts
from benchrouter.fit import Fit
from benchrouter.index import Index, check_count
from benchrouter.neighbours import Neighbours
from benchrouter.stages import stage
from benchrouter.voting import Chosen, Outcomes, decide, unpack, votes

Rule = Literal["mean", "raw", "s3"]
RULES = ("mean", "raw", "s3")
BLOCK = 16384  # prompts searched and decided at a time: bounds memory, not speed
AMONG = ", among the models allowed"
GRID = 1024  # steps of u over [0, 2] at which p̂ is tabulated
MOST_NEIGHBOURS = 65535  # support is counted in 16 bits


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
    ) -> Chosen:
        """Choose a model for every prompt.

        Parameters
        ----------
        rows : float32 array, shape (n_prompts, dim)
            Unit rows.
        rule : "mean", "raw" or "s3"
        k : int, optional
            Neighbours that vote, instead of the fit's.
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all.

        Returns
        -------
        Chosen
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
            self.decide_on(neighbours, rule, k, out, allowed)
        return chosen

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
        rule : "mean", "raw" or "s3"
        k : int, optional
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all; the others are shown all the same.

        Returns
        -------
        Explanation
        """
        k = self.check(rule, k)
        neighbours = self._index.search(row, max(k, self._fit.settings.kappa))
        chosen = self.decide_on(neighbours, rule, k, allowed=allowed)
        model, distance = int(chosen.model[0]), float(chosen.distance[0])
        voting = np.ascontiguousarray(neighbours.ids[:, :k])
        scored, support_of_all = self.scores_of_models(voting, rule, chosen.distance)
        predicted, support = scored[0], support_of_all[0]
        return Explanation(
            prompt=prompt,
            rule=rule,
            model=self._fit.models[model],
            reason=self._reason(bool(chosen.fallback[0]), distance, predicted, rule, allowed),
            score=float(chosen.score[0]),
            margin=float(chosen.margin[0]),
            distance=distance,
            fallback=bool(chosen.fallback[0]),
            models=self._fit.models,
            scores=predicted,
            support=support,
            neighbours=[
                self._neighbour(record, similarity)
                for record, similarity in zip(
                    voting[0].tolist(), neighbours.similarities[0, :k].tolist(), strict=True
                )
                if record >= 0
            ],
        )

    def check(self, rule: Rule, k: int | None) -> int:
        """Refuse a rule or a number of neighbours that the benchmark does not offer.

        Parameters
        ----------
        rule : "mean", "raw" or "s3"
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
            raise ValueError(f"rule must be 'mean', 'raw' or 's3', got {rule!r}")
        if rule == "s3" and (self._fit.correct is None or len(self._fit.pairs.u) == 0):
            raise ValueError(
                "the rule 's3' needs p̂, and this benchmark gives none: it takes at least two "
                "datasets, each with a correctness threshold; use 'mean' or 'raw'"
            )
        if k is None:
            return self._fit.settings.k
        check_count(k, "k")
        if k > MOST_NEIGHBOURS:
            raise ValueError(f"k must be at most {MOST_NEIGHBOURS}, got {k}")
        return int(k)

    @stage("decide")
    def decide_on(
        self,
        neighbours: Neighbours,
        rule: Rule,
        k: int,
        out: Chosen | None = None,
        allowed: NDArray[np.bool_] | None = None,
    ) -> Chosen:
        """Choose a model for prompts whose neighbours are known.

        Parameters
        ----------
        neighbours : Neighbours
            Arrays of shape (n_prompts, at least max(k, kappa)).
        rule : "mean", "raw" or "s3"
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

    def fallback(self, rule: Rule, allowed: NDArray[np.bool_] | None) -> int:
        """Position of the model to answer where evidence is too thin.

        Parameters
        ----------
        rule : "mean", "raw" or "s3"
        allowed : bool array, shape (n_models,), optional
            Models that may be chosen, by default all.

        Returns
        -------
        int
            The fit's fallback model; where it is not allowed, the one of the best standing.
        """
        if allowed is None or allowed[self._fit.fallback]:
            return self._fit.fallback
        standing = np.where(allowed, self.prior(rule).astype(np.float64), -np.inf)
        return scores.best_model(standing, self._fit.preferred)

    def prior(self, rule: Rule) -> NDArray[np.float32]:
        """Score of every model where there is no evidence: its standing.

        Parameters
        ----------
        rule : "mean", "raw" or "s3"

        Returns
        -------
        float32 array, shape (n_models,)
        """
        return self._voting(rule)[1]

    def arguments(self, rule: Rule) -> dict[str, Any]:
        """Arguments of :func:`benchrouter.voting.decide` that only depend on the rule.

        Parameters
        ----------
        rule : "mean", "raw" or "s3"
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
        p_hat = scores.smooth(_grid(), pairs.u, pairs.p, self._fit.settings.sigma)
        return np.where(np.isnan(p_hat), 0.5, p_hat).astype(np.float32)

    def scores_of_models(
        self, voting: NDArray[np.int64], rule: Rule, distance: NDArray[np.float32]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Score of every model on every prompt, and its support.

        Parameters
        ----------
        voting : int64 array, shape (n_prompts, k)
            The neighbours that vote, −1 = none.
        rule : "mean", "raw" or "s3"
            One that the benchmark offers.
        distance : float32 array, shape (n_prompts,)
            u of the prompts.

        Returns
        -------
        scores : float64 array, shape (n_prompts, n_models)
        support : int64 array, same shape
            Neighbours on which the model was run.
        """
        outcomes, prior, prior_weight = self._voting(rule)
        voted = votes(
            voting,
            outcomes,
            prior=prior,
            prior_weight=prior_weight,
            threads=self._index.threads,
        )
        predicted = voted.votes.astype(np.float64)
        if rule == "s3":
            g_bar = verdicts(voted.votes, self._fit.settings.threshold)
            p = [np.interp(distance, _grid(), column) for column in self._p_table.T]
            predicted = scores.s3(g_bar.astype(np.float64), np.stack(p, axis=1))
        return predicted, voted.support.astype(np.int64)

    def _reason(
        self,
        fallback: bool,
        distance: float,
        predicted: NDArray[np.float64],
        rule: Rule,
        allowed: NDArray[np.bool_] | None,
    ) -> str:
        counted = predicted if allowed is None else np.where(allowed, predicted, -np.inf)
        best = self._fit.models[scores.best_model(counted, self._fit.preferred)]
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

    def _neighbour(self, record: int, similarity: float) -> Neighbour:
        fit = self._fit
        row = unpack(fit.raw, np.array([record]))[0].tolist()
        return Neighbour(
            dataset=fit.datasets[fit.dataset[record]],
            sample_id=fit.sample_ids[record],
            prompt=fit.prompts[record],
            similarity=similarity,
            scores={
                name: None if np.isnan(value) else value
                for name, value in zip(fit.models, row, strict=True)
            },
        )


def _grid() -> NDArray[np.float64]:
    return np.linspace(0.0, 2.0, GRID + 1)
