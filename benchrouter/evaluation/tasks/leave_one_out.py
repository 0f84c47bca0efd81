"""Leave-one-dataset-out: each dataset in turn is the new task, the others are the benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.evaluation.tasks.cell_results import LeaveOneOut
from benchrouter.evaluation.tasks.chosen_models import ChosenModels, choices, smooth
from benchrouter.evaluation.tasks.estimates import with_our_rules
from benchrouter.evaluation.tasks.held_out_dataset import HeldOutDataset, part_of
from benchrouter.evaluation.tasks.measures import split_half_oracle
from benchrouter.evaluation.tasks.notes import knows_the_cheapest, notes_on
from benchrouter.files.arrays import Counts, Progress
from benchrouter.scores import formulas
from benchrouter.scores.evidence import Evidence, evidence_of, model_costs_usd
from benchrouter.scores.fitted import Settings
from benchrouter.scores.held_out import hold_out

if TYPE_CHECKING:
    from benchrouter.tables.table import BenchmarkTable

NESTINGS = ("strict", "published")
SETTINGS = ("k", "kappa", "sigma", "eta", "threshold", "label_shares", "draws", "seed")

__all__ = ["LeaveOneOut", "leave_one_dataset_out"]


def leave_one_dataset_out(
    table: BenchmarkTable,
    embeddings: NDArray[np.float32],
    *,
    settings: Settings | None = None,
    nestings: Sequence[str] = NESTINGS,
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
    settings : Settings, optional
        Numbers of the method; those of the paper by default. Label shares are those of the task's
        records that are moved into the pool, at most 50 records; they make the training pairs, too.
    nestings : sequence of "strict" and "published"
        "strict" keeps the held-out dataset out of the predictors behind the training pairs and
        out of the best model on average; "published" only drops its own pairs, as the paper's
        experiments did. Both draw the same records.
    threads : int
        0 = all.
    progress : callable, optional
        Called with (stage, done, total).

    Raises
    ------
    TypeError, ValueError
        If there are fewer than two datasets, if no model has a score, or if the embeddings do not
        fit the table.
    """
    settings = settings or Settings()
    for nesting in nestings:
        if nesting not in NESTINGS:
            raise ValueError(f"nesting must be 'strict' or 'published', got {nesting!r}")
    if table.n_datasets < 2:
        raise ValueError(
            "leave-one-dataset-out needs at least 2 datasets (one is held out, the others are "
            f"the benchmark), found 1: {table.datasets[0]!r}"
        )
    evidence = evidence_of(
        table,
        embeddings,
        k=settings.k,
        kappa=settings.kappa,
        threshold=settings.threshold,
        threads=threads,
    )
    if np.isnan(evidence.means).all():
        raise ValueError("leave-one-dataset-out needs scores, found none in the table")
    held_out = list(hold_out(evidence, seed=settings.seed, progress=progress))
    run = _Run(
        table,
        evidence,
        settings,
        [part_of(task, evidence, settings, table.log_likelihood) for task in held_out],
        formulas.preference(model_costs_usd(table), table.prices, table.params_b),
    )
    results = run.results(tuple(nestings), progress)
    if "strict" in nestings:
        results = with_our_rules(results, held_out, evidence, run.preferred)
    return replace(results, notes=notes_on(results, table))


@dataclass(frozen=True)
class _Run:
    """The inputs of every rule; `preferred` decides ties."""

    table: BenchmarkTable
    evidence: Evidence
    settings: Settings
    parts: list[HeldOutDataset]
    preferred: NDArray[np.int32]

    def results(self, nestings: tuple[str, ...], progress: Progress | None) -> LeaveOneOut:
        """Choose by every rule, and lay out the cells as arrays."""
        chosen = {nesting: self._chosen(nesting, progress) for nesting in nestings}
        return LeaveOneOut(
            datasets=self.table.datasets,
            models=self.table.models,
            nestings=nestings,
            **{name: getattr(self.settings, name) for name in SETTINGS},
            n_records=self._n_records,
            n_labels=np.array([part.n_labels for part in self.parts]),
            means=self.evidence.means,
            accuracy=self._cells("accuracy"),
            u=self._cells("own_u"),
            s1=self._cells("s1"),
            s2=self._cells("s2"),
            p=self._cells("own_p"),
            p_hat={nesting: found.p_hat for nesting, found in chosen.items()},
            probability={nesting: found.probability for nesting, found in chosen.items()},
            picks={nesting: found.picks for nesting, found in chosen.items()},
            oracle_per_record=self._cells("some_correct"),
            oracle_split_half=split_half_oracle(
                self.evidence.correctness,
                self.table.dataset,
                self.table.n_datasets,
                self.preferred,
                seed=self.settings.seed,
            ),
            params_b=self.table.params_b,
            log_likelihood=None
            if self.table.log_likelihood is None
            else self._cells("log_likelihood"),
        )

    def _chosen(self, nesting: str, progress: Progress | None) -> ChosenModels:
        """ChosenModels of every rule, by dataset, label share and draw."""
        made: list[ChosenModels] = []
        for part in self.parts:
            made.append(self._choose(part, nesting))
            if progress is not None:
                progress(f"choosing for each dataset ({nesting})", len(made), len(self.parts))
        return ChosenModels(
            self._laid_out(found.p_hat for found in made),
            self._laid_out(found.probability for found in made),
            {rule: self._laid_out(found.picks[rule] for found in made) for rule in made[0].picks},
        )

    def _cells(self, name: str) -> NDArray[Any]:
        return self._laid_out(getattr(part, name) for part in self.parts)

    def _laid_out(self, of_cells: Iterable[NDArray[Any]]) -> NDArray[Any]:
        """Values of every dataset's distinct cells, by label share and draw."""
        return np.array([a[part.which] for a, part in zip(of_cells, self.parts, strict=True)])

    @cached_property
    def _n_records(self) -> Counts:
        return np.bincount(self.table.dataset, minlength=self.table.n_datasets)

    @cached_property
    def _has_likelihoods(self) -> bool:
        return not any(part.lacks_likelihood() for part in self.parts)

    def _choose(self, part: HeldOutDataset, nesting: str) -> ChosenModels:
        """Estimate p, the chance of beating BMA, and every rule's choice in a dataset's cells."""
        others = [other for other in self.parts if other.code != part.code]
        without = 1 + part.code if nesting == "strict" else 0
        pair_u = np.concatenate([o.u[o.which.ravel(), without] for o in others])
        pair_p = np.concatenate([o.p[o.which.ravel(), without] for o in others])
        elsewhere = np.delete(self.evidence.means, part.code, axis=0)
        means = elsewhere if nesting == "strict" else self.evidence.means
        if np.isnan(means).all():  # two datasets, one not run: the preferred model
            bma = int(np.argmin(self.preferred))
        else:
            bma = formulas.best_on_average(means, self.preferred)
        # Nothing is known of a model without a score elsewhere.
        unknown = np.isnan(elsewhere).all(axis=0)
        n_labels = np.zeros(len(part.u), np.int64)
        n_labels[part.which] = part.n_labels[:, None]
        return choices(
            bma=np.full(len(part.u), bma),
            s1=np.where(unknown, np.nan, part.s1),
            s2=np.where(unknown, np.nan, part.s2),
            p=part.own_p,
            p_hat=smooth(part.own_u, pair_u, pair_p, self.settings.sigma),
            n=self._n_records[part.code] - n_labels,
            log_likelihood=part.log_likelihood if self._has_likelihoods else None,
            accuracy=part.accuracy,
            preferred=self.preferred,
            cheapest=knows_the_cheapest(self.table),
            eta=self.settings.eta,
        )
