"""Results of leave-one-dataset-out: scores, choices and accuracies by cell."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np

from benchrouter.evaluation.tasks.chosen_models import as_names
from benchrouter.evaluation.values import macro, mean_known
from benchrouter.files.arrays import Array, Counts
from benchrouter.files.plain import finite, plain
from benchrouter.scores import formulas


@dataclass(frozen=True)
class LeaveOneOut:
    """Scores of every held-out dataset, and the accuracy of the chosen models.

    A cell is one dataset (D), label share (A) and draw (R) of the records that are moved into the
    pool; scores and accuracies are those of M models on the cell's remaining records.

    Attributes
    ----------
    datasets, models : tuple of str
    label_shares : tuple of float
        α.
    draws : int
        R, per label share.
    nestings : tuple of str
        "strict": the training pairs' predictors never saw the held-out dataset, nor did the best
        model on average; "published": they did, as in the paper's experiments.
    k, kappa : int
        Neighbours that vote, and that measure distance.
    sigma, eta, threshold : float
        Of the smoother, of the fallback, of the predictor.
    seed : int
    n_records : int64 array, shape (D,)
    n_labels : int64 array, shape (D, A)
        Records moved into the pool.
    means : float64 array, shape (D, M)
        Accuracy of each model on all records; NaN = not run.
    accuracy : float64 array, shape (D, A, R, M)
        Accuracy on the remaining records; NaN = not run there.
    u : float64 array, shape (D, A, R)
        Task distances.
    s1, s2, p : float64 arrays, shape (D, A, R, M)
        p is the true accuracy of the predictor.
    p_hat : dict of str to float64 array, shape (D, A, R, M)
        By nesting: the smoother's estimate of p.
    probability : dict of str to float64 array, shape (D, A, R)
        By nesting: chance that S3's model beats the best on average (eq. 8); NaN where unknown.
    picks : dict of str to dict of str to int64 array, shape (D, A, R)
        By nesting and rule: position of the chosen model; where a rule has no score for any
        model, the best on average. "LL" is there if every model that was run has log-likelihoods,
        "cheapest" if a cost, price or size is known.
    oracle_per_record : float64 array, shape (D, A, R)
        Share of the remaining records that some model gets right.
    oracle_split_half : float64 array, shape (D,)
        Accuracy of the best model of one random half of the records on the other half.
    params_b : float64 array, shape (M,)
        Billions of parameters; NaN = unknown.
    log_likelihood : float64 array, shape (D, A, R, M), or None
        Mean log-likelihood of each model's own answers to the remaining records.
    rule_scores : dict of str to dict of str to float64 array, shape (D, A, R, M)
        By nesting and rule: scores of rules beyond the paper's.
    expected : float64 array, shape (D, A, R), or None
        Accuracy that "auto" expects of its choice, strictly nested.
    intervals : float64 array, shape (D, A, R, 2), or None
        80 % interval of the measured accuracy of auto's choice; None without strict nesting, NaN
        where too few datasets are left to learn it from.
    notes : tuple of str
        Reasons of missing values, and other remarks.
    """

    datasets: tuple[str, ...]
    models: tuple[str, ...]
    label_shares: tuple[float, ...]
    draws: int
    nestings: tuple[str, ...]
    k: int
    kappa: int
    sigma: float
    eta: float
    threshold: float
    seed: int
    n_records: Counts
    n_labels: Counts
    means: Array
    accuracy: Array
    u: Array
    s1: Array
    s2: Array
    p: Array
    p_hat: dict[str, Array]
    probability: dict[str, Array]
    picks: dict[str, dict[str, Counts]]
    oracle_per_record: Array
    oracle_split_half: Array
    params_b: Array
    log_likelihood: Array | None = None
    rule_scores: dict[str, dict[str, Array]] = field(default_factory=dict)
    intervals: Array | None = None
    expected: Array | None = None
    notes: tuple[str, ...] = ()

    def s3(self, nesting: str) -> Array:
        """S3 of every model in every cell.

        Returns
        -------
        float64 array, shape (D, A, R, M)
        """
        return formulas.s3(self.s2, self.p_hat[nesting])

    def accuracy_of(self, nesting: str, rule: str) -> Array:
        """Accuracy of the model that a rule chooses, on the remaining records of every cell.

        Parameters
        ----------
        nesting : str
        rule : str
            One of the keys of ``picks[nesting]``, or "random": the mean over the models.

        Returns
        -------
        float64 array, shape (D, A, R)
            NaN where the chosen model did not run on the dataset.
        """
        if rule == "random":
            return mean_known(self.accuracy, axis=-1)
        chosen = self.picks[nesting][rule]
        return np.asarray(np.take_along_axis(self.accuracy, chosen[..., None], axis=-1)[..., 0])

    def macro_accuracy(self, nesting: str, rule: str, share_index: int = 0) -> float:
        """Mean of :meth:`accuracy_of` over draws, then over datasets.

        Parameters
        ----------
        nesting, rule : str
        share_index : int
            Which label share.

        Returns
        -------
        float
            Over the cells in which the chosen model ran; NaN if there is none.
        """
        return macro(self.accuracy_of(nesting, rule)[:, share_index])

    def n_datasets_of(self, nesting: str, rule: str, share_index: int = 0) -> int:
        """Datasets behind :meth:`macro_accuracy`: those on which a chosen model ran.

        Parameters
        ----------
        nesting, rule : str
        share_index : int
            Which label share.
        """
        known = ~np.isnan(self.accuracy_of(nesting, rule)[:, share_index])
        return int(known.any(axis=1).sum())

    def to_dict(self) -> dict[str, Any]:
        """Everything that is reported as plain lists and numbers, ready for JSON (NaN as None).

        Scores and accuracies are means over draws; `picks` are the models chosen at the first
        label share in the first draw.
        """

        def listed(values: Array) -> Any:
            return finite(mean_known(values, axis=2).tolist())

        rules = {nesting: [*self.picks[nesting], "random"] for nesting in self.nestings}
        return {
            "datasets": list(self.datasets),
            "models": list(self.models),
            "label_shares": list(self.label_shares),
            "draws": self.draws,
            "nestings": list(self.nestings),
            **{name: getattr(self, name) for name in ("k", "kappa", "sigma", "eta", "threshold")},
            "seed": self.seed,
            "n_records": self.n_records.tolist(),
            "n_labels": self.n_labels.tolist(),
            **{name: listed(getattr(self, name)) for name in ("accuracy", "u", "s1", "s2", "p")},
            "p_hat": {nesting: listed(self.p_hat[nesting]) for nesting in self.nestings},
            "s3": {nesting: listed(self.s3(nesting)) for nesting in self.nestings},
            "probability": {
                nesting: listed(self.probability[nesting]) for nesting in self.nestings
            },
            "picks": {n: as_names(self.picks[n], self.models) for n in self.nestings},
            "accuracy_of": {
                n: {rule: listed(self.accuracy_of(n, rule)) for rule in rules[n]}
                for n in self.nestings
            },
            "macro_accuracy": {
                n: {
                    rule: [
                        plain(self.macro_accuracy(n, rule, a))
                        for a in range(len(self.label_shares))
                    ]
                    for rule in rules[n]
                }
                for n in self.nestings
            },
            "oracle_per_record": listed(self.oracle_per_record),
            "oracle_split_half": finite(self.oracle_split_half.tolist()),
            "notes": list(self.notes),
        }
