"""The score `auto`: by hand, against a slow twin, on simulated benchmarks, and inside a router."""

from __future__ import annotations

import json

import numpy as np
import pytest
import reference_auto
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import make_table, unit_rows

from benchrouter import Router, Settings
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores.expected import task_accuracies
from benchrouter.scores.neighbourhood import local_accuracy, pooled, within_covariance
from benchrouter.votes.outcomes import pack

NAN = float("nan")


def tasks_of(accuracy, standing, local, **fields):
    accuracy = np.asarray(accuracy, float)
    n_tasks, n_models = accuracy.shape
    defaults = dict(
        distance=np.full(n_tasks, 0.3),
        n_records=np.full(n_tasks, 10**9),
        within=np.eye(n_models) / 4,
    )
    return task_accuracies.HeldOutTasks(
        accuracy, np.asarray(standing, float), np.asarray(local, float), **{**defaults, **fields}
    )


def test_trust_is_measured_on_held_out_datasets_and_drawn_to_three_quarters():
    # Ten datasets at the task's own distance: each weighs 1 + 5/10, 15 together. The neighbourhood
    # was right in every one: slope (15·1 + 5·0.75)/(15 + 5) = 0.9375.
    gap = np.tile([[0.1, -0.1], [-0.1, 0.1]], (5, 1))
    standing = np.full((10, 2), 0.5)
    found = task_accuracies.estimate(
        tasks_of(standing + gap, standing, standing + gap),
        np.array([0.6, 0.6]),
        np.array([0.7, 0.5]),
        0.3,
    )
    assert found.trust == pytest.approx(0.9375)
    # difference moved by 0.9375 of ±0.1; the level of the gap is 0 (equal weights)
    np.testing.assert_allclose(found.mean, [0.69375, 0.50625])
    # wrong in every one: (15·(−1) + 3.75)/20 is below 0, and then it is not trusted at all
    wrong = task_accuracies.estimate(
        tasks_of(standing - gap, standing, standing + gap),
        np.array([0.6, 0.6]),
        np.array([0.7, 0.5]),
        0.3,
    )
    assert wrong.trust == 0.0
    np.testing.assert_allclose(wrong.mean, 0.6)


def test_where_leaving_the_best_standing_lost_it_is_not_left():
    # The neighbourhood of the smaller differences is right, and of the large ones it is wrong: the
    # slope is above 0, but model 1, of the lower standing, was chosen twice and lost 0.3 each time.
    standing = np.tile([0.6, 0.5], (8, 1))
    gap = np.tile([[0.1, -0.1]], (8, 1))
    gap[6:] = [[-0.1, 0.1]]
    accuracy = standing + 0.8 * gap
    accuracy[6:] = [[0.8, 0.5]]
    tasks = tasks_of(accuracy, standing, standing + gap)
    new = np.array([0.6, 0.5]), np.array([0.45, 0.65])
    assert not tasks.leaving_pays
    assert all(of_task.trust > 0.0 for of_task in tasks._trusting)
    found = task_accuracies.estimate(tasks, *new, 0.3)
    assert found.trust == 0.0 and found.mean[0] > found.mean[1]
    accuracy[6:] = [[0.5, 0.6]]
    right = tasks_of(accuracy, standing, standing + gap)
    assert right.leaving_pays
    found = task_accuracies.estimate(right, *new, 0.3)
    assert found.trust > 0.5 and found.mean[1] > found.mean[0]


def test_models_far_behind_do_not_decide_the_trust():
    # Models 0 and 1 contend and follow their neighbourhood; 2 is far behind and never does.
    rng = np.random.default_rng(0)
    standing = np.tile([0.7, 0.7, 0.1], (20, 1))
    local = standing + rng.normal(0, 0.1, (20, 3))
    accuracy = np.where([True, True, False], local, standing)
    found = task_accuracies.estimate(
        tasks_of(accuracy, standing, local), standing[0], standing[0], 0.3
    )
    expected = (25 + 3.75) / (25 + 5)  # 20 tasks of weight 1.25: as if model 2 were not there
    assert found.trust == pytest.approx(expected, abs=1e-3)


def estimate_of(mean, covariance, trust, degrees, calibration=None):
    return task_accuracies.Estimate(mean, covariance, trust, degrees, calibration)


