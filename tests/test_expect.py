"""The fused decision of the rule `auto` against its float64 twin, at every level; its errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_expected
from hypothesis import given
from numpy.testing import assert_array_equal
from test_voting import LEVELS, NAN, cases, f32, i64, some, some_models

from benchrouter import _core
from benchrouter.expected import expect
from benchrouter.neighbours import Neighbours
from benchrouter.voting import Chosen, PackedOutcomes, pack

INF = float("inf")


def learnt_of(rng, n_records, n_models, dim, n_datasets=3):
    """Random arguments of `_core.Expectation`: rows padded with what nobody may look at."""
    width = -(-n_models // _core.expect_columns) * _core.expect_columns
    share = rng.random(n_models)
    side = (0.0, 0.0, 0.01, 0.3, INF)
    return {
        "dataset": rng.integers(0, n_datasets, n_records).astype(np.int32),
        "own_distance": f32(rng.uniform(0, 1, n_records)),
        "standing": rng.random(n_models),
        "share": share / share.sum(),
        "apart": rng.uniform(0, 1, 2).tolist(),
        "level": rng.uniform(0, 1, 2).tolist(),
        "of_dataset": f32(rng.normal(0, 0.1, (n_datasets, 2 * width))),
        "linear": f32(rng.normal(0, 0.1, (dim, 2 * width))),
        "offset": rng.normal(0, 0.01, 2 * width),
        "gate": rng.normal(0, 2, 4).tolist(),
        "margin": rng.choice(side, 2).tolist(),
        "tolerance": rng.choice(side, 2).tolist(),
    }


def auto_case(case):
    """What a case of test_voting.py lacks: (learnt, queries, options)."""
    rng, (n_queries, n_columns) = case.rng, case.neighbours.shape
    n_models, dim = len(case.prior), int(rng.choice((0, 1, 3, 17, 40)))
    allowed, fallback = some_models(case)
    home = int(rng.choice(np.flatnonzero(allowed)))
    options = {
        "prior": case.prior,
        "preference": case.preference,
        "k": int(rng.integers(0, n_columns + 1)),
        "kappa": int(rng.integers(0, n_columns + 1)),
        "distance_limit": float(rng.choice((0.4, 1.0, INF))),
        "fallback_model": fallback,
        "home": home,
        "allowed": allowed if rng.random() < 0.5 else None,
    }
    learnt = learnt_of(rng, len(case.outcomes), n_models, dim)
    return learnt, f32(rng.normal(0, 1, (n_queries, dim))), options


def outcomes_of(case, kind):
    """The outcomes as given, and packed where they are 0 or 1."""
    return [case.outcomes, pack(case.outcomes)] if kind == "binary" else [case.outcomes]


def assert_same(found, expected):
    for ours, theirs in zip(found.chosen, expected.chosen, strict=True):
        assert_array_equal(ours, theirs)
    assert_array_equal(found.strange, expected.strange)
    assert_array_equal(found.scores, expected.scores)


@pytest.mark.parametrize("kind", ["binary", "scores"])
def test_decisions_equal_the_reference(kind):
    @some
    @given(cases(kind))
    def check(case):
        learnt, queries, options = auto_case(case)
        expected = reference_expected.expect(
            learnt, queries, case.neighbours, case.similarities, case.outcomes, **options
        )
        for outcomes in outcomes_of(case, kind):
            for simd in LEVELS:
                found = expect(
                    _core.Expectation(**learnt), queries,
                    Neighbours(case.neighbours, case.similarities), outcomes, simd=simd,
                    with_scores=True, **options,
                )  # fmt: skip
                rows = (*found.chosen, found.strange, found.scores)
                for i, decision in enumerate(expected):
                    for values, of_reference in zip(rows, decision, strict=True):
                        assert_array_equal(values[i], of_reference)

    check()


def large_case(n_queries=300, n_models=37, dim=96, n_columns=32):
    rng = np.random.default_rng(7)
    outcomes = f32(rng.integers(0, 2, (500, n_models)))
    outcomes[rng.random(outcomes.shape) < 0.2] = NAN
    ids = rng.integers(-1, 500, (n_queries, n_columns))
    near = Neighbours(ids, f32(rng.uniform(-1, 1, ids.shape)))
    learnt = learnt_of(rng, 500, n_models, dim) | {"margin": [0, 0.01], "tolerance": [0.02, 0.05]}
    options = {
        "prior": f32(rng.random(n_models)),
        "preference": rng.permutation(n_models).astype(np.int32),
        "k": n_columns, "kappa": 19, "distance_limit": 1.05, "fallback_model": 3, "home": 5,
    }  # fmt: skip
    return learnt, f32(rng.normal(0, 0.1, (n_queries, dim))), near, pack(outcomes), options


@pytest.mark.parametrize("simd", LEVELS)
def test_a_prompt_is_decided_alone_as_among_others(simd):
    learnt, queries, near, outcomes, options = large_case()
    held = _core.Expectation(**learnt)
    options |= {"simd": simd, "with_scores": True}
    together = expect(held, queries, near, outcomes, **options)
    assert len(set(together.chosen.model.tolist())) > 5
    assert 0 < together.chosen.fallback.sum() < len(queries)
    for at in (slice(0, 1), slice(7, 8), slice(30, 35), slice(40, 49), slice(295, 300)):
        some_near = Neighbours(near.ids[at], near.similarities[at])
        alone = expect(held, queries[at], some_near, outcomes, **options)
        for ours, theirs in zip(alone.chosen, together.chosen, strict=True):
            assert_array_equal(ours, theirs[at])
        assert_array_equal(alone.strange, together.strange[at])
        assert_array_equal(alone.scores, together.scores[at])


def test_levels_and_threads_decide_alike():
    learnt, queries, near, outcomes, options = large_case()
    held = _core.Expectation(**learnt)
    options["with_scores"] = True
    first = expect(held, queries, near, outcomes, simd=LEVELS[0], threads=1, **options)
    for simd in LEVELS:
        for threads in (1, 2, 5):
            again = expect(held, queries, near, outcomes, simd=simd, threads=threads, **options)
            assert_same(again, first)


def small(**changes):
    """One prompt, two models of standings .5 and .25, views that add nothing, and changes."""
    learnt = {
        "dataset": np.zeros(2, np.int32), "own_distance": f32([0.5, 0.5]),
        "standing": np.array([0.5, 0.25]), "share": np.array([0.5, 0.5]), "apart": [1.0, 1.0],
        "level": [1.0, 1.0], "of_dataset": np.zeros((1, 32), np.float32),
        "linear": np.zeros((1, 32), np.float32), "offset": np.zeros(32),
        "gate": [0.0, 0.0, 0.0, 0.0], "margin": [0.0, 0.0], "tolerance": [0.0, 0.0],
    }  # fmt: skip
    arguments = {
        "queries": f32([[1]]), "neighbours": i64([[0, 1]]), "similarities": f32([[0.5, 0.5]]),
        "outcomes": f32([[1, 1], [0, 1]]), "prior": f32([0.5, 0.25]),
        "preference": np.array([0, 1], np.int32), "k": 2, "kappa": 2, "distance_limit": INF,
        "fallback_model": 0, "home": 0, "allowed": None,
    }  # fmt: skip
    learnt |= {name: value for name, value in changes.items() if name in learnt}
    arguments |= {name: value for name, value in changes.items() if name not in learnt}
    near = Neighbours(arguments.pop("neighbours"), arguments.pop("similarities"))
    return learnt, arguments.pop("queries"), near, arguments.pop("outcomes"), arguments


def decided(**changes):
    learnt, queries, near, outcomes, arguments = small(**changes)
    return expect(
        _core.Expectation(**learnt), queries, near, outcomes, with_scores=True, **arguments
    )


@pytest.mark.parametrize(
    ("changes", "model"),
    [
        ({}, 1),  # votes .5 and 1
        ({"margin": [0.5, 9.0]}, 1),  # 1 is ahead by .5, as much as the margin
        ({"margin": [0.51, 9.0]}, 0),
        ({"margin": [INF, 0.0]}, 0),
        ({"tolerance": [0.5, 0.0]}, 0),
        ({"tolerance": [0.49, 9.0]}, 1),
        ({"tolerance": [INF, 0.0]}, 0),
        ({"tolerance": [INF, 0.0], "preference": np.array([1, 0], np.int32)}, 1),
        # Kept against whoever is ahead, but not against an equal that is preferred.
        (
            {
                "margin": [INF, 0.0],
                "tolerance": [INF, 0.0],
                "preference": np.array([1, 0], np.int32),
            },
            1,
        ),
        ({"margin": [INF, 0.0], "preference": np.array([1, 0], np.int32)}, 0),
        # Models that may not be chosen are not, however wide the tolerance.
        (
            {
                "tolerance": [INF, INF],
                "allowed": np.array([False, True]),
                "home": 1,
                "fallback_model": 1,
            },
            1,
        ),
        # By what holds for strange prompts: a gate of 1 says that this is one.
        ({"gate": [9.0, 0.0, 0.0, 0.0], "margin": [0.0, INF]}, 0),
    ],
)
def test_margin_and_tolerance(changes, model):
    found = decided(**changes)
    assert found.chosen.model.tolist() == [model]
    assert_array_equal(found.scores, f32([[0.5, 1]]))
    assert found.chosen.score[0] == found.scores[0, model]
    assert not found.chosen.fallback[0]


@pytest.mark.parametrize(
    "changes",
    [
        {"neighbours": i64([[-1, -1]]), "similarities": f32([[-INF, -INF]])},
        {"kappa": 0},
        {"k": 0},
        {"outcomes": f32([[NAN, NAN], [NAN, NAN]])},
        {"distance_limit": 0.25},
        {"neighbours": np.empty((1, 0), np.int64), "similarities": f32([[]]), "k": 0, "kappa": 0},
    ],
)
def test_without_evidence_the_fallback_model_is_taken(changes):
    found = decided(**changes, fallback_model=1)
    assert found.chosen.model.tolist() == [1] and found.chosen.fallback.all()
    lone = changes.get("kappa", 2) == 0 or changes.get("neighbours", i64([[0]])).max(initial=-1) < 0
    assert found.strange[0] == (1.0 if lone else 0.5)
    assert math.isnan(found.chosen.distance[0]) == lone


def test_what_stands_beyond_the_models_is_not_looked_at():
    linear = np.full((1, 32), 1e30, np.float32)
    linear[:, [0, 1, 16, 17]] = 0
    assert_array_equal(decided(linear=linear).scores, f32([[0.5, 1]]))


def test_no_prompts_and_no_dimensions():
    learnt, _, _, outcomes, arguments = small()
    held = _core.Expectation(**learnt)
    none = Neighbours(np.empty((0, 2), np.int64), np.empty((0, 2), np.float32))
    assert len(expect(held, np.empty((0, 1), np.float32), none, outcomes, **arguments).strange) == 0
    found = decided(queries=np.empty((1, 0), np.float32), linear=np.empty((0, 32), np.float32))
    assert_array_equal(found.scores, f32([[0.5, 1]]))


def test_datasets_are_those_at_the_time_of_learning():
    learnt, queries, near, outcomes, arguments = small()
    held = _core.Expectation(**learnt)
    before = expect(held, queries, near, outcomes, with_scores=True, **arguments)
    learnt["dataset"][:] = 1 << 30
    assert_same(expect(held, queries, near, outcomes, with_scores=True, **arguments), before)


# (what changes, the words of the error): of what was learnt, then of a call.
LEARNT_FAULTS = [
    ({"dataset": np.array([0, 1], np.int32)}, r"dataset must be in \[0, 1\), got 1 at \[1\]"),
    ({"dataset": np.array([-1, 0], np.int32)}, r"dataset must be in \[0, 1\), got -1 at \[0\]"),
    ({"own_distance": f32([0.5])}, "own_distance has 1 values, dataset has 2"),
    ({"own_distance": f32([0.5, NAN])}, r"own_distance must be finite and at least 0, got nan"),
    ({"own_distance": f32([-0.5, 1])}, r"own_distance must be finite and at least 0, got -0.5"),
    ({"standing": np.array([0.5, INF])}, r"standing must be finite, got inf at \[1\]"),
    ({"share": np.array([1.0])}, "share has 1 values, standing has 2"),
    ({"share": np.array([1.0, NAN])}, r"share must be finite, got nan at \[1\]"),
    ({"of_dataset": np.zeros((1, 16), np.float32)}, "of_dataset has 16 columns, offset has 32"),
    (
        {"of_dataset": np.full((1, 32), NAN, np.float32)},
        r"of_dataset must be finite, got nan at \[0, 0\]",
    ),
    ({"linear": np.zeros((1, 64), np.float32)}, "linear has 64 columns, offset has 32"),
    ({"linear": np.full((1, 32), -INF, np.float32)}, r"linear must be finite, got -inf at \[0, 0"),
    ({"offset": np.zeros(31)}, "offset must hold 2 × 16·n values, at least 2 × 2 models, got 31"),
    ({"offset": np.zeros(0)}, "offset must hold 2 × 16·n values, at least 2 × 2 models, got 0"),
    ({"offset": np.full(32, NAN)}, r"offset must be finite, got nan at \[0\]"),
    ({"apart": [1.0, NAN]}, r"apart must be finite, got nan at \[1\]"),
    ({"level": [INF, 1.0]}, r"level must be finite, got inf at \[0\]"),
    ({"gate": [0.0, 0.0, 0.0, NAN]}, r"gate must be finite, got nan at \[3\]"),
    ({"margin": [-0.1, 0.0]}, r"margin must be at least 0, got -0.1 at \[0\]"),
    ({"margin": [0.0, NAN]}, r"margin must be at least 0, got nan at \[1\]"),
    ({"tolerance": [0.0, -INF]}, r"tolerance must be at least 0, got -inf at \[1\]"),
]
FAULTS = [
    ({"queries": f32([[NAN]])}, r"queries must be finite, got nan at \[0, 0\]"),
    ({"queries": f32([[INF]])}, r"queries must be finite, got inf at \[0, 0\]"),
    ({"queries": f32([[1, 2]])}, r"queries has shape \(1, 2\), expected \(1, 1\) \(queries, dim\)"),
    ({"queries": f32([[1], [2]])}, r"queries has shape \(2, 1\), expected \(1, 1\)"),
    ({"neighbours": i64([[0, 2]])}, r"neighbours must be -1 .* in \[0, 2\), got 2 at \[0, 1\]"),
    ({"neighbours": i64([[-2, 0]])}, r"neighbours must be -1 .* got -2 at \[0, 0\]"),
    ({"similarities": f32([[0.5, NAN]])}, r"similarities must be finite where .* nan at \[0, 1\]"),
    ({"similarities": f32([[0.5]])}, r"similarities has shape \(1, 1\), expected \(1, 2\)"),
    ({"outcomes": f32([[1, INF], [0, 1]])}, r"outcomes must be finite or NaN .* inf at \[0, 1\]"),
    ({"outcomes": f32([[1, 1]])}, "dataset has 2 values, outcomes has records: 1"),
    (
        {"outcomes": f32([[1], [1]]), "prior": f32([1]), "preference": np.zeros(1, np.int32)},
        "standing has 2 values, outcomes has models: 1",
    ),
    (
        {"outcomes": np.empty((2, 0), np.float32), "prior": f32([])},
        "outcomes must have at least 1 model to decide, got 0",
    ),
    (
        {"outcomes": PackedOutcomes(np.zeros((2, 2), np.uint64), None, 2)},
        "bits has 2 words a row, 2 models need 1",
    ),
    ({"prior": f32([1])}, "prior has 1 values, outcomes has models: 2"),
    ({"prior": f32([1, NAN])}, r"prior must be finite, got nan at \[1\]"),
    ({"preference": np.array([0, 0], np.int32)}, "preference must hold each of 0 to 1 once"),
    ({"k": 3}, "k must be between 0 and the 2 columns of neighbours, got 3"),
    ({"kappa": -1}, "kappa must be between 0 and the 2 columns of neighbours, got -1"),
    ({"distance_limit": NAN}, "distance_limit must be a number, got nan"),
    ({"fallback_model": 2}, r"fallback_model must be in \[0, 2\), got 2"),
    ({"home": 2}, r"home must be in \[0, 2\), got 2"),
    ({"home": -1}, r"home must be in \[0, 2\), got -1"),
    ({"allowed": np.array([True, False]), "home": 1}, "home must be a model allowed, got 1"),
    ({"allowed": np.array([False, True])}, "fallback_model must be a model allowed, got 0"),
    ({"allowed": np.zeros(2, bool)}, "allowed must hold at least 1 model, got none"),
    ({"allowed": np.array([True])}, "allowed has 1 values, outcomes has models: 2"),
]


@pytest.mark.parametrize(("changes", "words"), LEARNT_FAULTS + FAULTS)
def test_bad_values_are_refused(changes, words):
    with pytest.raises(ValueError, match=words):
        decided(**changes)


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"queries": np.ones((1, 1))}, TypeError, "queries must be float32, got float64"),
        ({"queries": f32([1])}, ValueError, r"queries must have 2 dimensions, got shape \(1,\)"),
        ({"linear": np.zeros((1, 64), np.float32)[:, ::2]}, ValueError, "must be C-contiguous"),
        ({"neighbours": np.zeros((1, 2), np.int32)}, TypeError, "neighbours must be int64, got"),
        ({"similarities": np.zeros((1, 2))}, TypeError, "similarities must be float32, got"),
        ({"preference": i64([0, 1])}, TypeError, "preference must be int32, got int64"),
        ({"allowed": i64([0, 1])}, TypeError, "allowed must be bool, got int64"),
        ({"dataset": i64([0, 0])}, TypeError, "dataset must be int32, got int64"),
        ({"standing": f32([0.5, 0.5])}, TypeError, "standing must be float64, got float32"),
        ({"linear": np.zeros((1, 32))}, TypeError, "linear must be float32, got float64"),
        ({"offset": np.zeros((2, 16))}, ValueError, "offset must have 1 dimension, got shape"),
        ({"of_dataset": [[0.0] * 32]}, TypeError, "of_dataset must be a NumPy array of float32"),
    ],
)
def test_bad_arrays_are_refused(changes, error, words):
    with pytest.raises(error, match=words):
        decided(**changes)


def test_outputs_are_written_and_share_no_memory_with_inputs():
    learnt, queries, near, outcomes, arguments = small()
    held = _core.Expectation(**learnt)
    kinds = (np.int32, np.float32, np.float32, np.float32, np.bool_)
    out = Chosen(*(np.zeros(1, kind) for kind in kinds))
    found = expect(held, queries, near, outcomes, out=out, **arguments)
    assert found.chosen.model is out.model and out.model.tolist() == [1]
    read_only = np.zeros(1, np.float32)
    read_only.flags.writeable = False
    for score, words in (
        (near.similarities[0, :1], "out.score shares memory with similarities"),
        (queries[0], "out.score shares memory with queries"),
        (learnt["own_distance"][:1], "out.score shares memory with own_distance"),
        (learnt["linear"][0, :1], "out.score shares memory with linear"),
        (out.margin, "shares memory with out.score"),
        (np.zeros(2, np.float32), r"out.score has shape \(2,\), expected \(1,\)"),
        (read_only, "out.score must be writeable"),
    ):
        with pytest.raises(ValueError, match=words):
            expect(held, queries, near, outcomes, out=out._replace(score=score), **arguments)
