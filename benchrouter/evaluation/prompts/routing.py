"""The rules and baselines of one fold, written into arrays over the whole table."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions.costs.sources import neighbours_cost_usd
from benchrouter.decisions.on_cpu import OnCpu
from benchrouter.decisions.plan import plan_of
from benchrouter.decisions.policy import Policy, Rule
from benchrouter.decisions.rules import Rules
from benchrouter.evaluation.prompts.baselines import BASELINES
from benchrouter.evaluation.prompts.rule_rows import BEST_OF_DATASET
from benchrouter.neighbours.index import Index
from benchrouter.scores import formulas
from benchrouter.scores.expected.prompt_scores import blend

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.folds import Fold
    from benchrouter.scores.expected.prompt_scores import Expectation
    from benchrouter.tables.table import BenchmarkTable

K_RAW = 10  # neighbours of the rule "raw", as on MixInstruct (arXiv 2309.15789)
OURS: tuple[Rule, ...] = ("auto", "mean", "raw", "s3")


class Collected:
    """Arrays over all records of the table, filled fold by fold."""

    def __init__(
        self,
        table: BenchmarkTable,
        records: NDArray[np.int64],
        models: NDArray[np.int64],
        notes: list[str],
    ) -> None:
        self.table = table
        self.records = records
        self.models = models
        self.notes = notes
        n = table.n_records
        self.tested = np.zeros(n, dtype=bool)
        self.picks: dict[str, NDArray[np.int32]] = {}
        self.predicted: dict[str, NDArray[np.float32]] = {}
        self.fallback: dict[str, NDArray[np.bool_]] = {}
        self.chance: NDArray[np.float32] | None = None
        self.chance_spread = np.full(n, np.nan)
        self.distance = np.full(n, np.nan)
        self.distance_limit = np.full(n, np.nan)
        self.expected_cost_usd: NDArray[np.float32] | None = None
        if table.cost_usd is not None:
            self.expected_cost_usd = np.full((n, table.n_models), np.nan, dtype=np.float32)

    def pick(self, rule: str, rows: NDArray[np.int64], model: NDArray[np.int64]) -> None:
        """Keep a rule's choices for some rows of the table."""
        empty = np.full(self.table.n_records, -1, dtype=np.int32)
        self.picks.setdefault(rule, empty)[rows] = model

    def predict(
        self,
        rule: str,
        rows: NDArray[np.int64],
        models: NDArray[np.int64],
        values: NDArray[np.floating],
    ) -> None:
        """Keep what a rule predicts of some models for some rows of the table."""
        empty = np.full((self.table.n_records, self.table.n_models), np.nan, dtype=np.float32)
        self.predicted.setdefault(rule, empty)[np.ix_(rows, models)] = values

    def expect(
        self,
        rows: NDArray[np.int64],
        models: NDArray[np.int64],
        learnt: Expectation,
        expected: NDArray[np.float32],
        strange: NDArray[np.float32],
    ) -> None:
        """Keep the chance of success that `auto` predicts, and its spread."""
        if self.chance is None:
            shape = self.table.n_records, self.table.n_models
            self.chance = np.full(shape, np.nan, dtype=np.float32)
        self.chance[np.ix_(rows, models)] = learnt.chance(expected, strange[:, None])
        self.chance_spread[rows] = np.sqrt(blend(learnt.spread**2, strange))


def route_fold(
    fold: Fold,
    part: BenchmarkTable,
    unit_rows: NDArray[np.float32],
    collected: Collected,
    baselines: bool,
    threads: int,
) -> None:
    """Route the test prompts of a fold by every rule of its fit.

    Parameters
    ----------
    fold : Fold
    part : BenchmarkTable
        The table whose records and models the fold numbers.
    unit_rows : float32 array, shape (n_records, dim)
        Of `part`.
    collected : Collected
        Takes the choices.
    baselines : bool
    threads : int
        0 = all.
    """
    rows = collected.records[fold.test]
    queries = np.ascontiguousarray(unit_rows[fold.test])
    collected.tested[rows] = True
    _route_by_neighbours(fold, rows, queries, collected, threads)
    _choose_without_neighbours(fold, rows, part, collected)
    models, fit = collected.models[fold.models], fold.fit
    known = part.scores[np.ix_(fold.train, fold.models)]
    for name, baseline in BASELINES.items() if baselines else ():
        predicted = baseline(fit.embeddings, known, queries)
        collected.pick(name, rows, models[largest(predicted, fit.preferred)])
        collected.predict(name, rows, models, predicted)