def test_labels_of_one_model_are_the_textbook_update():
    before = estimate_of(np.array([0.5]), np.array([[0.01]]), 0.5, 9)
    labels = np.array([[1.0]] * 20 + [[0.0]] * 5)
    after = task_accuracies.with_labels(before, labels, np.array([[0.2]]))
    noise = 0.25 / 25  # at the chance expected before: 0.5·0.5, over 25 prompts
    gain = 0.01 / (0.01 + noise)
    assert after.mean[0] == pytest.approx(0.5 + gain * 0.3, abs=1e-6)
    assert after.covariance[0, 0] == pytest.approx(0.01 * (1 - gain), abs=1e-6)


def test_labels_of_one_model_tell_of_another_that_errs_with_it():
    covariance = np.array([[0.01, 0.009], [0.009, 0.01]])
    before = estimate_of(np.array([0.5, 0.5]), covariance, 0.5, 9)
    labels = np.array([[1.0, NAN]] * 5)
    after = task_accuracies.with_labels(before, labels, np.eye(2) / 4)
    gain = 0.01 / (0.01 + 0.05)
    np.testing.assert_allclose(after.mean, [0.5 + gain * 0.5, 0.5 + 0.9 * gain * 0.5], atol=1e-6)
    assert after.covariance[1, 1] < before.covariance[1, 1]
    nothing = task_accuracies.with_labels(before, np.full((3, 2), NAN), np.eye(2) / 4)
    assert nothing is before


def test_many_labels_overrule_everything():
    before = estimate_of(np.array([0.9, 0.2]), 0.01 * np.eye(2), 0.5, 9)
    labels = np.tile([[0.0, 1.0], [0.0, 1.0], [0.0, 0.0], [1.0, 1.0]], (5000, 1))
    after = task_accuracies.with_labels(before, labels, np.eye(2) / 4)
    np.testing.assert_allclose(after.mean, [0.25, 0.75], atol=2e-3)


def test_a_label_of_a_model_that_was_never_right_is_not_believed_alone():
    before = estimate_of(np.array([0.7, 0.0]), np.diag([0.01, 0.0025]), 0.5, 9)
    after = task_accuracies.with_labels(before, np.array([[1.0, 1.0]]), np.diag([0.2, 0.0]))
    gain = 0.0025 / (0.0025 + 0.05 * 0.95)  # never certain: an accuracy of 0 counts as 0.05
    np.testing.assert_allclose(after.mean, [0.7 + 0.3 * 0.01 / 0.22, gain], atol=1e-6)


def test_labels_make_nothing_less_certain_where_models_ran_on_different_records():
    # Both ran on one dataset, where they err together; each was nearly always right on 24 others.
    # Pooled, the covariance of the two is far above their variances.
    rng = np.random.default_rng(0)
    within = np.full((49, 2, 2), NAN)
    within[0] = [[0.25, 0.24], [0.24, 0.25]]
    within[1:25, 0, 0] = within[25:, 1, 1] = 0.001
    within = pooled(within)
    assert np.linalg.eigvalsh(within)[0] < 0
    before = estimate_of(np.array([0.7, 0.6]), 0.01 * np.eye(2), 0.5, 9)
    labels = (rng.random((30, 2)) < 0.9).astype(float)
    after = task_accuracies.with_labels(before, labels, within)
    assert (np.diag(after.covariance) < 0.01).all()
    assert np.linalg.eigvalsh(after.covariance)[0] > 0
    low, high = before.mean, labels.mean(axis=0)
    assert ((np.minimum(low, high) <= after.mean) & (after.mean <= np.maximum(low, high))).all()


