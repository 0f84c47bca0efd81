"""Figures of the protocols of single prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.evaluation.report.figures.style import (
    BLACK,
    BLUE,
    COLUMN_IN,
    GREEN,
    GREY,
    LIGHT,
    ORANGE,
    PAGE_IN,
    PURPLE,
    VERMILION,
    label_ends,
    legend_below,
    look_of,
    new_figure,
    paper,
    short_names,
    spread,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from benchrouter.evaluation.prompts.calibration import Reliability
    from benchrouter.evaluation.prompts.cascades import Cascade
    from benchrouter.evaluation.prompts.costs import CostQuality
    from benchrouter.evaluation.prompts.sparsity import Sparsity

FEW = 30  # means over fewer prompts are not drawn
# Far from the others, and in the table.
UNUSABLE = ("oracle", "oracle per dataset", "random", "cheapest")
PER_PROMPTS = 1000
MOST_NAMES = 12  # with more models only those on the hull are named
AXES_POINTS = 190.0  # height of the axes of cost and quality, about
AXES_WIDTH = 290.0  # their width
LETTER = 3.6  # width of a letter of a model's name, about, points
JOINED = 400  # predictions in a bin from which a line joins bins: standard error below 0.025
COLOURS = (BLUE, VERMILION, GREEN, ORANGE, PURPLE)  # of cheap models
JUDGES = {"predicted score": "-", "log-likelihood": (0, (4, 1.5)), "recorded score": ":"}
WIDE = 20.0  # ratio of costs from which their axis is logarithmic
CURVED = 400  # points of a line on such an axis, about


def sparsity(curve: Sparsity) -> Figure:
    """Mean score of the prompts nearer than C, and how many these are."""
    enough = curve.count >= FEW
    with paper():
        figure, (top, bottom) = new_figure(
            4.6, 3.6, 2, 1, sharex=True, gridspec_kw={"height_ratios": [3.2, 1]}
        )
        ends = {}
        for rule, values in curve.score.items():
            shown = enough & ~np.isnan(values)
            if rule in UNUSABLE or not shown.any():
                continue
            look = look_of(rule)
            top.plot(
                curve.limits[shown],
                values[shown],
                color=look.colour,
                marker=look.marker or ("o" if shown.sum() == 1 else ""),
                linestyle=look.line,
                linewidth=look.width,
                zorder=3 if rule == "BMA" else 2,  # its dashes show what lies under them
            )
            ends[rule] = (float(curve.limits[shown][-1]), float(values[shown][-1]))
        top.set_ylabel(f"mean {curve.metric}")
        step = float(np.diff(curve.limits).min()) if len(curve.limits) > 1 else 0.05
        top.set_xlim(curve.limits[0] - step, curve.limits[-1] + step)
        top.set_title("Prompts whose distance u is below C")
        bottom.bar(curve.limits, curve.count, width=0.7 * step, color=LIGHT)
        bottom.set_ylabel("prompts")
        bottom.set_xlabel("C")
        bottom.grid(axis="x", visible=False)
        bottom.set_ylim(0, 1.05 * max(1, int(curve.count.max(initial=0))))
        bottom.locator_params(axis="y", nbins=3, integer=True)
        bottom.yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
        if ends:
            label_ends(top, ends, gap=0.085)
        else:
            _say(top, f"fewer than {FEW} prompts lie nearer than C = {curve.limits[-1]:.2f}")
            top.set_yticks([])
        return figure


def _say(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", color=GREY)


def cost_quality(curves: Mapping[str, CostQuality]) -> Figure:
    """Score against cost over all λ, hulls, and the zero router, of at least one curve."""
    first = next(iter(curves.values()))
    with paper():
        figure, (axes,) = new_figure(5.0, 3.7)
        for n, (rule, curve) in enumerate(curves.items()):
            look = look_of(rule)
            axes.plot(
                PER_PROMPTS * curve.cost_usd,
                curve.score,
                color=look.colour,
                linewidth=0.8,
                marker=".",
                markersize=3.0,
                markeredgewidth=0,
                zorder=3,
            )
            name = rule if np.isnan(curve.aiq) else f"{rule}, AIQ {curve.aiq:.3f}"
            # Each line is narrower than the one before, so that equal lines all show.
            width = 1.2 + 1.2 * (len(curves) - 1 - n)
            _hull(axes, curve.hull, first, look.colour, "-", width, name)
        lines = [np.column_stack([c.cost_usd, c.score]) for c in curves.values()]
        _zero_router(axes, first, np.vstack(lines))
        legend_below(axes, columns=2)
        return figure


def cascades(found: Sequence[Cascade], zero: CostQuality) -> Figure:
    """Score against cost over all thresholds, and the zero router of the same prompts."""
    cheap = list(dict.fromkeys(cascade.cheap for cascade in found))
    short = dict(zip(cheap, short_names(cheap, 26), strict=True))
    with paper():
        figure, (axes,) = new_figure(5.0, 3.7)
        for cascade in found:
            x, y = _mixed(cascade.cost_usd, cascade.score, zero)
            axes.plot(
                PER_PROMPTS * x,
                y,
                color=COLOURS[cheap.index(cascade.cheap) % len(COLOURS)],
                linestyle=JUDGES[cascade.judge],
                linewidth=1.2,
                zorder=3,
                label=f"{short[cascade.cheap]}, {cascade.judge}",
            )
        lines = [np.column_stack([c.cost_usd, c.score]) for c in found]
        _zero_router(axes, zero, np.vstack(lines))
        legend_below(axes, columns=2)
        return figure


def _zero_router(axes: Axes, zero: CostQuality, drawn: NDArray[np.float64]) -> None:
    """Draw the single models and their hull, names beside the points already drawn."""
    from matplotlib.patheffects import withStroke

    low, high = (PER_PROMPTS * end for end in zero.cost_range)
    name = "zero router" + ("" if np.isnan(zero.zero_aiq) else f", AIQ {zero.zero_aiq:.3f}")
    _hull(axes, zero.zero_hull, zero, BLACK, (0, (4, 2)), 1.0, name)
    costs = PER_PROMPTS * zero.model_cost_usd
    axes.scatter(costs, zero.model_score, s=14, color=BLACK, marker="D", linewidths=0, zorder=3)
    efficient = {tuple(vertex) for vertex in zero.zero_hull.tolist()}
    points = zip(zero.model_cost_usd.tolist(), zero.model_score.tolist(), strict=True)
    named = [len(costs) <= MOST_NAMES or point in efficient for point in points]
    wide = _is_wide(zero)
    if wide:
        axes.set_xscale("log")
    axes.margins(y=0.12)
    middle = float(np.sqrt(low * high)) if wide else 0.5 * (low + high)
    short = short_names(zero.models, 34)
    singles = np.column_stack([costs, zero.model_score])
    letters = np.array([len(name) for name in short])
    others = drawn * [PER_PROMPTS, 1.0]
    drops = _drops(axes, costs > middle, singles, np.array(named), letters, others)
    for i in np.flatnonzero(named):
        right = costs[i] > middle
        axes.annotate(
            short[i],
            (costs[i], zero.model_score[i]),
            (-5 if right else 5, drops[i]),
            textcoords="offset points",
            va="center",
            ha="right" if right else "left",
            fontsize=6.5,
            zorder=5,
            path_effects=[withStroke(linewidth=2.5, foreground="white")],
        )
    axes.set_xlabel(f"mean cost of {PER_PROMPTS:,} prompts, US$")
    axes.set_ylabel(f"mean {zero.metric}")


def _drops(
    axes: Axes,
    right: NDArray[np.bool_],
    singles: NDArray[np.float64],
    named: NDArray[np.bool_],
    letters: NDArray[np.int64],
    drawn: NDArray[np.float64],
) -> NDArray[np.float64]:
    """How far, in points, each model's name stands above its point, so that names do not overlap.

    A name goes below its point, or above it where it hides fewer of the drawn points.
    """
    axes.get_xlim(), axes.get_ylim()  # brings the transforms up to date
    size = np.array([AXES_WIDTH, AXES_POINTS])
    to_axes = axes.transScale + axes.transLimits
    at, others = size * to_axes.transform(singles), size * to_axes.transform(drawn)
    drops = np.zeros(len(at))
    for side, sign in ((right & named, -1.0), (~right & named, 1.0)):
        members = np.flatnonzero(side)
        if not len(members):
            continue
        along = sign * (others[None, :, 0] - at[members, None, 0])
        above = others[None, :, 1] - at[members, None, 1]
        beside = (along > 2.0) & (along < 8.0 + LETTER * letters[members, None])
        hidden = [(beside & (np.abs(above - shift) < 5.0)).sum(axis=1) for shift in (-7.0, 7.0)]
        shifts = np.where(hidden[1] < hidden[0], 7.0, -7.0)
        wanted = (at[members, 1] + shifts) / AXES_POINTS
        order = np.argsort(wanted, kind="stable")
        places = AXES_POINTS * spread(wanted[order], 8 / AXES_POINTS)
        drops[members[order]] = places - at[members[order], 1]
    return drops


def _is_wide(zero: CostQuality) -> bool:
    """Whether the single models' costs lie so far apart that their axis is logarithmic."""
    low, high = zero.cost_range
    return low > 0 and high / low > WIDE


