"""The paper's Table 1: every rule's measures on held-out datasets, without labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchrouter.evaluation.report.sheets.sheet import (
    Cell,
    Sheet,
    interval,
    listed,
    number,
    percent,
    words,
)
from benchrouter.evaluation.report.sheets.words import (
    NESTINGS,
    PAPER_TABLE_ONE,
    TABLE_ONE,
    TASK_RULES,
)

if TYPE_CHECKING:
    from benchrouter.evaluation.results import Pool
    from benchrouter.evaluation.tasks.leave_one_out import LeaveOneOut
    from benchrouter.evaluation.tasks.measures import Row

COLUMNS = (
    "rule", "accuracy", "95 %", "vs BMA", "95 % of that", "ratio", "Pearson", "Spearman", "% BMA",
    "params B", "rank",
)  # fmt: skip
SCORED = ("S1", "S2", "S3", "LL", "auto", "labels")  # rules that give every model a score


def table_one(pool: Pool, nesting: str) -> Sheet:
    """Measures of every rule without labels: the paper's Table 1 on this table.

    Parameters
    ----------
    pool : Pool
        With tasks.
    nesting : str

    Returns
    -------
    Sheet
    """
    tasks = tasks_of(pool)
    rows = pool.table_one[nesting]
    return Sheet(
        name=f"table-one-{pool.key}-{nesting}",
        title=f"{pool.title}, {nesting} nesting, no labels",
        columns=COLUMNS,
        rows=tuple(_row_of(row, tasks) for row in rows),
        caption=f"One model chosen for each of {len(tasks.datasets)} held-out datasets, "
        f"{len(tasks.models)} models, k = {tasks.k}, κ = {tasks.kappa}. {NESTINGS[nesting]}.",
        definitions=TABLE_ONE + tuple(meanings([row.rule for row in rows])),
        marked=_best(rows),
    )


def tasks_of(pool: Pool) -> LeaveOneOut:
    """Leave-one-dataset-out of a pool.

    Parameters
    ----------
    pool : Pool

    Returns
    -------
    LeaveOneOut

    Raises
    ------
    ValueError
        If it was not run.
    """
    if pool.tasks is None:
        raise ValueError(f"{pool.title}: leave-one-dataset-out was not run")
    return pool.tasks


def meanings(rules: Sequence[str]) -> list[tuple[str, str]]:
    """What rules mean, of those that are known.

    Parameters
    ----------
    rules : sequence of str

    Returns
    -------
    list of (str, str)
    """
    return [(rule, TASK_RULES[rule]) for rule in rules if rule in TASK_RULES]


def is_reference(rule: str) -> bool:
    """Whether a rule knows the answers, so that nobody could use it.

    Parameters
    ----------
    rule : str

    Returns
    -------
    bool
    """
    return rule.startswith("oracle") or rule == "S3 true p"


def _best(rows: Sequence[Row]) -> tuple[int, ...]:
    """Rows of the largest accuracy among the rules that one could use."""
    usable = [row.accuracy for row in rows if not is_reference(row.rule)]
    known = [value for value in usable if value == value]
    if not known:
        return ()
    return tuple(
        i for i, r in enumerate(rows) if not is_reference(r.rule) and r.accuracy == max(known)
    )


def _row_of(row: Row, tasks: LeaveOneOut) -> tuple[Cell, ...]:
    """Cells of one rule."""
    nothing = why_no_accuracy(row.rule, tasks)
    one = "one dataset gives no interval" if len(tasks.datasets) < 2 else nothing
    itself = "BMA against itself" if row.rule == "BMA" else nothing
    no_score = _why_no_correlation(row.rule, tasks)
    chooses = _why_no_choice(row.rule)
    return (
        words(row.rule),
        number(row.accuracy, nothing),
        interval(row.accuracy_interval, one),
        number(row.vs_bma, itself, signed=True),
        interval(row.vs_bma_interval, itself if row.rule == "BMA" else one, signed=True),
        number(row.ratio, _why_no_ratio(row, nothing)),
        number(row.pearson, no_score),
        number(row.spearman, no_score),
        percent(row.bma_share, chooses or nothing),
        number(row.params_b, chooses or _why_no_size(tasks), digits=1),
        number(row.rank, chooses or nothing, digits=2),
    )


def why_no_accuracy(rule: str, tasks: LeaveOneOut) -> str:
    """Reason for a rule without accuracy.

    Parameters
    ----------
    rule : str
    tasks : LeaveOneOut

    Returns
    -------
    str
    """
    if len(tasks.datasets) < 3 and rule.startswith("S3"):
        return (
            "p̂ of a held-out dataset is learned from at least two others; the table has "
            f"{len(tasks.datasets)} datasets"
        )
    if rule == "oracle (split-half)":
        return "no dataset has two records to be split into halves"
    return "the chosen model has no score on any held-out dataset"


def _why_no_ratio(row: Row, nothing: str) -> str:
    if row.accuracy == row.accuracy:
        return "no model is ever right on these datasets, so there is nothing to divide by"
    return nothing


def _why_no_correlation(rule: str, tasks: LeaveOneOut) -> str:
    if rule == "labels" and tasks.label_shares[0] == 0:
        return "without labels there is nothing but BMA"
    if rule in SCORED or rule.startswith("S3"):
        return (
            "undefined: on no dataset do both the scores and the accuracies differ over the models"
        )
    return "this rule gives no score to every model"


def _why_no_choice(rule: str) -> str:
    """Reason for a rule that names no single model for a dataset; empty for all others."""
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
    """Table 1 of arXiv 2309.15789, for reading beside ours.

    Returns
    -------
    Sheet
    """
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
