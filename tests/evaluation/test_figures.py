"""Figures: what they draw are the numbers of the tables, at a paper's size."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from evaluations import awkward_tables, small_evaluation
from numpy.testing import assert_allclose
from prompt_results import make_results

from benchrouter.evaluation.evaluate import evaluate
from benchrouter.evaluation.prompts.calibration import Reliability
from benchrouter.evaluation.prompts.cascades import cascades
from benchrouter.evaluation.prompts.costs import cost_quality
from benchrouter.evaluation.report.figures.style import (
    LOOKS,
    PAGE_IN,
    look_of,
    paper,
    short_names,
    spread,
)
from benchrouter.evaluation.report.outline import Picture, sections

pytest.importorskip("matplotlib")
from benchrouter.evaluation.report.figures import prompt_figures, task_figures

LEAST_POINTS = 6.0  # of letters


@pytest.fixture(scope="module")
def evaluation():
    return small_evaluation(costs=True)


def pictures(evaluation):
    return [p for s in sections(evaluation) for p in s.content if isinstance(p, Picture)]


def lines_by_label(axes):
    return {line.get_label(): line for line in axes.get_lines()}


def test_every_figure_fits_a_paper(evaluation):
    found = pictures(evaluation)
    assert [p.name for p in found] == [
        "accuracy-by-labels-pool1",
        "estimate-of-p-pool1",
        "scores-against-accuracy-pool1",
        "chosen-models-pool1",
        *(
            f"{name}-{protocol}"
            for protocol in ("random-split", "leave-one-dataset-out")
            for name in ("sparsity", "cost-quality", "cascades", "reliability")
        ),
    ]
    from matplotlib.text import Text

    for picture in found:
        figure = picture.draw()
        width, height = figure.get_size_inches()
        assert 3.3 <= width <= PAGE_IN, picture.name
        assert 1.0 <= height <= 9.0, picture.name
        sizes = [t.get_fontsize() for t in figure.findobj(Text) if t.get_text()]
        assert min(sizes) >= LEAST_POINTS, picture.name


def test_lines_over_labels_are_the_macro_accuracies(evaluation):
    tasks = evaluation.pools[0].tasks
    figure = task_figures.accuracy_by_labels(tasks)
    for axes, nesting in zip(figure.axes, tasks.nestings, strict=True):
        assert axes.get_title(loc="left") == f"{nesting} nesting"
        drawn = [line.get_ydata() for line in axes.get_lines()]
        expected = [
            [tasks.macro_accuracy(nesting, rule, i) for i in range(2)]
            for rule in tasks.picks[nesting]
        ]
        for values in drawn:
            assert any(np.allclose(values, e) for e in expected)
        names = {t.get_text() for t in axes.texts}
        below = axes.get_xlabel()
        for rule in tasks.picks[nesting]:
            assert rule in names or f"{rule} 0." in below


def test_lines_over_changing_datasets_are_named(evaluation):
    def caption(found):
        return next(p.caption for p in pictures(found) if p.name == "accuracy-by-labels-pool1")

    assert caption(evaluation).endswith("run in strict nesting only.")
    tasks = evaluation.pools[0].tasks
    accuracy = tasks.accuracy.copy()
    accuracy[0, 1] = np.nan  # with labels nothing is known of dataset 0
    pool = replace(evaluation.pools[0], tasks=replace(tasks, accuracy=accuracy))
    assert (
        "fall out of its mean, so these lines jump where their number changes, of 4: BMA (strict), "
        "3 to 4; S1 (strict), 3 to 4;"
    ) in caption(replace(evaluation, pools=(pool,)))


def test_counts_of_chosen_models(evaluation):
    tasks = evaluation.pools[0].tasks
    (axes,) = task_figures.chosen_models(tasks).axes
    rules = list(tasks.picks["strict"])
    texts = [t.get_text() for t in axes.texts]
    counts = [Counter(tasks.picks["strict"][r][:, 0, 0].tolist()) for r in rules]
    expected = sorted(str(n) for count in counts for n in count.values())
    sizes = [f"{tasks.params_b[tasks.picks['strict'][r][:, 0, 0]].mean():.1f}" for r in rules]
    assert sorted(texts) == sorted(expected + sizes)


def test_reliability_and_hulls_are_drawn_as_measured(evaluation):
    protocol = evaluation.prompts[0]
    figure = prompt_figures.reliability(protocol.calibration)
    for axes, over in zip(figure.axes, ("every model", "the chosen model"), strict=True):
        drawn = lines_by_label(axes)
        for rule, curves in protocol.calibration.items():
            line = drawn[f"{rule}, ECE {curves[over].ece:.3f}"]
            assert_allclose(line.get_xdata(), curves[over].predicted)
            assert_allclose(line.get_ydata(), curves[over].observed)
            joined = np.median(curves[over].count) >= 400
            assert line.get_linestyle() == ("-" if joined else "None")
    (axes,) = prompt_figures.cost_quality(protocol.costs).axes
    drawn = lines_by_label(axes)
    for rule, curve in protocol.costs.items():
        line = drawn[f"{rule}, AIQ {curve.aiq:.3f}"]
        assert_allclose(line.get_xdata()[:-1], 1000 * curve.hull[:, 0])
        assert_allclose(line.get_ydata()[:-1], curve.hull[:, 1])
        assert line.get_ydata()[-1] == curve.hull[-1, 1]  # flat beyond its last vertex
    # equal hulls are seen one upon the other, and the curves over λ are lines of their own
    lines = axes.get_lines()
    assert [round(line.get_linewidth(), 9) for line in lines] == [
        *(0.8, 4.8, 0.8, 3.6, 0.8, 2.4, 0.8, 1.2, 1.0)
    ]
    for line, curve in zip(lines[:8:2], protocol.costs.values(), strict=True):
        assert_allclose(line.get_xdata(), 1000 * curve.cost_usd)
        assert_allclose(line.get_ydata(), curve.score)


def test_cascades_are_drawn_as_measured(evaluation):
    protocol = evaluation.prompts[0]
    (axes,) = prompt_figures.cascades(protocol.cascades, protocol.costs["auto"]).axes
    drawn = lines_by_label(axes)
    styles = set()
    for cascade in protocol.cascades:
        line = drawn[f"{cascade.cheap}, {cascade.judge}"]
        assert_allclose(line.get_xdata(), 1000 * cascade.cost_usd)
        assert_allclose(line.get_ydata(), cascade.score)
        styles.add((line.get_color(), line.get_linestyle()))
    assert len(styles) == len(protocol.cascades) >= 2
    zero = drawn[f"zero router, AIQ {protocol.cascades[0].zero_aiq:.3f}"]
    assert_allclose(zero.get_ydata()[:-1], protocol.costs["auto"].zero_hull[:, 1])


def test_the_report_shows_each_protocols_cascades_and_curves_beside_the_zero_router(evaluation):
    shown = {p.name: p for p in pictures(evaluation)}
    for protocol in evaluation.prompts:
        key = protocol.results.protocol.replace(" ", "-")
        (axes,) = shown[f"cascades-{key}"].draw().axes
        names = {f"{c.cheap}, {c.judge}" for c in protocol.cascades}
        zero = f"zero router, AIQ {protocol.cascades[0].zero_aiq:.3f}"
        assert names | {zero} <= set(lines_by_label(axes))
        (axes,) = shown[f"cost-quality-{key}"].draw().axes
        names = {f"{rule}, AIQ {curve.aiq:.3f}" for rule, curve in protocol.costs.items()}
        assert names | {zero} <= set(lines_by_label(axes))


def test_mixes_of_two_models_bend_where_the_axis_is_logarithmic():
    results = make_results(
        [[0, 1], [1, 1]],
        {"BMA": [1, 1]},
        predicted={"auto": [[0.4, 0.9], [0.6, 0.9]]},
        cost_usd=np.array([[1e-3, 1e-1]] * 2, np.float32),
        expected_cost_usd=np.array([[1e-3, 1e-1]]),
    )
    curves = {"auto": cost_quality(results, "auto")}
    found = cascades(results, curves["auto"])
    for figure in (
        prompt_figures.cost_quality(curves),
        prompt_figures.cascades(found, curves["auto"]),
    ):
        (axes,) = figure.axes
        assert axes.get_xscale() == "log"
        zero = lines_by_label(axes)[f"zero router, AIQ {curves['auto'].zero_aiq:.3f}"]
        assert len(zero.get_xdata()) > 100
        assert_allclose(zero.get_ydata(), np.interp(zero.get_xdata(), [1, 100], [0.5, 1]))


def test_lines_join_large_bins_only():
    sizes = {"every model": 400, "the chosen model": 399}
    bins = {
        over: Reliability(np.array([0.2, 0.8]), np.array([0.3, 0.7]), np.array([n, n]), 0.1, 0.6)
        for over, n in sizes.items()
    }
    figure = prompt_figures.reliability({"mean": bins})
    styles = [lines_by_label(a)["mean, ECE 0.100"].get_linestyle() for a in figure.axes]
    assert styles == ["-", "None"]


def test_a_models_name_does_not_hide_a_curve():
    # Two models; the curve leads from the cheap one down and to the right, where names stand.
    singles = np.array([[1.0, 0.7], [2.0, 0.5]])
    curve = np.column_stack([np.linspace(1.0, 1.3, 20), np.linspace(0.7, 0.65, 20)])
    figure = prompt_figures.new_figure(5.0, 3.7)[0]
    axes = figure.axes[0]
    axes.set_xlim(0.9, 2.1)
    axes.set_ylim(0.45, 0.75)
    right, named = np.array([False, True]), np.array([True, True])
    letters = np.array([10, 10])
    drops = prompt_figures._drops(axes, right, singles, named, letters, curve)
    assert_allclose(drops, [7, -7])  # points: above the one, below the other
    assert_allclose(prompt_figures._drops(axes, right, singles, named, letters, singles), [-7, -7])


def test_means_over_few_prompts_are_not_drawn(evaluation):
    curve = evaluation.prompts[1].sparsity
    top, bottom = prompt_figures.sparsity(curve).axes
    enough = curve.limits[curve.count >= prompt_figures.FEW]
    for line in top.get_lines():
        assert set(line.get_xdata().round(9)) <= set(enough.round(9))
    black = [line for line in top.get_lines() if line.get_color() == LOOKS["BMA"].colour]
    assert [line.get_zorder() for line in black] == [3]  # dashes upon what they would lie under
    assert {line.get_zorder() for line in top.get_lines() if line not in black} == {2}
    assert [bar.get_height() for bar in bottom.patches] == curve.count.tolist()


@pytest.mark.parametrize("name", awkward_tables())
@pytest.mark.filterwarnings("error")
def test_awkward_tables_can_be_drawn(name):
    from evaluations import QUICK

    table, rows = awkward_tables()[name]
    for picture in pictures(evaluate(table, rows, settings=QUICK, threads=1)):
        picture.draw().canvas.draw()


@pytest.mark.parametrize(
    ("wanted", "gap", "found"),
    [
        ([0.5], 0.1, [0.5]),
        ([0.2, 0.8], 0.1, [0.2, 0.8]),
        ([0.5, 0.5], 0.1, [0.45, 0.55]),
        ([0.5, 0.5, 0.52], 0.1, [0.406667, 0.506667, 0.606667]),
        ([0.2, 0.9, 0.9], 0.2, [0.2, 0.8, 1.0]),
        ([0.0, 0.0], 0.1, [0.0, 0.1]),
    ],
)
def test_names_are_spread(wanted, gap, found):
    assert_allclose(spread(np.array(wanted), gap), found, atol=1e-6)


def test_short_names_keep_what_differs():
    assert short_names(("a-1", "a-2"), 8) == ["a-1", "a-2"]
    long = [f"some-organisation/model-v{i}-instruct" for i in (1, 2)]
    assert short_names(long, 14) == ["…v1-instruct", "…v2-instruct"]
    assert short_names(long, 8) == ["…v1-i…ct", "…v2-i…ct"]
    assert short_names(["high_school_biology", "prehistory"], 12) == ["high_sc…logy", "prehistory"]
    assert short_names(["one very long name", "one very long name"], 9) == ["one v…ame"] * 2


def test_every_rule_has_a_look_and_keeps_it():
    assert look_of("S1") is LOOKS["S1"]
    assert look_of("a new rule") == look_of("a new rule")
    distinct = {(look.colour, look.marker, look.line) for look in LOOKS.values()}
    of_tasks = ("BMA", "S1", "S2", "S3", "S3 with fallback", "S3 true p", "auto", "labels", "LL")
    assert len({(LOOKS[r].colour, LOOKS[r].marker) for r in of_tasks}) == len(of_tasks)
    assert len(distinct) >= 14


def test_settings_of_the_user_are_left_alone():
    import matplotlib as mpl

    mpl.rcParams["font.size"] = 31.0
    try:
        with paper():
            assert mpl.rcParams["font.size"] == 8
        assert mpl.rcParams["font.size"] == 31.0
    finally:
        mpl.rcdefaults()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r"pip install 'benchrouter\[evaluate\]'"), paper():
        pass
