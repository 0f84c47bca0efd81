"""Held-out datasets and training pairs against the slow reference."""

from __future__ import annotations

import numpy as np
import pytest
import reference_method
from tables import make_table, unit_rows

from benchrouter.scores import held_out as held_out_datasets
from benchrouter.scores import pairs
from benchrouter.scores.evidence import evidence_of, model_costs_usd, prior_of, verdicts


def small(n=90, n_datasets=3, n_models=3, seed=0, **sizes):
    rng = np.random.default_rng(seed)
    dataset = np.arange(n) % n_datasets
    scores = (rng.random((n, n_models)) < 0.6).astype(np.float32)
    rows = unit_rows(n, 6, seed)
    return evidence_of(make_table(scores, dataset), rows, **sizes), scores, dataset, rows


def test_pairs_at_label_shares_equal_the_reference():
    evidence, correct, dataset, rows = small(k=3, kappa=4)
    similarities = (rows.astype(np.float64) @ rows.T.astype(np.float64)).astype(np.float32)
    for held_out in held_out_datasets.hold_out(evidence):
        d = held_out.code
        found = pairs.pairs_of(
            held_out, evidence, label_shares=(0.0, 0.01, 0.1, 0.4), draws=2, seed=7
        )
        assert found.share.tolist() == [0.0, 0.0, 0.01, 0.01, 0.1, 0.1, 0.4, 0.4]
        assert found.dataset.tolist() == [d] * 8
        own = np.flatnonzero(dataset == d)
        others = [e for e in range(len(dataset)) if dataset[e] != d]
        prior = reference_method.standing(correct, dataset, [c for c in range(3) if c != d])
        for i, share in enumerate((0.0, 0.01, 0.1, 0.4)):
            rng = np.random.default_rng([7, d, i])
            for draw in range(2):
                n_moved = int(share * 30 + 1e-9)  # 0, 0, 3 and 12 of 30 records
                moved = own[rng.choice(30, n_moved, replace=False)] if n_moved else own[:0]
                rest = [e for e in own if e not in moved]
                pool = others + moved.tolist()
                u, _, _, p = reference_method.task(rest, pool, similarities, correct, prior, 3, 4)
                assert found.u[2 * i + draw] == pytest.approx(u, abs=1e-6)
                np.testing.assert_allclose(found.p[2 * i + draw], p, rtol=0, atol=1e-12)


def test_labels_bring_a_task_nearer():
    evidence, *_ = small(n=300, k=3, kappa=4)
    held_out = next(held_out_datasets.hold_out(evidence))
    found = pairs.pairs_of(held_out, evidence, label_shares=(0.0, 0.1, 0.28), draws=3)
    assert found.u[:3].mean() > found.u[3:6].mean() > found.u[6:].mean()


def test_at_most_fifty_labels_are_moved():
    evidence, *_ = small(n=603, k=3, kappa=4)
    held_out = next(held_out_datasets.hold_out(evidence))
    many = pairs.pairs_of(held_out, evidence, label_shares=(0.28,), draws=1)
    most = pairs.pairs_of(held_out, evidence, label_shares=(0.25,), draws=1)
    assert (int(0.28 * 201), int(0.25 * 201)) == (56, 50)
    np.testing.assert_array_equal(many.u, most.u)


def test_a_large_benchmark_is_sampled_and_says_so(monkeypatch):
    monkeypatch.setattr(held_out_datasets, "ALL_RECORDS", 50)
    monkeypatch.setattr(held_out_datasets, "SAMPLE", 10)
    evidence, *_ = small()
    first = [h.rows for h in held_out_datasets.hold_out(evidence, seed=1)]
    again = [h.rows for h in held_out_datasets.hold_out(evidence, seed=1)]
    other = [h.rows for h in held_out_datasets.hold_out(evidence, seed=2)]
    assert [len(rows) for rows in first] == [10, 10, 10]
    for a, b, c in zip(first, again, other, strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.tolist() != c.tolist()


def test_leaving_out_one_dataset_more_is_a_new_search():
    evidence, _, dataset, rows = small(k=2, kappa=5)
    for held_out in held_out_datasets.hold_out(evidence):
        for other in range(3):
            if other == held_out.code:
                continue
            pool = np.flatnonzero((dataset != held_out.code) & (dataset != other))
            similarities = (rows[held_out.rows].astype(np.float64) @ rows[pool].T).astype(
                np.float32
            )
            order = np.argsort(-similarities, axis=1, kind="stable")[:, :5]
            found = held_out_datasets.without(held_out, evidence, other)
            np.testing.assert_array_equal(found.ids, pool[order])


def test_progress_is_told():
    evidence, *_ = small()
    seen = []
    list(held_out_datasets.hold_out(evidence, progress=lambda *args: seen.append(args)))
    assert seen == [("holding out each dataset", i, 3) for i in (1, 2, 3)]


def test_prior_of_models_and_datasets_without_scores():
    nan = np.nan
    np.testing.assert_allclose(prior_of(np.array([[0.2, 0.4], [0.4, 0.8]])), [0.3, 0.6], rtol=1e-6)
    np.testing.assert_allclose(prior_of(np.array([[0.2, nan], [nan, nan]])), [0.2, 0.2], rtol=1e-6)
    np.testing.assert_array_equal(prior_of(np.full((1, 2), nan)), [0.5, 0.5])
    np.testing.assert_array_equal(prior_of(np.empty((0, 2))), [0.5, 0.5])


def test_three_of_ten_is_not_above_three_tenths():
    g = np.array([3 / 10, 4 / 10], dtype=np.float32)
    np.testing.assert_array_equal(verdicts(g, 0.3), [False, True])


def test_costs_are_means_over_datasets_of_recorded_ones():
    table = make_table(
        np.zeros((3, 2)),
        [0, 0, 1],
        cost_usd=np.array([[1, np.nan], [3, np.nan], [10, np.nan]], dtype=np.float32),
    )
    np.testing.assert_array_equal(model_costs_usd(table), [6.0, np.nan])
    priced = make_table(np.zeros((1, 2)), [0], prices=np.array([[0.5, 1.5], [np.nan, 1.0]]))
    np.testing.assert_array_equal(model_costs_usd(priced), [np.nan, np.nan])
