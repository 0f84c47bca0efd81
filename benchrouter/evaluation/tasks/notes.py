"""Remarks on a leave-one-dataset-out result: what is undefined, and why."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from benchrouter.evaluation.tasks.cell_results import LeaveOneOut
    from benchrouter.tables.table import BenchmarkTable

NAMED = 3  # names listed in a sentence; the others are counted


def notes_on(results: LeaveOneOut, table: BenchmarkTable) -> tuple[str, ...]:
    """Say what is undefined in a result, and why.

    Parameters
    ----------
    results : LeaveOneOut
    table : BenchmarkTable
        What it was made from.
    """
    return tuple([*_few(results), *_not_run(results), *_constant(results), *_rules(results, table)])


def _few(results: LeaveOneOut) -> list[str]:
    from benchrouter.scores.held_out import ALL_RECORDS, SAMPLE

    notes = []
    if len(results.datasets) == 2 and "strict" in results.nestings:
        notes.append(
            "Strict nesting with two datasets leaves nothing to learn p̂ from (holding one out and "
            "excluding the other empties the benchmark): p̂, S3 and its chance are unknown there, "
            "and S3 chooses the best model on average."
        )
    single = [results.datasets[d] for d in np.flatnonzero(results.n_records == 1)]
    if single:
        notes.append(
            f"One record only in {_named(single)}: accuracies there are 0 or 1, no record can be "
            "labelled, and the split-half oracle is unknown."
        )
    for a, share in enumerate(results.label_shares):
        few = np.flatnonzero(results.n_labels[:, a] == 0)
        if share > 0 and len(few):
            names = [results.datasets[d] for d in few]
            notes.append(f"Label share {share:g} is less than one record of {_named(names)}.")
            break  # the smallest share is enough
    if int(results.n_records.sum()) > ALL_RECORDS:
        notes.append(
            f"Above {ALL_RECORDS:,} records u, S1, S2 and p are those of at most {SAMPLE} records "
            "a dataset, drawn with the seed; accuracies are those of all records."
        )
    return notes


def _not_run(results: LeaveOneOut) -> list[str]:
    notes = []
    missing = np.isnan(results.means)
    empty = missing.all(axis=1)
    if empty.any():
        names = [results.datasets[d] for d in np.flatnonzero(empty)]
        notes.append(f"No model was run on {_named(names)}: no accuracy and no p there.")
    for m in np.flatnonzero(missing[~empty].any(axis=0)):
        names = [results.datasets[d] for d in np.flatnonzero(missing[:, m] & ~empty)]
        notes.append(
            f"Model {results.models[m]} was not run on {_named(names)}: its accuracy and p are "
            "unknown there."
        )
    return notes


def _constant(results: LeaveOneOut) -> list[str]:
    known = ~np.isnan(results.means)
    highest = np.where(known, results.means, -np.inf).max(axis=1)
    lowest = np.where(known, results.means, np.inf).min(axis=1)
    same = (known.sum(axis=1) > 1) & (highest == lowest)
    names = [results.datasets[d] for d in np.flatnonzero(same)]
    notes = []
    if names:
        notes.append(
            f"All models are equally accurate on {_named(names)}: there is nothing to choose, "
            "and no correlation."
        )
    zero = [results.datasets[d] for d in np.flatnonzero(known.any(axis=1) & (highest == 0.0))]
    if zero:
        notes.append(f"No model is ever right on {_named(zero)}: no ratio to the oracle there.")
    if len(results.models) == 1:
        notes.append("One model only: every rule chooses it, and there is no correlation.")
    return notes


def _rules(results: LeaveOneOut, table: BenchmarkTable) -> list[str]:
    notes = []
    if not knows_the_cheapest(table):
        notes.append(
            "No row 'cheapest': no cost, price or number of parameters of a model is known."
        )
    if results.log_likelihood is not None:
        lacking = np.isnan(results.log_likelihood) & ~np.isnan(results.accuracy)
        names = [results.datasets[d] for d in np.flatnonzero(lacking.any(axis=(1, 2, 3)))]
        if names:
            notes.append(
                "No row LL: it compares the log-likelihoods of all models that were run, and some "
                f"are missing on {_named(names)}."
            )
    for nesting in results.nestings:
        away = {
            rule: int(np.isnan(results.accuracy_of(nesting, rule)).sum())
            for rule in results.picks[nesting]
        }
        empty = int(np.isnan(results.accuracy).all(axis=-1).sum())
        told = [f"{rule} in {n - empty}" for rule, n in away.items() if n > empty]
        if told:
            notes.append(
                f"Cells whose chosen model was not run on the dataset are left out of the means "
                f"({nesting}): {', '.join(told)} of {results.u.size} cells."
            )
    return notes


def knows_the_cheapest(table: BenchmarkTable) -> bool:
    """Whether any cost, price or number of parameters tells the models apart."""
    of_models = table.cost_usd, table.prices, table.params_b
    return any(values is not None and not np.isnan(values).all() for values in of_models)


def _named(names: Sequence[str]) -> str:
    if len(names) <= NAMED:
        return ", ".join(names)
    return f"{', '.join(names[:NAMED])} and {len(names) - NAMED} more"
