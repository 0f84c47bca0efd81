"""Three views of a prompt, and what they say of records that are held out.

A view is a deviation of every model's score from its standing: what the nearest records say (their
votes), what the datasets that these come from say, and a linear function of the embedding (ridge
regression). :mod:`benchrouter.scores.expected.prompt_scores` weighs them.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores.evidence import prior_of
from benchrouter.votes.outcomes import Outcomes
from benchrouter.votes.votes import votes

# Ridge penalties, in records. A penalty is the variance of a score's noise over that of a
# coefficient, so it depends neither on the number of records nor on the dimension: one trusts the
# embedding soon, the other slowly, and held-out records weigh them.
PENALTIES = (30.0, 300.0)
VIEWS = ("votes", "datasets", *(f"linear {penalty:g}" for penalty in PENALTIES))
BLOCK = 8192  # rows of a product
MOST_LEVERAGE = 1.0 - 1e-6  # of a record on its own prediction


@dataclass(frozen=True)
class Records:
    """The benchmark records to learn from: N records, M models, D datasets.

    Attributes
    ----------
    embeddings : float32 array, shape (N, dim)
        Unit rows.
    outcomes : PackedOutcomes or float32 array, shape (N, M)
        Scores as votes take them.
    scores : float32 array, shape (N, M)
        The same unpacked, NaN = not run.
    dataset : int32 array, shape (N,)
    means : float64 array, shape (D, M)
        Mean score, NaN = not run.
    codes : int64 array, shape (n_codes,)
        Datasets that count, ascending; records of other datasets are ignored.
    """

    embeddings: NDArray[np.float32]
    outcomes: Outcomes
    scores: NDArray[np.float32]
    dataset: NDArray[np.int32]
    means: Array
    codes: NDArray[np.int64]

    def standing(self, *excluded: int) -> Array:
        """Standing of every model, shape (M,), without the excluded datasets."""
        return prior_of(self.means[np.setdiff1d(self.codes, excluded)]).astype(np.float64)


def of_votes(
    neighbours: Neighbours, k: int, records: Records, standing: Array, threads: int
) -> Array:
    """Mean score of the k nearest records less the standing; 0 where none has a score.

    Parameters
    ----------
    neighbours : Neighbours
        Arrays of shape (n, at least k).
    k : int
    records : Records
    standing : float64 array, shape (n, M)
    threads : int
        0 = all.

    Returns
    -------
    float64 array, shape (n, M)
    """
    nothing = np.zeros(standing.shape[1], np.float32)
    ids = np.ascontiguousarray(neighbours.ids[:, :k])
    found = votes(ids, records.outcomes, prior=nothing, threads=threads)
    return np.where(found.support > 0, found.votes - standing, 0.0)


def of_datasets(
    neighbours: Neighbours,
    k: int,
    records: Records,
    standing: Array,
    rows: NDArray[np.int64],
    *,
    alone: bool,
) -> Array:
    """Mean over the k nearest records of their dataset's mean less the standing.

    Parameters
    ----------
    neighbours : Neighbours
        Of the rows; arrays of shape (n, at least k).
    k : int
    records : Records
    standing : float64 array, shape (n, M)
    rows : int64 array, shape (n,)
    alone : bool
        Whether a row's own dataset is among the datasets; its mean is then taken without the row.

    Returns
    -------
    float64 array, shape (n, M)
        A model that was not run on a dataset has its standing there.
    """
    ids = neighbours.ids[:, :k]
    known = ~np.isnan(records.means)
    means, ran = np.where(known, records.means, 0.0), known.astype(np.float64)
    n, n_datasets = len(ids), len(means)
    cell = np.arange(n)[:, None] * n_datasets + records.dataset[ids]
    share = np.bincount(cell[ids >= 0], minlength=n * n_datasets).reshape(n, n_datasets)
    share = share / np.maximum((ids >= 0).sum(axis=1), 1)[:, None]
    deviation = share @ means - (share @ ran) * standing
    if not alone:
        return np.asarray(deviation)
    own = records.dataset[rows]
    count = records_per_dataset(records)[own]
    score = records.scores[rows].astype(np.float64)
    left = np.maximum(count - 1.0, 1.0)
    correction = np.where(np.isnan(score) | (count < 2), 0.0, (means[own] - score) / left)
    return np.asarray(deviation + share[np.arange(n), own][:, None] * correction)


def records_per_dataset(records: Records) -> Array:
    """Records with a score of every model in every dataset, shape (D, M)."""
    count = np.zeros(records.means.shape)
    for code in records.codes:
        count[code] = (~np.isnan(records.scores[records.dataset == code])).sum(axis=0)
    return count


@dataclass(frozen=True)
class Linear:
    """Ridge regression of scores on embeddings in which every dataset weighs the same.

    Attributes
    ----------
    centre : float64 array, shape (dim,)
        Mean embedding.
    level : float64 array, shape (M,)
        Mean score.
    weights : float64 array, shape (n_penalties, dim, M)
    """

    centre: Array
    level: Array
    weights: Array


@dataclass(frozen=True)
class _Moments:
    """Sums over records, each dataset's divided by its number of records."""

    gram: Array  # (dim, dim)
    cross: Array  # (dim, M)
    embedding: Array  # (dim,)
    score: Array  # (M,)
    datasets: float
    records: float

    def __sub__(self, other: _Moments) -> _Moments:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Moments(*(a - b for a, b in pairs))

    def __add__(self, other: _Moments) -> _Moments:
        pairs = zip(vars(self).values(), vars(other).values(), strict=True)
        return _Moments(*(a + b for a, b in pairs))

    @property
    def scale(self) -> float:
        """Factor that makes the weights of records add up to their number."""
        return self.records / self.datasets

    def centred_gram(self) -> Array:
        """Weighted products of embeddings less their mean."""
        centre = self.embedding / self.datasets
        return self.scale * (self.gram - self.datasets * np.outer(centre, centre))

    def fit(self) -> Linear:
        """The regression, by one linear system for every penalty."""
        centre, level = self.embedding / self.datasets, self.score / self.datasets
        cross = self.scale * (self.cross - self.datasets * np.outer(centre, level))
        gram, eye = self.centred_gram(), np.eye(len(centre))
        systems = (np.linalg.solve(gram + penalty * eye, cross) for penalty in PENALTIES)
        return Linear(centre, level, np.stack(list(systems)))


