"""Columns of Table 1 by hand, against scipy's definitions written out, and on hand-made results."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tables import make_table, unit_rows

from benchrouter.evaluation import leave_one_dataset_out
from benchrouter.evaluation.tasks.measures import (
    bootstrap_interval,
    error_of_p_hat,
    pearson,
    predictor_accuracy,
    ranks_of,
    scores_of,
    spearman,
    split_half_oracle,
    table_one,
)
from benchrouter.scores.fitted import Settings

NAN = float("nan")


def test_correlations_by_hand():
    one = np.array([[1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1.0, 2.0, 4.0], [1.0, 1.0, 2.0]])
    other = np.array([[2.0, 4.0, 6.0], [3.0, 2.0, 1.0], [1.0, 3.0, 2.0], [1.0, 2.0, 3.0]])
    np.testing.assert_allclose(pearson(one, other)[:2], [1, -1])
    # deviations (−4/3, −1/3, 5/3) and (−1, 1, 0): product 1, squares 42/9 and 2
    assert pearson(one, other)[2] == pytest.approx(1 / math.sqrt(42 / 9 * 2))
    np.testing.assert_allclose(spearman(one, other)[:3], [1, -1, 0.5])
    # ranks (1.5, 1.5, 3) and (1, 2, 3): products 1.5, squares 1.5 and 2
    assert spearman(one, other)[3] == pytest.approx(1.5 / math.sqrt(1.5 * 2))


def test_correlations_of_missing_and_constant_values():
    one = np.array([[1.0, NAN, 2.0, 3.0], [0.1, 0.1, 0.1, NAN], [1.0, NAN, NAN, NAN]])
    other = np.array([[2.0, 9.0, 4.0, 6.0], [1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0]])
    for measure in (pearson, spearman):
        np.testing.assert_allclose(measure(one, other), [1, NAN, NAN])
        np.testing.assert_allclose(measure(other, one), [1, NAN, NAN])
        assert np.isnan(measure(np.full((2, 3), NAN), np.zeros((2, 3)))).all()


def test_spearman_ranks_ties_by_their_mean_on_random_values():
    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 4, (2, 50, 6)).astype(float)

    def ranks(values):
        return [
            np.mean([1 + sum(w < v for w in values), sum(w <= v for w in values)]) for v in values
        ]

    for i in range(50):
        if len(set(one[i])) > 1 and len(set(other[i])) > 1:
            expected = np.corrcoef(ranks(one[i]), ranks(other[i]))[0, 1]
            assert spearman(one, other)[i] == pytest.approx(expected)


def test_ranks_of_equals_share_the_better_rank():
    accuracy = np.array([[0.5, 0.7, 0.5, NAN]] * 4)
    np.testing.assert_array_equal(ranks_of(np.arange(4), accuracy), [2, 1, 2, NAN])


def test_interval_covers_the_mean_at_the_stated_rate():
    rng = np.random.default_rng(1)
    hits = 0
    for i in range(400):
        values = rng.standard_normal(40)
        low, high = bootstrap_interval(values, level=0.8, draws=400, seed=i)
        hits += low <= 0.0 <= high
    assert 0.72 <= hits / 400 <= 0.86
    assert bootstrap_interval(values, seed=3) == bootstrap_interval(values, seed=3)


def test_interval_by_hand():
    # two datasets: means of two draws of {0, 1} are 0, ½, 1 with chances ¼, ½, ¼
    values = np.array([0.0, NAN, 1.0])
    assert bootstrap_interval(values) == (0.0, 1.0)
    assert bootstrap_interval(values, level=0.4) == (0.5, 0.5)
    assert bootstrap_interval(np.full(5, 0.25)) == (0.25, 0.25)
    for few in ([], [0.5], [0.5, NAN]):
        assert all(math.isnan(bound) for bound in bootstrap_interval(np.array(few, dtype=float)))


def test_split_half_oracle_is_not_inflated():
    rng = np.random.default_rng(0)
    dataset = np.array([0] * 400 + [1] + [2] * 4 + [3] * 2, dtype=np.int32)
    correct = (rng.random((407, 30)) < 0.5).astype(np.float32)  # thirty equal models
    correct[401:405] = [1, 0] + [0] * 28  # model 0 is always right
    correct[405:] = np.nan
    found = split_half_oracle(correct, dataset, 4, np.arange(30, dtype=np.int32))
    best = correct[:400].mean(axis=0).max()
    assert best > 0.53
    assert abs(found[0] - 0.5) < best - 0.5
    assert math.isnan(found[1])
    assert found[2] == 1.0
    assert math.isnan(found[3])
    np.testing.assert_array_equal(
        found, split_half_oracle(correct, dataset, 4, np.arange(30, dtype=np.int32))
    )


@pytest.fixture(scope="module")
def results():
    rng = np.random.default_rng(4)
    dataset = np.arange(120) % 4
    skill = np.array([[0.9, 0.2, 0.6], [0.1, 0.9, 0.6], [0.4, 0.4, 0.6], [0.2, 0.5, 0.7]])
    scores = (rng.random((120, 3)) < skill[dataset]).astype(np.float32)
    table = make_table(scores, dataset, params_b=np.array([7.0, 13.0, 70.0]))
    return leave_one_dataset_out(
        table, unit_rows(120, 6), settings=Settings(label_shares=(0.0, 0.2), draws=3)
    )


def test_table_one_is_made_of_its_parts(results):
    for nesting in ("strict", "published"):
        for share in (0, 1):
            rows = {row.rule: row for row in table_one(results, nesting, share)}
            assert list(rows) == [
                *results.picks[nesting],
                *("random", "oracle (split-half)", "oracle per record"),
            ]
            accuracy = results.accuracy[:, share]
            best = accuracy.max(axis=-1)
            bma = results.picks[nesting]["BMA"][:, share]
            for rule, chosen in results.picks[nesting].items():
                own = np.take_along_axis(accuracy, chosen[:, share, :, None], axis=-1)[..., 0]
                row = rows[rule]
                assert row.accuracy == pytest.approx(own.mean())
                assert row.accuracy == results.macro_accuracy(nesting, rule, share)
                assert row.accuracy_interval[0] <= row.accuracy <= row.accuracy_interval[1]
                assert row.ratio == pytest.approx((own / best).mean())
                assert row.bma_share == (chosen[:, share] == bma).mean()
                assert row.params_b == pytest.approx(
                    np.array([7.0, 13.0, 70.0])[chosen[:, share]].mean()
                )
                assert row.rank == pytest.approx(1 + (accuracy > own[..., None]).sum(-1).mean())
                if rule != "BMA":
                    assert row.vs_bma == pytest.approx(row.accuracy - rows["BMA"].accuracy)
            assert math.isnan(rows["BMA"].vs_bma)
            assert (rows["oracle"].ratio, rows["oracle"].rank) == (1.0, 1.0)
            assert rows["random"].accuracy == pytest.approx(accuracy.mean())
            assert math.isnan(rows["random"].rank)
            assert rows["oracle per record"].accuracy >= rows["oracle"].accuracy
            assert math.isnan(rows["oracle (split-half)"].accuracy) == (share > 0)
            paper = {"S1", "S2", "S3", "S3 with fallback", "S3 true p"}
            assert set(scores_of(results, nesting)) >= paper
            for name in paper:
                score = scores_of(results, nesting)[name]
                each = [
                    np.corrcoef(score[d, share, r], accuracy[d, r])[0, 1]
                    for d in range(4)
                    for r in range(3)
                ]
                assert rows[name].pearson == pytest.approx(np.mean(each))


def test_predictor_and_smoother_by_their_definition(results):
    p, p_hat = results.p[:, 1], results.p_hat["strict"][:, 1]
    assert predictor_accuracy(results, 1) == pytest.approx(p.mean())
    assert error_of_p_hat(results, "strict", 1) == pytest.approx(np.abs(p - p_hat).mean())


def test_nothing_is_divided_by_nought_and_unknown_sizes_stay_unknown():
    scores = np.zeros((12, 2))
    scores[:4, 0] = 1.0
    table = make_table(scores, np.repeat(np.arange(3), 4), params_b=np.array([7.0, NAN]))
    found = leave_one_dataset_out(
        table, unit_rows(12, 4), settings=Settings(label_shares=(0.0,), draws=1)
    )
    rows = {row.rule: row for row in table_one(found, "published")}
    assert rows["BMA"].accuracy == pytest.approx(1 / 3)
    assert rows["BMA"].ratio == 1.0  # over the one dataset on which any model is ever right
    assert rows["BMA"].params_b == 7.0
    assert math.isnan(rows["S1"].params_b) == (found.picks["published"]["S1"] == 1).any()
    assert rows["S1"].pearson <= 1.0 or math.isnan(rows["S1"].pearson)


def test_datasets_behind_a_mean_and_behind_a_difference():
    # Model 1, right everywhere else, was not run on dataset 0: BMA is model 0 where that counts.
    scores = np.zeros((12, 2))
    scores[:, 0] = [1, 1, 0, 0] * 3
    scores[:, 1] = 1.0
    scores[:4, 1] = NAN
    table = make_table(scores, np.repeat(np.arange(3), 4))
    found = leave_one_dataset_out(
        table, unit_rows(12, 4), settings=Settings(label_shares=(0.0,), draws=1)
    )
    picks = {rule: np.array([[[m]], [[m]], [[m]]]) for rule, m in (("BMA", 0), ("S1", 1))}
    found = replace(found, picks={**found.picks, "strict": picks})
    rows = {row.rule: row for row in table_one(found, "strict")}
    assert (rows["BMA"].accuracy, rows["BMA"].n_datasets, rows["BMA"].n_paired) == (0.5, 3, 3)
    assert (rows["S1"].accuracy, rows["S1"].n_datasets, rows["S1"].n_paired) == (1.0, 2, 2)
    assert rows["S1"].vs_bma == 0.5
    assert rows["random"].n_datasets == 3
    assert [found.n_datasets_of("strict", rule) for rule in ("BMA", "S1")] == [3, 2]
