"""What an evaluation found, in a few plain sentences."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from benchrouter.evaluation.report.sheets.prompts import DEFAULT_RULE, SCORE
from benchrouter.evaluation.report.sheets.sheet import decimal
from benchrouter.evaluation.report.sheets.table_one import is_reference
from benchrouter.evaluation.results import OURS

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.rows import PromptRow
    from benchrouter.evaluation.results import Evaluation, Pool, PromptProtocol
    from benchrouter.evaluation.tasks.measures import Row

NESTING = "strict"
FEW_DATASETS = 6  # with fewer, all of one sign are no evidence at 5 %: 2 · 2^-5 > 0.05
FIXED = ("random", "cheapest")  # no routing: one model, or none in particular


def summary(evaluation: Evaluation) -> list[str]:
    """Say which rule did best and whether routing pays, with intervals.

    Parameters
    ----------
    evaluation : Evaluation

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
        return f"{_upper(pool.title)}: no rule has an accuracy; the notes say why."
    n = len(pool.tasks.datasets)
    where = f"{_upper(pool.title)}, one for each of {n} held-out datasets"
    best = max(usable, key=lambda row: row.accuracy)
    against = f"the best model on average (BMA), {decimal(bma.accuracy)}"
    if best.vs_bma > 0:
        text = (
            f"{where}: {_verdict(best, rows.get(OURS), n)} {best.rule}, the best of "
            f"{len(usable) - 1} rules (as known afterwards), reached a macro accuracy of "
            f"{decimal(best.accuracy)} without labels, {against}: {_gain(best, n)}."
        )
    else:
        text = f"{where}: {_no_gain(n)} No rule did better than {against}."
    ours = rows.get(OURS)
    if ours is not None and ours.accuracy == ours.accuracy and best.rule != OURS:
        text += f" The default of choose, {OURS}: {decimal(ours.accuracy)}, {_gain(ours, n)}."
    return " ".join(filter(None, (text, _ceiling(rows, bma), _with_labels(pool))))


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
    if not usable:
        return ""
    best = max(usable, key=lambda row: row.accuracy)
    most = int(pool.tasks.n_labels[:, index].max())
    few = f"With {100 * pool.tasks.label_shares[index]:g} % labels (at most {most} a dataset)"
    if not best.vs_bma > 0:
        return f"{few} still no rule did better than BMA."
    return f"{few} the best is {best.rule}: {decimal(best.accuracy)}, {_gain(best, n)}."


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
        f"{decimal(ours.macro[SCORE])}, BMA {decimal(bma.macro[SCORE])}: {_difference(ours, n)}."
    )
    others = [r for rule, r in rows.items() if rule not in ("oracle", *FIXED)]
    best = max(others, key=lambda row: row.macro[SCORE])
    if best.rule == "BMA":
        return f"{text} No rule did better than BMA."
    if best.rule != DEFAULT_RULE:
        text += f" The best is {best.rule}: {decimal(best.macro[SCORE])}, {_difference(best, n)}."
    return text


def _difference(row: PromptRow, n_datasets: int) -> str:
    return _difference_of(row.vs_bma[SCORE], row.vs_bma_interval[SCORE], n_datasets)


def _gain(row: Row, n_datasets: int) -> str:
    return _difference_of(row.vs_bma, row.vs_bma_interval, n_datasets)


def _difference_of(gain: float, ends: tuple[float, float], n_datasets: int) -> str:
    low, high = ends
    if low != low or high != high or n_datasets < FEW_DATASETS:
        return f"{decimal(gain, signed=True)} (too few datasets for an interval)"
    interval = f"{decimal(low, signed=True)} to {decimal(high, signed=True)}"
    return f"{decimal(gain, signed=True)} (95 % interval {interval})"


def _verdict(best: Row, ours: Row | None, n_datasets: int) -> str:
    low, _ = best.vs_bma_interval
    if low != low or n_datasets < FEW_DATASETS:
        return "too few datasets to say whether routing pays."
    if ours is not None and ours.vs_bma_interval[0] > 0:
        return "routing pays here."
    if low > 0:
        return "routing can pay here, by a rule that is known only afterwards."
    return "routing may pay here, but the interval of the gain includes 0."


def _no_gain(n_datasets: int) -> str:
    if n_datasets < FEW_DATASETS:
        return "too few datasets to say whether routing pays."
    return "routing does not pay here without labels."


def _ceiling(rows: dict[str, Row], bma: Row) -> str:
    """How much there was to be gained at all."""
    ceiling = rows.get("oracle (split-half)")
    if ceiling is None or ceiling.accuracy != ceiling.accuracy:
        return ""
    text = (
        "Ceiling (each dataset's best model, chosen on one half and scored on the other): "
        f"{decimal(ceiling.accuracy)}"
    )
    if ceiling.accuracy - bma.accuracy < 0.0005:  # 0.000 when it is written
        return f"{text}, not above BMA: there is nothing to be gained by choosing per dataset."
    return f"{text}."


def _upper(text: str) -> str:
    return text[:1].upper() + text[1:]


def notes_of(evaluation: Evaluation) -> list[str]:
    """Everything that is missing, with the reason.

    Parameters
    ----------
    evaluation : Evaluation

    Returns
    -------
    list of str
    """
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
    return _upper(text.rstrip(".")) + "."
