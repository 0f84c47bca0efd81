"""Leave-one-dataset-out against the slow reference, and against the kept numbers of real tables."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import reference_method
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import make_table, unit_rows

from benchrouter import read_table
from benchrouter.evaluation import leave_one_dataset_out
from benchrouter.evaluation.tasks.chosen_models import best_models, chances, smooth
from benchrouter.evaluation.tasks.measures import table_one
from benchrouter.scores import formulas
from benchrouter.scores.cells import moves_of
from benchrouter.scores.fitted import Settings

EXPERIMENTS = {
    "A": ("mmlu_pro", dict(dataset_column="src", max_params=50, complete=True, min_records=100)),
    "B": ("mmlu_pro", dict(complete=True)),
    "C": ("ulab_llmrouter", {}),
}
UNLABELLED = dict(label_shares=(0.0,), draws=1)
NESTINGS = ("strict", "published")
PAPER = (
    *("BMA", "S1", "S2", "S3", "S3 with fallback", "S3 true p"),
    *("LL", "cheapest", "oracle"),
)


def small(seed=0, n=60, n_datasets=4, n_models=3, **fields):
    """A complete random table and its unit rows."""
    rng = np.random.default_rng(seed)
    dataset = np.arange(n) % n_datasets
    scores = (rng.random((n, n_models)) < 0.6).astype(np.float32)
    return make_table(scores, dataset, **fields), unit_rows(n, 6, seed)


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10**6), st.booleans())
def test_equals_the_reference(seed, missing):
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
        make_table(correct, dataset),
        rows,
        settings=Settings(k=k, kappa=kappa, sigma=0.2, **UNLABELLED),
    )
    for nesting in NESTINGS:
        expected = reference_method.leave_one_dataset_out(
            rows, correct, dataset, k, kappa, 0.2, nesting
        )
        for d, (u, s1, s2, p, p_hat) in enumerate(expected):
            assert found.u[d, 0, 0] == pytest.approx(u, abs=1e-6)
            np.testing.assert_allclose(found.s1[d, 0, 0], s1, rtol=0, atol=1e-6)
            np.testing.assert_allclose(found.s2[d, 0, 0], s2, rtol=0, atol=1e-12)
            np.testing.assert_allclose(found.p[d, 0, 0], p, rtol=0, atol=1e-12)
            np.testing.assert_allclose(found.p_hat[nesting][d, 0, 0], p_hat, rtol=0, atol=1e-6)


@pytest.mark.parametrize("nesting", NESTINGS)
def test_label_shares_equal_the_reference(nesting):
    table, rows = small()
    shares, draws, sigma = (0.0, 0.01, 0.2), 2, 0.3
    found = leave_one_dataset_out(
        table,
        rows,
        settings=Settings(k=3, kappa=4, sigma=sigma, label_shares=shares, draws=draws, seed=5),
    )
    dataset, correct = table.dataset, table.scores.astype(np.float64)
    similarities = (rows.astype(np.float64) @ rows.T.astype(np.float64)).astype(np.float32)
    assert found.n_labels.tolist() == [[0, 0, 3]] * 4

    def cell(d, a, r, without=None):
        own = np.flatnonzero(dataset == d)
        moved = own[moves_of(15, d, shares, draws, 5)[a][r]]
        rest = np.setdiff1d(own, moved)
        others = [c for c in range(4) if c not in (d, without)]
        pool = [*np.flatnonzero(np.isin(dataset, others)), *moved]
        prior = reference_method.standing(correct, dataset, others)
        answer = reference_method.task(rest, pool, similarities, correct, prior, 3, 4)
        return *answer, correct[rest]

    every = [(a, r) for a in range(3) for r in range(draws)]
    for d in range(4):
        pairs = [
            cell(z, a, r, d if nesting == "strict" else None)
            for z in range(4)
            if z != d
            for a, r in every
        ]
        pair_u, pair_p = [pair[0] for pair in pairs], [pair[3] for pair in pairs]
        for a, r in every:
            u, s1, s2, p, rest = cell(d, a, r)
            assert found.u[d, a, r] == pytest.approx(u, abs=1e-6)
            np.testing.assert_allclose(found.s1[d, a, r], s1, atol=1e-6)
            np.testing.assert_allclose(found.s2[d, a, r], s2, atol=1e-12)
            np.testing.assert_allclose(found.p[d, a, r], p, atol=1e-12)
            p_hat = reference_method.smooth(u, pair_u, pair_p, sigma)
            np.testing.assert_allclose(found.p_hat[nesting][d, a, r], p_hat, atol=1e-6)
            np.testing.assert_allclose(found.accuracy[d, a, r], rest.mean(axis=0))
            assert found.oracle_per_record[d, a, r] == pytest.approx(rest.max(axis=1).mean())


@pytest.fixture(scope="module", params=sorted(EXPERIMENTS))
def experiment(request, shared):
    file, selection = EXPERIMENTS[request.param]
    table = read_table([shared / "data" / f"{file}.parquet"], **selection)
    embeddings = np.load(shared / "data" / f"{file}.minilm.npy")
    reference = json.loads((shared / "data" / "reference" / f"{request.param}.json").read_text())
    return leave_one_dataset_out(table, embeddings, settings=Settings(**UNLABELLED)), reference


def test_real_tables_equal_the_kept_numbers(experiment):
    found, reference = experiment
    assert list(found.datasets) == reference["datasets"]
    assert list(found.models) == reference["models"]
    assert found.n_records.tolist() == reference["records_per_dataset"]
    np.testing.assert_array_equal(found.accuracy[:, 0, 0].round(6), reference["accuracy"])
    np.testing.assert_allclose(found.u[:, 0, 0], reference["u"], rtol=0, atol=1e-4)
    for name, values in (("S1", found.s1), ("S2", found.s2), ("p", found.p)):
        off = np.abs(values[:, 0, 0] - np.array(reference[name]))
        assert (off <= 1.01e-6).mean() >= 0.98, name  # the kept numbers are rounded at 1e-6
        assert off.max() <= 0.006, name
    for nesting, key in (("strict", "nested"), ("published", "published")):
        np.testing.assert_allclose(
            found.p_hat[nesting][:, 0, 0], reference[f"p_hat_{key}_alpha0"], rtol=0, atol=2e-3
        )


def test_real_tables_give_the_same_picks(experiment):
    found, reference = experiment
    macro = reference["macro_accuracy"]
    strict, published = (
        {rule: chosen[:, 0, 0] for rule, chosen in found.picks[nesting].items()}
        for nesting in NESTINGS
    )
    np.testing.assert_array_equal(strict["BMA"], reference["bma"])
    s1, s2 = np.array(reference["S1"]), np.array(reference["S2"])
    p_strict, p_published = (
        np.array(reference[f"p_hat_{key}_alpha0"]) for key in ("nested", "published")
    )
    for picks, kept in (
        (strict["S1"], s1),
        (strict["S2"], s2),
        (strict["S3"], s2 * p_strict + (1 - s2) * (1 - p_strict)),
        (published["S3"], s2 * p_published + (1 - s2) * (1 - p_published)),
    ):
        rows = np.arange(len(kept))
        assert (kept.max(axis=1) - kept[rows, picks] <= 0.006).all()
        clear = np.sort(kept, axis=1)[:, -1] - np.sort(kept, axis=1)[:, -2] > 2e-3
        assert clear.any()
        np.testing.assert_array_equal(picks[clear], kept.argmax(axis=1)[clear])
    for nesting, rule, key in (
        ("strict", "BMA", "BMA"),
        ("strict", "oracle", "oracle"),
        ("strict", "S1", "S1"),
        ("strict", "S2", "S2"),
        ("strict", "S3", "S3 no fallback, nested"),
        ("published", "S3", "S3 no fallback, published pairs at alpha 0"),
    ):
        assert found.macro_accuracy(nesting, rule) == pytest.approx(macro[key], abs=1e-6), key


def test_to_dict_is_json():
    table, rows = small()
    found = leave_one_dataset_out(table, rows, settings=Settings(label_shares=(0.0, 0.2), draws=2))
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["nestings"] == ["strict", "published"]
    for nesting in NESTINGS:
        assert set(content["macro_accuracy"][nesting]) == {*content["picks"][nesting], "random"}
        assert content["macro_accuracy"][nesting]["S1"] == [
            found.macro_accuracy(nesting, "S1", a) for a in (0, 1)
        ]
    assert np.shape(content["p"]) == (4, 2, 3)


def test_the_same_seed_gives_the_same_draws_in_every_nesting_alone_or_together():
    table, rows = small()
    some = dict(label_shares=(0.2,), draws=3, seed=4)
    both = leave_one_dataset_out(table, rows, settings=Settings(**some))
    for nesting in NESTINGS:
        alone = leave_one_dataset_out(
            table, rows, nestings=(nesting,), threads=2, settings=Settings(**some)
        )
        np.testing.assert_array_equal(alone.s1, both.s1)
        np.testing.assert_array_equal(alone.p_hat[nesting], both.p_hat[nesting])
        for rule, chosen in both.picks[nesting].items():
            np.testing.assert_array_equal(alone.picks[nesting][rule], chosen)
    other = leave_one_dataset_out(table, rows, settings=Settings(**{**some, "seed": 5}))
    assert (other.s1 != both.s1).any()


def test_published_average_knows_the_held_out_dataset():
    # model 0 is right on dataset 0 only (1, 0, 0), model 1 on a third of each of the others
    scores = np.zeros((9, 2))
    scores[:3, 0] = 1
    scores[[3, 6], 1] = 1
    found = leave_one_dataset_out(
        make_table(scores, np.repeat(np.arange(3), 3)),
        unit_rows(9, 4),
        settings=Settings(**UNLABELLED),
    )
    assert found.picks["published"]["BMA"][:, 0, 0].tolist() == [0, 0, 0]
    assert found.picks["strict"]["BMA"][:, 0, 0].tolist() == [1, 0, 0]
    assert found.macro_accuracy("published", "BMA") == pytest.approx(1 / 3)
    assert found.macro_accuracy("strict", "BMA") == 0.0
    assert found.macro_accuracy("strict", "oracle") == pytest.approx((1 + 1 / 3 + 1 / 3) / 3)
    assert found.macro_accuracy("strict", "random") == pytest.approx((1 / 2 + 1 / 6 + 1 / 6) / 3)


def test_cheapest_and_log_likelihood():
    table, rows = small(
        params_b=np.array([7.0, 3.0, 70.0]),
        log_likelihood=np.tile(np.array([-3, -2, -1], np.float32), (60, 1)),
    )
    found = leave_one_dataset_out(table, rows, settings=Settings(label_shares=(0.0, 0.2), draws=2))
    for nesting in NESTINGS:
        assert [rule for rule in found.picks[nesting] if rule in PAPER] == list(PAPER)
        assert (found.picks[nesting]["cheapest"] == 1).all()
        assert (found.picks[nesting]["LL"] == 2).all()
    assert not any("cheapest" in note for note in found.notes)


def test_without_costs_and_sizes_there_is_no_cheapest_model():
    found = leave_one_dataset_out(*small(), settings=Settings(**UNLABELLED))
    assert all("cheapest" not in found.picks[nesting] for nesting in NESTINGS)
    assert sum("No row 'cheapest'" in note for note in found.notes) == 1
    prices = np.array([[2.0, 2.0], [np.nan, np.nan], [1.0, 1.0]])
    for fields, cheapest in (
        (dict(prices=prices), 2),
        (dict(cost_usd=np.tile(np.array([3, 1, 2], np.float32), (60, 1))), 1),
    ):
        found = leave_one_dataset_out(*small(**fields), settings=Settings(**UNLABELLED))
        assert (found.picks["strict"]["cheapest"] == cheapest).all()
        assert not any("cheapest" in note for note in found.notes)


def test_without_log_likelihoods_of_every_model_that_was_run_there_is_no_row_ll():
    likelihood = np.tile(np.array([-3, -2, -1], np.float32), (60, 1))
    likelihood[np.arange(60) % 4 == 2, 1] = np.nan
    table, rows = small(log_likelihood=likelihood)
    found = leave_one_dataset_out(table, rows, settings=Settings(label_shares=(0.0, 0.2), draws=2))
    for nesting in NESTINGS:
        assert "LL" not in found.picks[nesting]
        assert "LL" not in {row.rule for row in table_one(found, nesting)}
    (note,) = (note for note in found.notes if "No row LL" in note)
    assert note.endswith("missing on dataset 2.")
    scores = table.scores.copy()
    scores[np.arange(60) % 4 == 2, 1] = np.nan  # not run there: nothing is missing
    found = leave_one_dataset_out(
        replace(table, scores=scores), rows, settings=Settings(**UNLABELLED)
    )
    assert (found.picks["strict"]["LL"] == 2).all()
    assert not any("No row LL" in note for note in found.notes)


def test_log_likelihood_is_that_of_the_remaining_records():
    likelihood = np.arange(60, dtype=np.float32)[:, None] * np.array([[1, 0, 0]], np.float32)
    table, rows = small(log_likelihood=likelihood)
    found = leave_one_dataset_out(table, rows, settings=Settings(label_shares=(0.2,), draws=2))
    own = np.arange(0, 60, 4)
    rest = np.delete(own, moves_of(15, 0, (0.2,), 2, 0)[0][1])
    assert found.log_likelihood[0, 0, 1, 0] == pytest.approx(rest.mean())


def test_one_dataset_and_bad_settings_are_refused():
    table, rows = small()
    with pytest.raises(ValueError, match=r"needs at least 2 datasets .* found 1: 'dataset 0'"):
        leave_one_dataset_out(table.select(datasets=["dataset 0"]), rows)
    with pytest.raises(ValueError, match="nesting must be 'strict' or 'published', got 'loose'"):
        leave_one_dataset_out(table, rows, nestings=("loose",))
    with pytest.raises(ValueError, match="k must be at least 1, got 0"):
        leave_one_dataset_out(table, rows, settings=Settings(k=0))
    with pytest.raises(ValueError, match="label_shares must be numbers in"):
        leave_one_dataset_out(table, rows, settings=Settings(label_shares=(1.0,)))
    with pytest.raises(ValueError, match="needs scores, found none"):
        leave_one_dataset_out(make_table(np.full((4, 1), np.nan), [0, 0, 1, 1]), rows[:4].copy())


def test_two_datasets_have_no_p_hat_when_strictly_nested():
    table, rows = small(n_datasets=2)
    found = leave_one_dataset_out(table, rows, settings=Settings(label_shares=(0.0, 0.2), draws=2))
    assert np.isnan(found.p_hat["strict"]).all()
    assert np.isfinite(found.p_hat["published"]).all()
    strict = found.picks["strict"]
    for rule in ("S3", "S3 with fallback"):
        np.testing.assert_array_equal(strict[rule], strict["BMA"])
    assert any("Strict nesting with two datasets" in note for note in found.notes)
    assert 0 < found.macro_accuracy("strict", "S1") < 1
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_large_table_is_sampled_and_says_so(monkeypatch):
    from benchrouter.scores import held_out

    monkeypatch.setattr(held_out, "ALL_RECORDS", 50)
    monkeypatch.setattr(held_out, "SAMPLE", 10)
    table, rows = small()
    found = leave_one_dataset_out(table, rows, settings=Settings(label_shares=(0.0, 0.2), draws=2))
    assert found.n_labels.tolist() == [[0, 2]] * 4  # of the sample of 10
    assert found.n_records.tolist() == [15] * 4
    np.testing.assert_array_equal(found.accuracy[:, 0, 0], found.means)
    moved = found.means * 15 - found.accuracy[:, 1, 0] * 13  # of the two, those that are correct
    np.testing.assert_allclose(moved, moved.round(), atol=1e-9)
    assert moved.round().min() >= 0 and moved.round().max() == 2
    assert any("at most 10 records a dataset" in note for note in found.notes)


def test_progress_is_told():
    seen = []
    leave_one_dataset_out(
        *small(), progress=lambda *args: seen.append(args), settings=Settings(**UNLABELLED)
    )
    stages = ["holding out each dataset"]
    stages += [f"choosing for each dataset ({nesting})" for nesting in NESTINGS]
    for stage in stages:
        assert [args[1:] for args in seen if args[0] == stage] == [(i, 4) for i in (1, 2, 3, 4)]


def test_a_dataset_of_one_record_and_constant_scores():
    rng = np.random.default_rng(0)
    dataset = np.array([0] * 20 + [1] + [2] * 20 + [3] * 20)
    scores = (rng.random((61, 3)) < 0.6).astype(np.float32)
    scores[20] = [1, 0, 1]
    scores[dataset == 2] = 1.0
    scores[dataset == 3] = 0.0
    found = leave_one_dataset_out(make_table(scores, dataset), unit_rows(61, 5))
    assert found.n_labels[1].tolist() == [0] * 15
    assert np.isnan(found.oracle_split_half).tolist() == [False, True, False, False]
    assert np.isfinite(found.p_hat["strict"]).all()
    notes = " ".join(found.notes)
    assert "One record only in dataset 1" in notes
    assert "All models are equally accurate on dataset 2, dataset 3" in notes
    assert "No model is ever right on dataset 3" in notes


def test_a_model_that_ran_on_one_dataset_and_a_dataset_that_none_ran_on():
    rng = np.random.default_rng(0)
    dataset = np.repeat(np.arange(4), 20)
    scores = (rng.random((80, 3)) < 0.7).astype(np.float32)
    scores[dataset != 0, 2] = np.nan
    scores[dataset == 1] = np.nan
    rows = unit_rows(80, 6)
    found = leave_one_dataset_out(make_table(scores, dataset), rows)
    assert np.isnan(found.accuracy[1]).all()
    assert np.isfinite(found.s1).all()
    for nesting in NESTINGS:
        assert np.isfinite(found.s3(nesting)[[0, 2, 3]][..., :2]).all()
        assert 0.0 <= found.macro_accuracy(nesting, "BMA") <= 1.0
    assert any(note.startswith("No model was run on dataset 1") for note in found.notes)
    assert any(
        note.startswith("Model model 2 was not run on dataset 2, dataset 3") for note in found.notes
    )
    json.dumps(found.to_dict(), allow_nan=False)


def test_a_model_without_a_score_elsewhere_is_not_chosen():
    # Its votes would be the mean of the others', and its verdicts all of them "correct".
    rng = np.random.default_rng(0)
    dataset = np.repeat(np.arange(4), 15)
    scores = (rng.random((60, 3)) < 0.6).astype(np.float32)
    scores[dataset != 3, 2] = np.nan
    found = leave_one_dataset_out(
        make_table(scores, dataset),
        unit_rows(60, 8, 1),
        settings=Settings(label_shares=(0.0, 0.2), draws=2),
    )
    assert (found.s2[3, 0, :, 2] == 1.0).all()
    for nesting in NESTINGS:
        for rule in ("S1", "S2", "S3", "S3 with fallback", "S3 true p", "BMA"):
            assert (found.picks[nesting][rule][3] != 2).all(), rule
    auto = found.rule_scores["strict"]["auto"][3, ..., 2]
    assert np.isnan(auto[0]).all() and np.isfinite(auto[1]).all()  # labels say something of it
    assert (found.picks["strict"]["auto"][3, 0] != 2).all()


def test_choices_of_many_cells_equal_those_of_one():
    rng = np.random.default_rng(1)
    score, s1 = (rng.integers(0, 3, (200, 4)).astype(float) for _ in range(2))
    score[rng.random(score.shape) < 0.2] = np.nan
    score[0] = np.nan
    preferred = np.array([2, 0, 3, 1], np.int32)
    picks = best_models(score, preferred, np.full(200, 3), s1)
    assert picks[0] == 3
    for i in np.flatnonzero(~np.isnan(score).all(axis=1)):
        assert picks[i] == formulas.best_model(score[i], preferred, s1[i])


def test_chances_and_smoother_of_many_cells_equal_those_of_one():
    rng = np.random.default_rng(2)
    s2, p = rng.random((2, 6, 3)).round(1)
    p[5] = np.nan
    models, rivals = np.array([0, 1, 2, 0, 1, 0]), np.array([1, 2, 0, 0, 1, 2])
    found = chances(models, rivals, s2, p, np.full(6, 10))
    for i, (a, b) in enumerate(zip(models[:5], rivals[:5], strict=True)):
        expected = formulas.probability_better((s2[i, a], s2[i, b]), (p[i, a], p[i, b]), 10)
        assert found[i] == expected
    assert np.isnan(found[5])
    pair_u, pair_p = rng.random(9), rng.random((9, 3))
    pair_p[:4, 1] = np.nan
    pair_p[:, 2] = np.nan
    expected = formulas.smooth(pair_u[:2], pair_u, pair_p, 0.1)
    np.testing.assert_allclose(smooth(pair_u[:2], pair_u, pair_p, 0.1), expected)
