"""Views of held-out records, against the slow way: leave one out and refit."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores import formulas
from benchrouter.scores.expected.views import (
    PENALTIES,
    Records,
    linear_views,
    of_datasets,
    of_votes,
)

N, DIM, MODELS = 60, 8, 3


def records_of(seed=0, missing=0.0, n_datasets=4):
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(N, DIM)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    dataset = np.sort(rng.integers(0, n_datasets, N)).astype(np.int32)
    dataset[:n_datasets] = np.arange(n_datasets)
    found = (rng.random((N, MODELS)) < 0.3 + 0.2 * rng.random(MODELS)).astype(np.float32)
    found[rng.random(found.shape) < missing] = np.nan
    return Records(
        embeddings=rows,
        outcomes=found,
        scores=found,
        dataset=dataset,
        means=formulas.dataset_means(found, dataset, n_datasets),
        codes=np.arange(n_datasets),
    )


def ridge(rows, targets, weights, penalty):
    """Weighted ridge with a free intercept: one big linear system, as in a textbook."""
    n, dim = rows.shape
    design = np.hstack([rows.astype(np.float64), np.ones((n, 1))])
    system = design.T @ (weights[:, None] * design) + penalty * np.diag([*np.ones(dim), 0.0])
    return np.linalg.solve(system, design.T @ (weights[:, None] * targets))


def predict(found, row):
    return np.append(row.astype(np.float64), 1.0) @ found


def test_a_record_left_out_is_predicted_as_by_a_regression_without_it():
    records = records_of()
    rows = np.array([0, 7, 31, 59])
    fitted, alone, _ = linear_views(records, rows)
    sizes = np.bincount(records.dataset)
    weights = N / len(sizes) / sizes[records.dataset]  # every dataset weighs the same
    for i, penalty in enumerate(PENALTIES):
        whole = ridge(records.embeddings, records.scores, weights, penalty)
        own = fitted.level + (records.embeddings[3] - fitted.centre) @ fitted.weights[i]
        assert_allclose(own, predict(whole, records.embeddings[3]), atol=1e-5)
        for j, row in enumerate(rows):
            left = np.arange(N) != row
            without = ridge(records.embeddings[left], records.scores[left], weights[left], penalty)
            assert_allclose(alone[i, j], predict(without, records.embeddings[row]), atol=1e-5)


def test_a_dataset_left_out_is_predicted_by_the_others():
    records = records_of(1)
    rows = np.arange(N)
    _, _, apart = linear_views(records, rows)
    for code in range(4):
        left = records.dataset != code
        sizes = np.bincount(records.dataset[left], minlength=4)
        weights = left.sum() / 3 / sizes[records.dataset[left]]
        for i, penalty in enumerate(PENALTIES):
            others = ridge(records.embeddings[left], records.scores[left], weights, penalty)
            for row in np.flatnonzero(~left)[:3]:
                expected = predict(others, records.embeddings[row])
                assert_allclose(apart[i, row], expected, atol=1e-5)


def test_a_missing_score_counts_as_the_models_mean_on_the_dataset():
    records = records_of(2, missing=0.3)
    filled = records.scores.copy()
    at = np.isnan(filled)
    filled[at] = records.means[records.dataset][at]
    whole = Records(
        records.embeddings, filled, filled, records.dataset, records.means, records.codes
    )
    one, two = (linear_views(table, np.arange(5))[1] for table in (records, whole))
    assert_array_equal(one, two)


def neighbours_of(ids):
    ids = np.array(ids, dtype=np.int64)
    return Neighbours(ids, np.where(ids >= 0, 0.5, -np.inf).astype(np.float32))


def test_votes_are_deviations_from_the_standing():
    records = records_of()
    records.scores[[1, 2, 3]] = [[1, 0, np.nan], [1, 1, np.nan], [0, 1, np.nan]]
    standing = np.array([[0.5, 0.25, 0.75]])
    found = of_votes(neighbours_of([[1, 2, 3, 4]]), 3, records, standing, 1)
    assert_allclose(found, [[2 / 3 - 0.5, 2 / 3 - 0.25, 0.0]], atol=1e-7)
    nobody = of_votes(neighbours_of([[-1, -1, -1]]), 3, records, standing, 1)
    assert_array_equal(nobody, [[0.0, 0.0, 0.0]])


def test_datasets_are_means_of_the_neighbours_datasets_without_the_row():
    scores_of = np.array([[1.0], [0.0], [1.0], [1.0], [0.0]], dtype=np.float32)
    dataset = np.array([0, 0, 0, 1, 1], dtype=np.int32)
    records = Records(
        embeddings=np.eye(5, dtype=np.float32),
        outcomes=scores_of,
        scores=scores_of,
        dataset=dataset,
        means=formulas.dataset_means(scores_of, dataset, 2),  # 2/3 and 1/2
        codes=np.arange(2),
    )
    row, standing = np.array([0]), np.array([[0.5]])
    near = neighbours_of([[1, 2, 3, -1]])  # two of the row's own dataset, one of the other
    # Without the row its dataset has the mean (0 + 1) / 2, so both are 1/2: no deviation.
    found = of_datasets(near, 4, records, standing, row, alone=True)
    assert_allclose(found, [[0.0]], atol=1e-12)
    # Whole, its dataset has 2/3: two of three neighbours are 1/6 above the standing.
    found = of_datasets(near, 4, records, standing, row, alone=False)
    assert_allclose(found, [[2 / 3 * (2 / 3 - 0.5)]], atol=1e-7)


@pytest.mark.parametrize("n_datasets", [1, 2])
def test_few_datasets_have_views(n_datasets):
    records = records_of(3, n_datasets=n_datasets)
    _, alone, apart = linear_views(records, np.arange(N))
    assert np.isfinite(alone).all() and np.isfinite(apart).all()
    assert (apart == 0).all() == (n_datasets == 1)
