"""Figures of leave-one-dataset-out: one model chosen for every held-out dataset."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from benchrouter.evaluation.report.figures.style import (
    BLACK,
    BLUE,
    GREY,
    LIGHT,
    PAGE_IN,
    VERMILION,
    label_ends,
    legend_below,
    look_of,
    new_figure,
    paper,
    short_names,
)
from benchrouter.evaluation.results import smoother
from benchrouter.evaluation.values import mean_known
from benchrouter.files.arrays import Array

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchrouter.evaluation.tasks.cell_results import LeaveOneOut

MOST_TASKS = 12  # panels of scores against accuracy
MOST_MODELS = 30  # rows of chosen models
PALE = "#bdbdbd"  # of small points
TOP = 1.02  # of axes of shares, so that points at 1 are whole


def accuracy_by_labels(tasks: LeaveOneOut) -> Figure:
    """Macro accuracy of every rule against the share of labels α, a panel a nesting."""
    with paper():
        n = len(tasks.nestings)
        figure, axes = new_figure(PAGE_IN if n > 1 else 4.4, 3.1, 1, n, sharey=True)
        lines = {nesting: _accuracies(tasks, nesting) for nesting in tasks.nestings}
        ends = []
        for panel, nesting in zip(axes, tasks.nestings, strict=True):
            shown = _shown(lines[nesting])
            ends.append(_draw_lines(panel, np.array(tasks.label_shares), shown))
            below = [
                f"{r} {np.nanmean(v):.3f}" for r, v in lines[nesting].items() if r not in shown
            ]
            panel.set_title(f"{nesting} nesting")
            panel.set_xlabel(
                "share of labels α" + (f"\n(below the axis: {', '.join(below)})" if below else "")
            )
            panel.grid(axis="x", visible=False)
        axes[0].set_ylabel("macro accuracy of the chosen model")
        for panel, last in zip(axes, ends, strict=True):
            label_ends(panel, last)
        return figure


def _accuracies(tasks: LeaveOneOut, nesting: str) -> dict[str, Array]:
    """Macro accuracy at every share, of the rules that have any."""
    shares = range(len(tasks.label_shares))
    found = {
        rule: np.array([tasks.macro_accuracy(nesting, rule, i) for i in shares])
        for rule in tasks.picks[nesting]
    }
    return {rule: values for rule, values in found.items() if not np.isnan(values).all()}


def _shown(lines: dict[str, Array]) -> dict[str, Array]:
    """All lines but that of the cheapest model, where it would press the others together."""
    others = [np.nanmin(values) for rule, values in lines.items() if rule != "cheapest"]
    if "cheapest" not in lines or not others or np.nanmin(lines["cheapest"]) >= min(others):
        return lines
    return {rule: values for rule, values in lines.items() if rule != "cheapest"}


def _draw_lines(
    axes: Axes, shares: Array, lines: dict[str, Array]
) -> dict[str, tuple[float, float]]:
    """Draw one line a rule; their last points."""
    ends = {}
    for rule, values in lines.items():
        known = ~np.isnan(values)
        look = look_of(rule)
        axes.plot(
            shares[known],
            values[known],
            color=look.colour,
            marker=look.marker or ("o" if known.sum() == 1 else ""),
            linestyle=look.line,
            linewidth=look.width,
            markersize=6 if look.marker == "*" else 3.2,
        )
        ends[rule] = (float(shares[known][-1]), float(values[known][-1]))
    return ends


def estimate_of_p(tasks: LeaveOneOut) -> Figure:
    """Accuracy p of the predictor against the distance u with the smoother, and p̂ against p."""
    with paper():
        figure, (left, right) = new_figure(PAGE_IN, 3.4, 1, 2)
        _smoother(left, tasks)
        _estimates(right, tasks)
        return figure


def _smoother(axes: Axes, tasks: LeaveOneOut) -> None:
    u, p = tasks.u[:, 0, 0], tasks.p[:, 0, 0]
    curve = smoother(tasks)
    axes.set_xlabel("distance u of the dataset")
    axes.set_ylabel("accuracy p of the predictor")
    axes.set_title("Predictor and smoother")
    if not len(curve["u"]):
        return
    if len(curve["labelled_u"]):
        axes.scatter(
            curve["labelled_u"],
            curve["labelled_p"],
            s=4,
            color=PALE,
            linewidths=0,
            label="some labels (α > 0), mean over models",
        )
    axes.scatter(
        u,
        mean_known(p, axis=1),
        s=13,
        color=BLUE,
        linewidths=0,
        label="no labels, mean over models",
    )
    low, high = curve["low"], curve["high"]
    axes.fill_between(curve["u"], low, high, color=VERMILION, alpha=0.15, linewidth=0)
    axes.plot(
        curve["u"],
        curve["mean"],
        color=VERMILION,
        label=f"smoother, σ = {tasks.sigma:g} (band: 10–90 % of models)",
    )
    drawn = np.concatenate([mean_known(p, axis=1), curve["labelled_p"], low])
    axes.set_ylim(min(0.45, float(np.nanmin(drawn))) - 0.02, TOP)
    axes.locator_params(axis="x", nbins=6)
    legend_below(axes)


def _estimates(axes: Axes, tasks: LeaveOneOut) -> None:
    axes.set_xlabel("true p of a dataset and model")
    axes.set_ylabel("estimate p̂")
    axes.set_title("Estimate and truth, no labels")
    p = tasks.p[:, 0, 0].ravel()
    looks = (("strict", VERMILION, "o"), ("published", BLUE, "x"))
    for nesting, colour, marker in looks:
        if nesting not in tasks.p_hat:
            continue
        p_hat = tasks.p_hat[nesting][:, 0, 0].ravel()
        known = ~np.isnan(p) & ~np.isnan(p_hat)
        if not known.any():
            continue
        error = np.abs(p_hat - p)[known].mean()
        axes.scatter(
            p[known],
            p_hat[known],
            s=5,
            color=colour,
            marker=marker,
            linewidths=0.6 if marker == "x" else 0,
            alpha=0.6,
            label=f"{nesting}, mean |p̂ − p| = {error:.3f}",
        )
    known_p = p[~np.isnan(p)]
    low = min(0.4, float(known_p.min()) - 0.02) if len(known_p) else 0.0
    axes.plot([low, 1], [low, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
    axes.set_xlim(low, TOP)
    axes.set_ylim(low, TOP)
    if axes.collections:
        legend_below(axes)


def scores_against_accuracy(tasks: LeaveOneOut, nesting: str = "strict") -> Figure:
    """S1 and S3 of every model against its true accuracy, a panel a dataset.

    Of more than 12 datasets, 12 are shown that lie evenly over the distance u.
    """
    order = np.argsort(tasks.u[:, 0, 0], kind="stable")
    if len(order) > MOST_TASKS:
        order = order[np.linspace(0, len(order) - 1, MOST_TASKS).round().astype(int)]
    columns = min(4, len(order))
    rows = -(-len(order) // columns)
    s3 = tasks.s3(nesting)[:, 0, 0]
    s1 = tasks.s1[:, 0, 0]
    accuracy = tasks.accuracy[:, 0, 0]
    low, high = _limits(np.concatenate([values[order].ravel() for values in (s1, s3, accuracy)]))
    names = short_names(tasks.datasets, 22)
    with paper():
        figure, axes = new_figure(
            PAGE_IN, 0.5 + 1.6 * rows, rows, columns, sharex=True, sharey=True
        )
        for panel, d in zip(axes, order, strict=False):
            panel.plot([0, 1], [0, 1], color=LIGHT, linewidth=0.8, zorder=0)
            for name, values, rule in (("S1", s1, "S1"), (f"S3, {nesting}", s3, "S3")):
                if np.isnan(values[order]).all():
                    continue
                look = look_of(rule)
                panel.scatter(
                    values[d],
                    accuracy[d],
                    s=9,
                    marker=look.marker,
                    color=look.colour,
                    alpha=0.8,
                    linewidths=0,
                    label=name,
                )
            panel.set_title(f"{names[d]}\nu = {tasks.u[d, 0, 0]:.2f}", fontsize=7)
            panel.set_aspect("equal", adjustable="box")
            panel.set_xlim(low, high)
            panel.set_ylim(low, high)
        for panel in axes[len(order) :]:
            panel.set_axis_off()
        figure.supxlabel("score of the model", fontsize=8)
        figure.supylabel("true accuracy", fontsize=8)
        handles, labels = axes[0].get_legend_handles_labels()
        figure.legend(
            handles, labels, loc="outside upper right", ncols=len(labels), markerscale=1.6
        )
        return figure


def _limits(values: Array) -> tuple[float, float]:
    """Tenths that hold all values, with some room."""
    known = values[~np.isnan(values)]
    if not len(known):
        return 0.0, 1.0
    low, high = np.floor(10 * known.min()) / 10, np.ceil(10 * known.max()) / 10
    return float(low) - 0.03, float(max(high, low + 0.1)) + 0.03


def chosen_models(tasks: LeaveOneOut, nesting: str = "strict") -> Figure:
    """How often every rule chose every model, the models by their size."""
    rules = [rule for rule in tasks.picks[nesting]]
    picks = np.array([tasks.picks[nesting][rule][:, 0, 0] for rule in rules])
    counts = np.array([np.bincount(row, minlength=len(tasks.models)) for row in picks])
    chosen = np.flatnonzero(counts.sum(axis=0))
    sizes = tasks.params_b
    order = sorted(chosen.tolist(), key=lambda m: (_last(float(sizes[m])), m))[:MOST_MODELS]
    with paper():
        height = 0.9 + 0.19 * (len(order) + 1)
        figure, (axes,) = new_figure(PAGE_IN, height)
        for x, _ in enumerate(rules):
            for y, m in enumerate(order):
                n = int(counts[x, m])
                if n:
                    part = n / counts[x].sum()
                    axes.scatter(x, y, s=12 + 170 * part, color=BLUE, alpha=0.85, linewidths=0)
                    axes.annotate(
                        str(n),
                        (x, y),
                        (8.5, 0),
                        textcoords="offset points",
                        va="center",
                        fontsize=6.5,
                    )
        bottom = len(order) + 0.1
        for x, row in enumerate(picks):
            # known of all that were chosen, or of none: as in the table
            text = "?" if np.isnan(sizes[row]).any() else f"{sizes[row].mean():.1f}"
            axes.text(x, bottom, text, ha="center", va="center", fontsize=7, color=BLACK)
        short = short_names(tasks.models, 30)
        names = [f"{short[m]}{_size(sizes[m])}" for m in order]
        axes.set_yticks([*range(len(order)), bottom], [*names, "mean size, billions"])
        axes.set_xticks(
            range(len(rules)),
            [rule.replace(" with ", " with\n").replace("S3 true", "S3\ntrue") for rule in rules],
            fontsize=7.5 if len(rules) < 11 else 6.5,
        )
        axes.xaxis.tick_top()
        axes.set_xlim(-0.5, len(rules) - 0.3)
        axes.set_ylim(len(order) + 0.6, -0.7)
        axes.tick_params(length=0)
        axes.axhline(len(order) - 0.45, color=LIGHT, linewidth=0.8)
        axes.spines[:].set_visible(False)
        return figure


def _last(size: float) -> float:
    return size if size == size else float("inf")


def _size(size: float) -> str:
    return f"  {size:g}B" if size == size else ""
