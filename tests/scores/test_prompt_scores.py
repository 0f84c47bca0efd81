"""The fused decision of the rule `auto` against its float64 twin, at every level; its errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_expected
from expect_cases import FAULTS, INF, LEARNT_FAULTS, auto_case, large_case, outcomes_of, small
from hypothesis import given
from numpy.testing import assert_array_equal
from vote_cases import LEVELS, NAN, cases, f32, i64, some

from benchrouter import _core
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores.expected.prompt_scores import expect
from benchrouter.votes.outcomes import Chosen


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
