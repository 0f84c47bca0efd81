"""What an evaluation found, in words: whether routing pays, what did best, what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from benchrouter.evaluation.report.sheets.prompt_sheets import DEFAULT_RULE, SCORE
from benchrouter.evaluation.report.sheets.sheet import capitalised, counted, decimal
from benchrouter.evaluation.report.sheets.table_one import ROUNDING, is_reference
from benchrouter.evaluation.report.verdicts import (
    LEAST_GAIN,
    NESTING,
    QUESTIONS,
    TASKS,
    Verdict,
    answer_of,
    row_of,
    too_few,
    verdicts,
)
from benchrouter.evaluation.results import OURS
from benchrouter.evaluation.tasks.measures import FEW_DATASETS

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.rule_rows import PromptRow
    from benchrouter.evaluation.results import Evaluation, Pool, PromptProtocol
    from benchrouter.evaluation.tasks.measures import Row

FIXED = ("random", "cheapest")  # these do not route


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
    return [_headline(found), *(_line(verdict) for verdict in found), _advice(evaluation, found)]


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
    """The row of the largest gain above 0, if any; gains are paired by dataset."""
    return max(
        (row for row in rows if row.vs_bma > ROUNDING), key=lambda row: row.vs_bma, default=None
    )


def _among(n_rules: int) -> str:
    return f"the best of {n_rules} rules (as known afterwards)" if n_rules > 1 else "the only rule"


def _accuracy(row: Row, n: int) -> str:
    return decimal(row.accuracy) + _over(row.n_datasets, n)


def _over(known: int, n: int) -> str:
    """Mention that a mean is over some of the datasets only."""
    return f" (over {known} of {counted(n, 'dataset')})" if known < n else ""


def _usable(rows: Iterable[Row]) -> list[Row]:
    """Rows with an accuracy of BMA and of the rules that route without knowing the answers."""
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
    bma = row_of(usable, "BMA")
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
    """Write a difference to BMA, over `n_paired` of at most `most` datasets."""
    if not n_paired:
        return "on no dataset beside BMA"
    text = decimal(gain, signed=True)
    if n_paired < most:
        text += f" on the {counted(n_paired, 'dataset')} on which both were run"
    few = too_few(ends, n_paired)
    return f"{text} ({'too few datasets for an interval' if few else _ends(ends)})"


def _verdict(best: Row, ours: Row | None) -> str:
    if too_few(best.vs_bma_interval, best.n_paired):
        return "too few datasets to say whether routing pays."
    if ours is not None and ours.vs_bma_interval[0] > 0 and ours.n_paired >= FEW_DATASETS:
        return "routing pays here."
    if best.vs_bma_interval[0] > 0:
        return "routing can pay here, by a rule that is known only afterwards."
    return "routing may pay here, but the interval of the gain includes 0."


def _no_gain(usable: list[Row]) -> str:
    if max(row.n_paired for row in usable) < FEW_DATASETS:
        return "too few datasets to say whether routing pays."
    return "routing does not pay here without labels."


def _ceiling(rows: dict[str, Row], n: int) -> str:
    """The most that choosing per dataset could gain."""
    ceiling = rows.get("oracle (split-half)")
    if ceiling is None or ceiling.accuracy != ceiling.accuracy:
        return ""
    text = (
        "Ceiling (each dataset's best model, chosen on one half and scored on the other): "
        f"{_accuracy(ceiling, n)}"
    )
    if ceiling.vs_bma < LEAST_GAIN:
        return f"{text}, not above BMA: there is nothing to be gained by choosing per dataset."
    return f"{text}."


def _headline(found: Sequence[Verdict]) -> str:
    told = []
    for answer in dict.fromkeys(verdict.answer for verdict in found):
        words = "too few datasets to say" if answer == "too few datasets" else answer
        of = _questions(verdict for verdict in found if verdict.answer == answer)
        told.append(f"{words} for {of}")
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
    return f"{_ends((verdict.low, verdict.high))}, {over}"


def _ends(ends: tuple[float, float]) -> str:
    return f"95 % interval {' to '.join(decimal(end, signed=True) for end in ends)}"


def _advice(evaluation: Evaluation, found: Sequence[Verdict]) -> str:
    """Advise: the defaults where they pay, else the safe model and what would help."""
    pays, others = ([v for v in found if (v.answer == "yes") == yes] for yes in (True, False))
    told = [f"use the defaults for {_questions(pays)}."] if pays else []
    for bma in dict.fromkeys(verdict.bma for verdict in others):
        of = _questions(verdict for verdict in others if verdict.bma == bma)
        told.append(f"For {of} the safe choice is {bma}, the best model on average.")
    known, new = QUESTIONS.values()
    doubtful = {verdict.question for verdict in others}
    if new in doubtful and known in {verdict.question for verdict in pays}:
        told.append("Add records like your own prompts to the benchmark: then they are known.")
    labels = _gain_of_labels(evaluation.pools[0]) if TASKS in doubtful else None
    if labels is not None:
        told.append(
            "Or label 20 prompts of the task: benchrouter choose --suggest-labels 20 says "
            f"which{labels}."
        )
    told[0] = told[0][:1].lower() + told[0][1:]
    return f"What to do: {' '.join(told)}"


def _gain_of_labels(pool: Pool) -> str | None:
    """The sure gain of labels in this evaluation, in words; None where they did not help."""
    if pool.with_labels is None or pool.tasks is None:
        return ""
    index, rows = pool.with_labels
    ours = row_of(rows, OURS)
    if ours is None or not ours.n_paired:
        return ""
    if not ours.vs_bma >= LEAST_GAIN:
        return None
    if answer_of(ours.vs_bma, ours.vs_bma_interval, ours.n_paired) != "yes":
        return ""
    most = int(pool.tasks.n_labels[:, index].max())
    return f" (here at most {most} labels a dataset gained {decimal(ours.vs_bma)})"


def _questions(verdicts: Iterable[Verdict]) -> str:
    *names, last = (verdict.question for verdict in verdicts)
    return " and ".join(filter(None, (", ".join(names), last)))


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
