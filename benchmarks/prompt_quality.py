"""How good is the rule `auto` at choosing one model per prompt: the part of quality.py on prompts.

Two columns for every table: prompts of known datasets (30 % of each, five seeded splits), and of a
new one (every dataset left out in turn). A figure is the macro mean, over datasets, of the chosen
models' scores less BMA's; intervals are over datasets, in pairs.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
from report import Report

from benchrouter import BenchmarkTable
from benchrouter.evaluation.prompts.calibration import interval_holds, reliabilities
from benchrouter.evaluation.prompts.costs import cost_quality
from benchrouter.evaluation.prompts.prompt_results import PromptResults
from benchrouter.evaluation.prompts.protocols import evaluate_prompts
from benchrouter.evaluation.prompts.rule_rows import BEST_OF_DATASET
from benchrouter.evaluation.tasks.measures import bootstrap_interval
from benchrouter.evaluation.values import mean_known, per_dataset

Printer = Callable[[str, Sequence[str], Sequence[Sequence[str]]], None]

SEEDS = 5
RULES = ("auto", "mean", "kNN-100", "linear regression")
MAIN = ("A", "B", "C")  # tables of the aims on the mean and on calibration
COLUMNS = {"split": "random split", "left out": "leave-one-dataset-out"}
LARGEST_ECE = {"split": 0.04, "left out": 0.08}
MISSING = 0.3  # of the scores, in one variant


@dataclass(frozen=True)
class Column:
    """One protocol on one table; arrays over datasets, means over seeds."""

    gains: dict[str, np.ndarray]  # rule -> (D,) score less BMA's
    ece: dict[str, float]  # "all" and "chosen"
    log_loss: float  # of auto's chances less that of the standings, all models
    covered: float  # share of datasets whose success rate lies in the 80 % interval
    aiq: float  # area of cost and quality less the zero router's; NaN without costs


@dataclass(frozen=True)
class FoundPrompts:
    """What one table says of single prompts, by column."""

    name: str
    table: BenchmarkTable
    columns: dict[str, Column]


def variants(
    name: str, table: BenchmarkTable, rows: np.ndarray
) -> Iterator[tuple[str, BenchmarkTable, np.ndarray]]:
    """The same table with scores missing at random, and with scores all over [0, 1]."""
    rng = np.random.default_rng([3, table.n_records])
    scores = table.scores.copy()
    scores[rng.random(scores.shape) < MISSING] = np.nan
    yield f"{name}, 30 % missing", replace(table, scores=scores), rows
    # Rises with the score, and is right or wrong as before.
    noise = rng.random(table.scores.shape, dtype=np.float32)
    yield f"{name}, continuous", replace(table, scores=(table.scores + noise) / 2), rows


def judge_prompts(name: str, table: BenchmarkTable, rows: np.ndarray) -> FoundPrompts:
    """Route the test prompts of both protocols by every rule."""
    columns = {}
    for column, protocol in COLUMNS.items():
        seeds = range(SEEDS) if column == "split" else (0,)
        found = [
            _measured(evaluate_prompts(table, rows, protocol=protocol, seed=seed, threads=1))
            for seed in seeds
        ]
        columns[column] = Column(
            gains={
                rule: mean_known(np.array([one.gains[rule] for one in found]), axis=0)
                for rule in found[0].gains
            },
            ece={over: float(np.mean([one.ece[over] for one in found])) for over in found[0].ece},
            log_loss=float(np.mean([one.log_loss for one in found])),
            covered=float(np.mean([one.covered for one in found])),
            aiq=float(np.mean([one.aiq for one in found])),
        )
    return FoundPrompts(name, table, columns)


def judge_in_turn(
    tables: Iterable[tuple[str, BenchmarkTable, np.ndarray]], jobs: int
) -> list[FoundPrompts]:
    """Judge tables in so many processes, from the first one on; nothing is timed here."""
    context = multiprocessing.get_context("spawn")  # threads do not survive a fork
    with ProcessPoolExecutor(jobs, context) as pool:
        asked = [pool.submit(judge_prompts, *table) for table in tables]
        return [one.result() for one in asked]


def _measured(results: PromptResults) -> Column:
    def scores_of(rule: str) -> np.ndarray:
        chosen = results.of_picks(rule, results.scores["score"])
        return per_dataset(chosen, results.dataset, len(results.datasets))

    bma = scores_of("BMA")
    told, standing = reliabilities(results, "auto"), reliabilities(results, "BMA")
    priced = cost_quality(results, "auto") if results.cost_usd is not None else None
    return Column(
        gains={rule: scores_of(rule) - bma for rule in (*RULES, BEST_OF_DATASET)},
        ece={"all": told["every model"].ece, "chosen": told["the chosen model"].ece},
        log_loss=told["every model"].log_loss - standing["every model"].log_loss,
        covered=float(mean_known(interval_holds(results), axis=0)),
        aiq=float("nan") if priced is None else priced.aiq - priced.zero_aiq,
    )


def macro(values: np.ndarray) -> float:
    return float(mean_known(values, axis=0))


def gap_closed(column: Column) -> str:
    """Share of what the best model of every dataset gains over BMA; a dash where it is nothing."""
    gap = macro(column.gains[BEST_OF_DATASET])
    return f"{macro(column.gains['auto']) / gap:.0%}" if gap > 0.0 else "–"


def shortfall(column: Column) -> float:
    """Gain of auto less that of the best of the other rules."""
    return macro(column.gains["auto"]) - max(macro(column.gains[rule]) for rule in RULES[1:])


def keep_prompts(report: Report, found: FoundPrompts) -> None:
    for what, column in found.columns.items():
        name, n = f"{found.name}, prompts, {what}", SEEDS if what == "split" else 1
        for rule, gain in column.gains.items():
            report.row(f"{name}: {rule} − BMA", macro(gain), "macro score", n)
            for end, value in zip(("low", "high"), bootstrap_interval(gain), strict=True):
                report.row(f"{name}: {rule} − BMA, {end}", value, "macro score, 95 %", n)
        for over, ece in column.ece.items():
            report.row(f"{name}: ECE, {over}", ece, "chance", n)
        report.row(f"{name}: log loss − that of the standings", column.log_loss, "nats", n)
        report.row(f"{name}: interval holds", column.covered, "share of datasets", n)
        if not np.isnan(column.aiq):
            report.row(f"{name}: AIQ − zero router", column.aiq, "score", n)


def show_prompts(found: list[FoundPrompts], show: Printer) -> None:
    """Print one table of gains and one of chances."""
    gains, chances = [], []
    for one in found:
        size = f"{one.table.n_datasets} × {one.table.n_models}"
        cells, told = [one.name, size], [one.name]
        for column in one.columns.values():
            cells += [f"{macro(column.gains[rule]):+.4f}" for rule in RULES]
            low, high = bootstrap_interval(column.gains["auto"])
            cells += [f"{low:+.3f} … {high:+.3f}", gap_closed(column)]
            told += [f"{column.ece[over]:.3f}" for over in ("all", "chosen")]
            told += [f"{column.log_loss:+.4f}", f"{column.covered:.0%}"]
        gains.append(cells)
        chances.append(told)
    header, told = ["table", "D × M"], ["table"]
    for what in COLUMNS:
        header += [f"{what}: auto", *RULES[1:], "auto, 95 %", "gap closed"]
        told += [f"{what}: ECE, all", "chosen", "log loss − standings", "interval holds"]
    show("prompts: macro score of the chosen models less BMA's", header, gains)
    show("prompts: the chance of success that auto tells", told, chances)


def prompt_aims(report: Report, found: list[FoundPrompts]) -> None:
    """Hold the figures against what the rule is to reach."""
    main = [one for one in found if one.name in MAIN]
    columns = [column for one in main for column in one.columns.values()]
    if columns:
        mean = float(np.mean([macro(column.gains["auto"]) for column in columns]))
        report.aim("prompts: auto − BMA, mean of A, B, C", mean, "macro score", at_least=0.025)
    for one in found:
        for what, column in one.columns.items():
            name, unit = f"{one.name}, prompts, {what}", "macro score"
            gain = macro(column.gains["auto"])
            report.aim(f"{name}: auto − BMA", gain, unit, at_least=-0.002)
            fall = shortfall(column)
            report.aim(f"{name}: auto − best of the others", fall, unit, at_least=-0.004)
            report.aim(f"{name}: log loss − standings'", column.log_loss, "nats", at_most=0.0)
            if not np.isnan(column.aiq):
                report.aim(f"{name}: AIQ − zero router", column.aiq, "score", at_least=1e-9)
            for over, ece in column.ece.items() if one in main else ():
                report.aim(f"{name}: ECE, {over}", ece, "chance", at_most=LARGEST_ECE[what])
