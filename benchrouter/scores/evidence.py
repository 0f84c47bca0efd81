"""The benchmark as the predictor sees it: neighbours, correctness, standings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.embeddings.unit_rows import as_unit_rows
from benchrouter.files.arrays import Array
from benchrouter.neighbours.index import Index, check_count
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores import formulas
from benchrouter.votes.outcomes import Outcomes, pack
from benchrouter.votes.votes import votes

if TYPE_CHECKING:
    from benchrouter.tables.table import BenchmarkTable


@dataclass(frozen=True)
class Evidence:
    """The benchmark as arrays: what the predictor sees.

    Attributes
    ----------
    index : Index
        Over all records.
    outcomes : PackedOutcomes or float32 array, shape (n_records, n_models)
        Correctness, NaN = missing.
    correctness : float32 array, shape (n_records, n_models)
        The same, unpacked: 0, 1 or NaN.
    dataset : int32 array, shape (n_records,)
        Dataset code of each record.
    means : float64 array, shape (n_datasets, n_models)
        Mean correctness, NaN = not run.
    k, kappa : int
        Neighbours that vote, and that measure distance.
    threshold : float
        A vote above it predicts "correct".
    threads : int
        0 = all.
    """

    index: Index
    outcomes: Outcomes
    correctness: NDArray[np.float32]
    dataset: NDArray[np.int32]
    means: Array
    k: int = formulas.K_HELM
    kappa: int = formulas.KAPPA
    threshold: float = formulas.THRESHOLD
    threads: int = 0

    @property
    def n_datasets(self) -> int:
        """Number of datasets."""
        return int(self.means.shape[0])

    @property
    def depth(self) -> int:
        """Neighbours that any score needs."""
        return max(self.k, self.kappa)


def evidence_of(
    table: BenchmarkTable,
    embeddings: NDArray[np.float32],
    *,
    k: int = formulas.K_HELM,
    kappa: int = formulas.KAPPA,
    threshold: float = formulas.THRESHOLD,
    threads: int = 0,
) -> Evidence:
    """Join a table and its embeddings.

    Parameters
    ----------
    table : BenchmarkTable
        Every dataset needs a correctness threshold.
    embeddings : float16 or float32 array, shape (n_records, dim)
        Unit rows, one per record of the table or of the files it was read from.
    k, kappa : int
        Neighbours that vote, and that measure distance.
    threshold : float
        A vote above it predicts "correct".
    threads : int
        0 = all.

    Raises
    ------
    TypeError, ValueError
        If the embeddings do not fit the table or are not unit rows, if k or kappa is below 1, or
        if a dataset has no threshold.
    """
    check_count(k, "k")
    check_count(kappa, "kappa")
    rows = as_unit_rows(table.aligned(embeddings), "embeddings")
    correctness = np.ascontiguousarray(table.correctness())
    return Evidence(
        index=Index(rows, threads=threads, verify=False),
        outcomes=pack(correctness),
        correctness=correctness,
        dataset=table.dataset,
        means=formulas.dataset_means(correctness, table.dataset, table.n_datasets),
        k=k,
        kappa=kappa,
        threshold=threshold,
        threads=threads,
    )


def model_costs_usd(table: BenchmarkTable) -> Array:
    """Mean recorded cost of every model.

    Returns
    -------
    float64 array, shape (n_models,)
        US$ per prompt, the mean over datasets; NaN = not recorded.
    """
    if table.cost_usd is None:
        return np.full(table.n_models, np.nan)
    means = formulas.dataset_means(table.cost_usd, table.dataset, table.n_datasets)
    known = ~np.isnan(means)
    count = known.sum(axis=0)
    return np.asarray(np.where(known, means, 0.0).sum(axis=0) / np.where(count > 0, count, np.nan))


def predict(
    neighbours: Neighbours, evidence: Evidence, prior: NDArray[np.float32]
) -> NDArray[np.float32]:
    """g: the neighbours' mean correctness per prompt and model (eq. 11).

    Parameters
    ----------
    neighbours : Neighbours
        Arrays of shape (n, depth).
    evidence : Evidence
    prior : float32 array, shape (n_models,)
        Vote of a prompt without evidence, as :func:`prior_without` gives it.

    Returns
    -------
    float32 array, shape (n, n_models)
    """
    return votes(
        np.ascontiguousarray(neighbours.ids[:, : evidence.k]),
        evidence.outcomes,
        prior=prior,
        threads=evidence.threads,
    ).votes


def prior_without(evidence: Evidence, *excluded: int) -> NDArray[np.float32]:
    """:func:`prior_of` the datasets that are not excluded.

    Parameters
    ----------
    evidence : Evidence
    *excluded : int
        Datasets that the prior must not know.

    Returns
    -------
    float32 array, shape (n_models,)
    """
    kept = np.setdiff1d(np.arange(evidence.n_datasets), excluded)
    return prior_of(evidence.means[kept])


def prior_of(means: Array) -> NDArray[np.float32]:
    """Standing of every model as the vote of a prompt without evidence.

    Parameters
    ----------
    means : float64 array, shape (n_datasets, n_models)
        NaN = not run.

    Returns
    -------
    float32 array, shape (n_models,)
        No standing is credited beyond the best and the worst dataset mean that any model has, as
        the additive fit may do for a model that ran on few datasets. A model without any score
        here gets the mean of the others, or 0.5.
    """
    prior = np.full(means.shape[1], np.nan)
    present = ~np.isnan(means)
    models, datasets = present.any(axis=0), present.any(axis=1)
    if models.any():
        fitted = formulas.standing(means[np.ix_(datasets, models)])
        prior[models] = np.clip(fitted, means[present].min(), means[present].max())
    known = prior[models]
    return np.where(models, prior, known.mean() if len(known) else 0.5).astype(np.float32)


def verdicts(g: NDArray[np.float32], threshold: float) -> NDArray[np.bool_]:
    """ḡ = 1[g > t], strictly; t is rounded as the votes are, so 3 of 10 is not above 0.3.

    Parameters
    ----------
    g : float32 array
    threshold : float

    Returns
    -------
    bool array, same shape
    """
    return np.asarray(g > np.float32(threshold))
