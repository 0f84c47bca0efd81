"""Leave-one-dataset-out against the slow reference, and against the kept numbers of real tables."""

from __future__ import annotations

import json

import numpy as np
import pytest
import reference_method
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import make_table, unit_rows

from benchrouter.evaluation import leave_one_dataset_out
from benchrouter.table import BenchmarkTable

EXPERIMENTS = {
    "A": ("mmlu_pro", dict(dataset_column="src", max_params=50, complete=True, min_records=100)),
    "B": ("mmlu_pro", dict(complete=True)),
    "C": ("ulab_llmrouter", {}),
}


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from(["strict", "published"]), st.booleans())
def test_equals_the_reference(seed, nesting, missing):
    rng = np.random.default_rng(seed)
    n_datasets, n_models = int(rng.integers(3, 5)), int(rng.integers(1, 4))
    dataset = np.concatenate([np.arange(n_datasets), rng.integers(0, n_datasets, 30)])
    rng.shuffle(dataset)
    correct = (rng.random((len(dataset), n_models)) < 0.6).astype(np.float64)
    if missing:
        first = np.array([np.flatnonzero(dataset == d)[0] for d in range(n_datasets)])
        hidden = rng.random(correct.shape) < 0.3
        hidden[first] = False  # every model keeps a record of every dataset
        correct[hidden] = np.nan
    rows = rng.standard_normal((len(dataset), 6)).astype(np.float32)
    rows[rng.integers(0, len(rows), 8)] = rows[0]  # ties
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    k, kappa = int(rng.integers(1, 6)), int(rng.integers(1, 8))
    found = leave_one_dataset_out(
        make_table(correct, dataset), rows, k=k, kappa=kappa, sigma=0.2, nesting=nesting
    )
    expected = reference_method.leave_one_dataset_out(
        rows, correct, dataset, k, kappa, 0.2, nesting
    )
    for d, (u, s1, s2, p, p_hat) in enumerate(expected):
        assert found.u[d] == pytest.approx(u, abs=1e-6)
        np.testing.assert_allclose(found.s1[d], s1, rtol=0, atol=1e-6)
        np.testing.assert_allclose(found.s2[d], s2, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.p[d], p, rtol=0, atol=1e-12)
        np.testing.assert_allclose(found.p_hat[d], p_hat, rtol=0, atol=1e-6)


@pytest.fixture(scope="module", params=sorted(EXPERIMENTS))
def experiment(request, shared):
    file, selection = EXPERIMENTS[request.param]
    table = BenchmarkTable.read([shared / "data" / f"{file}.parquet"], **selection)
    embeddings = np.load(shared / "data" / f"{file}.minilm.npy")
    reference = json.loads((shared / "data" / "reference" / f"{request.param}.json").read_text())
    found = {
        nesting: leave_one_dataset_out(table, embeddings, nesting=nesting)
        for nesting in ("strict", "published")
    }
    return found, reference


def test_real_tables_equal_the_kept_numbers(experiment):
    found, reference = experiment
    strict = found["strict"]
    assert list(strict.datasets) == reference["datasets"]
    assert list(strict.models) == reference["models"]
    assert strict.n_records.tolist() == reference["records_per_dataset"]
    np.testing.assert_array_equal(strict.accuracy.round(6), reference["accuracy"])
    np.testing.assert_allclose(strict.u, reference["u"], rtol=0, atol=1e-4)
    for name, values in (("S1", strict.s1), ("S2", strict.s2), ("p", strict.p)):
        off = np.abs(values - np.array(reference[name]))
        assert (off <= 1.01e-6).mean() >= 0.98, name  # the kept numbers are rounded at 1e-6
        assert off.max() <= 0.006, name
    for nesting, key in (("strict", "nested"), ("published", "published")):
        np.testing.assert_allclose(
            found[nesting].p_hat, reference[f"p_hat_{key}_alpha0"], rtol=0, atol=2e-3
        )


def test_real_tables_give_the_same_picks(experiment):
    found, reference = experiment
    strict, published = found["strict"], found["published"]
    macro = reference["macro_accuracy"]
    np.testing.assert_array_equal(strict.picks["BMA"], reference["bma"])
    assert strict.macro_accuracy("BMA") == pytest.approx(macro["BMA"], abs=1e-6)
    assert strict.macro_accuracy("oracle") == pytest.approx(macro["oracle"], abs=1e-6)
    s1, s2 = np.array(reference["S1"]), np.array(reference["S2"])
    p_strict, p_published = (
        np.array(reference[f"p_hat_{key}_alpha0"]) for key in ("nested", "published")
    )
    for picks, kept in (
        (strict.picks["S1"], s1),
        (strict.picks["S2"], s2),
        (strict.picks["S3"], s2 * p_strict + (1 - s2) * (1 - p_strict)),
        (published.picks["S3"], s2 * p_published + (1 - s2) * (1 - p_published)),
    ):
        rows = np.arange(len(kept))
        assert (kept.max(axis=1) - kept[rows, picks] <= 0.006).all()
        clear = np.sort(kept, axis=1)[:, -1] - np.sort(kept, axis=1)[:, -2] > 2e-3
        assert clear.any()
        np.testing.assert_array_equal(picks[clear], kept.argmax(axis=1)[clear])
    for found_macro, key in (
        (strict.macro_accuracy("S1"), "S1"),
        (strict.macro_accuracy("S2"), "S2"),
        (strict.macro_accuracy("S3"), "S3 no fallback, nested"),
        (published.macro_accuracy("S3"), "S3 no fallback, published pairs at alpha 0"),
    ):
        assert found_macro == pytest.approx(macro[key], abs=1e-6), key


def test_to_dict_is_json(experiment):
    found, _ = experiment
    content = json.loads(json.dumps(found["strict"].to_dict(), allow_nan=False))
    assert content["nesting"] == "strict"
    assert set(content["macro_accuracy"]) == set(content["picks"])
    assert len(content["u"]) == len(content["datasets"])


def test_too_few_datasets_and_unknown_nesting():
    table = make_table(np.ones((4, 1)), np.array([0, 0, 1, 1]))
    rows = np.eye(4, dtype=np.float32)
    with pytest.raises(ValueError, match="needs at least 3 datasets .* found 2"):
        leave_one_dataset_out(table, rows)
    with pytest.raises(ValueError, match="nesting must be 'strict' or 'published', got 'loose'"):
        leave_one_dataset_out(table, rows, nesting="loose")
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        leave_one_dataset_out(make_table(np.ones((3, 1)), np.arange(3)), rows[:3].copy(), k=0)


def test_a_model_that_ran_on_one_dataset_and_a_dataset_that_none_ran_on():
    rng = np.random.default_rng(0)
    dataset = np.repeat(np.arange(4), 20)
    scores = (rng.random((80, 3)) < 0.7).astype(np.float32)
    scores[dataset != 0, 2] = np.nan
    scores[dataset == 1] = np.nan
    rows = unit_rows(80, 6)
    for nesting in ("strict", "published"):
        found = leave_one_dataset_out(make_table(scores, dataset), rows, nesting=nesting)
        assert np.isnan(found.accuracy[1]).all()
        assert np.isfinite(found.s1).all()
        assert np.isfinite(found.s3[[0, 2, 3]][:, :2]).all()
        assert 0.0 <= found.macro_accuracy("BMA") <= 1.0
        json.dumps(found.to_dict(), allow_nan=False)