def test_the_winners_curse_by_hand():
    # Two models on four datasets; the neighbourhood says nothing. The first has the larger
    # standing, 0.5, and had 0.4 everywhere.
    standing = np.tile([0.5, 0.4], (4, 1))
    accuracy = np.tile([0.4, 0.6], (4, 1))
    tasks = tasks_of(accuracy, standing, standing)
    found = task_accuracies.calibrated(
        task_accuracies.estimate(tasks, standing[0], standing[0], 0.3), tasks
    )
    np.testing.assert_allclose(found.mean, [0.5, 0.4])
    # Each was predicted from the other three, which are like it: 0.1 too much, four times; drawn
    # to 0 as by five datasets more. The unit is what was told of its deviation.
    deviation = tasks.estimates[0].covariance[0, 0] ** 0.5
    optimism = 0.1 / deviation * 4 / (4 + 5)
    assert found.calibration.optimism == pytest.approx(optimism)
    np.testing.assert_allclose(found.calibration.errors, 0.1 / deviation - optimism)
    assert found.expected(0) == pytest.approx(0.5 - optimism * found.covariance[0, 0] ** 0.5)
    low, high = task_accuracies.interval(found, 0, 100)
    assert (low + high) / 2 == pytest.approx(found.expected(0))


def test_the_correction_for_the_winners_curse_raises_nothing():
    standing = np.tile([0.5, 0.4], (4, 1))
    accuracy = np.tile([0.7, 0.4], (4, 1))  # better than expected wherever it was chosen
    tasks = tasks_of(accuracy, standing, standing)
    found = task_accuracies.calibrated(
        task_accuracies.estimate(tasks, standing[0], standing[0], 0.3), tasks
    )
    assert found.calibration.optimism == 0.0
    assert found.expected(0) == found.mean[0] == 0.5
    optimist = task_accuracies.Calibration(2.0, np.ones((3, 1)))
    assert estimate_of(np.array([0.01]), np.eye(1), 0.5, 9, optimist).expected(0) == 0.0


def test_a_dataset_that_no_model_ran_on_teaches_nothing_of_the_winners_curse():
    standing = np.tile([0.5, 0.4], (5, 1))
    accuracy = np.tile([0.4, 0.6], (5, 1))
    accuracy[4] = NAN
    tasks = tasks_of(accuracy, standing, standing)
    assert tasks.calibration.errors.shape == (4, 1)
    assert task_accuracies.calibration(tasks, np.full((2, 2), 10.0)).errors.shape == (
        4,
        task_accuracies.DRAWS,
    )
    nothing = tasks_of(np.full((5, 2), NAN), standing, standing)
    assert nothing.calibration is None


def test_the_width_of_the_interval_is_the_quantile_of_held_out_errors():
    # 15 datasets that erred by twice their deviations, and five that erred as a Gaussian: the 80 %
    # quantile of all is reached at 2. Had they erred by a quarter, it would lie where the Gaussian
    # ones make up the rest: 15 + 5·(2Φ(q) − 1) = 16.
    wide = task_accuracies.Calibration(0.0, np.full((15, 1), 2.0))
    assert wide.reach(0.8) == pytest.approx(2.0)
    narrow = task_accuracies.Calibration(0.0, np.full((15, 1), 0.25))
    assert narrow.reach(0.8) == pytest.approx(0.2533, abs=1e-4)
    # several draws of one dataset count as one
    both = task_accuracies.Calibration(0.0, np.tile([[2.0, 0.25]], (15, 1)))
    assert both.reach(0.8) == pytest.approx(2.0)
    found = estimate_of(np.array([0.5]), np.array([[0.0075]]), 0.5, 14, wide)
    assert task_accuracies.interval(found, 0, 100) == (pytest.approx(0.3), pytest.approx(0.7))


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10**6), st.integers(3, 9), st.integers(1, 6), st.sampled_from([0.0, 0.3]))
def test_calibration_equals_the_slow_twin(seed, n_tasks, n_models, missing):
    rng = np.random.default_rng(seed)
    tasks = draw_tasks(rng, n_tasks, n_models, missing)
    optimism, errors = reference_auto.calibration(
        *(tasks.accuracy, tasks.standing, tasks.local, tasks.distance, tasks.n_records),
        *(tasks.within, tasks.sigma),
    )
    found = tasks.calibration
    assert found.optimism == pytest.approx(optimism, abs=1e-6)
    np.testing.assert_allclose(found.errors[:, 0], errors, atol=1e-6)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 7), st.integers(1, 30), st.floats(0.0, 0.9))
