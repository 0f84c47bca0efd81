"""Shared by all figures: sizes and fonts of a paper, and one look for every rule."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMN_IN = 3.3  # width of a paper's column, inches
PAGE_IN = 6.9  # width of both columns
DPI = 200
GREY = "#6b6b6b"
LIGHT = "#d9d9d9"

# Okabe and Ito's colours, distinguishable with every kind of colour vision.
BLACK, ORANGE, SKY, GREEN, BLUE, VERMILION, PURPLE = (
    "#000000", "#E69F00", "#56B4E9", "#009E73", "#0072B2", "#D55E00", "#CC79A7",
)  # fmt: skip
SETTINGS: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 8.5,
    "axes.labelsize": 8,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": GREY,
    "axes.linewidth": 0.6,
    "axes.titlelocation": "left",
    "axes.titlepad": 6,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": BLACK,
    "ytick.labelcolor": BLACK,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "axes.grid": True,
    "grid.color": "#ececec",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "lines.linewidth": 1.3,
    "lines.markersize": 3.5,
    "figure.facecolor": "white",
    "savefig.facecolor": "white",
    "mathtext.fontset": "dejavusans",
    "svg.fonttype": "none",
}


@dataclass(frozen=True)
class Look:
    """Colour, marker and line of a rule."""

    colour: str
    marker: str
    line: str | tuple[int, tuple[float, ...]] = "-"
    width: float = 1.3


LOOKS = {
    "BMA": Look(BLACK, "", (0, (5, 2)), 1.2),
    "S1": Look(BLUE, "o"),
    "S2": Look(SKY, "s"),
    "S3": Look(VERMILION, "^"),
    "S3 with fallback": Look(ORANGE, "v"),
    "S3 true p": Look(PURPLE, "D", ":", 1.1),
    "auto": Look(GREEN, "*", "-", 2.0),
    "labels": Look("#8c6d31", "x"),
    "LL": Look("#7f7f7f", "P"),
    "cheapest": Look("#a6a6a6", "", (0, (1, 1.5)), 1.0),
    "random": Look("#c0c0c0", "", (0, (1, 1.5)), 1.0),
    "oracle": Look(GREY, "", "-.", 1.0),
    "mean": Look(BLUE, "o"),
    "raw": Look(SKY, "s"),
    "s3": Look(VERMILION, "^"),
    "linear regression": Look(PURPLE, "P"),
    "kNN-100": Look(ORANGE, "X"),
    "oracle per dataset": Look(GREY, "", (0, (3, 1, 1, 1)), 1.0),
}
FURTHER = (
    Look("#8c6d31", "h"), Look(PURPLE, "p"), Look(GREEN, "d"), Look("#7b4173", "<"),
    Look("#637939", ">"),
)  # fmt: skip


def look_of(rule: str) -> Look:
    """Look of a rule; an unknown rule gets one derived from its name."""
    known = LOOKS.get(rule)
    return known or FURTHER[sum(map(ord, rule)) % len(FURTHER)]


@contextmanager
def paper() -> Iterator[None]:
    """Draw figures with our sizes and fonts, whatever the user has set.

    Raises
    ------
    ImportError
        If matplotlib is not installed, with the command that brings it.
    """
    try:
        import matplotlib as mpl
    except ImportError as e:
        raise ImportError(
            "figures need matplotlib: pip install 'benchrouter[evaluate]', or --no-figures"
        ) from e
    with mpl.rc_context({**mpl.rcParamsDefault, **SETTINGS, "backend": mpl.rcParams["backend"]}):
        yield


def new_figure(
    width: float, height: float, rows: int = 1, columns: int = 1, **options: Any
) -> tuple[Figure, list[Axes]]:
    """Make a figure, in inches, and its axes row by row, without pyplot and its global state.

    `options` are those of `Figure.subplots`.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False, **options)
    return figure, list(np.ravel(axes))


def label_ends(axes: Axes, ends: dict[str, tuple[float, float]], gap: float = 0.055) -> None:
    """Write every line's name at its right end, without overlaps.

    Parameters
    ----------
    axes : Axes
    ends : dict of str to (x, y)
        Last point of each line; the names' colours are those of the rules.
    gap : float
        Least distance between two names, as a part of the axes' height.
    """
    if not ends:
        return
    low, high = axes.get_ylim()
    names = sorted(ends, key=lambda name: ends[name][1])
    wanted = np.array([(ends[name][1] - low) / (high - low) for name in names])
    places = spread(wanted, gap)
    for name, place, (x, y) in zip(names, places, (ends[n] for n in names), strict=True):
        axes.annotate(
            name,
            xy=(x, y),
            xytext=(1.03, place),
            textcoords="axes fraction",
            va="center",
            fontsize=7,
            color=_readable(look_of(name).colour),
            arrowprops={"arrowstyle": "-", "color": LIGHT, "lw": 0.6, "shrinkA": 0, "shrinkB": 2},
            annotation_clip=False,
        )


def legend_below(axes: Axes, columns: int = 1) -> None:
    """Put the legend under the axes, where it hides nothing."""
    axes.legend(
        loc="upper left",
        bbox_to_anchor=(-0.02, -0.17),
        ncols=columns,
        handletextpad=0.5,
        columnspacing=1.2,
        borderaxespad=0.0,
        markerscale=1.3,
    )


def short_names(names: Sequence[str], most: int) -> list[str]:
    """Shorten names to at most `most` letters: drop their common prefix, then their middle."""
    first, last = min(names), max(names)  # what these two share, all do
    shared = next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), 0)
    cut = 1 + max(first.rfind(separator, 0, shared) for separator in "/-_. :")
    return [_short(name, cut if cut > 3 else 0, most) for name in names]


def _short(name: str, cut: int, most: int) -> str:
    if len(name) <= most:
        return name
    text = "…" + name[cut:] if cut else name
    if len(text) <= most:
        return text
    end = most // 3
    return f"{text[: most - end - 1]}…{text[-end:]}"


def _readable(colour: str) -> str:
    """Darken what is too light for small letters."""
    from matplotlib.colors import to_hex, to_rgb

    red, green, blue = to_rgb(colour)
    light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
    factor = min(1.0, 0.42 / light) if light > 0 else 1.0
    return str(to_hex((red * factor, green * factor, blue * factor)))


def spread(wanted: NDArray[np.float64], gap: float) -> NDArray[np.float64]:
    """Places near the wanted ones, at least `gap` apart.

    Parameters
    ----------
    wanted : float64 array, shape (n,)
        Ascending.
    gap : float

    Returns
    -------
    float64 array, shape (n,)
        Ascending; groups that had to be moved keep their mean, within 0 to 1.
    """
    groups: list[list[float]] = []  # [sum of wanted starts, count]
    for i, place in enumerate(wanted):
        groups.append([place - i * gap, 1.0])
        while len(groups) > 1 and groups[-2][0] / groups[-2][1] > groups[-1][0] / groups[-1][1]:
            total, n = groups.pop()
            groups[-1][0] += total
            groups[-1][1] += n
    starts = np.concatenate([np.full(int(n), total / n) for total, n in groups])
    room = 1.0 - gap * (len(wanted) - 1)  # names stay beside the axes if there is room at all
    return np.asarray(np.clip(starts, 0.0, max(room, 0.0)) + gap * np.arange(len(wanted)))
