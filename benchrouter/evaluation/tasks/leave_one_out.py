"""Leave-one-dataset-out: each dataset in turn is the new task, the others are the benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.evaluation.tasks.cell_results import LeaveOneOut
from benchrouter.evaluation.tasks.chosen_models import Choices, choices, smooth
from benchrouter.evaluation.tasks.estimates import with_our_rules
from benchrouter.evaluation.tasks.held_out_dataset import Part, part_of
from benchrouter.evaluation.tasks.measures import split_half_oracle
from benchrouter.evaluation.tasks.notes import knows_the_cheapest, notes_of
from benchrouter.files.arrays import Array, Counts, Progress
from benchrouter.scores import formulas
from benchrouter.scores.evidence import Evidence, evidence_of, model_costs_usd
from benchrouter.scores.fitted import Settings
from benchrouter.scores.held_out import hold_out
from benchrouter.scores.pairs import DRAWS, LABEL_SHARES

if TYPE_CHECKING:
    from benchrouter.tables.table import BenchmarkTable

NESTINGS = ("strict", "published")

__all__ = ["LeaveOneOut", "leave_one_dataset_out"]


def leave_one_dataset_out(
    table: BenchmarkTable,
    embeddings: NDArray[np.float32],
    *,
    k: int = formulas.K_HELM,
    kappa: int = formulas.KAPPA,
    sigma: float = formulas.SIGMA,
    eta: float = formulas.ETA,
    threshold: float = formulas.THRESHOLD,
    label_shares: Sequence[float] = LABEL_SHARES,
    draws: int = DRAWS,
    nestings: Sequence[str] = NESTINGS,
    seed: int = 0,
    threads: int = 0,
    progress: Progress | None = None,
) -> LeaveOneOut:
    """Hold out every dataset as the new task, at every label share and draw.

    Parameters
    ----------
    table : BenchmarkTable
        At least two datasets, each with a correctness threshold.
    embeddings : float array, shape (n_records, dim)
        Unit rows, in the order of the records (or of the file that the table was read from).
    k, kappa : int
        Neighbours that vote, and that measure distance.
    sigma : float
        Width of the smoother's kernel.
    eta : float
        Least chance of beating the best on average, for the rules with fallback.
    threshold : float
        A vote above it predicts "correct".
    label_shares : sequence of float
        α: shares of the task's records that are moved into the pool, at most 50 records; they
        make the training pairs, too.
    draws : int
        Random choices of those records per share.
    nestings : sequence of "strict" and "published"
        "strict" keeps the held-out dataset out of the predictors behind the training pairs and
        out of the best model on average; "published" only drops its own pairs, as the paper's
        experiments did.
    seed : int
        Of the draws (the same in both nestings), and of the sample in large tables.
    threads : int
        0 = all.
    progress : callable, optional
        Called with (stage, done, total).

    Returns
    -------
    LeaveOneOut

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two datasets, if no model has a score, if the embeddings do not
        fit the table, or if a setting is out of range.
    """
    settings = Settings(k, kappa, sigma, eta, threshold, tuple(label_shares), draws, seed)
    for nesting in nestings:
        if nesting not in NESTINGS:
            raise ValueError(f"nesting must be 'strict' or 'published', got {nesting!r}")
    if table.n_datasets < 2:
        raise ValueError(
            "leave-one-dataset-out needs at least 2 datasets (one is held out, the others are "
            f"the benchmark), found 1: {table.datasets[0]!r}"
        )
    evidence = evidence_of(
        table, embeddings, k=k, kappa=kappa, threshold=threshold, threads=threads
    )
    if np.isnan(evidence.means).all():
        raise ValueError("leave-one-dataset-out needs scores, found none in the table")
    held_out = list(hold_out(evidence, seed=seed, progress=progress))
    parts = [part_of(task, evidence, settings, table.log_likelihood) for task in held_out]
    preferred = formulas.preference(model_costs_usd(table), table.prices, table.params_b)
    results = _together(table, evidence, settings, tuple(nestings), parts, preferred, progress)
    if "strict" in nestings:
        results = with_our_rules(results, held_out, evidence, preferred)
    return replace(results, notes=notes_of(results, table))


@dataclass(frozen=True)
class _Rules:
    """Rules that need more than scores, and whether the table has it."""

    likelihood: bool
    cheapest: bool


def _together(
    table: BenchmarkTable,
    evidence: Evidence,
    settings: Settings,
    nestings: tuple[str, ...],
    parts: list[Part],
    preferred: NDArray[np.int32],
    progress: Progress | None,
) -> LeaveOneOut:
    """Estimate p, choose by every rule, and lay out the cells as arrays."""

    def laid_out(of_cells: Iterable[NDArray[Any]]) -> NDArray[Any]:
        return np.array([a[part.which] for a, part in zip(of_cells, parts, strict=True)])

    n_records = np.bincount(table.dataset, minlength=table.n_datasets)
    rules = _Rules(
        likelihood=not any(part.lacks_likelihood() for part in parts),
        cheapest=knows_the_cheapest(table),
    )
    p_hat: dict[str, Array] = {}
    probability: dict[str, Array] = {}
    picks: dict[str, dict[str, Counts]] = {}
    for nesting in nestings:
        made: list[Choices] = []
        for part in parts:
            n = int(n_records[part.code])
            made.append(_choose(part, parts, evidence, settings, nesting, n, preferred, rules))
            if progress is not None:
                progress(f"choosing for each dataset ({nesting})", len(made), len(parts))
        p_hat[nesting] = laid_out(chosen.p_hat for chosen in made)
        probability[nesting] = laid_out(chosen.probability for chosen in made)
        picks[nesting] = {
            rule: laid_out(chosen.picks[rule] for chosen in made) for rule in made[0].picks
        }
    return LeaveOneOut(
        datasets=table.datasets,
        models=table.models,
        label_shares=settings.label_shares,
        draws=settings.draws,
        nestings=nestings,
        **{
            name: getattr(settings, name)
            for name in ("k", "kappa", "sigma", "eta", "threshold", "seed")
        },
        n_records=n_records,
        n_labels=np.array([part.n_labels for part in parts]),
        means=evidence.means,
        accuracy=laid_out(part.accuracy for part in parts),
        u=laid_out(part.u[:, 0] for part in parts),
        s1=laid_out(part.s1 for part in parts),
        s2=laid_out(part.s2 for part in parts),
        p=laid_out(part.p[:, 0] for part in parts),
        p_hat=p_hat,
        probability=probability,
        picks=picks,
        oracle_per_record=laid_out(part.some_correct for part in parts),
        oracle_split_half=split_half_oracle(
            evidence.correctness, table.dataset, table.n_datasets, preferred, seed=settings.seed
        ),
        params_b=table.params_b,
        log_likelihood=None
        if table.log_likelihood is None
        else laid_out(part.log_likelihood for part in parts if part.log_likelihood is not None),
    )


def _choose(
    part: Part,
    parts: list[Part],
    evidence: Evidence,
    settings: Settings,
    nesting: str,
    n_records: int,
    preferred: NDArray[np.int32],
    rules: _Rules,
) -> Choices:
    """Estimate p, the chance of beating BMA, and every rule's choice in the cells of a dataset."""
    others = [other for other in parts if other.code != part.code]
    without = 1 + part.code if nesting == "strict" else 0
    pair_u = np.concatenate([o.u[o.which.ravel(), without] for o in others])
    pair_p = np.concatenate([o.p[o.which.ravel(), without] for o in others])
    p_hat = smooth(part.u[:, 0], pair_u, pair_p, settings.sigma)
    means = evidence.means
    if nesting == "strict":
        means = np.delete(means, part.code, axis=0)
    # Where the others have no score at all (two datasets, one not run): the preferred model.
    known = not np.isnan(means).all()
    bma = formulas.best_on_average(means, preferred) if known else int(np.argmin(preferred))
    # Of a model without a score elsewhere nothing is known but how good the others are.
    unknown = np.isnan(np.delete(evidence.means, part.code, axis=0)).all(axis=0)
    n_labels = np.zeros(len(part.u), np.int64)
    n_labels[part.which] = part.n_labels[:, None]
    return choices(
        bma=np.full(len(part.u), bma),
        s1=np.where(unknown, np.nan, part.s1),
        s2=np.where(unknown, np.nan, part.s2),
        p=part.p[:, 0],
        p_hat=p_hat,
        n=n_records - n_labels,
        log_likelihood=part.log_likelihood if rules.likelihood else None,
        accuracy=part.accuracy,
        preferred=preferred,
        cheapest=rules.cheapest,
        eta=settings.eta,
    )
