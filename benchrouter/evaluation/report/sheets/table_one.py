"""The paper's Table 1: every rule's measures on held-out datasets, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from benchrouter.evaluation.report.sheets.definitions import (
    NESTINGS,
    PAPER_TABLE_ONE,
    TABLE_ONE,
    TASK_RULES,
)
from benchrouter.evaluation.report.sheets.sheet import (
    Cell,
    Sheet,
    absent,
    counted,
    interval_over,
    listed,
    mean_over,
    noted,
    number,
    percent,
    words,
)

if TYPE_CHECKING:
    from benchrouter.evaluation.results import Pool
    from benchrouter.evaluation.tasks.cell_results import LeaveOneOut
    from benchrouter.evaluation.tasks.measures import Row

COLUMNS = (
    "rule", "accuracy", "95 %", "vs BMA", "95 % of that", "ratio", "Pearson", "Spearman", "% BMA",
    "params B", "rank",
)  # fmt: skip
ROUNDING = 1e-12  # of means in another order
SCORED = ("S1", "S2", "S3", "LL", "auto", "labels")  # rules that give every model a score


def table_one(pool: Pool, nesting: str) -> Sheet:
    """Measures of every rule without labels: the paper's Table 1 on this table."""
    tasks = tasks_of(pool)
    rows = pool.table_one[nesting]
    return Sheet(
        name=f"table-one-{pool.key}-{nesting}",
        title=f"{pool.title}, {nesting} nesting, no labels",
        columns=COLUMNS,
        rows=tuple(_row_of(row, tasks, nesting) for row in rows),
        caption=f"One model chosen for each of {len(tasks.datasets)} held-out datasets, "
        f"{counted(len(tasks.models), 'model')}, k = {tasks.k}, κ = {tasks.kappa}. "
        f"{NESTINGS[nesting]}.",
        definitions=TABLE_ONE + tuple(meanings([row.rule for row in rows])),
        marked=_best(rows),
    )


def tasks_of(pool: Pool) -> LeaveOneOut:
    """Leave-one-dataset-out of a pool.

    Raises
    ------
    ValueError
        If it was not run.
    """
    if pool.tasks is None:
        raise ValueError(f"{pool.title}: leave-one-dataset-out was not run")
    return pool.tasks


def meanings(rules: Sequence[str]) -> list[tuple[str, str]]:
    """Definitions of the known ones among some rules."""
    return [(rule, TASK_RULES[rule]) for rule in rules if rule in TASK_RULES]


def is_reference(rule: str) -> bool:
    """Whether a rule knows the answers, and so is only a reference."""
    return rule.startswith("oracle") or rule == "S3 true p"


def _best(rows: Sequence[Row]) -> tuple[int, ...]:
    """Rows of the largest gain over BMA among the rules that one could use.

    The gain is paired: accuracies may be means over different datasets.
    """
    gains = {
        i: 0.0 if row.rule == "BMA" else row.vs_bma
        for i, row in enumerate(rows)
        if not is_reference(row.rule) and row.n_paired
    }
    most = max(gains.values(), default=0.0)
    return tuple(i for i, gain in gains.items() if gain >= most - ROUNDING)


def _row_of(row: Row, tasks: LeaveOneOut, nesting: str) -> tuple[Cell, ...]:
    """Cells of one rule."""
    nothing = why_no_accuracy(row.rule)
    no_gain = why_no_gain(row.n_datasets, nothing)
    no_score = _why_no_correlation(row.rule, tasks, nesting)
    chooses = _why_no_choice(row.rule)
    if row.rule == "BMA":
        gain = gain_interval = absent("BMA against itself")
    else:
        gain = number(row.vs_bma, no_gain, signed=True)
        gain_interval = interval_over(row.vs_bma_interval, row.n_paired, no_gain, signed=True)
    return (
        words(row.rule),
        noted(number(row.accuracy, nothing), _fewer(row.rule, row.n_datasets, tasks)),
        interval_over(row.accuracy_interval, row.n_datasets, nothing),
        gain,
        gain_interval,
        number(row.ratio, _why_no_ratio(row, nothing)),
        number(row.pearson, no_score),
        number(row.spearman, no_score),
        percent(row.bma_share, chooses or nothing),
        number(row.params_b, chooses or _why_no_size(tasks), digits=1),
        number(row.rank, chooses or nothing, digits=2),
    )


