"""Results of a protocol of single prompts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    pass


Protocol = Literal["random split", "leave-one-dataset-out"]


PROTOCOLS = ("random split", "leave-one-dataset-out")


@dataclass(frozen=True)
class PromptResults:
    """What every rule chose for each of Q test prompts, and what was recorded there.

    Attributes
    ----------
    protocol : "random split" or "leave-one-dataset-out"
    datasets, models : tuple of str
        D and M of them, the table's.
    k, kappa, seed : int
    rows : int64 array, shape (Q,)
        Positions of the test prompts in the table.
    dataset : int32 array, shape (Q,)
        Dataset of each, a number in [0, D).
    picks : dict of str to int32 array, shape (Q,)
        Rule to the position of the model that it chose: "auto", "mean", "raw", "s3", "BMA",
        "cheapest", "oracle" (the best recorded score, at the lowest recorded cost), "oracle per
        dataset" (the best mean score on the dataset's test prompts), and the baselines. A rule
        that the training data do not offer is absent, and a note says why.
    predicted : dict of str to float32 array, shape (Q, M)
        Predicted score, for "auto", "mean", "raw" and the baselines in the unit of the raw score,
        for "s3" a chance of being correct; for "BMA" the standing of every model: its mean
        correctness in the training part, or its mean score where correctness is not known. NaN
        for a model without a score in the training part.
    fallback : dict of str to bool array, shape (Q,)
        Which picks of our rules were made for want of evidence.
    distance : float64 array, shape (Q,)
        u: mean cosine distance to the kappa nearest training records.
    distance_limit : float64 array, shape (Q,)
        The distance beyond which the router of the prompt's training part falls back.
    scores : dict of str to float32 array, shape (Q, M)
        "score", then the further metrics: as recorded, NaN = missing.
    correctness : float32 array, shape (Q, M), or None
        0, 1 or NaN; None if a dataset has no threshold.
    cost_usd : float32 array, shape (Q, M), or None
        Recorded, NaN = unknown.
    expected_cost_usd : float32 array, shape (Q, M), or None
        What a router fitted on the training part expects a model to cost on the prompt, by the
        recorded costs of the neighbours that vote under "mean": all that a decision may know of
        cost. NaN for a model without any recorded cost in the training part.
    params_b : float64 array, shape (M,)
        Billions of parameters; NaN = unknown.
    notes : tuple of str
    log_likelihood : float32 array, shape (Q, M), or None
        Recorded mean log-likelihood of each model's own answer, NaN = unknown.
    chance : float32 array, shape (Q, M), or None
        Chance of a correct answer that "auto" tells; None where correctness is not known.
    chance_spread : float64 array, shape (Q,), or None
        Standard deviation, over datasets, of success about that chance, as "auto" tells it.
    """

    protocol: str
    datasets: tuple[str, ...]
    models: tuple[str, ...]
    k: int
    kappa: int
    seed: int
    rows: NDArray[np.int64]
    dataset: NDArray[np.int32]
    picks: dict[str, NDArray[np.int32]]
    predicted: dict[str, NDArray[np.float32]]
    fallback: dict[str, NDArray[np.bool_]]
    distance: NDArray[np.float64]
    distance_limit: NDArray[np.float64]
    scores: dict[str, NDArray[np.float32]]
    correctness: NDArray[np.float32] | None
    cost_usd: NDArray[np.float32] | None
    expected_cost_usd: NDArray[np.float32] | None
    params_b: NDArray[np.float64]
    notes: tuple[str, ...]
    log_likelihood: NDArray[np.float32] | None = None
    chance: NDArray[np.float32] | None = None
    chance_spread: NDArray[np.float64] | None = None

    def success(self, rule: str) -> NDArray[np.float32]:
        """A rule's prediction for every prompt: a chance of success where it has one, else a score.

        Parameters
        ----------
        rule : str
            One of the keys of `predicted`.

        Returns
        -------
        float32 array, shape (Q, M)
            For "auto" its chance of success, where correctness is known.
        """
        if rule == "auto" and self.chance is not None:
            return self.chance
        return self.predicted[rule]

    def of_picks(self, rule: str, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Values of the models that a rule chose.

        Parameters
        ----------
        rule : str
            One of the keys of `picks`.
        values : float array, shape (Q, M)

        Returns
        -------
        float64 array, shape (Q,)
        """
        picked = self.picks[rule].astype(np.int64)[:, None]
        return np.take_along_axis(values, picked, axis=1)[:, 0].astype(np.float64)
