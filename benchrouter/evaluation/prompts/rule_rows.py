"""One row per rule: the worth of its choices of one model per prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from benchrouter.evaluation.tasks.measures import bootstrap_interval
from benchrouter.evaluation.values import Reported, mean_of, per_dataset
from benchrouter.files.arrays import Array

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.prompt_results import PromptResults

Kind = Literal["rule", "baseline", "reference", "model"]
MCPI = 2  # model calls per instance: one embedding, one generation (arXiv 2309.15789)
BEST_OF_DATASET = "oracle per dataset"
REFERENCES = ("BMA", "cheapest", "random", BEST_OF_DATASET, "oracle")


@dataclass(frozen=True)
class PromptRow(Reported):
    """What one rule's choices are worth on the test prompts.

    Attributes
    ----------
    rule : str
        For a single model, its name.
    kind : "rule", "baseline", "reference" or "model"
    micro, macro : dict of str to float
        By metric: mean over prompts, and over datasets of the dataset's mean.
    interval : dict of str to (float, float)
        95 % of `macro`, by resampling datasets; NaN with a single dataset.
    vs_bma : dict of str to float
        Mean over datasets of the difference to BMA.
    vs_bma_interval : dict of str to (float, float)
        95 % of it, datasets resampled in pairs.
    gap_closed : float
        Difference to BMA as a share of the oracle's per dataset, both over the datasets that have
        both; NaN where that oracle is no better than BMA.
    accuracy : float
        Macro mean of correctness; NaN where thresholds are not known.
    fallback_share : float
        Share of the prompts on which the rule fell back; NaN for others than our rules.
    bma_share : float
        Share of the prompts on which BMA was chosen; NaN for "random".
    cost_usd : float
        Mean recorded US$ per prompt, over the prompts where it is known; NaN if it never is.
    params_b : float
        Mean billions of parameters of the models chosen; NaN if one of them is unknown.
    mcpi : int
        Model calls per instance.
    n_prompts, n_missing : int
        Test prompts, and those on which the chosen model has no recorded score: they are left out
        of every mean.
    n_datasets, n_paired : int
        Datasets behind the mean score and behind its difference to BMA.
    """

    rule: str
    kind: Kind
    micro: dict[str, float]
    macro: dict[str, float]
    interval: dict[str, tuple[float, float]]
    vs_bma: dict[str, float]
    vs_bma_interval: dict[str, tuple[float, float]]
    gap_closed: float
    accuracy: float
    fallback_share: float
    bma_share: float
    cost_usd: float
    params_b: float
    mcpi: int
    n_prompts: int
    n_missing: int
    n_datasets: int
    n_paired: int


def prompt_rows(results: PromptResults, *, seed: int = 0) -> list[PromptRow]:
    """Summarise the choices of every rule, random choice, and each model alone.

    Parameters
    ----------
    results : PromptResults
    seed : int
        Of the bootstrap.

    Returns
    -------
    list of PromptRow
        Our rules, baselines, BMA, cheapest, random, oracle, then the models of the table.
    """
    references = [rule for rule in REFERENCES if rule in results.picks or rule == "random"]
    ours = [rule for rule in results.picks if rule in results.fallback]
    others = [r for r in results.picks if r not in results.fallback and r not in REFERENCES]
    n = len(results.rows)
    kinds: dict[Kind, list[str]] = {"rule": ours, "baseline": others, "reference": references}
    rows = [
        _row(results, rule, kind, results.picks.get(rule), seed)
        for kind, rules in kinds.items()
        for rule in rules
    ]
    return rows + [
        _row(results, model, "model", np.full(n, m, dtype=np.int32), seed)
        for m, model in enumerate(results.models)
    ]


def random_choice(values: NDArray[np.float32]) -> Array:
    """Mean over models for every prompt: the expected value of a model drawn at random.

    float32 (n, n_models) to float64 (n,); NaN values are left out.
    """
    known = ~np.isnan(values)
    totals = np.where(known, values, 0).sum(axis=1, dtype=np.float64)
    counts = known.sum(axis=1)
    return np.asarray(totals / np.where(counts > 0, counts, np.nan))


def _row(
    results: PromptResults, rule: str, kind: Kind, picked: NDArray[np.int32] | None, seed: int
) -> PromptRow:
    """Summarise one rule; None as `picked` means a model drawn at random."""
    n_datasets = len(results.datasets)
    bma = results.picks["BMA"]

    def of(values: NDArray[np.float32], chosen: NDArray[np.int32] | None) -> Array:
        if chosen is None:
            return random_choice(values)
        return values[np.arange(len(values)), chosen].astype(np.float64)

    def datasets_of(values: NDArray[np.float32], chosen: NDArray[np.int32] | None) -> Array:
        return per_dataset(of(values, chosen), results.dataset, n_datasets)

    means = {name: datasets_of(values, picked) for name, values in results.scores.items()}
    gains = {
        name: means[name] - datasets_of(values, bma) for name, values in results.scores.items()
    }
    correctness = results.correctness
    fallback = results.fallback.get(rule) if kind == "rule" else None
    calls = {"rule": MCPI, "baseline": MCPI, "reference": 1, "model": 1}[kind]
    params_b = results.params_b if picked is None else results.params_b[picked]
    nothing = float("nan")
    return PromptRow(
        rule=rule,
        kind=kind,
        micro={name: mean_of(of(values, picked)) for name, values in results.scores.items()},
        macro={name: mean_of(values) for name, values in means.items()},
        interval={name: bootstrap_interval(values, seed=seed) for name, values in means.items()},
        vs_bma={name: mean_of(values) for name, values in gains.items()},
        vs_bma_interval={name: bootstrap_interval(v, seed=seed) for name, v in gains.items()},
        gap_closed=_gap_closed(results, gains["score"]),
        accuracy=nothing if correctness is None else mean_of(datasets_of(correctness, picked)),
        fallback_share=nothing if fallback is None else float(fallback.mean()),
        bma_share=nothing if picked is None else float((picked == bma).mean()),
        cost_usd=nothing if results.cost_usd is None else mean_of(of(results.cost_usd, picked)),
        params_b=float(params_b.mean()),
        mcpi=len(results.models) if (kind, rule) == ("reference", "oracle") else calls,
        n_prompts=len(results.rows),
        n_missing=int(np.isnan(of(results.scores["score"], picked)).sum()),
        n_datasets=int((~np.isnan(means["score"])).sum()),
        n_paired=int((~np.isnan(gains["score"])).sum()),
    )


def _gap_closed(results: PromptResults, gain: Array) -> float:
    """A rule's gains over BMA as a share of those of each dataset's best model."""
    best = results.picks.get(BEST_OF_DATASET)
    if best is None:
        return float("nan")
    n, rows = len(results.datasets), np.arange(len(results.rows))
    recorded = results.scores["score"].astype(np.float64)
    ahead = per_dataset(recorded[rows, best], results.dataset, n) - per_dataset(
        recorded[rows, results.picks["BMA"]], results.dataset, n
    )
    known = ~np.isnan(gain) & ~np.isnan(ahead)
    gap = float(ahead[known].sum())
    return float(gain[known].sum()) / gap if gap > 1e-12 else float("nan")
