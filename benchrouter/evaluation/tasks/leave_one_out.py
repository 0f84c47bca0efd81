"""Leave-one-dataset-out: each dataset in turn is the new task, the others are the benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from benchrouter import scores
from benchrouter.decisions import finite, plain
from benchrouter.evidence import (
    Evidence,
    accuracy_of_verdicts,
    evidence_of,
    model_costs_usd,
    predict,
    prior_without,
    verdicts,
)
from benchrouter.holdout import HeldOut, Progress, hold_out, without

if TYPE_CHECKING:
    from benchrouter.table import BenchmarkTable

Array = NDArray[np.float64]
RULES = ("BMA", "S1", "S2", "S3", "S3 with fallback", "S3 true p", "oracle")


@dataclass(frozen=True)
class LeaveOneOut:
    """What each score says of every dataset held out, and how the chosen models did.

    Attributes
    ----------
    datasets, models : tuple of str
    nesting : "strict" or "published"
        Whether the predictors behind the training pairs were kept from the held-out dataset.
    n_records : int64 array, shape (n_datasets,)
    accuracy : float64 array, shape (n_datasets, n_models)
        True mean correctness; NaN = the model did not run there.
    u : float64 array, shape (n_datasets,)
        Task distances.
    s1, s2, s3, p, p_hat : float64 arrays, shape (n_datasets, n_models)
        p is the true accuracy of the predictor, p_hat the smoother's estimate without the dataset.
    probability : float64 array, shape (n_datasets,)
        Chance that S3's model beats the best on average (eq. 8); NaN where p is unknown.
    picks : dict of str to int64 array, shape (n_datasets,)
        Position of the model that each rule chooses; where a rule has no score for any model, the
        best on average.
    """

    datasets: tuple[str, ...]
    models: tuple[str, ...]
    nesting: str
    n_records: NDArray[np.int64]
    accuracy: Array
    u: Array
    s1: Array
    s2: Array
    s3: Array
    p: Array
    p_hat: Array
    probability: Array
    picks: dict[str, NDArray[np.int64]]

    def accuracy_of(self, rule: str) -> Array:
        """Accuracy of the model that a rule chooses, on each dataset.

        Parameters
        ----------
        rule : str
            One of the keys of `picks`.

        Returns
        -------
        float64 array, shape (n_datasets,)
            NaN where the chosen model did not run on the dataset.
        """
        return np.asarray(self.accuracy[np.arange(len(self.datasets)), self.picks[rule]])

    def macro_accuracy(self, rule: str) -> float:
        """Mean of :meth:`accuracy_of` over the datasets on which the chosen model ran.

        Parameters
        ----------
        rule : str

        Returns
        -------
        float
            NaN if it ran on none.
        """
        accuracy = self.accuracy_of(rule)
        known = ~np.isnan(accuracy)
        return float(accuracy[known].mean()) if known.any() else float("nan")

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain lists and numbers, ready for JSON (NaN as None).

        Returns
        -------
        dict
        """
        return {
            "nesting": self.nesting,
            "datasets": list(self.datasets),
            "models": list(self.models),
            "n_records": self.n_records.tolist(),
            **{
                name: finite(getattr(self, name).tolist())
                for name in ("accuracy", "u", "s1", "s2", "s3", "p", "p_hat", "probability")
            },
            "picks": {
                rule: [self.models[m] for m in chosen] for rule, chosen in self.picks.items()
            },
            "macro_accuracy": {rule: plain(self.macro_accuracy(rule)) for rule in self.picks},
        }


