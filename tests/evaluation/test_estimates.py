"""`auto` under leave-one-dataset-out: no leak, and the same as a router that users would fit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from tables import make_table, unit_rows

from benchrouter import Router
from benchrouter.evaluation import leave_one_dataset_out
from benchrouter.evaluation.tasks.estimates import held_out_estimates, labels_alone
from benchrouter.scores.cells import moves_of
from benchrouter.scores.evidence import evidence_of
from benchrouter.scores.fitted import Settings
from benchrouter.scores.held_out import hold_out

N_DATASETS, N_RECORDS, N_MODELS = 6, 40, 4


def benchmark(missing=0.0):
    rng = np.random.default_rng(3)
    dataset = np.repeat(np.arange(N_DATASETS), N_RECORDS)
    rows = unit_rows(N_DATASETS, 8, seed=1)[dataset] + 0.6 * unit_rows(len(dataset), 8, seed=2)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    skill = rng.uniform(0.2, 0.9, (N_DATASETS, N_MODELS))
    scores = (rng.random((len(dataset), N_MODELS)) < skill[dataset]).astype(np.float32)
    hidden = rng.random(scores.shape) < missing
    hidden[:, 0] = False  # every record has some score, and so every label
    scores[hidden] = np.nan
    return make_table(scores, dataset), rows.astype(np.float32)


def estimates(table, rows):
    evidence = evidence_of(table, rows)
    return list(held_out_estimates(list(hold_out(evidence)), evidence, sigma=0.09))


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_nothing_is_learnt_from_the_held_out_dataset(missing):
    table, rows = benchmark(missing)
    before = estimates(table, rows)
    for code in (0, 4):
        scores = table.scores.copy()
        own = table.dataset == code
        scores[own] = 1 - scores[own]
        after = estimates(replace(table, scores=scores), rows)
        np.testing.assert_array_equal(after[code].before.mean, before[code].before.mean)
        np.testing.assert_array_equal(after[code].before.covariance, before[code].before.covariance)
        np.testing.assert_array_equal(after[code].tasks.within, before[code].tasks.within)
        labels = table.scores[own][:9].astype(float)
        one, other = (found[code].after(labels).calibration for found in (before, after))
        np.testing.assert_array_equal(one.errors, other.errors)
        assert one.optimism == other.optimism
        other = (code + 1) % N_DATASETS
        assert np.abs(after[other].before.mean - before[other].before.mean).max() > 1e-3


@pytest.mark.parametrize("missing", [0.0, 0.3])
def test_what_is_measured_is_what_a_router_of_the_other_datasets_answers(missing):
    table, rows = benchmark(missing)
    shares, draws = (0.0, 0.2), 2
    found = leave_one_dataset_out(table, rows, settings=Settings(label_shares=shares, draws=draws))
    for code in range(N_DATASETS):
        own = np.flatnonzero(table.dataset == code)
        others = np.flatnonzero(table.dataset != code)
        router = Router.fit(
            table.rows(others),
            embeddings=rows[others],
            settings=Settings(label_shares=(0.0,), draws=1),
        )
        plain = router.choose(embeddings=rows[own])
        np.testing.assert_allclose(
            found.rule_scores["strict"]["auto"][code, 0, 0], plain.auto, atol=1e-9
        )
        chosen = found.picks["strict"]["auto"][code, 0, 0]
        assert table.models[chosen] == plain.model
        np.testing.assert_allclose(found.intervals[code, 0, 0], plain.interval, atol=1e-9)
        moved = moves_of(len(own), code, shares, draws, 0)[1][1]
        order = [*moved, *np.setdiff1d(np.arange(len(own)), moved)]
        labels = table.scores[own[moved]]
        labelled = router.choose(embeddings=rows[own[order]], labels=labels)
        np.testing.assert_allclose(
            found.rule_scores["strict"]["auto"][code, 1, 1], labelled.auto, atol=1e-9
        )
        np.testing.assert_allclose(found.intervals[code, 1, 1], labelled.interval, atol=1e-9)


def test_without_labels_the_rule_labels_is_the_best_on_average():
    table, rows = benchmark()
    scores = table.scores.copy()
    scores[:, 3] = np.where(table.dataset == 0, 1.0, np.nan)  # the largest standing, run once
    found = leave_one_dataset_out(
        replace(table, scores=scores), rows, settings=Settings(label_shares=(0.0, 0.2), draws=2)
    ).picks["strict"]
    np.testing.assert_array_equal(found["labels"][:, 0], found["BMA"][:, 0])
    assert (found["labels"][0, 1] == 3).all()  # right on every label


def test_labels_alone_breaks_ties_by_standing():
    preferred = np.arange(3, dtype=np.int32)
    standing = np.array([0.2, 0.6, 0.5])
    assert labels_alone(np.array([0.7, 0.7, 0.1]), standing, preferred) == 1
    assert labels_alone(np.array([0.7, np.nan, 0.1]), standing, preferred) == 0
    assert labels_alone(np.full(3, np.nan), standing, preferred) == 1