def test_labels_equal_the_slow_twin(seed, n_models, n_labels, missing):
    rng = np.random.default_rng(seed)
    half = rng.normal(size=(n_models, n_models + 2)) / 4
    before = estimate_of(
        rng.random(n_models),
        rng.uniform(0, 0.02) + rng.uniform(1e-4, 0.05) * np.eye(n_models),
        0.5,
        9,
    )
    labels = rng.integers(0, 2, (n_labels, n_models)).astype(float)
    labels[rng.random(labels.shape) < missing] = NAN
    labels[0, 0] = 1.0
    found = task_accuracies.with_labels(before, labels, half @ half.T)
    mean, covariance = reference_auto.with_labels(
        before.mean, before.covariance, labels, half @ half.T
    )
    np.testing.assert_allclose(found.mean, mean, atol=1e-8)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-8)


@pytest.mark.parametrize("right", [1.0, 0.0])
@pytest.mark.parametrize("n_labels", [1, 5, 20, 100, 500])
@pytest.mark.parametrize("who", [(0,), (0, 4, 8), (2, 3, 4, 5, 6, 7, 8)])
@pytest.mark.parametrize("shared", [0.0, 0.01, 0.09])
def test_models_without_labels_do_not_win_by_extrapolation(right, n_labels, who, shared):
    rng = np.random.default_rng(n_labels)
    covariance = shared + 0.01 * np.eye(9)
    for _ in range(20):
        before = estimate_of(rng.uniform(0.2, 0.9, 9), covariance, 0.5, 9)
        labels = np.full((n_labels, 9), NAN)
        labels[:, who] = right
        after = task_accuracies.with_labels(before, labels, 0.1 + 0.1 * np.eye(9))
        assert ((after.mean >= 0.0) & (after.mean <= 1.0)).all()
        others = np.setdiff1d(np.arange(9), who)
        # within the 80 % interval of what was known of it, and not above all that were graded
        reach = 1.28156 * np.sqrt(np.diag(covariance))[others] + 1e-11
        assert (np.abs(after.mean - before.mean)[others] <= reach).all()
        graded = after.mean[list(who)].max()
        assert (after.mean[others] <= np.maximum(before.mean[others], graded) + 1e-11).all()


@pytest.mark.parametrize("seed", range(20))
def test_equal_models_stay_equal_after_labels(seed):
    rng = np.random.default_rng(seed)
    tasks = draw_tasks(rng, 8, 5, 0.0)
    twin = np.array([0, 1, 2, 1, 4])  # model 3 is model 1 under another name
    tasks = task_accuracies.HeldOutTasks(
        *(a[:, twin] for a in (tasks.accuracy, tasks.standing, tasks.local)),
        *(tasks.distance, tasks.n_records, tasks.within[np.ix_(twin, twin)]),
    )
    found = task_accuracies.estimate(tasks, tasks.standing[0], tasks.local[0], 0.3)
    labels = rng.integers(0, 2, (20, 5)).astype(float)[:, twin]
    after = task_accuracies.with_labels(found, labels, tasks.within)
    assert after.mean[1] == after.mean[3]


def test_interval_and_probability_by_hand():
    found = estimate_of(np.array([0.5, 0.4]), np.diag([0.0075, 0.0025]), 0.5, 2)
    low, high = task_accuracies.interval(found, 0, 100)
    # variance 0.0075 + 0.25/100 = 0.01; Student's t with 2 degrees at 0.9 is 1.8856
    assert (low, high) == (pytest.approx(0.5 - 0.18856, abs=1e-5), pytest.approx(0.68856, abs=1e-5))
    # 0.1 / sqrt(0.01): one standard deviation
    assert task_accuracies.probability_better(found, 0, 1) == pytest.approx(0.841345, abs=1e-6)
    assert np.isnan(task_accuracies.probability_better(found, 0, 0))
    unknown = estimate_of(np.array([0.5]), np.array([[NAN]]), 0.0, 0)
    assert task_accuracies.interval(unknown, 0, 10) is None


@pytest.mark.parametrize(
    ("degrees", "expected"),
    [(1, 3.0777), (2, 1.8856), (3, 1.6377), (4, 1.5332), (5, 1.4759), (10, 1.3722), (30, 1.3104)],
)
def test_student_quantiles(degrees, expected):
    assert task_accuracies._student(0.9, degrees) == pytest.approx(expected, abs=2e-3)


