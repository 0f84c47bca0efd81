"""Results of an evaluation, from which tables, figures and reports are made."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from benchrouter.evaluation.values import mean_known, plain_values
from benchrouter.files.arrays import Array
from benchrouter.files.plain import finite
from benchrouter.scores import formulas

if TYPE_CHECKING:
    from benchrouter.evaluation.prompts.calibration import Reliability
    from benchrouter.evaluation.prompts.cascades import Cascade
    from benchrouter.evaluation.prompts.costs import CostQuality, Gains
    from benchrouter.evaluation.prompts.prompt_results import PromptResults
    from benchrouter.evaluation.prompts.robustness import Flips
    from benchrouter.evaluation.prompts.rule_rows import PromptRow
    from benchrouter.evaluation.prompts.sparsity import Sparsity
    from benchrouter.evaluation.tasks.cell_results import LeaveOneOut
    from benchrouter.evaluation.tasks.measures import Row

OURS = "auto"  # the default of choose
SHOWN_PAIRS = 600  # labelled pairs (u, p) that are drawn and reported, of all that there are
CURVE_POINTS = 120


def expectations(tasks: LeaveOneOut) -> dict[str, Array] | None:
    """Accuracy that the default of choose expects of its choice, and the accuracy reached.

    Returns
    -------
    dict of str to float64 array, shape (D, A, R), or None
        "expected", "reached", "low" and "high" of the 80 % interval, "covered" (0 or 1); NaN =
        not known. None where the rule was not run.
    """
    if (
        tasks.intervals is None
        or tasks.expected is None
        or OURS not in tasks.picks.get("strict", {})
    ):
        return None
    reached = tasks.accuracy_of("strict", OURS)
    low, high = tasks.intervals[..., 0], tasks.intervals[..., 1]
    unknown = np.isnan(low) | np.isnan(high) | np.isnan(reached)
    return {
        "expected": tasks.expected,
        "reached": reached,
        "low": low,
        "high": high,
        "covered": np.where(unknown, np.nan, (low <= reached) & (reached <= high)),
    }


def smoother(tasks: LeaveOneOut) -> dict[str, Array]:
    """The kernel smoother over the pairs (u, p) of all datasets, label shares and draws.

    Returns
    -------
    dict of str to float64 array
        Along the curve: "u", and over models its "mean" and percentiles "low" (10) and "high"
        (90). Of up to 600 pairs with labels, drawn at random: "labelled_u", "labelled_p" (mean
        over models). All empty where no p is known.
    """
    u, p = tasks.u.ravel(), tasks.p.reshape(-1, tasks.p.shape[-1])
    kept = ~np.isnan(u) & ~np.isnan(p).all(axis=1)
    shares = np.array(tasks.label_shares)[None, :, None]
    labelled = np.flatnonzero(kept & np.broadcast_to(shares > 0, tasks.u.shape).ravel())
    some = np.random.default_rng(0).permutation(labelled)[:SHOWN_PAIRS]
    names = ("u", "mean", "low", "high", "labelled_u", "labelled_p")
    if not kept.any():
        return {name: np.empty(0) for name in names}
    grid = np.linspace(u[kept].min(), u[kept].max(), CURVE_POINTS)
    curves = formulas.smooth(grid, u[kept], p[kept], tasks.sigma)
    low, high = np.nanpercentile(curves, [10, 90], axis=1)
    mean = mean_known(curves, axis=1)
    values = (grid, mean, low, high, u[some], mean_known(p[some], axis=1))
    return dict(zip(names, values, strict=True))


@dataclass(frozen=True)
class Pool:
    """One set of models (and the records they ran on), and its leave-one-dataset-out.

    Attributes
    ----------
    title : str
        "all models", "models of at most 13 billion parameters".
    key : str
        Short and distinct, for names of files.
    table : dict
        As `BenchmarkTable.describe` gives it.
    tasks : LeaveOneOut or None
        None where it was not asked for or could not be run.
    table_one : dict of str to tuple of Row
        By nesting, at the first label share: without labels by default.
    with_labels : (int, tuple of Row) or None
        Index of a label share, and the same rows there, in strict nesting; None if there is one
        share only.
    notes : tuple of str
        Why something is missing.
    """

    title: str
    key: str
    table: dict[str, Any]
    tasks: LeaveOneOut | None = None
    table_one: dict[str, tuple[Row, ...]] = field(default_factory=dict)
    with_labels: tuple[int, tuple[Row, ...]] | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON (NaN as None)."""
        return {
            "title": self.title,
            "table": self.table,
            "leave_one_dataset_out": None if self.tasks is None else self.tasks.to_dict(),
            "smoother": None if self.tasks is None else plain_values(smoother(self.tasks)),
            "expectations": None if self.tasks is None else _means(expectations(self.tasks)),
            "table_one": {
                nesting: [row.to_dict() for row in rows] for nesting, rows in self.table_one.items()
            },
            "table_one_with_labels": None
            if self.tasks is None or self.with_labels is None
            else {
                "label_share": self.tasks.label_shares[self.with_labels[0]],
                "rows": [row.to_dict() for row in self.with_labels[1]],
            },
            "notes": list(self.notes),
        }