def _moments(records: Records, code: int, filled: NDArray[np.float32]) -> _Moments:
    x, y = records.embeddings, filled
    rows = np.flatnonzero(records.dataset == code)
    dim, n_models = x.shape[1], y.shape[1]
    gram, cross = np.zeros((dim, dim)), np.zeros((dim, n_models))
    for start in range(0, len(rows), BLOCK):
        some = x[rows[start : start + BLOCK]]
        gram += some.T @ some
        cross += some.T @ y[rows[start : start + BLOCK]]
    n = len(rows)
    embedding = x[rows].sum(axis=0, dtype=np.float64)
    score = y[rows].sum(axis=0, dtype=np.float64)
    return _Moments(gram / n, cross / n, embedding / n, score / n, 1.0, float(n))


def linear_views(records: Records, rows: NDArray[np.int64]) -> tuple[Linear, Array, Array]:
    """Ridge regression of all records, and its predictions for rows that were held out.

    A missing score is taken to be the model's mean on the dataset, or its standing.

    Parameters
    ----------
    records : Records
    rows : int64 array, shape (n,)
        Records to predict.

    Returns
    -------
    fitted : Linear
    alone : float64 array, shape (n_penalties, n, M)
        Prediction of each row by all other records: the closed form of leaving one out.
    apart : float64 array, same shape
        By the records of the other datasets; 0 where there is no other dataset.
    """
    standing = records.standing()
    filled = _filled(records, standing)
    total = _moments(records, int(records.codes[0]), filled)
    for code in records.codes[1:]:
        total = total + _moments(records, int(code), filled)
    fitted = total.fit()
    own = records.dataset[rows]
    sizes = np.bincount(records.dataset, minlength=len(records.means)).astype(np.float64)
    weight = total.scale / sizes[own]
    centred = records.embeddings[rows] - fitted.centre
    target = filled[rows].astype(np.float64)
    shape = (len(PENALTIES), *target.shape)
    alone, apart = np.empty(shape), np.zeros(shape)
    gram = total.centred_gram()
    for i, penalty in enumerate(PENALTIES):
        inverse = np.linalg.inv(gram + penalty * np.eye(len(gram)))
        spread = np.einsum("nd,nd->n", centred @ inverse, centred)
        leverage = np.minimum(weight * (1.0 / total.records + spread), MOST_LEVERAGE)
        error = (target - (fitted.level + centred @ fitted.weights[i])) / (1.0 - leverage)[:, None]
        alone[i] = target - error
    if len(records.codes) > 1:
        for code in records.codes:
            here = np.flatnonzero(own == code)
            others = (total - _moments(records, int(code), filled)).fit()
            away = records.embeddings[rows[here]] - others.centre
            apart[:, here] = others.level + away @ others.weights
    return fitted, alone, apart


def _filled(records: Records, standing: Array) -> NDArray[np.float32]:
    missing = np.isnan(records.scores)
    if not missing.any():
        return records.scores
    means = np.where(np.isnan(records.means), standing, records.means)
    return np.where(missing, means[records.dataset], records.scores).astype(np.float32)
