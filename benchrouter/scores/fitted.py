"""What a fit has learnt from a benchmark, and its settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.arrays import Array
from benchrouter.neighbours.by_faiss import Approximate
from benchrouter.neighbours.index import check_count
from benchrouter.scores import formulas
from benchrouter.scores.evidence import prior_of
from benchrouter.scores.expected.prompt_scores import Expectation
from benchrouter.scores.expected.task_accuracies import HeldOutTasks
from benchrouter.scores.pairs import DRAWS, LABEL_SHARES, Pairs
from benchrouter.votes.outcomes import Outcomes, PackedOutcomes

if TYPE_CHECKING:
    from benchrouter.embeddings import Fingerprint


DISTANCE_QUANTILE = 0.99  # of the benchmark's own held-out prompts; beyond it a prompt falls back


@dataclass(frozen=True)
class Settings:
    """All that shapes a fit, beside the table and its embeddings; updates keep to it.

    Attributes
    ----------
    k, kappa : int
        Neighbours that vote, and that measure distance.
    sigma : float
        Width of the smoother's kernel.
    eta : float
        Least chance of beating the best model on average.
    threshold : float
        t: a vote above it predicts "correct".
    label_shares : tuple of float
        α of the training pairs.
    draws, seed : int
        Of the training pairs.
    fallback : str, optional
        Model for prompts without evidence; the best on average by default.
    index : str, optional
        faiss's name of an approximate index ("IVF1024,Flat", "HNSW32" …) for tables that are too
        large to search exactly. `Router.describe` tells how near it comes.

    Raises
    ------
    TypeError, ValueError
        Naming the field, what was found and what was expected.
    """

    k: int = formulas.K_HELM
    kappa: int = formulas.KAPPA
    sigma: float = formulas.SIGMA
    eta: float = formulas.ETA
    threshold: float = formulas.THRESHOLD
    label_shares: tuple[float, ...] = LABEL_SHARES
    draws: int = DRAWS
    seed: int = 0
    fallback: str | None = None
    index: str | None = None

    @property
    def numbers(self) -> dict[str, Any]:
        """The numbers of the method, by name: all but the fallback and the index."""
        given = asdict(self)
        return {name: given[name] for name in given if name not in ("fallback", "index")}

    def __post_init__(self) -> None:
        """Refuse numbers outside their range."""
        for name, least in (("k", 1), ("kappa", 1), ("draws", 1), ("seed", 0)):
            check_count(getattr(self, name), name, least)
        if not isinstance(self.label_shares, tuple):
            found = type(self.label_shares).__name__
            raise TypeError(f"label_shares must be a tuple of numbers, got {found}")
        if not self.sigma > 0.0:
            raise ValueError(f"sigma must be above 0, got {self.sigma}")
        for name in ("eta", "threshold"):
            if not 0.0 <= getattr(self, name) <= 1.0:
                raise ValueError(f"{name} must lie in [0, 1], got {getattr(self, name)}")
        if not self.label_shares or not all(0.0 <= a < 1.0 for a in self.label_shares):
            raise ValueError(
                f"label_shares must be numbers in [0, 1), at least one, got {self.label_shares}"
            )


@dataclass(frozen=True)
class Approximation:
    """An approximate index, and how near it comes to exact search.

    Attributes
    ----------
    factory : str
        faiss's name of it.
    index : Approximate
        Over the records of the last compact fit.
    recall : float
        Share of the k nearest records that it finds, in [0, 1], over held-out queries.
    agreement : float
        Share of those queries for which the rule "auto" chooses the same model, in [0, 1].
    n_queries : int
        How many there were.
    """

    factory: str
    index: Approximate
    recall: float
    agreement: float
    n_queries: int


@dataclass(frozen=True)
class Fit:
    """A fitted benchmark: what a router holds, and what its directory stores.

    Attributes
    ----------
    settings : Settings
    fingerprint : Fingerprint or None
        Of the encoder behind the embeddings, None = unknown.
    models, datasets : tuple of str
    metrics : tuple of str
        Of the datasets; "" = not stated.
    thresholds : float64 array, shape (n_datasets,)
        A score strictly above it is correct; NaN = none is known.
    embeddings : float32 array, shape (n_records, dim)
        Unit rows.
    dataset : int32 array, shape (n_records,)
    sample_ids, prompts : sequence of str
        One per record.
    raw : PackedOutcomes or float32 array, shape (n_records, n_models)
        Scores as recorded (packed where all are 0 or 1).
    correct : PackedOutcomes or None
        Correctness; None where a dataset has no threshold, and then only raw-score routing works.
    means, raw_means : float64 arrays, shape (n_datasets, n_models)
        Mean correctness and mean raw score; NaN = not run.
    params_b, cost_usd : float64 arrays, shape (n_models,)
        Billions of parameters, and mean recorded US$ per prompt; NaN = unknown.
    prices : float64 array, shape (n_models, 2)
        Listed US$ per million tokens in and out; NaN = unknown.
    record_cost_usd : float32 array, shape (n_records, n_models), or None
        Recorded US$ of every answer; NaN = unknown. None where none was recorded.
    pairs : Pairs
        Of the smoother.
    benchmark_u : float64 array, shape (n_datasets,)
        Distance of each dataset, held out, to the others. Empty for a single dataset.
    local : float64 array, shape (n_datasets, n_models)
        What each dataset's neighbourhood in the others says of the models' accuracy; NaN where
        there are no others, or no correctness.
    within : float64 array, shape (n_models, n_models)
        Covariance of two models' correctness on one record of a dataset.
    expectation : Expectation
        What the rule `auto` has learnt.
    distance_limit : float
        99th percentile of the held-out prompts' own distances.
    tau : float
        How many labelled prompts p̂ is worth.
    best_on_average : int
        Position of the best model on average.
    compact : bool
        Whether pairs, benchmark_u, local, expectation, distance_limit and tau, which holding out
        teaches, are of these very records. If not, they are of those before the last additions:
        NaN in benchmark_u and local for a dataset that came since.
    approximation : Approximation or None
        What proposes neighbours instead of an exact search.
    sha256 : str or None
        Of the directory that it was read from; None for one that was made or changed since.
    """

    settings: Settings
    fingerprint: Fingerprint | None
    models: tuple[str, ...]
    datasets: tuple[str, ...]
    metrics: tuple[str, ...]
    thresholds: Array
    embeddings: NDArray[np.float32]
    dataset: NDArray[np.int32]
    sample_ids: Sequence[str]
    prompts: Sequence[str]
    raw: Outcomes
    correct: PackedOutcomes | None
    means: Array
    raw_means: Array
    params_b: Array
    cost_usd: Array
    prices: Array
    record_cost_usd: NDArray[np.float32] | None
    pairs: Pairs
    benchmark_u: Array
    local: Array
    within: Array
    expectation: Expectation
    distance_limit: float
    tau: float
    best_on_average: int
    compact: bool = True
    approximation: Approximation | None = None
    sha256: str | None = None

    @cached_property
    def fallback(self) -> int:
        """Position of the model for prompts without evidence."""
        name = self.settings.fallback
        return self.best_on_average if name is None else self.models.index(name)

    @cached_property
    def prior(self) -> NDArray[np.float32]:
        """Vote of a prompt without evidence: standings of correctness, shape (n_models,)."""
        return prior_of(self.means)

    @cached_property
    def raw_prior(self) -> NDArray[np.float32]:
        """The same of raw scores."""
        return prior_of(self.raw_means)

    @cached_property
    def held_out_tasks(self) -> HeldOutTasks:
        """What the score `auto` learns from; without tasks where none could be held out."""
        codes = np.flatnonzero(~np.isnan(self.local).any(axis=1))
        standing = [prior_of(np.delete(self.means, code, axis=0)) for code in codes]
        return HeldOutTasks(
            accuracy=self.means[codes],
            standing=np.array(standing, dtype=np.float64).reshape(len(codes), len(self.models)),
            local=self.local[codes],
            distance=self.benchmark_u[codes] if len(codes) else np.empty(0),
            n_records=np.bincount(self.dataset, minlength=len(self.datasets))[codes],
            within=self.within,
            sigma=self.settings.sigma,
        )

    @cached_property
    def costs_known(self) -> bool:
        """Whether models are known to differ in cost: the cheaper of two equals is then taken."""
        cost = self.prices.sum(axis=1) if np.isnan(self.cost_usd).all() else self.cost_usd
        return len(np.unique(cost[~np.isnan(cost)])) > 1

    @cached_property
    def preferred(self) -> NDArray[np.int32]:
        """Rank of every model among equals, shape (n_models,)."""
        return formulas.preference(self.cost_usd, self.prices, self.params_b)