def _means(values: dict[str, Array] | None) -> dict[str, Any] | None:
    """Means over draws."""
    if values is None:
        return None
    return {name: plain_values(mean_known(array, axis=2)) for name, array in values.items()}


@dataclass(frozen=True)
class PromptProtocol:
    """One protocol that chooses a model for every prompt, and every measure on it.

    Attributes
    ----------
    results : PromptResults
    rows : tuple of PromptRow
    sparsity : Sparsity
    gains : tuple of Gains
    calibration : dict of str to dict of str to Reliability
        By rule, then "every model" and "the chosen model". Empty without correctness.
    costs : dict of str to CostQuality
        By predictor. Empty where costs are not known.
    cascades : tuple of Cascade
        Empty where costs are not known, or no model of the zero router is cheaper than BMA.
    notes : tuple of str
        Why something is missing.
    """

    results: PromptResults
    rows: tuple[PromptRow, ...]
    sparsity: Sparsity
    gains: tuple[Gains, ...] = ()
    calibration: dict[str, dict[str, Reliability]] = field(default_factory=dict)
    costs: dict[str, CostQuality] = field(default_factory=dict)
    cascades: tuple[Cascade, ...] = ()
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Everything that is reported as plain values, ready for JSON (NaN as None).

        Returns
        -------
        dict
            Without the choices of single prompts.
        """
        results = self.results
        return {
            "protocol": results.protocol,
            "n_prompts": len(results.rows),
            "metrics": list(results.scores),
            "rows": [row.to_dict() for row in self.rows],
            "gains": [gain.to_dict() for gain in self.gains],
            "sparsity": self.sparsity.to_dict(),
            "calibration": {
                rule: {over: curve.to_dict() for over, curve in curves.items()}
                for rule, curves in self.calibration.items()
            },
            "costs": {rule: curve.to_dict() for rule, curve in self.costs.items()},
            "cascades": [cascade.to_dict() for cascade in self.cascades],
            "notes": [*results.notes, *self.notes],
        }


@dataclass(frozen=True)
class Evaluation:
    """All that was measured on a table.

    Attributes
    ----------
    pools : tuple of Pool
        The first is the one that the protocols of single prompts use.
    prompts : tuple of PromptProtocol
    robustness : dict of str to Flips
        By edit of the prompt; empty where it was not asked for.
    notes : tuple of str
        Why something as a whole is missing.
    settings : dict
        Numbers of the method, seed, shares of labels.
    seconds : dict of str to float
        Time of each stage.
    version : str
        Of benchrouter.
    """

    pools: tuple[Pool, ...]
    prompts: tuple[PromptProtocol, ...]
    robustness: dict[str, Flips]
    notes: tuple[str, ...]
    settings: dict[str, Any]
    seconds: dict[str, float]
    version: str

    def to_dict(self) -> dict[str, Any]:
        """Everything that is reported as plain values, ready for JSON (NaN as None)."""
        return {
            "benchrouter": self.version,
            "settings": finite(self.settings),
            "pools": [pool.to_dict() for pool in self.pools],
            "prompts": [protocol.to_dict() for protocol in self.prompts],
            "robustness": [found.to_dict() for found in self.robustness.values()],
            "notes": list(self.notes),
            "seconds": dict(self.seconds),
        }
