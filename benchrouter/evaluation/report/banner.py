"""Whether routing pays on a table, in a few plain lines: the first thing that is read."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from benchrouter.evaluation.report.sheets.prompt_sheets import DEFAULT_RULE, SCORE
from benchrouter.evaluation.report.sheets.sheet import capitalised, counted, decimal
from benchrouter.evaluation.results import OURS
from benchrouter.evaluation.tasks.measures import FEW_DATASETS
from benchrouter.files.plain import finite

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.rule_rows import PromptRow
    from benchrouter.evaluation.results import Evaluation, Pool, PromptProtocol

Answer = Literal["yes", "no", "not sure", "too few datasets"]

NESTING = "strict"
LEAST_GAIN = 0.0005  # 0.000 when it is written
QUESTIONS = {
    "random split": "prompts of known datasets",
    "leave-one-dataset-out": "prompts of a new dataset",
}
TASKS = "whole tasks"  # one model for all prompts of a new dataset
_ANSWERS: dict[Answer, str] = {
    "yes": "yes",
    "no": "no",
    "not sure": "not sure",
    "too few datasets": "too few datasets to say",
}


@dataclass(frozen=True)
class Verdict:
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

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON (NaN as None)."""
        return dict(finite(vars(self) | {"better": list(self.better)}))


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


def banner(evaluation: Evaluation) -> list[str]:
    """Say whether routing pays here, by how much, how sure that is, and what to do.

    Returns
    -------
    list of str
        Two to five lines; none where nothing was measured.
    """
    found = verdicts(evaluation)
    if not found:
        return []
    return [_headline(found), *(_line(verdict) for verdict in found), *_advice(evaluation, found)]


def _of_prompts(protocol: PromptProtocol) -> Verdict | None:
    rows = {row.rule: row for row in protocol.rows if row.kind == "rule"}
    ours = rows.get(DEFAULT_RULE)
    if ours is None or not ours.n_paired:
        return None
    results = protocol.results
    most_common, _ = Counter(results.picks["BMA"].tolist()).most_common(1)[0]
    answer = _answer(ours.vs_bma[SCORE], ours.vs_bma_interval[SCORE], ours.n_paired)
    low, high = ours.vs_bma_interval[SCORE]
    return Verdict(
        question=QUESTIONS[results.protocol],
        answer=answer,
        rule=DEFAULT_RULE,
        gain=ours.vs_bma[SCORE],
        low=low,
        high=high,
        n_datasets=ours.n_paired,
        bma=results.models[most_common],
        gap_closed=ours.gap_closed,
        better=() if answer == "yes" else _surely_better(rows.values()),
    )


def _surely_better(rows: Iterable[PromptRow]) -> tuple[str, ...]:
    return tuple(
        row.rule
        for row in rows
        if _answer(row.vs_bma[SCORE], row.vs_bma_interval[SCORE], row.n_paired) == "yes"
    )


def _of_tasks(pool: Pool) -> Verdict | None:
    ours = next((row for row in pool.table_one.get(NESTING, ()) if row.rule == OURS), None)
    if ours is None or pool.tasks is None or not ours.n_paired:
        return None
    picked = pool.tasks.picks[NESTING]["BMA"].ravel().tolist()
    most_common, _ = Counter(picked).most_common(1)[0]
    low, high = ours.vs_bma_interval
    return Verdict(
        question=TASKS,
        answer=_answer(ours.vs_bma, ours.vs_bma_interval, ours.n_paired),
        rule=OURS,
        gain=ours.vs_bma,
        low=low,
        high=high,
        n_datasets=ours.n_paired,
        bma=pool.tasks.models[most_common],
    )


def _answer(gain: float, interval: tuple[float, float], n_datasets: int) -> Answer:
    low, high = interval
    if low != low or n_datasets < FEW_DATASETS:
        return "too few datasets"
    if low > 0.0 and gain >= LEAST_GAIN:
        return "yes"
    if high < LEAST_GAIN:
        return "no"
    return "not sure"


def _headline(found: Sequence[Verdict]) -> str:
    told = [
        f"{_ANSWERS[answer]} for {_and(of)}"
        for answer in dict.fromkeys(verdict.answer for verdict in found)
        if (of := [verdict.question for verdict in found if verdict.answer == answer])
    ]
    return f"Does routing pay here? {capitalised('; '.join(told))}."


def _line(verdict: Verdict) -> str:
    about = capitalised(verdict.question)
    if verdict.question == TASKS:
        about += ", one model for a new dataset"
    if max(map(abs, (verdict.gain, verdict.low, verdict.high))) < LEAST_GAIN:
        return (
            f"{about}: the rule {verdict.rule} stays with {verdict.bma}, the best model on "
            "average; nothing is gained or lost."
        )
    won = "gains" if verdict.gain >= 0.0 else "loses"
    text = (
        f"{about}: the rule {verdict.rule} {won} {decimal(abs(verdict.gain))} against "
        f"always using {verdict.bma} ({_interval(verdict)})"
    )
    if verdict.gap_closed == verdict.gap_closed and verdict.gap_closed > 0.0:
        text += f", {100 * verdict.gap_closed:.0f} % of what the best model of each dataset gains"
    text += "."
    if verdict.answer == "not sure":
        text += " The interval includes 0: it may be chance."
    if verdict.better:
        text += f" Of the other rules {', '.join(verdict.better)} gained, known only afterwards."
    return text


def _interval(verdict: Verdict) -> str:
    over = counted(verdict.n_datasets, "dataset")
    if verdict.answer == "too few datasets":
        return f"{over}, too few for an interval"
    ends = " to ".join(decimal(end, signed=True) for end in (verdict.low, verdict.high))
    return f"95 % interval {ends}, {over}"


def _advice(evaluation: Evaluation, found: Sequence[Verdict]) -> list[str]:
    """What to do; without a clear yes, the model for everything and what would help."""
    answers = {verdict.question: verdict for verdict in found}
    pays = [verdict.question for verdict in found if verdict.answer == "yes"]
    told = [f"Use the defaults for {_and(pays)}."] if pays else []
    others = [verdict for verdict in found if verdict.answer != "yes"]
    for bma in dict.fromkeys(verdict.bma for verdict in others):
        of = [verdict.question for verdict in others if verdict.bma == bma]
        told.append(f"For {_and(of)} the safe choice is {bma}, the best model on average.")
    known, new, task = (answers.get(question) for question in (*QUESTIONS.values(), TASKS))
    if new in others and known in found and known not in others:
        told.append("Add records like your own prompts to the benchmark: then they are known.")
    labels = _with_labels(evaluation.pools[0]) if task in others else None
    if labels is not None:
        told.append(
            "Or label 20 prompts of the task: benchrouter choose --suggest-labels 20 says "
            f"which{labels}."
        )
    advice = " ".join(told)
    return [f"What to do: {advice[:1].lower()}{advice[1:]}"]


def _with_labels(pool: Pool) -> str | None:
    """What labels surely gained in this evaluation, if so; None where they did not help."""
    if pool.with_labels is None or pool.tasks is None:
        return ""
    index, rows = pool.with_labels
    ours = next((row for row in rows if row.rule == OURS), None)
    if ours is None or not ours.n_paired:
        return ""
    if not ours.vs_bma >= LEAST_GAIN:
        return None
    if _answer(ours.vs_bma, ours.vs_bma_interval, ours.n_paired) != "yes":
        return ""
    most = int(pool.tasks.n_labels[:, index].max())
    return f" (here at most {most} labels a dataset gained {decimal(ours.vs_bma)})"


def _and(names: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(names[:-1]), names[-1])))
