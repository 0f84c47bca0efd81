"""The order in which tables and figures are shown, on a terminal and in the report."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from benchrouter.evaluation.report.sheets import (
    prompt_measures,
    prompt_sheets,
    table_one,
    task_sheets,
)
from benchrouter.evaluation.report.sheets.prompt_sheets import DEFAULT_RULE
from benchrouter.evaluation.report.sheets.sheet import Sheet, counted

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from benchrouter.evaluation.results import Evaluation, Pool, PromptProtocol
    from benchrouter.evaluation.tasks.cell_results import LeaveOneOut


@dataclass(frozen=True)
class Picture:
    """A figure that can be drawn.

    Attributes
    ----------
    name : str
        Of its file, without the suffix.
    caption : str
        What it shows, and how to read it.
    draw : callable
        Returns the Figure; needs matplotlib.
    """

    name: str
    caption: str
    draw: Callable[[], Figure]


@dataclass(frozen=True)
class Section:
    """A part of the report.

    Attributes
    ----------
    key : str
        Anchor in the report.
    title : str
    words : str
        What was done.
    content : tuple of Sheet or Picture
    """

    key: str
    title: str
    words: str
    content: tuple[Sheet | Picture, ...]


def sections(evaluation: Evaluation) -> list[Section]:
    """All tables and figures of an evaluation, in the order of reading.

    Returns
    -------
    list of Section
        Without those for which nothing was measured.
    """
    found = [_tasks(pool, pool.tasks) for pool in evaluation.pools if pool.tasks is not None]
    found += [_prompts(protocol) for protocol in evaluation.prompts]
    if evaluation.robustness:
        found.append(
            Section(
                "robustness",
                "Small edits of the prompt",
                "Test prompts of the random split are edited, encoded again and routed again.",
                (prompt_measures.robustness(evaluation.robustness),),
            )
        )
    if any(pool.tasks is not None for pool in evaluation.pools):
        found.append(
            Section(
                "paper",
                "The paper's own figures",
                "Printed for reading beside; they were measured on other data.",
                (table_one.of_the_paper(),),
            )
        )
    return found


def _tasks(pool: Pool, tasks: LeaveOneOut) -> Section:
    from benchrouter.evaluation.report.figures import task_figures

    content: list[Sheet | Picture] = [
        table_one.table_one(pool, nesting) for nesting in tasks.nestings
    ]
    if len(tasks.label_shares) > 1:
        content.append(
            Picture(
                f"accuracy-by-labels-{pool.key}",
                "Macro accuracy of the chosen model against the share α of the held-out dataset's "
                f"records that are labelled (mean of {counted(tasks.draws, 'draw')}; accuracy on "
                "the remaining records). BMA and the oracle use no labels; labels without any is "
                "BMA; auto and labels are not the paper's, and run in strict nesting only."
                + _left_out(tasks),
                partial(task_figures.accuracy_by_labels, tasks),
            )
        )
        content.append(task_sheets.by_labels(pool, "strict"))
        content.append(replace(task_sheets.by_labels(pool, "published"), detail=True))
    content += filter(None, [task_sheets.expectations(pool)])
    content += [
        Picture(
            f"estimate-of-p-{pool.key}",
            "Left: accuracy p of the predictor on each held-out dataset against its distance u "
            "(means over models; with labels, at most 600 of all draws), and the kernel smoother "
            "that turns u into p̂, here over all datasets. Right: p̂ and p of "
            "every dataset and model; on the dashed line the estimate is exact.",
            partial(task_figures.estimate_of_p, tasks),
        ),
        task_sheets.predictors(pool),
        Picture(
            f"scores-against-accuracy-{pool.key}",
            "Score of every model (one point each) against its true accuracy"
            + (
                f", for {task_figures.MOST_TASKS} of the {len(tasks.datasets)} datasets, evenly "
                "over their distance u"
                if len(tasks.datasets) > task_figures.MOST_TASKS
                else ", dataset by dataset"
            )
            + ". What counts for choosing is the order, not the distance to the diagonal.",
            partial(task_figures.scores_against_accuracy, tasks, "strict"),
        ),
        Picture(
            f"chosen-models-{pool.key}",
            "Number of held-out datasets for which each rule chose a model, smallest models first "
            "(strict nesting, no labels), and the mean size of what was chosen (? = the table does "
            "not say how large a chosen model is).",
            partial(task_figures.chosen_models, tasks, "strict"),
        ),
        task_sheets.by_dataset(pool, "strict"),
        task_sheets.chosen_models(pool, "strict"),
    ]
    return Section(
        f"tasks-{pool.key}",
        f"One model per dataset: {pool.title}",
        "Every dataset in turn is the new task; the others are the benchmark, and one model is "
        "chosen for all of its prompts.",
        tuple(content),
    )


def _left_out(tasks: LeaveOneOut) -> str:
    """Say which lines are means over changing datasets; empty if none is."""
    n, shares = len(tasks.datasets), range(len(tasks.label_shares))
    found = []
    for nesting in tasks.nestings:
        for rule in tasks.picks[nesting]:
            known = [tasks.n_datasets_of(nesting, rule, i) for i in shares]
            if min(known) < max(known):
                found.append(f"{rule} ({nesting}), {min(known)} to {max(known)}")
    if not found:
        return ""
    return (
        " Datasets on which a chosen model was not run fall out of its mean, so these lines jump "
        f"where their number changes, of {n}: {'; '.join(found)}."
    )


def _prompts(protocol: PromptProtocol) -> Section:
    from benchrouter.evaluation.report.figures import prompt_figures

    name = prompt_sheets.protocol_key(protocol.results)
    content: list[Sheet | Picture] = [
        prompt_sheets.prompt_table(protocol),
        prompt_sheets.single_models(protocol),
        prompt_measures.gains(protocol),
        Picture(
            f"sparsity-{name}",
            "Mean score over the test prompts whose mean neighbour distance is below C, and how "
            "many these are; fewer than 30 are not drawn, nor are oracle, cheapest and random "
            "(see the table).",
            partial(prompt_figures.sparsity, protocol.sparsity),
        ),
        prompt_measures.sparsity(protocol),
    ]
    if protocol.costs:
        content.append(
            Picture(
                f"cost-quality-{name}",
                "Mean score against mean cost as the price of cost λ grows (thin lines, a point a "
                "λ); the non-decreasing convex hull of each rule (thick lines, one upon the other "
                "where they are the same), and the hull of the single models (diamonds): the zero "
                "router, which a router has to beat.",
                partial(prompt_figures.cost_quality, protocol.costs),
            )
        )
        content.append(prompt_measures.costs(protocol))
    if protocol.cascades:
        content.append(
            Picture(
                f"cascades-{name}",
                "Mean score against mean cost of two-model cascades as the threshold rises: from "
                "the cheap model alone to BMA for every prompt, by what judges (see the table); "
                "and the hull of the single models (diamonds): the zero router.",
                partial(prompt_figures.cascades, protocol.cascades, protocol.costs[DEFAULT_RULE]),
            )
        )
        content.append(prompt_measures.cascades(protocol))
    if protocol.calibration:
        content.append(
            Picture(
                f"reliability-{name}",
                "Observed against predicted chance of success in 15 bins of equal mass (equal "
                "predictions share a bin); on the dashed line the prediction is calibrated. "
                f"{_bins(protocol)} auto tells a chance, BMA stands for the standings; a "
                "regression is not bound to 0 to 1.",
                partial(prompt_figures.reliability, protocol.calibration),
            )
        )
        content.append(prompt_measures.calibration(protocol))
    return Section(
        f"prompts-{name}",
        f"One model per prompt: {protocol.results.protocol}",
        _WORDS[protocol.results.protocol],
        tuple(content),
    )


def _bins(protocol: PromptProtocol) -> str:
    """How many predictions the bins hold."""
    from benchrouter.evaluation.report.figures.prompt_figures import JOINED

    curves = next(iter(protocol.calibration.values()))
    sizes = " and ".join(f"{int(np.median(c.count)):,} ({over})" for over, c in curves.items())
    return (
        f"A bin holds about {sizes} predictions; small bins are noisy, and a line joins those of "
        f"{JOINED} or more."
    )


_WORDS = {
    "random split": "A share of every dataset's prompts is held out and routed one by one, by a "
    "router that was fitted on the rest: prompts of known kinds.",
    "leave-one-dataset-out": "Every dataset in turn is routed prompt by prompt, by a router that "
    "was fitted on the others: prompts of an unknown kind.",
}
