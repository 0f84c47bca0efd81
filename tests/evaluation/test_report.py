"""Tables and the report: what they say, that nothing is missing without a word, and the files."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from evaluations import QUICK, awkward_tables, small_evaluation, small_table
from tables import make_table

from benchrouter.evaluation.evaluate import evaluate
from benchrouter.evaluation.prompts.calibration import interval_holds
from benchrouter.evaluation.report import saved_report
from benchrouter.evaluation.report.outline import sections
from benchrouter.evaluation.report.sheets import prompt_measures, table_one
from benchrouter.evaluation.report.sheets.sheet import (
    Cell,
    Sheet,
    absent,
    interval,
    letter,
    number,
    percent,
    words,
)
from benchrouter.evaluation.report.summary import banner, notes_of, summary
from benchrouter.evaluation.report.verdicts import Verdict, verdicts
from benchrouter.evaluation.tasks.measures import Row

NAN = float("nan")


@pytest.fixture(scope="module")
def evaluation():
    return small_evaluation(pools={"all models": {}, "two models": {"max_params": 14}}, costs=True)


@pytest.fixture(scope="module")
def drawn(evaluation):
    pytest.importorskip("matplotlib")
    return saved_report.draw(evaluation)


def sheets(evaluation):
    return [s for part in sections(evaluation) for s in part.content if isinstance(s, Sheet)]


# --- cells and tables ----------------------------------------------------------------------------


def test_numbers_as_they_are_shown():
    assert number(0.47649, "").text == "0.476"
    assert number(-0.0004, "", signed=True).text == "0.000"
    assert number(-0.0014, "", signed=True).text == "−0.001"
    assert number(0.05, "", signed=True).text == "+0.050"
    assert number(12345.678, "", digits=1).text == "12,345.7"
    assert percent(0.834, "").text == "83 %"
    assert interval((-0.01, 0.034), "", signed=True).text == "−0.010 … +0.034"
    assert number(NAN, "no model ran") == number(None, "no model ran") == absent("no model ran")
    assert interval((NAN, 1.0), "one dataset").why == "one dataset"


def test_a_dash_needs_a_reason_and_a_row_its_length():
    with pytest.raises(ValueError, match="t: S1, accuracy is missing without a reason"):
        Sheet("t", "t", ("rule", "accuracy"), ((words("S1"), Cell("–")),))
    with pytest.raises(ValueError, match="t: a row has 1 cells, expected 2"):
        Sheet("t", "t", ("rule", "accuracy"), ((words("S1"),),))


def test_footnotes_are_lettered_in_the_order_of_the_cells():
    rows = (
        (words("a"), absent("none ran"), absent("no size")),
        (words("b"), absent("no size"), Cell("1", is_number=True)),
    )
    sheet = Sheet("t", "t", ("rule", "x", "y"), rows)
    assert sheet.footnotes() == ["none ran", "no size"]
    assert [[sheet.mark(cell) for cell in row] for row in rows] == [["", "a", "b"], ["", "b", ""]]
    assert [letter(i) for i in (0, 25, 26, 51, 52, 701, 702)] == [
        "a",
        "z",
        "aa",
        "az",
        "ba",
        "zz",
        "aaa",
    ]


def test_table_one_shows_the_rows_of_the_measures(evaluation):
    pool = evaluation.pools[0]
    rows = (
        Row("BMA", 0.5, (0.4, 0.6), NAN, (NAN, NAN), 0.9, NAN, NAN, 1.0, 7.0, 2.5, 8, 8),
        Row("S1", 0.55, (0.45, 0.65), 0.05, (-0.01, 0.11), 0.95, 0.8, 0.7, 0.25, NAN, 1.5, 8, 8),
        Row("oracle", 0.6, (0.5, 0.7), 0.1, (0.0, 0.2), 1.0, NAN, NAN, 0.25, 14.0, 1.0, 8, 8),
    )
    sheet = table_one.table_one(replace(pool, table_one={"strict": rows}), "strict")
    shown = [[cell.text for cell in row] for row in sheet.rows]
    assert shown == [
        ["BMA", "0.500", "0.400 … 0.600", "–", "–", "0.900", "–", "–", "100 %", "7.0", "2.50"],
        [
            *("S1", "0.550", "0.450 … 0.650", "+0.050", "−0.010 … +0.110", "0.950"),
            *("0.800", "0.700", "25 %", "–", "1.50"),
        ],
        [
            *("oracle", "0.600", "0.500 … 0.700", "+0.100", "0.000 … +0.200", "1.000"),
            *("–", "–", "25 %", "14.0", "1.00"),
        ],
    ]
    assert sheet.marked == (1,)  # the best of those that one could use
    assert sheet.footnotes()[:2] == [
        "BMA against itself",
        "this rule gives no score to every model",
    ]


def test_the_papers_table_is_labelled_as_the_papers(evaluation):
    sheet = table_one.of_the_paper()
    assert "not measured here" in sheet.title
    assert [c.text for c in sheet.rows[2]] == [
        *("S3", "0.694", "0.898", "0.727", "0.492", "48 %", "49.8", "5.31")
    ]


# --- the summary ---------------------------------------------------------------------------------


def of_rows(evaluation, rows, n_datasets=8):
    """Summarise the rows as if they had been measured on so many datasets."""
    rows = tuple(
        replace(
            row,
            n_datasets=min(row.n_datasets, n_datasets),
            n_paired=min(row.n_paired, n_datasets),
        )
        for row in rows
    )
    tasks = replace(evaluation.pools[0].tasks, datasets=tuple("abcdefgh")[:n_datasets])
    pool = replace(evaluation.pools[0], tasks=tasks, table_one={"strict": rows}, with_labels=None)
    return summary(replace(evaluation, pools=(pool,), prompts=()))[0]


BMA = Row("BMA", 0.5, (0.4, 0.6), NAN, (NAN, NAN), 0.9, NAN, NAN, 1.0, 7.0, 2.5, 8, 8)
HALF = Row(
    "oracle (split-half)", 0.6, (0.5, 0.7), 0.1, (0.0, 0.2), 1.0, NAN, NAN, NAN, NAN, NAN, 8, 8
)


def test_summary_where_routing_pays(evaluation):
    s1 = Row("S1", 0.55, (0.45, 0.65), 0.05, (0.01, 0.11), 0.95, 0.8, 0.7, 0.25, NAN, 1.5, 8, 8)
    auto = replace(s1, rule="auto", accuracy=0.54, vs_bma=0.04, vs_bma_interval=(-0.01, 0.1))
    assert of_rows(evaluation, (BMA, s1, auto, HALF)) == (
        "All models, one for each of 8 held-out datasets: routing can pay here, by a rule that is "
        "known only afterwards. S1, the best of 2 rules (as known afterwards), reached a macro "
        "accuracy of 0.550 without labels, the best model on average (BMA), 0.500: "
        "+0.050 (95 % interval +0.010 to +0.110). The default of "
        "choose, auto: 0.540, +0.040 (95 % interval −0.010 to +0.100). Ceiling (each dataset's "
        "best model, chosen on one half and scored on the other): 0.600."
    )


def test_summary_judges_by_the_default_and_by_enough_datasets(evaluation):
    s1 = Row("S1", 0.55, (0.45, 0.65), 0.05, (0.01, 0.11), 0.95, 0.8, 0.7, 0.25, NAN, 1.5, 8, 8)
    auto = replace(s1, rule="auto", accuracy=0.54, vs_bma=0.04, vs_bma_interval=(0.01, 0.1))
    assert ": routing pays here. S1" in of_rows(evaluation, (BMA, s1, auto))
    few = of_rows(evaluation, (BMA, s1, auto), n_datasets=5)
    assert "too few datasets to say whether routing pays" in few
    assert "+0.050 (too few datasets for an interval)" in few
    cheapest = replace(s1, rule="cheapest", accuracy=0.6, vs_bma=0.1)  # a model, and no routing
    assert "S1, the only rule, reached" in of_rows(evaluation, (BMA, s1, cheapest))
    assert "routing does not pay here" in of_rows(evaluation, (BMA, cheapest))
    assert "too few datasets" in of_rows(evaluation, (BMA, cheapest), n_datasets=3)


def test_summary_where_it_does_not_or_may_not(evaluation):
    s1 = Row("S1", 0.45, (0.4, 0.5), -0.05, (-0.1, 0.0), 0.8, 0.5, 0.5, 0.0, 3.0, 3.0, 8, 8)
    text = of_rows(evaluation, (BMA, s1, replace(HALF, accuracy=0.49, vs_bma=-0.01)))
    assert "routing does not pay here without labels" in text
    assert "No rule did better than the best model on average (BMA), 0.500." in text
    assert "nothing to be gained by choosing per dataset" in text
    better = replace(s1, accuracy=0.51, vs_bma=0.01, vs_bma_interval=(-0.02, 0.04))
    assert "routing may pay here, but the interval" in of_rows(evaluation, (BMA, better))
    unsure = replace(better, vs_bma_interval=(NAN, NAN))
    assert "too few datasets to say whether routing pays" in of_rows(evaluation, (BMA, unsure))


def test_summary_compares_over_the_same_datasets(evaluation):
    s1 = Row("S1", 0.665, (NAN, NAN), 0.045, (NAN, NAN), 1, NAN, NAN, 0.5, NAN, 1.5, 2, 2)
    s2 = replace(s1, rule="S2", accuracy=0.6, vs_bma=0.015, n_datasets=4, n_paired=4)
    bma = replace(BMA, accuracy=0.585, n_datasets=4, n_paired=4)
    half = replace(HALF, accuracy=0.64, vs_bma=0.06, n_datasets=3, n_paired=3)
    text = of_rows(evaluation, (bma, s1, s2, half), n_datasets=4)
    assert (
        "S1, the best of 2 rules (as known afterwards), reached a macro accuracy of 0.665 (over 2 "
        "of 4 datasets) without labels, the best model on average (BMA), 0.585: +0.045 on the 2 "
        "datasets on which both were run (too few datasets for an interval)."
    ) in text
    assert text.endswith("on the other): 0.640 (over 3 of 4 datasets).")
    # The larger mean is not the larger gain: it may be one over easier datasets.
    text = of_rows(evaluation, (bma, replace(s1, vs_bma=-0.01), s2), n_datasets=4)
    assert "S2, the best of 2 rules (as known afterwards), reached a macro accuracy of 0.6" in text
    assert "0.585: +0.015 (too few datasets for an interval)." in text


def test_summary_is_silent_about_labels_that_are_none(evaluation):
    pool = evaluation.pools[0]
    few = replace(pool.tasks, n_labels=np.zeros_like(pool.tasks.n_labels))
    with_labels = summary(evaluation)[0]
    assert "With 10 % labels (at most 2 a dataset)" in with_labels
    without = summary(replace(evaluation, pools=(replace(pool, tasks=few),)))[0]
    assert with_labels.startswith(without) and "labels (at most" not in without


def test_summary_of_single_prompts_where_the_best_is_no_better_than_bma(evaluation):
    protocol = evaluation.prompts[0]
    rows = [row for row in protocol.rows if row.rule in ("auto", "raw", "BMA", "random", "oracle")]
    equal = {"score": 0.0}, {"score": (0.0, 0.0)}
    rows = [
        replace(row, vs_bma=equal[0], vs_bma_interval=equal[1]) if row.rule == "raw" else row
        for row in rows
    ]
    worse = {"score": -0.1}
    rows = [replace(row, vs_bma=worse) if row.rule == "auto" else row for row in rows]
    best = {"score": 0.2}, {"score": (0.1, 0.3)}
    rows.append(
        replace(rows[-1], rule="oracle per dataset", vs_bma=best[0], vs_bma_interval=best[1])
    )
    (text,) = summary(replace(evaluation, pools=(), prompts=(replace(protocol, rows=tuple(rows)),)))
    assert text.endswith(
        ": −0.100 (too few datasets for an interval). No rule did better than BMA."
    )


# --- the banner ----------------------------------------------------------------------------------


def judged(evaluation, gains, *, n_datasets=8, task=None):
    """Lines for (gain, low, high) of auto: a random split, a dataset left out; of tasks: `task`."""
    prompts = []
    for protocol, (gain, low, high) in zip(evaluation.prompts, gains, strict=False):
        rows = [
            replace(
                row,
                vs_bma={"score": gain if row.rule == "auto" else -0.02},
                vs_bma_interval={"score": (low, high) if row.rule == "auto" else (-0.03, -0.01)},
                n_paired=n_datasets,
                gap_closed=0.4 if row.rule == "auto" else -0.1,
            )
            for row in protocol.rows
        ]
        picks = {**protocol.results.picks, "BMA": np.array([2, 0, 2, 1], np.int32)}
        results = replace(protocol.results, picks=picks)
        prompts.append(replace(protocol, rows=tuple(rows), results=results))
    pools = ()
    if task is not None:
        (gain, low, high), pool = task, evaluation.pools[0]
        auto = replace(BMA, rule="auto", vs_bma=gain, vs_bma_interval=(low, high), n_paired=8)
        picks = {"strict": {"BMA": np.array([1, 1, 0])}}
        pools = (
            replace(
                pool,
                table_one={"strict": (auto,)},
                tasks=replace(pool.tasks, picks=picks),
                with_labels=(1, (replace(auto, vs_bma=0.05, vs_bma_interval=(0.02, 0.08)),)),
            ),
        )
    return replace(evaluation, prompts=tuple(prompts), pools=pools)


def test_the_banner_where_routing_pays(evaluation):
    found = judged(evaluation, [(0.0312, 0.0104, 0.0521), (0.02, 0.001, 0.04)])
    assert banner(found) == [
        "Does routing pay here? Yes for prompts of known datasets and prompts of a new dataset.",
        "Prompts of known datasets: the rule auto gains 0.031 against always using model 2 (95 % "
        "interval +0.010 to +0.052, 8 datasets), 40 % of what the best model of each dataset "
        "gains.",
        "Prompts of a new dataset: the rule auto gains 0.020 against always using model 2 (95 % "
        "interval +0.001 to +0.040, 8 datasets), 40 % of what the best model of each dataset "
        "gains.",
        "What to do: use the defaults for prompts of known datasets and prompts of a new dataset.",
    ]


def test_the_banner_where_it_may_not_and_what_to_do_then(evaluation):
    gains = [(0.0312, 0.0104, 0.0521), (0.004, -0.003, 0.011)]
    found = judged(evaluation, gains, task=(0.0, 0.0, 0.0))
    assert banner(found) == [
        "Does routing pay here? Yes for prompts of known datasets; not sure for prompts of a new "
        "dataset; no for whole tasks.",
        banner(judged(evaluation, gains))[1],
        "Prompts of a new dataset: the rule auto gains 0.004 against always using model 2 (95 % "
        "interval −0.003 to +0.011, 8 datasets), 40 % of what the best model of each dataset "
        "gains. The interval includes 0: it may be chance.",
        "Whole tasks, one model for a new dataset: the rule auto stays with model 1, the best "
        "model on average; nothing is gained or lost.",
        "What to do: use the defaults for prompts of known datasets. For prompts of a new dataset "
        "the safe choice is model 2, the best model on average. For whole tasks the safe choice is "
        "model 1, the best model on average. Add records like your own prompts to the benchmark: "
        "then they are known. Or label 20 prompts of the task: benchrouter choose "
        "--suggest-labels 20 says which (here at most 2 labels a dataset gained 0.050).",
    ]


def test_the_banner_where_it_loses_or_nothing_can_be_said(evaluation):
    lost = judged(evaluation, [(-0.01, -0.02, -0.004)])
    title, line, advice = banner(lost)
    assert title == "Does routing pay here? No for prompts of known datasets."
    assert "the rule auto loses 0.010 against always using model 2" in line
    assert advice == (
        "What to do: for prompts of known datasets the safe choice is model 2, the best model on "
        "average."
    )
    few = banner(judged(evaluation, [(0.03, 0.01, 0.05)], n_datasets=5))
    assert few[0] == "Does routing pay here? Too few datasets to say for prompts of known datasets."
    assert (
        "gains 0.030 against always using model 2 (5 datasets, too few for an interval)" in few[1]
    )
    assert banner(replace(evaluation, prompts=(), pools=())) == []


def test_the_banner_asks_for_nothing_that_did_not_help(evaluation):
    lost, nothing = (-0.01, -0.02, -0.004), (0.0, 0.0, 0.0)
    found = judged(evaluation, [lost, lost], task=nothing)
    assert "label 20 prompts" in banner(found)[-1] and "Add records" not in banner(found)[-1]
    index, (auto,) = found.pools[0].with_labels
    worse = replace(auto, vs_bma=-0.003, vs_bma_interval=(-0.01, 0.002))
    pool = replace(found.pools[0], with_labels=(index, (worse,)))
    assert "label" not in banner(replace(found, pools=(pool,)))[-1]
    unsure = replace(auto, vs_bma_interval=(-0.01, 0.12))
    pool = replace(found.pools[0], with_labels=(index, (unsure,)))
    assert banner(replace(found, pools=(pool,)))[-1].endswith("--suggest-labels 20 says which.")


def test_the_banner_names_a_rule_that_surely_gained(evaluation):
    unsure = judged(evaluation, [(0.004, -0.003, 0.011)])
    rows = tuple(
        replace(row, vs_bma={"score": 0.03}, vs_bma_interval={"score": (0.01, 0.05)})
        if row.rule in ("mean", "kNN-100")  # the second is no rule that can be asked for
        else row
        for row in unsure.prompts[0].rows
    )
    better = replace(unsure, prompts=(replace(unsure.prompts[0], rows=rows),))
    assert banner(better)[1].endswith("Of the other rules mean gained, known only afterwards.")
    (verdict,) = verdicts(better)
    assert verdict == Verdict(
        *("prompts of known datasets", "not sure", "auto", 0.004, -0.003, 0.011, 8, "model 2"),
        gap_closed=0.4,
        better=("mean",),
    )
    assert verdict.to_dict()["better"] == ["mean"]


# --- means over fewer datasets, and reasons ------------------------------------------------------


@pytest.fixture(scope="module")
def gappy():
    """Four datasets; model 2, the best, was not run on the first two."""
    table, rows = small_table(n_models=3)
    scores = np.where(np.arange(3) == 2, 1.0, table.scores).astype(np.float32)
    scores[table.dataset < 2, 2] = np.nan
    return evaluate(make_table(scores, table.dataset), rows, settings=QUICK, threads=1)


def cells_of(sheet):
    """Cells by the row's name and the column's."""
    return {row[0].text: dict(zip(sheet.columns, row, strict=True)) for row in sheet.rows}


def test_means_over_fewer_datasets_are_footnoted(gappy):
    (pool,) = gappy.pools
    rows = {row.rule: row for row in pool.table_one["strict"]}
    accuracy = pool.tasks.accuracy_of("strict", "S1")[:, 0]
    known = int((~np.isnan(accuracy)).any(axis=1).sum())
    assert (rows["S1"].n_datasets, known < 4) == (known, True)
    assert rows["oracle"].n_datasets == 4
    why = f"over {known} of 4 datasets: the chosen model was not run on the others"
    cells = cells_of(table_one.table_one(pool, "strict"))
    assert cells["S1"]["accuracy"].text == f"{rows['S1'].accuracy:.3f}"
    assert cells["S1"]["accuracy"].why == why
    assert cells["oracle"]["accuracy"].why == ""
    by_labels = next(s for s in sheets(gappy) if s.name == "labels-pool1-strict")
    assert cells_of(by_labels)["S1"]["α = 0"] == cells["S1"]["accuracy"]
    notes = notes_of(gappy)
    assert any(
        note.startswith("Model model 2 was not run on dataset 0, dataset 1:") for note in notes
    )


def test_the_row_in_bold_has_the_largest_gain_over_bma(evaluation):
    high = Row("S1", 0.9, (NAN, NAN), -0.05, (NAN, NAN), 1, NAN, NAN, 0, NAN, 1, 1, 1)
    best = replace(high, rule="S2", accuracy=0.55, vs_bma=0.05, n_datasets=8, n_paired=8)
    pool = replace(evaluation.pools[0], table_one={"strict": (BMA, high, best)})
    assert table_one.table_one(pool, "strict").marked == (2,)
    pool = replace(pool, table_one={"strict": (BMA, high, replace(best, vs_bma=-0.01))})
    assert table_one.table_one(pool, "strict").marked == (0,)


def test_what_auto_reached_is_its_macro_accuracy_in_both_tables(gappy):
    found = {sheet.name: cells_of(sheet) for sheet in sheets(gappy)}
    for share in ("α = 0", "α = 0.1"):
        reached = found["expectations-pool1"][share]["reached"]
        assert reached == found["labels-pool1-strict"]["auto"][share]


def test_reached_is_a_mean_over_draws_then_over_datasets(evaluation):
    tasks = evaluation.pools[0].tasks
    accuracy = np.full((4, 2, 2, 3), NAN)
    accuracy[0, 1, :] = 1.0  # both draws of dataset 0, one of dataset 1
    accuracy[1, 1, 0] = 0.5
    pool = replace(evaluation.pools[0], tasks=replace(tasks, accuracy=accuracy))
    found = {sheet.name: cells_of(sheet) for sheet in sheets(replace(evaluation, pools=(pool,)))}
    reached = found["expectations-pool1"]["α = 0.1"]["reached"]
    assert reached.text == found["labels-pool1-strict"]["auto"]["α = 0.1"].text == "0.750"
    assert reached.why.startswith("over 2 of 4 datasets: ")


def test_two_datasets_leave_the_estimate_of_p_unknown():
    table, rows = awkward_tables()["two datasets"]
    (pool,) = evaluate(table, rows, experiments=["tasks"], settings=QUICK, threads=1).pools
    cells = cells_of(table_one.table_one(pool, "strict"))
    why = (
        "p̂ of a held-out dataset is learned from at least two others on which models were run; "
        "the table has 2 datasets"
    )
    for rule in ("S3", "S3 with fallback"):
        assert (cells[rule]["Pearson"].text, cells[rule]["Pearson"].why) == ("–", why)
    assert cells["S3 true p"]["Pearson"].why != why
    assert cells["S1"]["95 %"].why == "over 2 datasets: an interval needs at least 6"
    assert cells["S1"]["95 % of that"].why == "over 2 datasets: an interval needs at least 6"


def test_an_interval_takes_six_datasets(evaluation):
    rows = [
        Row("S1", 0.5, (0.4, 0.6), 0.1, (0.0, 0.2), 1, NAN, NAN, 0, NAN, 1, n, n)
        for n in (0, 1, 5, 6)
    ]
    nothing = replace(rows[0], accuracy=NAN, accuracy_interval=(NAN, NAN))
    pool = replace(evaluation.pools[0], table_one={"strict": (nothing, *rows[1:])})
    shown = [row[2] for row in table_one.table_one(pool, "strict").rows]
    assert [cell.text for cell in shown] == ["–", "–", "–", "0.400 … 0.600"]
    assert [cell.why for cell in shown] == [
        "the chosen model has no score on any held-out dataset",
        "over 1 dataset: an interval needs at least 6",
        "over 5 datasets: an interval needs at least 6",
        "",
    ]


def test_costs_of_nothing_have_their_own_reason():
    table, rows = small_table(costs=True)
    free = replace(table, cost_usd=np.zeros_like(table.cost_usd))
    found = evaluate(free, rows, experiments=["prompts"], settings=QUICK, threads=1)
    cells = cells_of(next(s for s in sheets(found) if s.name == "costs-random-split"))
    assert cells["mean"]["AIQ"].why == "all models cost the same"
    assert cells["mean"]["CostSave"].why == "the best single model costs nothing"
    assert cells["mean"]["PerfGain"].why == ""


def test_cascades_stand_beside_the_zero_router(evaluation):
    sheet = next(s for s in sheets(evaluation) if s.name == "cascades-table-random-split")
    protocol = evaluation.prompts[0]
    assert len(sheet.rows) == len(protocol.cascades)
    for row, cascade in zip(sheet.rows, protocol.cascades, strict=True):
        assert (row[0].text, row[1].text) == (cascade.cheap, cascade.judge)
        assert row[2].text == f"{cascade.aiq:.3f}"
    assert "log-likelihood" not in dict(sheet.definitions)
    document = json.loads(saved_report.to_json(evaluation), parse_constant=pytest.fail)
    found = document["prompts"][0]["cascades"][0]
    assert found["thresholds"][-1] is None  # infinite: all are escalated
    assert found["escalated"][0] == 0 and found["escalated"][-1] == pytest.approx(1)
    # The zero router is the same as that of the curves over λ.
    assert found["zero_aiq"] == document["prompts"][0]["costs"]["mean"]["zero_aiq"]


def test_calibration_shows_the_chance_of_auto_beside_the_standings(evaluation):
    for protocol in evaluation.prompts:
        sheet = prompt_measures.calibration(protocol)
        at = {row[0].text: row for row in sheet.rows}
        assert set(at) == {"auto", "mean", "s3", "linear regression", "kNN-100", "BMA"}
        losses = [i for i, name in enumerate(sheet.columns) if name.startswith("log loss")]
        assert [sheet.columns[i] for i in losses] == ["log loss, all", "log loss, chosen"]
        for rule in ("auto", "BMA"):
            found = protocol.calibration[rule]["every model"].log_loss
            assert at[rule][losses[0]].text == f"{found:.3f}"
        holds = int(interval_holds(protocol.results).sum())
        assert sheet.caption.endswith(
            f"holds the success rate of its choices on {holds} of 4 datasets."
        )


def test_gains_are_called_after_what_they_are_ratios_of(evaluation):
    table, rows = awkward_tables()["no threshold"]
    found = evaluate(table, rows, experiments=["prompts"], settings=QUICK, threads=1)
    for made, what in ((evaluation, "accuracies"), (found, "scores")):
        sheet = next(s for s in sheets(made) if s.name == "gains-random-split")
        assert sheet.caption == f"Means over datasets of ratios of {what} (arXiv 2601.07206)."


def test_what_was_not_asked_for_is_said(evaluation):
    assert (
        "Small edits of the prompt are not measured: they were not asked for (--robustness N, in "
        "Python robustness=N)."
    ) in notes_of(evaluation)


# --- the page ------------------------------------------------------------------------------------


class Page(HTMLParser):
    """What is on a page, and whether every tag is closed in order."""

    VOID = ("meta", "img", "br", "link")

    def __init__(self, text):
        super().__init__()
        self.open, self.ids, self.links, self.sources, self.alts, self.words = (
            [],
            [],
            [],
            [],
            [],
            [],
        )
        self.scripts = 0
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        values = dict(attributes)
        if tag not in self.VOID:
            self.open.append(tag)
        if "id" in values:
            self.ids.append(values["id"])
        if "href" in values:
            self.links.append(values["href"])
        if tag == "img":
            self.sources.append(values["src"])
            self.alts.append(values["alt"])
        self.scripts += tag == "script"

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, text):
        if self.open[-1:] != ["style"]:
            self.words.append(text)


def test_the_page_needs_nothing_else(evaluation, drawn):
    page = Page(
        saved_report.to_html(evaluation, drawn, {"command": "benchrouter evaluate t.parquet"})
    )
    assert len(page.ids) == len(set(page.ids))
    assert page.links
    assert all(link[0] == "#" and link[1:] in page.ids for link in page.links)
    assert len(page.sources) == len(drawn)
    assert all(source.startswith("data:image/png;base64,") for source in page.sources)
    assert all(page.alts)
    assert page.scripts == 0
    text = " ".join(page.words)
    assert "benchrouter evaluate t.parquet" in text
    found = [text.index(line) for line in (*banner(evaluation), "In short")]
    assert found == sorted(found)  # the banner comes first
    assert summary(evaluation)[0].split(": ", 1)[1].split(". ")[0][1:] in text
    assert "Table 1." in text and "Figure 1." in text
    for sheet in sheets(evaluation):
        for name in sheet.columns:
            assert name in text


def test_the_same_evaluation_gives_the_same_bytes(evaluation, drawn):
    again = saved_report.draw(replace(evaluation, pools=evaluation.pools[:1], prompts=()))
    assert len(again) == 4
    assert again.items() <= drawn.items()
    assert saved_report.to_html(evaluation, drawn) == saved_report.to_html(evaluation, drawn)


def test_names_cannot_break_the_page(drawn):
    evil = "<script>alert('x')</script>&"
    table, rows = small_table()
    table = replace(table, models=(evil, "b", "c"), datasets=tuple(f"{i} {evil}" for i in range(4)))
    page = Page(saved_report.to_html(evaluate(table, rows, settings=QUICK, threads=1), {}))
    assert page.scripts == 0
    assert evil in " ".join(page.words)


@pytest.mark.parametrize("name", awkward_tables())
@pytest.mark.filterwarnings("error")
def test_nothing_is_missing_without_a_word(name):
    table, rows = awkward_tables()[name]
    found = evaluate(table, rows, settings=QUICK, threads=1)
    for sheet in sheets(found):  # each has checked that a dash has its reason
        for row in sheet.rows:
            for cell in row:
                assert not re.search(r"\b(nan|none|inf)\b", cell.text.lower())
                assert "nan" not in cell.why
    text = saved_report.to_html(found, {})
    assert not re.search(r"\b(nan|None|inf)\b", text)
    json.loads(saved_report.to_json(found), parse_constant=pytest.fail)
    assert summary(found)
    assert all(note[0].isupper() and note.endswith(".") for note in notes_of(found))


def test_what_could_not_be_measured_is_said():
    def notes(name):
        table, rows = awkward_tables()[name]
        return " ".join(notes_of(evaluate(table, rows, settings=QUICK, threads=1)))

    one = notes("one dataset")
    assert "One model per dataset, not measured: leave-one-dataset-out needs at least 2" in one
    assert "leaving a dataset out needs at least 2 datasets" in one
    assert "give one per dataset, --correct-above DATASET=VALUE (in Python" in notes("no threshold")
    assert "no cost is recorded" in notes("constant scores")
    assert "no log-likelihoods" in notes("constant scores")


# --- the files -----------------------------------------------------------------------------------


def test_a_report_is_replaced_whole(evaluation, drawn, tmp_path, monkeypatch):
    monkeypatch.setattr(saved_report, "draw", lambda _: drawn)
    target = tmp_path / "some" / "report"
    page = saved_report.write_report(evaluation, target, provenance={"command": "one"})
    assert page == target / "report.html"
    figures = {path.name for path in (target / "figures").iterdir()}
    assert figures == {f"{name}.png" for name in drawn}
    (target / "figures" / "old.png").write_bytes(b"")
    saved_report.write_report(evaluation, target, provenance={"command": "two"}, figures=False)
    assert sorted(p.name for p in target.rglob("*")) == ["figures", "report.html", "report.json"]
    assert json.loads((target / "report.json").read_text())["provenance"] == {"command": "two"}
    assert [p.name for p in target.parent.iterdir()] == ["report"]


def test_a_failed_report_leaves_the_earlier_one(evaluation, tmp_path, monkeypatch):
    target = tmp_path / "report"
    saved_report.write_report(evaluation, target, figures=False)
    before = (target / "report.html").read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(saved_report, "to_json", full)
    with pytest.raises(OSError, match="No space left on device: '.*report'"):
        saved_report.write_report(evaluation, target, figures=False)
    assert (target / "report.html").read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == ["report"]


def test_other_files_are_not_replaced(evaluation, tmp_path):
    (tmp_path / "thesis.tex").write_text("")
    with pytest.raises(ValueError, match=r"holds 'thesis.tex', which is no part of a report"):
        saved_report.write_report(evaluation, tmp_path, figures=False)
    with pytest.raises(ValueError, match="is a file, expected a directory"):
        saved_report.check_target(tmp_path / "thesis.tex")
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_the_document_is_plain_json(evaluation):
    found = json.loads(saved_report.to_json(evaluation), parse_constant=pytest.fail)
    assert [pool["title"] for pool in found["pools"]] == ["all models", "two models"]
    strict = {row["rule"]: row for row in found["pools"][0]["table_one"]["strict"]}
    tasks = evaluation.pools[0].tasks
    assert strict["S1"]["accuracy"] == pytest.approx(tasks.macro_accuracy("strict", "S1"))
    assert strict["BMA"]["vs_bma"] is None
    learned, expected = found["pools"][0]["smoother"], found["pools"][0]["expectations"]
    assert len(learned["u"]) == len(learned["mean"]) == len(learned["low"]) == len(learned["high"])
    assert learned["u"][0] == pytest.approx(tasks.u.min())
    assert len(learned["labelled_u"]) == tasks.u[:, 1:].size  # 4 datasets × 1 share × 2 draws
    low = tasks.intervals[..., 0].mean(axis=2)
    np.testing.assert_allclose(np.array(expected["low"], dtype=float), low)
    assert [p["protocol"] for p in found["prompts"]] == ["random split", "leave-one-dataset-out"]
    assert set(found["prompts"][0]["costs"]) == {"auto", "mean", "linear regression", "kNN-100"}
    assert found["banner"] == banner(evaluation)
    assert [v["question"] for v in found["verdicts"]] == [
        *("prompts of known datasets", "prompts of a new dataset", "whole tasks"),
    ]
    auto = found["prompts"][0]["calibration"]["auto"]
    assert set(auto) == {"every model", "the chosen model"} and auto["every model"]["log_loss"] > 0
    assert found["settings"]["label_shares"] == [0.0, 0.1]


def test_further_metrics_have_a_column():
    table, rows = small_table()
    bart = make_table(table.scores * 2 - 5, table.dataset, thresholds=np.full(4, np.nan))
    found = evaluate(
        table, rows, metrics={"BARTScore": bart}, experiments=["prompts"], settings=QUICK
    )
    sheet = next(s for s in sheets(found) if s.name == "prompt-rules-random-split")
    at, score = sheet.columns.index("BARTScore"), sheet.columns.index("score")
    for row in sheet.rows:
        expected = float(row[score].text) * 2 - 5
        assert float(row[at].text.replace("−", "-")) == pytest.approx(expected, abs=0.002)