def why_no_gain(n_datasets: int, nothing: str) -> str:
    """Why a rule has no difference to BMA; `nothing` is why it has no accuracy."""
    return "BMA's model has no score on the same datasets" if n_datasets else nothing


def _fewer(rule: str, n: int, tasks: LeaveOneOut) -> str:
    """Footnote of an accuracy that is a mean over some of the datasets."""
    others = "the chosen model was not run on the others"
    if rule in ("random", "oracle", "oracle per record"):
        others = "no model was run on the others"
    elif rule == "oracle (split-half)":
        others = "the others have no scores in both halves of their records"
    return mean_over(n, len(tasks.datasets), others)


def macro_accuracy(tasks: LeaveOneOut, nesting: str, rule: str, share_index: int) -> Cell:
    """Cell of a rule's macro accuracy, with a footnote if it is over some datasets only."""
    cell = number(tasks.macro_accuracy(nesting, rule, share_index), why_no_accuracy(rule))
    return noted(cell, _fewer(rule, tasks.n_datasets_of(nesting, rule, share_index), tasks))


def why_no_accuracy(rule: str) -> str:
    """Why a rule has no accuracy."""
    if rule == "oracle (split-half)":
        return "no dataset has scores in both halves of its records"
    return "the chosen model has no score on any held-out dataset"


def why_no_p_hat(tasks: LeaveOneOut) -> str:
    """Why p̂ is unknown on every dataset."""
    return (
        "p̂ of a held-out dataset is learned from at least two others on which models were run; "
        f"the table has {counted(len(tasks.datasets), 'dataset')}"
    )


def _why_no_ratio(row: Row, nothing: str) -> str:
    if row.accuracy == row.accuracy:
        return "no model is ever right on these datasets, so there is nothing to divide by"
    return nothing


def _why_no_correlation(rule: str, tasks: LeaveOneOut, nesting: str) -> str:
    if rule == "labels" and tasks.label_shares[0] == 0:
        return "without labels there is nothing but BMA"
    if rule in ("S3", "S3 with fallback") and np.isnan(tasks.p_hat[nesting][:, 0]).all():
        return why_no_p_hat(tasks)
    if rule in SCORED or rule.startswith("S3"):
        return (
            "undefined: on no dataset do both the scores and the accuracies differ over the models"
        )
    return "this rule gives no score to every model"


def _why_no_choice(rule: str) -> str:
    """Why a rule names no single model for a dataset; empty for all others."""
    if rule == "random":
        return "chooses no model: its accuracy is the mean over models"
    if rule == "oracle (split-half)":
        return "chooses another model in every half"
    if rule == "oracle per record":
        return "chooses no single model for a dataset"
    return ""


def _why_no_size(tasks: LeaveOneOut) -> str:
    unknown = [m for m, size in zip(tasks.models, tasks.params_b, strict=True) if size != size]
    if len(unknown) == len(tasks.models):
        return "the table does not say how large its models are (model_params_billion)"
    return f"the table does not say how large the chosen models are: unknown for {listed(unknown)}"


def of_the_paper() -> Sheet:
    """Table 1 of arXiv 2309.15789, for reading beside ours."""
    why = "not given in the paper"
    return Sheet(
        name="paper-table-one",
        title="For reading beside: Table 1 of the paper, on HELM — not measured here",
        columns=(
            "rule", "accuracy", "ratio", "Pearson", "Spearman", "% BMA", "params B", "rank",
        ),
        rows=tuple(
            (
                words(rule),
                number(accuracy, why),
                number(ratio, why),
                number(pearson, why),
                number(spearman, why),
                percent(share, why),
                number(params, why, digits=1),
                number(rank, why, digits=2),
            )
            for rule, accuracy, ratio, pearson, spearman, share, params, rank in PAPER_TABLE_ONE
        ),
        caption="arXiv 2309.15789: 29 HELM datasets × 18 models, all-mpnet-base-v2, k = 5. Other "
        "data, so only the order of the rules can be compared. Its S3 has the fallback.",
        detail=True,
    )  # fmt: skip
