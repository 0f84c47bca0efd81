"""Whether routing pays on a table: the default rules against one model for everything."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from benchrouter.evaluation.report.sheets.prompt_sheets import DEFAULT_RULE, SCORE
from benchrouter.evaluation.results import OURS
from benchrouter.evaluation.tasks.measures import FEW_DATASETS
from benchrouter.evaluation.values import Reported

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.rule_rows import PromptRow
    from benchrouter.evaluation.results import Evaluation, Pool, PromptProtocol
    from benchrouter.evaluation.tasks.measures import Row

AnyRow = TypeVar("AnyRow", "Row", "PromptRow")
Answer = Literal["yes", "no", "not sure", "too few datasets"]

NESTING = "strict"
LEAST_GAIN = 0.0005  # 0.000 when it is written
QUESTIONS = {
    "random split": "prompts of known datasets",
    "leave-one-dataset-out": "prompts of a new dataset",
}
TASKS = "whole tasks"  # one model for all prompts of a new dataset


@dataclass(frozen=True)
class Verdict(Reported):
    """Whether a default rule is worth more than one model for everything.

    Attributes
    ----------
    question : str
        What is routed: "prompts of known datasets", "prompts of a new dataset", "whole tasks".
    answer : "yes", "no", "not sure" or "too few datasets"
        "yes" where the interval of the gain lies above 0, "not sure" where it includes 0.
    rule : str
    gain : float
        Mean over datasets of the chosen models' score (for tasks: accuracy), less BMA's.
    low, high : float
        95 % interval of the gain, datasets resampled in pairs; NaN with too few of them.
    n_datasets : int
        Datasets behind the gain.
    bma : str
        The best model on average; where it differs between held-out datasets, the most frequent.
    gap_closed : float
        Gain as a share of that of the best model of every dataset; NaN where it is not known.
    better : tuple of str
        Other rules whose interval lies above 0, where that of the default does not.
    """

    question: str
    answer: Answer
    rule: str
    gain: float
    low: float
    high: float
    n_datasets: int
    bma: str
    gap_closed: float = float("nan")
    better: tuple[str, ...] = ()


def verdicts(evaluation: Evaluation) -> list[Verdict]:
    """Judge the default rules on every question that was measured.

    Returns
    -------
    list of Verdict
        Prompts of known datasets, prompts of a new one, then tasks of the first pool.
    """
    found = [_of_prompts(protocol) for protocol in evaluation.prompts]
    found += [_of_tasks(pool) for pool in evaluation.pools[:1]]
    return [verdict for verdict in found if verdict is not None]


def _of_prompts(protocol: PromptProtocol) -> Verdict | None:
    rows = [row for row in protocol.rows if row.kind == "rule"]
    ours = row_of(rows, DEFAULT_RULE)
    if ours is None or not ours.n_paired:
        return None
    results, gain, ends = protocol.results, ours.vs_bma[SCORE], ours.vs_bma_interval[SCORE]
    verdict = _judged(
        QUESTIONS[results.protocol],
        DEFAULT_RULE,
        gain,
        ends,
        ours.n_paired,
        _most_common(results.picks["BMA"], results.models),
    )
    better = [
        row.rule
        for row in rows
        if answer_of(row.vs_bma[SCORE], row.vs_bma_interval[SCORE], row.n_paired) == "yes"
    ]
    return replace(
        verdict,
        gap_closed=ours.gap_closed,
        better=() if verdict.answer == "yes" else tuple(better),
    )


def _of_tasks(pool: Pool) -> Verdict | None:
    ours = row_of(pool.table_one.get(NESTING, ()), OURS)
    if ours is None or pool.tasks is None or not ours.n_paired:
        return None
    bma = _most_common(pool.tasks.picks[NESTING]["BMA"], pool.tasks.models)
    return _judged(TASKS, OURS, ours.vs_bma, ours.vs_bma_interval, ours.n_paired, bma)


def _judged(
    question: str, rule: str, gain: float, ends: tuple[float, float], n_datasets: int, bma: str
) -> Verdict:
    return Verdict(question, answer_of(gain, ends, n_datasets), rule, gain, *ends, n_datasets, bma)


def _most_common(picks: NDArray[np.integer], models: Sequence[str]) -> str:
    ((model, _),) = Counter(picks.ravel().tolist()).most_common(1)
    return models[model]


def row_of(rows: Iterable[AnyRow], rule: str) -> AnyRow | None:
    """The row of a rule, if there is one."""
    return next((row for row in rows if row.rule == rule), None)


def too_few(interval: tuple[float, float], n_datasets: int) -> bool:
    """Whether there are too few datasets for an interval of a mean over them."""
    return any(end != end for end in interval) or n_datasets < FEW_DATASETS


def answer_of(gain: float, interval: tuple[float, float], n_datasets: int) -> Answer:
    """Whether a mean gain over datasets is surely above 0, by its 95 % interval."""
    low, high = interval
    if too_few(interval, n_datasets):
        return "too few datasets"
    if low > 0.0 and gain >= LEAST_GAIN:
        return "yes"
    if high < LEAST_GAIN:
        return "no"
    return "not sure"