def _route_by_neighbours(
    fold: Fold,
    rows: NDArray[np.int64],
    queries: NDArray[np.float32],
    collected: Collected,
    threads: int,
) -> None:
    """Our rules, by one search."""
    fit, models = fold.fit, collected.models[fold.models]
    index = Index(fit.embeddings, threads=threads, verify=False)
    cpu = OnCpu(Rules(fit), index)
    depth = max(fit.settings.kappa, fit.settings.k, K_RAW, fit.expectation.neighbours)
    neighbours = index.search(queries, depth)
    for rule in OURS:
        if rule == "s3" and (fit.correct is None or not len(fit.pairs.u)):
            collected.notes.append(
                "the rule 's3' is left out: it takes at least two datasets in the training part, "
                "each with a threshold between right and wrong"
            )
            continue
        plan = plan_of(fit, Policy(rule=rule, k=K_RAW if rule == "raw" else None))
        scored = cpu.score_on(queries, neighbours, plan)
        chosen = scored.chosen
        collected.pick(rule, rows, models[chosen.model])
        collected.predict(rule, rows, models, scored.scores)
        if scored.strange is not None and fit.expectation.calibration is not None:
            collected.expect(rows, models, fit.expectation, scored.scores, scored.strange)
        fallback = collected.fallback.setdefault(rule, np.zeros(len(collected.tested), dtype=bool))
        fallback[rows] = chosen.fallback
        collected.distance[rows] = chosen.distance
    collected.distance_limit[rows] = fit.distance_limit
    if collected.expected_cost_usd is not None and fit.record_cost_usd is not None:
        voting = np.ascontiguousarray(neighbours.ids[:, : fit.settings.k])
        collected.expected_cost_usd[np.ix_(rows, models)] = neighbours_cost_usd(
            voting, fit.record_cost_usd, fit.cost_usd, threads
        )


def _choose_without_neighbours(
    fold: Fold, rows: NDArray[np.int64], part: BenchmarkTable, collected: Collected
) -> None:
    """BMA, the cheapest model and the oracles."""
    fit, models = fold.fit, collected.models[fold.models]
    collected.pick("BMA", rows, np.repeat(models[fit.best_on_average], len(rows)))
    means = fit.raw_means if fit.correct is None else fit.means
    standing = np.broadcast_to(formulas.standing(means), (len(rows), len(models)))
    collected.predict("BMA", rows, models, standing)
    if np.isnan(fit.cost_usd).all() and np.isnan(fit.prices).all() and np.isnan(fit.params_b).all():
        collected.notes.append(
            "'cheapest' is left out: no cost, price or number of parameters of a model is known"
        )
    else:
        collected.pick("cheapest", rows, np.repeat(models[np.argmin(fit.preferred)], len(rows)))
    at = np.ix_(fold.test, fold.models)
    cost = None if part.cost_usd is None else part.cost_usd[at]
    best = best_recorded(part.scores[at], cost, fit.preferred)
    collected.pick("oracle", rows, models[best])
    dataset = part.dataset[fold.test]
    here = formulas.dataset_means(part.scores[at], dataset, part.n_datasets)
    collected.pick(BEST_OF_DATASET, rows, models[largest(here, fit.preferred)[dataset]])


def largest(values: NDArray[np.floating], preferred: NDArray[np.int32]) -> NDArray[np.int32]:
    """Position of each row's largest value; ties by preference, NaN never wins.

    Parameters
    ----------
    values : float array, shape (n, n_models)
    preferred : int32 array, shape (n_models,)
        Rank of every model among equals.

    Returns
    -------
    int32 array, shape (n,)
        The most preferred model where all values are NaN.
    """
    order = np.argsort(preferred)
    ranked = np.where(np.isnan(values), -np.inf, values)[:, order]
    return order[np.argmax(ranked, axis=1)].astype(np.int32)


def best_recorded(
    recorded: NDArray[np.float32],
    cost_usd: NDArray[np.float32] | None,
    preferred: NDArray[np.int32],
) -> NDArray[np.int32]:
    """Choose the best recorded score of every prompt, at the lowest recorded cost.

    Parameters
    ----------
    recorded : float32 array, shape (n, n_models)
        NaN = missing.
    cost_usd : float32 array, shape (n, n_models), optional
        NaN = unknown, which comes last.
    preferred : int32 array, shape (n_models,)
        Decides remaining ties.

    Returns
    -------
    int32 array, shape (n,)
    """
    ranked = np.where(np.isnan(recorded), -np.inf, recorded)
    if cost_usd is None:
        return largest(ranked, preferred)
    best = ranked == ranked.max(axis=1, keepdims=True)
    unknown = np.finfo(np.float32).max
    thrift = np.where(best, -np.where(np.isnan(cost_usd), unknown, cost_usd), -np.inf)
    return largest(thrift, preferred)