def draw_tasks(rng, n_tasks, n_models, missing):
    accuracy = rng.random((n_tasks, n_models))
    hidden = rng.random(accuracy.shape) < missing
    hidden[np.arange(n_tasks), rng.integers(n_models, size=n_tasks)] = False
    half = rng.normal(size=(n_models, n_models)) / 4
    return tasks_of(
        np.where(hidden, NAN, accuracy),
        rng.random((n_tasks, n_models)),
        rng.random((n_tasks, n_models)),
        distance=rng.uniform(0.1, 0.9, n_tasks),
        n_records=rng.integers(1, 500, n_tasks),
        within=half @ half.T,
    )


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10**6), st.integers(2, 9), st.integers(1, 6), st.sampled_from([0.0, 0.3, 0.8])
)
def test_estimate_equals_the_slow_twin(seed, n_tasks, n_models, missing):
    rng = np.random.default_rng(seed)
    tasks = draw_tasks(rng, n_tasks, n_models, missing)
    standing, local = rng.random((2, n_models))
    distance = float(rng.uniform(0, 1))
    found = task_accuracies.estimate(tasks, standing, local, distance)
    mean, covariance, trust = reference_auto.estimate(
        *(tasks.accuracy, tasks.standing, tasks.local, tasks.distance, tasks.n_records),
        *(tasks.within, standing, local, distance, 0.09),
    )
    np.testing.assert_allclose(found.mean, mean, atol=1e-10)
    np.testing.assert_allclose(found.covariance, covariance, atol=1e-9)
    assert found.trust == pytest.approx(trust, abs=1e-10)
    assert found.degrees == max(n_tasks - 1, 1)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6))
def test_the_order_of_models_and_datasets_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    tasks = draw_tasks(rng, 6, 4, 0.2)
    standing, local = rng.random((2, 4))
    labels = np.where(rng.random((12, 4)) < 0.2, NAN, rng.integers(0, 2, (12, 4)))
    first = task_accuracies.with_labels(
        task_accuracies.estimate(tasks, standing, local, 0.4), labels, tasks.within
    )
    m, z = rng.permutation(4), rng.permutation(6)
    moved = task_accuracies.HeldOutTasks(
        *(a[z][:, m] for a in (tasks.accuracy, tasks.standing, tasks.local)),
        *(tasks.distance[z], tasks.n_records[z], tasks.within[np.ix_(m, m)]),
    )
    second = task_accuracies.estimate(moved, standing[m], local[m], 0.4)
    second = task_accuracies.with_labels(second, labels[:, m], moved.within)
    np.testing.assert_allclose(second.mean, first.mean[m], atol=1e-8)
    np.testing.assert_allclose(second.covariance, first.covariance[np.ix_(m, m)], atol=1e-8)


def test_nothing_to_learn_from_is_said_not_invented():
    standing, local = np.array([0.6, 0.5]), np.array([0.1, 0.9])
    nothing = tasks_of(np.empty((0, 2)), np.empty((0, 2)), np.empty((0, 2)))
    found = task_accuracies.estimate(nothing, standing, local, 0.3)
    np.testing.assert_array_equal(found.mean, standing)
    assert np.isnan(found.covariance).all()
    # ten labels: the standings count as ten more
    after = task_accuracies.with_labels(found, np.array([[1.0, NAN]] * 10), np.eye(2) / 4)
    assert after.mean[0] == pytest.approx(0.8, abs=1e-6)
    # constant scores: no spread, no division by zero
    flat = np.full((4, 2), 0.5)
    found = task_accuracies.estimate(tasks_of(flat, flat, flat), flat[0], flat[0], 0.3)
    np.testing.assert_allclose(found.mean, 0.5)
    assert np.isfinite(found.covariance).all()


def simulate(rng, n_tasks, n_models, n_records):
    """Draw a benchmark and one new task from a model with a common part and a local signal."""
    skill = rng.normal(0.55, 0.05, n_models)
    effect = rng.normal(0, 0.07, (n_tasks + 1, n_models)) + rng.normal(0, 0.08, (n_tasks + 1, 1))
    true = np.clip(skill + effect, 0.02, 0.98)
    local = skill + 0.8 * effect + rng.normal(0, 0.1, effect.shape)
    measured = rng.binomial(n_records, true) / n_records
    standing = np.array([np.delete(measured[:-1], z, axis=0).mean(axis=0) for z in range(n_tasks)])
    tasks = tasks_of(
        measured[:-1],
        standing,
        local[:-1],
        n_records=np.full(n_tasks, n_records),
        within=0.24 * np.eye(n_models),
    )
    return tasks, measured[:-1].mean(axis=0), local[-1], true[-1]


