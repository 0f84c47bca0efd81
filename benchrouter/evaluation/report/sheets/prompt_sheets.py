"""Tables of the protocols of single prompts: one model chosen for every prompt by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from benchrouter.evaluation.prompts.rule_rows import BEST_OF_DATASET
from benchrouter.evaluation.report.sheets.definitions import PROMPT_RULES
from benchrouter.evaluation.report.sheets.sheet import (
    Cell,
    Sheet,
    absent,
    count,
    counted,
    interval_over,
    mean_over,
    noted,
    number,
    percent,
    words,
)
from benchrouter.evaluation.report.sheets.table_one import ROUNDING, why_no_gain

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.prompt_results import PromptResults
    from benchrouter.evaluation.prompts.rule_rows import PromptRow
    from benchrouter.evaluation.results import PromptProtocol

SCORE = "score"  # the table's own metric, first among the metrics
DEFAULT_RULE = "auto"  # of route
REFERENCES = ("oracle", BEST_OF_DATASET, "random")
PER_PROMPTS = 1000  # costs are given for so many prompts


def prompt_table(protocol: PromptProtocol) -> Sheet:
    """The worth of every rule's choices: rules, baselines and references."""
    results = protocol.results
    rows = [row for row in protocol.rows if row.kind != "model"]
    return Sheet(
        name=f"prompt-rules-{protocol_key(results)}",
        title=f"One model per prompt, {results.protocol}",
        columns=_columns(results),
        rows=tuple(_row_of(row, results) for row in rows),
        caption=f"{counted(len(results.rows), 'test prompt')}, "
        f"{counted(len(results.models), 'model')}, "
        f"k = {results.k} (raw: {max(10, results.k)}), κ = {results.kappa}. Means are macro "
        "averages over datasets unless they say prompts; a prompt on which the chosen model has "
        "no recorded score is left out of the means.",
        definitions=(*_meanings(results), *_rules(rows)),
        marked=_best(rows),
    )


def single_models(protocol: PromptProtocol) -> Sheet:
    """The same measures of every model by itself."""
    results = protocol.results
    rows = sorted(
        (row for row in protocol.rows if row.kind == "model"),
        key=lambda row: -row.macro[SCORE] if row.macro[SCORE] == row.macro[SCORE] else 1e9,
    )
    return Sheet(
        name=f"single-models-{protocol_key(results)}",
        title=f"Single models, {results.protocol}",
        columns=("model", *_columns(results)[1:]),
        rows=tuple(_row_of(row, results) for row in rows),
        caption="Every prompt answered by the same model; the test prompts and means of the table "
        "before.",
        detail=True,
    )


def protocol_key(results: PromptResults) -> str:
    """Name of a protocol without spaces, for anchors and files."""
    return results.protocol.replace(" ", "-")


def _columns(results: PromptResults) -> tuple[str, ...]:
    further = [name for name in results.scores if name != SCORE]
    return (
        "rule",
        "score",
        "95 %",
        "vs BMA",
        "95 % of that",
        "gap closed",
        "score, prompts",
        *further,
        "accuracy",
        "fallback",
        "% BMA",
        *(["US$ / 1,000"] if results.cost_usd is not None else []),
        "params B",
        "MCPI",
        "no score",
    )


def _meanings(results: PromptResults) -> list[tuple[str, str]]:
    found = [
        ("score", "recorded score of the chosen model, mean over datasets of the dataset's mean"),
        ("score, prompts", "the same, mean over prompts"),
        (
            "gap closed",
            "gain over BMA as a share of that of the oracle per dataset, on the same datasets",
        ),
        ("95 %", "bootstrap interval over datasets (percentile); of a difference: paired"),
        ("accuracy", "share of scores above the dataset's threshold"),
        ("fallback", "share of prompts without evidence, which got the fallback model"),
        ("% BMA", "share of prompts for which the choice is BMA's"),
    ]
    found += [
        (name, "another metric, read for the same choices")
        for name in results.scores
        if name != SCORE
    ]
    if results.cost_usd is not None:
        found.append(("US$ / 1,000", "mean recorded cost of 1,000 prompts"))
    return [
        *found,
        ("params B", "mean size of the chosen models, billions of parameters"),
        ("MCPI", "model calls per instance: embedding and generation"),
        ("no score", "prompts on which the chosen model has no recorded score"),
    ]


def _rules(rows: Sequence[PromptRow]) -> list[tuple[str, str]]:
    return [(row.rule, PROMPT_RULES[row.rule]) for row in rows if row.rule in PROMPT_RULES]


def _best(rows: Sequence[PromptRow]) -> tuple[int, ...]:
    """Rows of the largest gain over BMA among the rules that one could use."""
    gains = {
        i: row.vs_bma[SCORE]
        for i, row in enumerate(rows)
        if row.rule not in REFERENCES and row.n_paired
    }
    most = max(gains.values(), default=0.0)
    return tuple(i for i, gain in gains.items() if gain >= most - ROUNDING)


def _row_of(row: PromptRow, results: PromptResults) -> tuple[Cell, ...]:
    further = [name for name in results.scores if name != SCORE]
    nothing = "the chosen models have no recorded score on any test prompt"
    others = "no score of the chosen models is recorded on the others"
    score = noted(
        number(row.macro[SCORE], nothing), mean_over(row.n_datasets, len(results.datasets), others)
    )
    if row.rule == "BMA" and row.kind == "reference":
        gain = gain_interval = absent("BMA against itself")
    else:
        no_gain = why_no_gain(row.n_datasets, nothing)
        gain = number(row.vs_bma[SCORE], no_gain, signed=True)
        gain_interval = interval_over(
            row.vs_bma_interval[SCORE], row.n_paired, no_gain, signed=True
        )
    costs = []
    if results.cost_usd is not None:
        each = PER_PROMPTS * row.cost_usd
        costs = [number(each, "no cost is recorded for the chosen models", digits=_digits(each))]
    return (
        words(row.rule),
        score,
        interval_over(row.interval[SCORE], row.n_datasets, nothing),
        gain,
        gain_interval,
        percent(row.gap_closed, _why_no_gap(row, nothing)),
        number(row.micro[SCORE], nothing),
        *(number(row.macro[name], f"{name}: {nothing}") for name in further),
        number(row.accuracy, _why_no_accuracy(results, nothing)),
        percent(row.fallback_share, "never falls back", digits=1),
        percent(row.bma_share, "chooses no model: its figures are means over models"),
        *costs,
        number(row.params_b, "the size of a chosen model is not known", digits=1),
        count(row.mcpi),
        count(row.n_missing),
    )


def _digits(value: float) -> int:
    """Digits after the point for about three significant ones."""
    return 2 if value != value or value >= 1 else 4


def _why_no_gap(row: PromptRow, nothing: str) -> str:
    if not row.n_paired:
        return why_no_gain(row.n_datasets, nothing)
    return "the best model of each dataset is no better than BMA"


def _why_no_accuracy(results: PromptResults, nothing: str) -> str:
    if results.correctness is None:
        return "a dataset has no threshold between right and wrong (--correct-above)"
    return nothing
