"""What an evaluation found, in a few plain sentences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from benchrouter.evaluation.report.sheets.prompt_sheets import DEFAULT_RULE, SCORE
from benchrouter.evaluation.report.sheets.sheet import capitalised, counted, decimal
from benchrouter.evaluation.report.sheets.table_one import ROUNDING, is_reference
from benchrouter.evaluation.results import OURS
from benchrouter.evaluation.tasks.measures import FEW_DATASETS

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.rule_rows import PromptRow
    from benchrouter.evaluation.results import Evaluation, Pool, PromptProtocol
    from benchrouter.evaluation.tasks.measures import Row

NESTING = "strict"
FIXED = ("random", "cheapest")  # no routing: one model, or none in particular


def summary(evaluation: Evaluation) -> list[str]:
    """Say which rule did best and whether routing pays, with intervals.

    Returns
    -------
    list of str
        Paragraphs, the most important first.
    """
    found = [_of_pool(pool) for pool in evaluation.pools if pool.table_one]
    found += [_of_prompts(protocol) for protocol in evaluation.prompts]
    return found or ["Nothing could be measured on this table; the notes say why."]


def _of_pool(pool: Pool) -> str:
    # Without labels "labels" is BMA.
    rows = {row.rule: row for row in pool.table_one[NESTING] if row.rule != "labels"}
    usable, bma = _usable(rows.values()), rows.get("BMA")
    if bma is None or bma.accuracy != bma.accuracy or pool.tasks is None:
        return f"{capitalised(pool.title)}: no rule has an accuracy; the notes say why."
    n = len(pool.tasks.datasets)
    where = f"{capitalised(pool.title)}, one for each of {n} held-out datasets"
    best = _best(usable)
    against = f"the best model on average (BMA), {_accuracy(bma, n)}"
    if best is not None:
        text = (
            f"{where}: {_verdict(best, rows.get(OURS))} {best.rule}, {_among(len(usable) - 1)}, "
            f"reached a macro accuracy of {_accuracy(best, n)} without labels, {against}: "
            f"{_gain(best, bma)}."
        )
    else:
        text = f"{where}: {_no_gain(usable)} No rule did better than {against}."
    ours = rows.get(OURS)
    told = best is not None and best.rule == OURS
    if ours is not None and ours.accuracy == ours.accuracy and not told:
        text += f" The default of choose, {OURS}: {_accuracy(ours, n)}, {_gain(ours, bma)}."
    return " ".join(filter(None, (text, _ceiling(rows, n), _with_labels(pool))))


def _best(rows: Iterable[Row]) -> Row | None:
    """Row of the largest gain, paired by dataset as means may be over different ones; or None."""
    return max(
        (row for row in rows if row.vs_bma > ROUNDING), key=lambda row: row.vs_bma, default=None
    )


def _among(n_rules: int) -> str:
    return f"the best of {n_rules} rules (as known afterwards)" if n_rules > 1 else "the only rule"


def _accuracy(row: Row, n: int) -> str:
    return decimal(row.accuracy) + _over(row.n_datasets, n)


def _over(known: int, n: int) -> str:
    """Say it of a mean over fewer datasets than there are."""
    return f" (over {known} of {counted(n, 'dataset')})" if known < n else ""


def _usable(rows: Iterable[Row]) -> list[Row]:
    """Rows of BMA and of the rules that route, without the answers, and that have an accuracy."""
    return [
        row
        for row in rows
        if not is_reference(row.rule) and row.rule not in FIXED and row.accuracy == row.accuracy
    ]


def _with_labels(pool: Pool) -> str:
    if pool.with_labels is None or pool.tasks is None:
        return ""
    index, rows = pool.with_labels
    n = len(pool.tasks.datasets)
    usable = _usable(rows)
    bma = next((row for row in usable if row.rule == "BMA"), None)
    most = int(pool.tasks.n_labels[:, index].max())
    if bma is None or not most:
        return ""
    best = _best(usable)
    few = f"With {100 * pool.tasks.label_shares[index]:g} % labels (at most {most} a dataset)"
    if best is None:
        return f"{few} still no rule did better than BMA."
    return f"{few} the best is {best.rule}: {_accuracy(best, n)}, {_gain(best, bma)}."


def _of_prompts(protocol: PromptProtocol) -> str:
    name = protocol.results.protocol
    rows = {
        row.rule: row
        for row in protocol.rows
        if row.kind != "model" and row.macro[SCORE] == row.macro[SCORE]
    }
    where = f"One model per prompt, {name}"
    if "BMA" not in rows or DEFAULT_RULE not in rows:
        return f"{where}: no rule has a score; the notes say why."
    bma, ours, n = rows["BMA"], rows[DEFAULT_RULE], len(protocol.results.datasets)
    text = (
        f"{where}: the default of route, {DEFAULT_RULE}, reached a mean score of "
        f"{_score(ours, n)}, BMA {_score(bma, n)}: {_difference(ours, bma)}."
    )
    gains = {r: row.vs_bma[SCORE] for r, row in rows.items() if row.kind in ("rule", "baseline")}
    best = max(gains, key=lambda rule: gains[rule] if gains[rule] == gains[rule] else -1e9)
    if not gains[best] > ROUNDING:
        return f"{text} No rule did better than BMA."
    if best != DEFAULT_RULE:
        text += f" The best is {best}: {_score(rows[best], n)}, {_difference(rows[best], bma)}."
    return text


def _score(row: PromptRow, n: int) -> str:
    return decimal(row.macro[SCORE]) + _over(row.n_datasets, n)


def _difference(row: PromptRow, bma: PromptRow) -> str:
    most = max(row.n_datasets, bma.n_datasets)
    return _difference_of(row.vs_bma[SCORE], row.vs_bma_interval[SCORE], row.n_paired, most)


def _gain(row: Row, bma: Row) -> str:
    most = max(row.n_datasets, bma.n_datasets)
    return _difference_of(row.vs_bma, row.vs_bma_interval, row.n_paired, most)


def _difference_of(gain: float, ends: tuple[float, float], n_paired: int, most: int) -> str:
    """Write a difference to BMA over the datasets that both have, of the most that either has."""
    if not n_paired:
        return "on no dataset beside BMA"
    low, high = ends
    text = decimal(gain, signed=True)
    if n_paired < most:
        text += f" on the {counted(n_paired, 'dataset')} on which both were run"
    if low != low or high != high or n_paired < FEW_DATASETS:
        return f"{text} (too few datasets for an interval)"
    interval = f"{decimal(low, signed=True)} to {decimal(high, signed=True)}"
    return f"{text} (95 % interval {interval})"


def _verdict(best: Row, ours: Row | None) -> str:
    low, _ = best.vs_bma_interval
    if low != low or best.n_paired < FEW_DATASETS:
        return "too few datasets to say whether routing pays."
    if ours is not None and ours.vs_bma_interval[0] > 0 and ours.n_paired >= FEW_DATASETS:
        return "routing pays here."
    if low > 0:
        return "routing can pay here, by a rule that is known only afterwards."
    return "routing may pay here, but the interval of the gain includes 0."


def _no_gain(usable: list[Row]) -> str:
    if max(row.n_paired for row in usable) < FEW_DATASETS:
        return "too few datasets to say whether routing pays."
    return "routing does not pay here without labels."


def _ceiling(rows: dict[str, Row], n: int) -> str:
    """How much there was to be gained at all."""
    ceiling = rows.get("oracle (split-half)")
    if ceiling is None or ceiling.accuracy != ceiling.accuracy:
        return ""
    text = (
        "Ceiling (each dataset's best model, chosen on one half and scored on the other): "
        f"{_accuracy(ceiling, n)}"
    )
    if ceiling.vs_bma < 0.0005:  # 0.000 when it is written
        return f"{text}, not above BMA: there is nothing to be gained by choosing per dataset."
    return f"{text}."


def notes_of(evaluation: Evaluation) -> list[str]:
    """Everything that is missing, with the reason."""
    found: list[str] = list(evaluation.notes)
    for pool in evaluation.pools:
        for note in pool.notes:
            everywhere = all(note in other.notes for other in evaluation.pools)
            found.append(note if everywhere else f"{pool.title}: {note}")
    of = [(*protocol.results.notes, *protocol.notes) for protocol in evaluation.prompts]
    for protocol, notes in zip(evaluation.prompts, of, strict=True):
        for note in notes:
            everywhere = all(note in others for others in of)
            name = "" if everywhere else f", {protocol.results.protocol}"
            found.append(f"one model per prompt{name}: {note}")
    return list(dict.fromkeys(_sentence(note) for note in found))


def _sentence(text: str) -> str:
    return capitalised(text.rstrip(".")) + "."