@pytest.mark.parametrize("n_labels", [0, 30])
def test_on_simulated_benchmarks_the_choice_is_good_and_its_interval_honest(n_labels):
    rng = np.random.default_rng(n_labels)
    covered, error, naive, gain = [], [], [], {"standing": [], "local": [], "labels": []}
    for _ in range(400):
        tasks, standing, local, true = simulate(rng, 12, 8, 200)
        found = task_accuracies.estimate(tasks, standing, local, 0.3)
        labels = (rng.random((n_labels, 8)) < true).astype(float)
        found = task_accuracies.with_labels(found, labels, tasks.within)
        found = task_accuracies.calibrated(found, tasks, task_accuracies.in_common(labels))
        best = int(np.argmax(found.mean))
        measured = rng.binomial(150, true[best]) / 150
        low, high = task_accuracies.interval(found, best, 150)
        covered.append(low <= measured <= high)
        error.append(found.expected(best) - true[best])
        naive.append(local.max() - true[np.argmax(local)])
        gain["standing"].append(true[best] - true[np.argmax(standing)])
        gain["local"].append(true[best] - true[np.argmax(local)])
        if n_labels:
            gain["labels"].append(true[best] - true[np.argmax(labels.mean(axis=0))])
    assert 0.74 < np.mean(covered) < 0.90  # wide, with 12 datasets to learn from
    # what is expected of the largest of eight is right, unlike the largest of `local`
    assert abs(np.mean(error)) < 0.012
    assert np.mean(naive) > 0.08
    assert np.mean(gain["standing"]) > 0.01
    assert np.mean(gain["local"]) > 0.0
    if n_labels:
        assert np.mean(gain["labels"]) > 0.005


def test_local_accuracy_by_hand():
    correct = np.array([[1, 0], [0, 0], [1, NAN], [1, NAN]], dtype=np.float32)
    means = np.array([[0.5, 0.0], [1.0, NAN]])
    ids = np.array([[0, 2, 1], [2, 3, -1]])
    found = local_accuracy(
        Neighbours(ids, np.zeros((2, 3), np.float32)),
        pack(correct),
        np.array([0, 0, 1, 1], np.int32),
        means,
        np.array([0.7, 0.3], np.float32),
        k=1,
        kappa=3,
    )
    # model 0: nearest (1 + 1)/2; three nearest (2/3 + 1)/2; datasets (2·0.5 + 3·1)/5
    assert found[0] == pytest.approx((1 + 5 / 6 + 0.8) / 3, abs=1e-6)
    # model 1: (0 + its standing)/2 twice; only dataset 0 knows it
    assert found[1] == pytest.approx((0.15 + 0.15 + 0.0) / 3, abs=1e-6)


def test_within_covariance_is_that_of_numpy_and_says_what_it_cannot_know():
    rng = np.random.default_rng(0)
    correct = rng.integers(0, 2, (30, 3)).astype(np.float32)
    dataset = np.repeat([0, 1, 2], [14, 15, 1]).astype(np.int32)
    found = within_covariance(correct, dataset, 3)
    np.testing.assert_allclose(found[0], np.cov(correct[:14].T), atol=1e-7)
    assert np.isnan(found[2]).all()  # a single record has no spread
    np.testing.assert_allclose(pooled(found), (found[0] + found[1]) / 2)
    np.testing.assert_array_equal(pooled(found[2:]), np.eye(3) / 4)


@pytest.fixture(scope="module")
def compass():
    """Six clusters; one model knows three of them, one the others, and a third is fair at all."""
    directions = np.repeat(np.eye(6, dtype=np.float32), 60, axis=0)
    directions += np.roll(directions, 60, axis=0) * 0.6  # neighbours of neighbours
    rows = directions + 0.5 * unit_rows(360, 6, seed=1)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    skill = np.array([[0.9, 0.1, 0.55]] * 3 + [[0.1, 0.9, 0.55]] * 3)
    dataset = np.repeat(np.arange(6), 60)
    scores = np.random.default_rng(0).random((360, 3)) < skill[dataset]
    return make_table(scores, dataset, models=("one", "other", "steady")), rows