def _mixed(
    cost: NDArray[np.float64], score: NDArray[np.float64], zero: CostQuality
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Points with interpolated ones between them where the axis is logarithmic."""
    if not _is_wide(zero):
        return cost, score
    n = len(cost)
    at = np.linspace(0, n - 1, 1 + (n - 1) * -(-CURVED // n))
    return np.interp(at, np.arange(n), cost), np.interp(at, np.arange(n), score)


def _hull(
    axes: Axes,
    hull: NDArray[np.float64],
    zero: CostQuality,
    colour: str,
    line: object,
    width: float,
    name: str,
) -> None:
    """Draw a hull, flat from its last vertex to the dearest model."""
    x, y = _mixed(
        np.append(hull[:, 0], max(zero.cost_range[1], hull[-1, 0])),
        np.append(hull[:, 1], hull[-1, 1]),
        zero,
    )
    axes.plot(
        PER_PROMPTS * x,
        y,
        color=colour,
        linestyle=line,
        linewidth=width,
        solid_capstyle="butt",
        label=name,
    )


def reliability(calibration: Mapping[str, Mapping[str, Reliability]]) -> Figure:
    """Observed against predicted chance of success, a panel for each key of the inner dicts."""
    panels = list(next(iter(calibration.values())))
    with paper():
        width = PAGE_IN if len(panels) > 1 else COLUMN_IN
        figure, axes = new_figure(width, 3.9, 1, len(panels), sharey=True)
        for panel, over in zip(axes, panels, strict=True):
            panel.plot([0, 1], [0, 1], color=GREY, linewidth=0.8, linestyle=(0, (4, 2)))
            for rule, curves in calibration.items():
                look = look_of(rule)
                curve = curves[over]
                panel.plot(
                    curve.predicted,
                    curve.observed,
                    color=look.colour,
                    marker=look.marker or "o",
                    linestyle="-" if np.median(curve.count) >= JOINED else "",
                    linewidth=1.1,
                    label=f"{rule}, ECE {curve.ece:.3f}",
                )
            panel.set_title(over)
            panel.set_xlabel("predicted chance of success")
            reached = [c[over].predicted for c in calibration.values()]
            low, high = np.min([r.min() for r in reached]), np.max([r.max() for r in reached])
            panel.set_xlim(min(0.0, low) - 0.03, max(1.0, high) + 0.03)
            panel.set_ylim(-0.03, 1.03)
            legend_below(panel)
        axes[0].set_ylabel("observed")
        return figure
