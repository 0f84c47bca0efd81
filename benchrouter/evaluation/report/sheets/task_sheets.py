"""Tables of leave-one-dataset-out beside Table 1: with labels, dataset by dataset, by model."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np

from benchrouter.evaluation.report.sheets.sheet import Sheet, count, counted, number, percent, words
from benchrouter.evaluation.report.sheets.table_one import (
    macro_accuracy,
    meanings,
    tasks_of,
    why_no_p_hat,
)
from benchrouter.evaluation.results import OURS
from benchrouter.evaluation.results import expectations as expectations_of
from benchrouter.evaluation.tasks.measures import error_of_p_hat, predictor_accuracy
from benchrouter.evaluation.values import macro, mean_of

if TYPE_CHECKING:
    from benchrouter.evaluation.results import Pool
    from benchrouter.evaluation.tasks.cell_results import LeaveOneOut

SHOWN_SHARES = (0.0, 0.02, 0.04, 0.06, 0.1, 0.2, 0.28)


def by_labels(pool: Pool, nesting: str) -> Sheet:
    """Accuracy of every rule at several label shares."""
    tasks = tasks_of(pool)
    shown = _shown_shares(tasks)
    most = [int(tasks.n_labels[:, i].max()) for i in shown]
    return Sheet(
        name=f"labels-{pool.key}-{nesting}",
        title=f"{pool.title}, {nesting} nesting: accuracy with a few labels",
        columns=("rule", *(_share_name(tasks.label_shares[i]) for i in shown)),
        rows=(
            *(
                (
                    words(rule),
                    *(macro_accuracy(tasks, nesting, rule, i) for i in shown),
                )
                for rule in tasks.picks[nesting]
            ),
            (words("labels a dataset, at most"), *(count(n) for n in most)),
        ),
        caption="Macro accuracy on the remaining records after ⌊α·n⌋ (at most 50) random records "
        f"of the held-out dataset became labels; mean of "
        f"{counted(tasks.draws, 'draw')}, then of datasets.",
        definitions=(
            ("α", "share of the held-out dataset's records that are labelled"),
            *meanings(list(tasks.picks[nesting])),
        ),
    )


def _shown_shares(tasks: LeaveOneOut) -> list[int]:
    """Positions of the label shares that have a column or a row."""
    if len(tasks.label_shares) <= len(SHOWN_SHARES):
        return list(range(len(tasks.label_shares)))
    known = [i for i, share in enumerate(tasks.label_shares) if round(share, 6) in SHOWN_SHARES]
    return known or list(range(len(SHOWN_SHARES)))


def _share_name(share: float) -> str:
    return f"α = {share:g}"


def predictors(pool: Pool) -> Sheet:
    """Accuracy of the predictor of correctness, and the error of its estimate."""
    tasks = tasks_of(pool)
    why = "no record is left, or no model ran on it"
    rows = []
    for i in _shown_shares(tasks):
        cells = [
            words(_share_name(tasks.label_shares[i])),
            number(predictor_accuracy(tasks, i), why),
            number(macro(tasks.u[:, i]), why),
        ]
        for nesting in tasks.nestings:
            error = error_of_p_hat(tasks, nesting, i)
            cells.append(number(error, why_no_p_hat(tasks)))
        rows.append(tuple(cells))
    return Sheet(
        name=f"predictor-{pool.key}",
        title=f"{pool.title}: the predictor of correctness and the estimate p̂ of its accuracy",
        columns=("labels", "accuracy of ḡ", "u", *(f"MAE of p̂, {n}" for n in tasks.nestings)),
        rows=tuple(rows),
        caption="Means over models, draws and held-out datasets.",
        definitions=(
            ("ḡ", "the prediction, from the neighbours, that a model is right on a prompt"),
            ("u", "mean cosine distance of the dataset's records to their κ nearest in the pool"),
            ("MAE of p̂", "mean |p̂ − p|, p the true accuracy of ḡ on the held-out dataset"),
        ),
    )


def expectations(pool: Pool) -> Sheet | None:
    """Accuracy that the default of choose expects of its choice, and how often its interval holds.

    Returns
    -------
    Sheet or None
        None where the rule was not run.
    """
    tasks = tasks_of(pool)
    found = expectations_of(tasks)
    if found is None:
        return None
    expected, covered = found["expected"], found["covered"]
    width = found["high"] - found["low"]
    why = "too few datasets are left to learn the spread from"
    return Sheet(
        name=f"expectations-{pool.key}",
        title=f"{pool.title}: what {OURS} expects of its choice",
        columns=("labels", "expected", "reached", "80 % interval covers", "mean width"),
        rows=tuple(
            (
                words(_share_name(tasks.label_shares[i])),
                number(macro(expected[:, i]), why),
                macro_accuracy(tasks, "strict", OURS, i),
                percent(macro(covered[:, i]), why),
                number(macro(width[:, i]), why),
            )
            for i in _shown_shares(tasks)
        ),
        caption="Means over draws, then over held-out datasets, strict nesting.",
        definitions=(
            ("expected, reached", "estimated and measured accuracy of the chosen model"),
            ("covers", "share of cases in which the measured accuracy lies in the interval"),
        ),
    )


def by_dataset(pool: Pool, nesting: str) -> Sheet:
    """The choice of every rule on every dataset, without labels."""
    tasks = tasks_of(pool)
    rules = list(tasks.picks[nesting])
    accuracy = {rule: tasks.accuracy_of(nesting, rule)[:, 0].mean(axis=1) for rule in rules}
    rows = []
    for d, name in enumerate(tasks.datasets):
        chosen = {rule: tasks.models[tasks.picks[nesting][rule][d, 0, 0]] for rule in rules}
        rows.append(
            (
                words(name),
                count(int(tasks.n_records[d])),
                number(tasks.u[d, 0].mean(), "no other record to measure from"),
                *(
                    number(accuracy[r][d], f"{chosen[r]}, chosen, has no score on {name}")
                    for r in rules
                ),
                words(chosen[rules[0]]),
                words(chosen.get("oracle", "not known")),
            )
        )
    return Sheet(
        name=f"datasets-{pool.key}-{nesting}",
        title=f"{pool.title}, {nesting} nesting, no labels: dataset by dataset",
        columns=("dataset", "records", "u", *rules, f"{rules[0]} chose", "best model"),
        rows=tuple(rows),
        caption="Accuracy of the model that each rule chose.",
        detail=True,
    )


def chosen_models(pool: Pool, nesting: str) -> Sheet:
    """How often every rule chose every model, without labels."""
    tasks = tasks_of(pool)
    rules = list(tasks.picks[nesting])
    counts = {rule: Counter(tasks.picks[nesting][rule][:, 0, 0].tolist()) for rule in rules}
    order = np.argsort(-np.nan_to_num(tasks.params_b, nan=-1.0), kind="stable").tolist()
    return Sheet(
        name=f"models-{pool.key}-{nesting}",
        title=f"{pool.title}, {nesting} nesting, no labels: models chosen",
        columns=("model", "params B", "mean accuracy", *rules),
        rows=tuple(
            (
                words(tasks.models[m]),
                number(tasks.params_b[m], "the table does not say", digits=1),
                number(mean_of(tasks.means[:, m]), "the model has no score"),
                *(count(counts[rule][m]) for rule in rules),
            )
            for m in order
        ),
        caption="Number of held-out datasets for which each rule chose the model.",
        detail=True,
    )