def test_choose_answers_the_expected_accuracy(compass, tmp_path):
    table, rows = compass
    router = Router.fit(table, embeddings=rows, settings=Settings(label_shares=(0.0,), draws=1))
    prompts = rows[:60]
    decision = router.choose(embeddings=prompts)
    assert decision.score == "auto" and decision.model == decision.best_by_score
    assert decision.expected_accuracy < decision.auto.max()  # the largest is no lucky one
    low, high = decision.interval
    assert 0 <= low < decision.expected_accuracy < high <= 1
    known = np.tile([[1.0, 0.0, 1.0]], (40, 1))
    labelled = router.choose(embeddings=prompts, labels=known)
    assert labelled.auto[1] < decision.auto[1] - 0.03
    assert (labelled.auto_sd < decision.auto_sd).all()
    assert labelled.n_labels == 40
    router.save(tmp_path / "router")
    again = Router.load(tmp_path / "router").choose(embeddings=prompts, labels=known)
    np.testing.assert_array_equal(again.auto, labelled.auto)
    assert again.to_dict() == labelled.to_dict()
    content = json.loads(json.dumps(labelled.to_dict()))
    assert content["expected_accuracy"] == labelled.expected_accuracy
    assert content["interval"] == list(labelled.interval)
    assert "expected accuracy is largest for" in decision.reason


def test_the_same_prompt_many_times_is_one_prompt(compass):
    table, rows = compass
    router = Router.fit(table, embeddings=rows, settings=Settings(label_shares=(0.0,), draws=1))
    one, many = (router.choose(embeddings=np.repeat(rows[:1], n, axis=0)) for n in (1, 2000))
    assert (many.n_prompts, many.n_effective) == (2000, 1.0)
    assert many.interval == one.interval
    ten, repeated = (router.choose(embeddings=np.tile(rows[:10], (n, 1))) for n in (1, 30))
    assert repeated.n_effective == pytest.approx(10) and ten.n_effective == 10
    np.testing.assert_allclose(repeated.interval, ten.interval, atol=1e-9)
    # half of all are one prompt: (Σc)²/Σc² = 20²/(10² + 10)
    uneven = np.concatenate([np.repeat(rows[:1], 10, axis=0), rows[1:11]])
    assert router.choose(embeddings=uneven).n_effective == pytest.approx(400 / 110)
    # in groups by a sketch, which tells one prompt for sure
    batches = [(["a"] * 2000 + ["b"] * 20, None, np.concatenate([rows[:1]] * 2000 + [uneven]))]
    found = dict(router.choose_groups(batches))
    assert found["a"].n_effective == 1.0 and found["a"].interval == one.interval
    assert found["b"].n_effective == pytest.approx(400 / 110, rel=0.3)


def test_labels_of_one_prompt_are_one_observation(compass):
    table, rows = compass
    router = Router.fit(table, embeddings=rows, settings=Settings(label_shares=(0.0,), draws=1))
    prompts = np.concatenate([np.repeat(rows[:1], 40, axis=0), rows[1:61]])
    labels = np.full((100, 3), NAN)
    labels[0] = [1.0, 0.0, 1.0]
    once = router.choose(embeddings=prompts, labels=labels)
    labels[:40] = labels[0]
    often = router.choose(embeddings=prompts, labels=labels)
    np.testing.assert_array_equal(often.auto, once.auto)
    np.testing.assert_array_equal(often.auto_sd, once.auto_sd)
    assert often.n_labels == 40


