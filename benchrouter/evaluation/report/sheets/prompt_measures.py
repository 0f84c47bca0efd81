"""Tables of further measures on single prompts: gains, costs, calibration, edits."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.evaluation.prompts.calibration import interval_holds
from benchrouter.evaluation.report.sheets.prompt_sheets import protocol_key
from benchrouter.evaluation.report.sheets.sheet import (
    Cell,
    Sheet,
    absent,
    count,
    counted,
    number,
    percent,
    words,
)

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.prompt_results import PromptResults
    from benchrouter.evaluation.prompts.robustness import Flips
    from benchrouter.evaluation.results import PromptProtocol

SHORT = {"every model": "all", "the chosen model": "chosen"}


def gains(protocol: PromptProtocol) -> Sheet:
    """Gains over random choice and the best single model, and the gap to the oracle."""
    results = protocol.results
    what, plural = "score", "scores"
    if results.correctness is not None:
        what, plural = "accuracy", "accuracies"
    best = protocol.gains[0].best_single if protocol.gains else ""
    why = "no dataset on which what it is divided by is above 0"
    return Sheet(
        name=f"gains-{protocol_key(results)}",
        title=f"Relative gains, {results.protocol}",
        columns=("rule", "Gain@R", "Gain@B", "Gap@O"),
        rows=tuple(
            (
                words(gain.rule),
                _signed_percent(gain.gain_random, why),
                _signed_percent(gain.gain_best, why),
                percent(gain.gap_oracle, why, digits=1),
            )
            for gain in protocol.gains
        ),
        caption=f"Means over datasets of ratios of {plural} (arXiv 2601.07206).",
        definitions=(
            ("Gain@R", f"{what} / that of a model drawn at random, less 1"),
            (
                "Gain@B",
                f"{what} / that of the best single model ({best}, known only afterwards), less 1",
            ),
            ("Gap@O", f"1 − {what} / that of the oracle per prompt"),
        ),
    )


def _signed_percent(value: float, why: str) -> Cell:
    cell = percent(value, why, digits=1)
    return cell if cell.why or value <= 0 else Cell(f"+{cell.text}", is_number=True)


def sparsity(protocol: PromptProtocol) -> Sheet:
    """Mean scores of the prompts that lie near the benchmark."""
    curve = protocol.sparsity
    why = "no test prompt lies so near"
    unscored = "the chosen models have no recorded score on these prompts"
    return Sheet(
        name=f"sparsity-table-{protocol_key(protocol.results)}",
        title=f"Prompts near the benchmark, {protocol.results.protocol}",
        columns=("rule", *(f"C = {limit:.2f}" for limit in curve.limits)),
        rows=(
            (words("prompts"), *(count(int(n)) for n in curve.count)),
            *(
                (
                    words(rule),
                    *(
                        number(float(value), unscored if n else why)
                        for value, n in zip(values, curve.count, strict=True)
                    ),
                )
                for rule, values in curve.score.items()
            ),
        ),
        caption=f"Mean {curve.metric} over the test prompts whose mean distance to their κ nearest "
        f"training records is below C ({curve.n_prompts:,} prompts in all).",
        detail=True,
    )


def costs(protocol: PromptProtocol) -> Sheet:
    """Cost and quality of maximising predicted score − λ·cost."""
    first = next(iter(protocol.costs.values()))
    return Sheet(
        name=f"costs-{protocol_key(protocol.results)}",
        title=f"Cost and quality, {protocol.results.protocol}",
        columns=("router", "AIQ", "AIQ − zero router", "PerfGain", "CostSave"),
        rows=(
            *(
                (
                    words(rule),
                    number(curve.aiq, curve.why.get("AIQ", "")),
                    number(curve.aiq - curve.zero_aiq, curve.why.get("AIQ", ""), signed=True),
                    _signed_percent(curve.perf_gain, curve.why.get("PerfGain", "")),
                    _signed_percent(curve.cost_save, curve.why.get("CostSave", "")),
                )
                for rule, curve in protocol.costs.items()
            ),
            (
                words("zero router"),
                number(first.zero_aiq, first.why.get("AIQ", "")),
                absent("the zero router against itself"),
                absent("compares a router with single models"),
                absent("compares a router with single models"),
            ),
        ),
        caption=f"{counted(first.n_prompts, 'test prompt')} with the score and the cost of all "
        f"{counted(len(first.models), 'model')} whose cost is known ({first.n_left_out:,} left "
        f"out); best single model: {first.best_single}. The decision knows what the prompt's "
        "neighbours in the training part lead to expect of costs; costs are then those recorded "
        "for the prompt.",
        definitions=(
            (
                "AIQ",
                "area under the non-decreasing convex hull of (cost, score) over λ, divided by "
                "the range of the single models' costs",
            ),
            ("zero router", "hull of the single models: mixing them at random"),
            ("PerfGain", "relative gain in score over the best single model, at the best setting"),
            (
                "CostSave",
                "1 − cost of the cheapest setting with at least the best single model's "
                "score / that model's cost",
            ),
        ),
    )


def cascades(protocol: PromptProtocol) -> Sheet:
    """Cost and quality of a cheap model with BMA behind it."""
    first = protocol.cascades[0]
    return Sheet(
        name=f"cascades-table-{protocol_key(protocol.results)}",
        title=f"Two-model cascades, {protocol.results.protocol}",
        columns=("cheap model", "judge", "AIQ", "AIQ − zero router", "lift", "CostSave"),
        rows=tuple(
            (
                words(cascade.cheap),
                words(cascade.judge),
                number(cascade.aiq, cascade.why.get("AIQ", "")),
                number(cascade.aiq - cascade.zero_aiq, cascade.why.get("AIQ", ""), signed=True),
                number(cascade.lift, "", signed=True),
                _signed_percent(cascade.cost_save, cascade.why.get("CostSave", "")),
            )
            for cascade in protocol.cascades
        ),
        caption=f"{counted(first.n_prompts, 'test prompt')}. Prompts whose judge is below a "
        "threshold, which is swept, go to BMA; the cheap models are those of the zero router that "
        "cost less than BMA.",
        definitions=(
            (
                "predicted score",
                "what auto predicts of the cheap model, its chance of success where correctness is "
                "known, before anything runs: the strong model runs instead, and alone is paid",
            ),
            *(
                [
                    (
                        "log-likelihood",
                        "of the cheap model's own answer: it has run, and escalation pays both",
                    )
                ]
                if any(c.judge == "log-likelihood" for c in protocol.cascades)
                else []
            ),
            (
                "recorded score",
                "of the cheap model's answer, as a perfect judge of it would know; escalation pays "
                "both. A reference, known only afterwards",
            ),
            (
                "AIQ",
                "as in the table before, of the hull of the cascade and all single models: less "
                "the zero router's it is what the cascade adds",
            ),
            (
                "lift",
                "mean height of the hull above a random mix of the two models, between their costs",
            ),
            ("CostSave", "1 − cost of the cheapest threshold with at least BMA's score / its cost"),
        ),
    )


def calibration(protocol: PromptProtocol) -> Sheet:
    """Expected calibration error of every predictor."""
    first = next(iter(protocol.calibration.values()))
    return Sheet(
        name=f"calibration-{protocol_key(protocol.results)}",
        title=f"Calibration of the predicted chance of success, {protocol.results.protocol}",
        columns=(
            "predictor",
            *(
                f"{what}, {SHORT.get(over, over)}"
                for over in first
                for what in ("ECE", "log loss", "predicted", "observed")
            ),
        ),
        rows=tuple(
            (
                words(rule),
                *(
                    number(value, "scores leave 0 to 1")
                    for over in first
                    for value in (
                        curves[over].ece,
                        curves[over].log_loss,
                        _weighted(curves[over].predicted, curves[over].count),
                        _weighted(curves[over].observed, curves[over].count),
                    )
                ),
            )
            for rule, curves in protocol.calibration.items()
        ),
        caption="A chosen model is the one that looked best, so its predicted chance tends to be "
        "too high: the winner's curse." + _covered(protocol.results),
        definitions=(
            ("ECE", "mean |predicted − observed| over 15 bins of equal mass, weighted by count"),
            (
                "log loss",
                "mean −log of the chance given to what was observed; BMA: the standings of the "
                "training part, the same on every prompt",
            ),
            ("predicted, observed", "mean predicted and observed chance of success"),
            ("all, chosen", "over all pairs of prompt and model, or only the models chosen"),
        ),
    )


def _covered(results: PromptResults) -> str:
    """How often the interval of auto's predicted chance holds."""
    if results.chance is None:
        return ""
    holds = interval_holds(results)
    known = holds[~np.isnan(holds)]
    return (
        f" The 80 % interval of auto's chance holds the success rate of its choices on "
        f"{int(known.sum())} of {counted(len(known), 'dataset')}."
    )


def _weighted(values: NDArray[np.float64], weights: NDArray[np.int64]) -> float:
    return float((values * weights).sum() / weights.sum())


def robustness(flips: Mapping[str, Flips]) -> Sheet:
    """Share of decisions that flip when a prompt is edited."""
    why = "the edit changes none of these prompts"
    return Sheet(
        name="robustness-table",
        title="Decisions that flip when the prompt is edited (rule auto)",
        columns=("edit", "prompts changed", "decisions flipped", "cosine"),
        rows=tuple(
            (
                words(found.edit),
                Cell(f"{found.n_changed:,} of {found.n_prompts:,}", is_number=True),
                percent(found.share, why, digits=1),
                number(found.cosine, why),
            )
            for found in flips.values()
        ),
        caption="Where the cosine is 1.000 the encoder hardly sees the edit.",
        definitions=(
            ("decisions flipped", "share of the changed prompts for which another model is chosen"),
            ("cosine", "mean similarity of the edited prompt's embedding to the original's"),
        ),
    )