def leave_one_dataset_out(
    table: BenchmarkTable,
    embeddings: NDArray[np.float32],
    *,
    k: int = scores.K_HELM,
    kappa: int = scores.KAPPA,
    sigma: float = scores.SIGMA,
    eta: float = scores.ETA,
    threshold: float = scores.THRESHOLD,
    nesting: Literal["strict", "published"] = "strict",
    threads: int = 0,
    progress: Progress | None = None,
) -> LeaveOneOut:
    """Hold out every dataset as the new task, without labels, training pairs at α = 0.

    Parameters
    ----------
    table : BenchmarkTable
        At least three datasets, each with a correctness threshold.
    embeddings : float array, shape (n_records, dim)
        Unit rows, in the order of the records (or of the file that the table was read from).
    k, kappa : int
        Neighbours that vote, and that measure distance.
    sigma : float
        Width of the smoother's kernel.
    eta : float
        Least chance of beating the best on average, for the rule "S3 with fallback".
    threshold : float
        A vote above it predicts "correct".
    nesting : "strict" or "published"
        "strict" keeps the held-out dataset out of the predictors behind the training pairs too;
        "published" only drops its own pairs, as the paper's experiments did.
    threads : int
        0 = all.
    progress : callable, optional
        Called with (stage, done, total).

    Returns
    -------
    LeaveOneOut

    Raises
    ------
    ValueError
        If there are fewer than three datasets, or the embeddings do not fit the table.
    """
    if nesting not in ("strict", "published"):
        raise ValueError(f"nesting must be 'strict' or 'published', got {nesting!r}")
    if table.n_datasets < 3:
        raise ValueError(
            "leave-one-dataset-out needs at least 3 datasets (one held out, two to learn p̂ "
            f"from), found {table.n_datasets}"
        )
    evidence = evidence_of(
        table, embeddings, k=k, kappa=kappa, threshold=threshold, threads=threads
    )
    held_out = list(hold_out(evidence, progress=progress))
    n_datasets, n_models = evidence.means.shape
    s1, s2, p = (np.empty((n_datasets, n_models)) for _ in range(3))
    u = np.empty(n_datasets)
    for task in held_out:
        u[task.code], g, p[task.code] = _predict_task(task, evidence)
        s1[task.code] = g.mean(axis=0, dtype=np.float64)
        s2[task.code] = verdicts(g, threshold).mean(axis=0)
    p_hat = np.empty((n_datasets, n_models))
    for code in range(n_datasets):
        others = [task for task in held_out if task.code != code]
        if nesting == "strict":
            pairs = [_predict_task(task, evidence, code) for task in others]
            pair_u = np.array([pair[0] for pair in pairs])
            pair_p = np.array([pair[2] for pair in pairs])
        else:
            kept = [task.code for task in others]
            pair_u, pair_p = u[kept], p[kept]
        p_hat[code] = scores.smooth(u[code : code + 1], pair_u, pair_p, sigma)[0]
        if progress is not None:
            progress("estimating p for each dataset", code + 1, n_datasets)
    s3 = scores.s3(s2, p_hat)
    probability, picks = _pick(table, evidence, s1, s2, s3, p, p_hat, eta)
    return LeaveOneOut(
        datasets=table.datasets,
        models=table.models,
        nesting=nesting,
        n_records=np.bincount(table.dataset, minlength=n_datasets),
        accuracy=evidence.means,
        u=u,
        s1=s1,
        s2=s2,
        s3=s3,
        p=p,
        p_hat=p_hat,
        probability=probability,
        picks=picks,
    )


def _predict_task(
    task: HeldOut, evidence: Evidence, also: int | None = None
) -> tuple[float, NDArray[np.float32], Array]:
    """Distance u, votes g and accuracy p of a held-out dataset, without one dataset more."""
    neighbours = without(task, evidence, also)
    excluded = (task.code,) if also is None else (task.code, also)
    g = predict(neighbours, evidence, prior_without(evidence, *excluded))
    p = accuracy_of_verdicts(g, evidence.correctness[task.rows], evidence.threshold)
    return scores.task_distance(neighbours.similarities[:, : evidence.kappa]), g, p


def _pick(
    table: BenchmarkTable,
    evidence: Evidence,
    s1: Array,
    s2: Array,
    s3: Array,
    p: Array,
    p_hat: Array,
    eta: float,
) -> tuple[Array, dict[str, NDArray[np.int64]]]:
    """Chance that S3's model beats BMA, and the model that every rule chooses, per dataset."""
    preferred = scores.preference(model_costs_usd(table), table.prices, table.params_b)
    n_datasets = len(s1)
    picks = {rule: np.empty(n_datasets, dtype=np.int64) for rule in RULES}
    probability = np.empty(n_datasets)
    n_records = np.bincount(table.dataset, minlength=n_datasets)
    for d in range(n_datasets):
        bma = scores.best_on_average(np.delete(evidence.means, d, axis=0), preferred)

        def choose(score: Array, p_task: Array, d: int = d, bma: int = bma) -> tuple[int, float]:
            if np.isnan(score).all():  # a dataset that no model ran on
                return bma, float("nan")
            best = scores.best_model(score, preferred, s1[d])
            pair = (best, bma)
            if np.isnan(p_task[list(pair)]).any():
                return best, float("nan")
            chance = scores.probability_better(
                (s2[d, pair[0]], s2[d, pair[1]]),
                (p_task[pair[0]], p_task[pair[1]]),
                int(n_records[d]),
            )
            return best, chance

        best, probability[d] = choose(s3[d], p_hat[d])
        true_best, true_chance = choose(scores.s3(s2[d], p[d]), p[d])
        picks["BMA"][d] = bma
        picks["S1"][d] = scores.best_model(s1[d], preferred)
        picks["S2"][d] = scores.best_model(s2[d], preferred, s1[d])
        picks["S3"][d] = best
        picks["S3 with fallback"][d] = best if probability[d] > eta else bma
        picks["S3 true p"][d] = true_best if true_chance > eta else bma
        ran = not np.isnan(evidence.means[d]).all()
        picks["oracle"][d] = scores.best_model(evidence.means[d], preferred) if ran else bma
    return probability, picks