@pytest.mark.parametrize("value", [1.5, -0.25, 100.0])
def test_labels_of_another_scale_need_a_threshold(compass, value):
    table, rows = compass
    router = Router.fit(table, embeddings=rows, settings=Settings(label_shares=(0.0,), draws=1))
    labels = np.tile([[value, 0.25, NAN]], (20, 1))
    words = rf"labels must lie in \[0, 1\], found {value:g}; .* give label_threshold"
    with pytest.raises(ValueError, match=words):
        router.choose(embeddings=rows[:60], labels=labels)
    for threshold in (0.1, 0.3):
        found = router.choose(embeddings=rows[:60], labels=labels, label_threshold=threshold)
        correct = np.where(np.isnan(labels), NAN, labels > threshold)
        expected = router.choose(embeddings=rows[:60], labels=correct)
        np.testing.assert_array_equal(found.auto, expected.auto)
    # within [0, 1] one half decides
    found = router.choose(embeddings=rows[:60], labels=np.tile([[0.51, 0.5, NAN]], (20, 1)))
    expected = router.choose(embeddings=rows[:60], labels=np.tile([[1.0, 0.0, NAN]], (20, 1)))
    np.testing.assert_array_equal(found.auto, expected.auto)


@pytest.mark.parametrize(
    ("labels", "threshold", "error", "words"),
    [
        (np.ones((1, 3), bool), None, TypeError, "labels must be a float array, got bool"),
        (np.ones((1, 3), np.int64), None, TypeError, "labels must be a float array, got int64"),
        (np.full((1, 3), np.inf), 0.5, ValueError, "must be finite or NaN, found an infinity"),
        (np.ones((1, 3)), NAN, ValueError, "label_threshold must be a finite number, got nan"),
    ],
)
def test_bad_labels_are_refused(compass, labels, threshold, error, words):
    table, rows = compass
    router = Router.fit(table, embeddings=rows, settings=Settings(label_shares=(0.0,), draws=1))
    with pytest.raises(error, match=words):
        router.choose(embeddings=rows[:60], labels=labels, label_threshold=threshold)


@pytest.mark.parametrize("who", [(0,), (0, 4, 8)])
@pytest.mark.parametrize("right", [1.0, 0.0])
def test_expected_accuracies_lie_in_range_whatever_the_labels(who, right):
    rng = np.random.default_rng(0)
    dataset = np.repeat(np.arange(8), 40)
    rows = unit_rows(8, 16, seed=1)[dataset] + 0.6 * unit_rows(320, 16, seed=2)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    skill = np.clip(rng.uniform(0.1, 0.9, (8, 1)) + rng.normal(0, 0.1, (8, 9)), 0.0, 1.0)
    table = make_table(rng.random((320, 9)) < skill[dataset], dataset)
    router = Router.fit(table, embeddings=rows, settings=Settings(label_shares=(0.0,), draws=1))
    prompts = unit_rows(600, 16, seed=5)
    before = router.choose(embeddings=prompts)
    for n_labels in (1, 20, 500):
        labels = np.full((n_labels, 9), NAN)
        labels[:, who] = right
        found = router.choose(embeddings=prompts, labels=labels)
        content = found.to_dict()
        told = [content["expected_accuracy"], *content["interval"]]
        told += [of_model["auto"] for of_model in content["models"]]
        assert min(told) >= 0.0 and max(told) <= 1.0
        chosen = found.models.index(found.model)
        if right and chosen not in who:  # it was expected to be as good as the best with labels
            assert before.auto[chosen] >= found.auto[list(who)].max()
    if right:
        assert chosen in who


@pytest.mark.parametrize("n_datasets", [1, 2])
def test_benchmarks_of_one_or_two_datasets(compass, n_datasets):
    table, rows = compass
    kept = np.flatnonzero(table.dataset < n_datasets)
    router = Router.fit(
        table.rows(kept), embeddings=rows[kept], settings=Settings(label_shares=(0.0,), draws=1)
    )
    decision = router.choose(embeddings=rows[:20])
    assert decision.model == "one" == router.best_on_average
    if n_datasets == 1:
        assert decision.interval is None and np.isnan(decision.auto_sd).all()
        assert decision.to_dict()["interval"] is None
        assert "nan" not in json.dumps(decision.to_dict(), allow_nan=False).lower()
        np.testing.assert_allclose(decision.auto, decision.standing, rtol=0, atol=1e-12)
    labels = np.tile([[0.0, 0.0, 1.0]], (20, 1))
    labelled = router.choose(embeddings=rows[:30], labels=labels)
    assert labelled.auto[0] < decision.auto[0]
    assert labelled.auto[2] > decision.auto[2]
    assert np.isfinite(labelled.interval).all()
