"""Votes, decisions, task scores and ranking against the float64 twin and worked examples."""

import os
import shutil
import subprocess
import threading
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import reference
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from vote_cases import EXAMPLES, LEVELS, NAN, cases, f32, i64, some, some_models

from benchrouter import _core
from benchrouter.votes.outcomes import Chosen, PackedOutcomes, Votes, pack
from benchrouter.votes.votes import decide, task_scores, votes

CSRC = Path(__file__).resolve().parents[2] / "csrc"

many = settings(max_examples=EXAMPLES, deadline=None)


def test_the_sanitized_run_and_no_other_loads_the_sanitized_build():
    assert _core.sanitized == (os.environ.get("BENCHROUTER_SANITIZED") == "1")


# ------------------------------------------------------------------------------- worked examples

# Four records, two models; the second model was not run on record 2.
CORRECT = f32([[1, 0], [1, 1], [0, NAN], [1, 0]])
PRIOR = f32([0.75, 0.25])


@pytest.mark.parametrize("outcomes", [CORRECT, pack(CORRECT)], ids=["scores", "packed"])
@pytest.mark.parametrize("simd", LEVELS)
class TestWorkedExamples:
    def test_votes(self, outcomes, simd):
        neighbours = i64([[0, 1, 2, 3], [2, -1, -1, -1], [-1, -1, -1, -1]])
        found = votes(neighbours, outcomes, prior=PRIOR, simd=simd)
        assert_array_equal(found.votes, f32([[3 / 4, 1 / 3], [0, 0.25], [0.75, 0.25]]))
        assert_array_equal(found.support, np.array([[4, 3], [1, 0], [0, 0]], np.uint16))

    def test_votes_of_first_columns(self, outcomes, simd):
        found = votes(i64([[0, 1, 2, 3]]), outcomes, prior=PRIOR, k=2, simd=simd)
        assert_array_equal(found.votes, f32([[1, 0.5]]))
        assert_array_equal(found.support, np.array([[2, 2]], np.uint16))

    def test_votes_drawn_to_prior(self, outcomes, simd):
        found = votes(i64([[0, 1, 2, 3]]), outcomes, prior=PRIOR, prior_weight=1.0, simd=simd)
        assert_array_equal(found.votes, f32([[3.75 / 5, 1.25 / 4]]))

    def test_weighted_votes(self, outcomes, simd):
        weights = f32([[2, 1, 1, 0]])
        found = votes(i64([[0, 1, 2, 3]]), outcomes, prior=PRIOR, weights=weights, simd=simd)
        assert_array_equal(found.votes, f32([[3 / 4, 1 / 3]]))
        assert_array_equal(found.support, np.array([[4, 3]], np.uint16))

    def test_weights_of_zero_leave_the_prior(self, outcomes, simd):
        found = votes(i64([[0, 1]]), outcomes, prior=PRIOR, weights=f32([[0, 0]]), simd=simd)
        assert_array_equal(found.votes, f32([[0.75, 0.25]]))
        assert_array_equal(found.support, np.array([[2, 2]], np.uint16))

    def test_decide_by_mean(self, outcomes, simd):
        neighbours = i64([[0, 1, 2], [1, -1, -1], [-1, -1, -1]])
        similarities = f32([[0.75, 0.5, 0.25], [1.0, -np.inf, -np.inf], [-np.inf] * 3])
        found = decide(
            neighbours, similarities, outcomes, prior=PRIOR, preference=np.array([1, 0], np.int32),
            k=2, kappa=3, prior_weight=0.0, fallback_model=1, simd=simd,
        )  # fmt: skip
        # 1 against 1/2; equal votes of 1: the model preferred; nothing: the fallback and its prior.
        assert_array_equal(found.model, np.array([0, 1, 1], np.int32))
        assert_array_equal(found.score, f32([1, 1, 0.25]))
        assert_array_equal(found.margin, f32([0.5, 0, -0.5]))
        assert_array_equal(found.distance, f32([0.5, 1e-7, NAN]))
        assert_array_equal(found.fallback, [False, False, True])

    def test_decide_by_s3(self, outcomes, simd):
        # At u = 1/4, halfway: p = 3/4 and 1/2. Model 0 is predicted right (3/4 > 1/2), model 1 is
        # not (1/3): 3/4 against 1 - 1/2.
        found = decide(
            i64([[0, 1, 2, 3]]), f32([[0.75] * 4]), outcomes, prior=PRIOR,
            preference=np.array([0, 1], np.int32), k=4, kappa=4, rule="s3",
            p_table=f32([[1, 0.75], [0.5, 0.25]]), p_start=0.0, p_step=0.5, simd=simd,
        )  # fmt: skip
        assert_array_equal(found.model, np.array([0], np.int32))
        assert_array_equal(found.score, f32([0.75]))
        assert_array_equal(found.margin, f32([0.25]))

    def test_decide_beyond_the_limit(self, outcomes, simd):
        found = decide(
            i64([[1], [1]]), f32([[0.5], [0.25]]), outcomes, prior=PRIOR,
            preference=np.array([0, 1], np.int32), k=1, kappa=1, prior_weight=1.0,
            distance_limit=0.5, fallback_model=1, simd=simd,
        )  # fmt: skip
        assert_array_equal(found.model, np.array([0, 1], np.int32))
        assert_array_equal(found.fallback, [False, True])
        assert_array_equal(found.score, f32([0.875, 0.625]))
        assert_array_equal(found.margin, f32([0.25, -0.25]))

    def test_decide_among_the_models_allowed(self, outcomes, simd):
        # Of model 1 alone, on records 0 and 1 (0, 1), on record 2 (not run), on nothing. Record 2
        # supports model 0, which does not count.
        found = decide(
            i64([[0, 1], [2, -1], [-1, -1]]), f32([[0.5] * 2] * 3), outcomes, prior=PRIOR,
            preference=np.array([0, 1], np.int32), k=2, kappa=2, prior_weight=0.0,
            fallback_model=1, allowed=np.array([False, True]), simd=simd,
        )  # fmt: skip
        assert_array_equal(found.model, np.array([1, 1, 1], np.int32))
        assert_array_equal(found.score, f32([0.5, 0.25, 0.25]))
        assert_array_equal(found.margin, f32([0, 0, 0]))
        assert_array_equal(found.fallback, [False, True, True])

    def test_task_scores(self, outcomes, simd):
        neighbours = i64([[0, 1], [2, 3], [2, -1]])
        found = task_scores(neighbours, outcomes, i64([0, 2, 2, 3]), prior=PRIOR, simd=simd)
        # Votes: (1, 1/2), (1/2, 0), then (0, prior 1/4); the second task has no queries.
        assert_array_equal(found.s1, [[0.75, 0.25], [NAN, NAN], [0, 0.25]])
        assert_array_equal(found.s2, [[0.5, 0], [NAN, NAN], [0, 0]])
        assert_array_equal(found.support, [[2, 2], [0, 0], [1, 0]])


def test_pack_lays_models_out_by_bits():
    correctness = np.zeros((2, 65), np.float32)
    correctness[0, [0, 63, 64]] = 1
    correctness[1, 1] = NAN
    packed = pack(correctness)
    assert packed.n_models == 65
    assert_array_equal(packed.bits, np.array([[1 | 1 << 63, 1], [0, 0]], np.uint64))
    full = (1 << 64) - 1
    assert_array_equal(packed.present, np.array([[full, 1], [full - 2, 1]], np.uint64))


def test_pack_without_missing_values_has_no_mask():
    assert pack(f32([[1, 0]])).present is None


def test_bits_of_missing_outcomes_do_not_count():
    outcomes = PackedOutcomes(np.array([[3]], np.uint64), np.array([[1]], np.uint64), 2)
    for simd in LEVELS:
        found = votes(i64([[0]]), outcomes, prior=PRIOR, simd=simd)
        assert_array_equal(found.votes, f32([[1, 0.25]]))
        assert_array_equal(found.support, np.array([[1, 0]], np.uint16))


@pytest.mark.parametrize(
    ("correctness", "error", "words"),
    [
        ([[1.0]], TypeError, "correctness must be a float32 array, got list"),
        (np.zeros((1, 1)), TypeError, "correctness must be a float32 array, got float64"),
        (f32([1]), ValueError, r"correctness must have 2 dimensions, got shape \(1,\)"),
        (f32([[0, 0.5]]), ValueError, r"must be 0, 1 or NaN, got 0.5 at \[0, 1\]"),
        (f32([[0], [np.inf]]), ValueError, r"must be 0, 1 or NaN, got inf at \[1, 0\]"),
    ],
)
def test_pack_refuses(correctness, error, words):
    with pytest.raises(error, match=words):
        pack(correctness)


# ----------------------------------------------------------------------- against the float64 twin


@many
@given(cases(), st.sampled_from((0.0, 0.5, 1.0, 3.0)))
def test_votes_equal_the_reference_on_correctness(case, prior_weight):
    k = int(case.rng.integers(0, case.neighbours.shape[1] + 1)) if case.rng.random() < 0.5 else None
    expected, support = reference.votes(
        case.neighbours, case.outcomes, prior=case.prior, k=k, prior_weight=prior_weight
    )
    for outcomes in (case.outcomes, pack(case.outcomes)):
        for simd in LEVELS:
            found = votes(
                case.neighbours, outcomes, prior=case.prior, k=k, prior_weight=prior_weight,
                simd=simd,
            )  # fmt: skip
            assert_array_equal(found.votes, expected.astype(np.float32))
            assert_array_equal(found.support, support)


@many
@given(
    cases(),
    st.sampled_from(("mean", "s3")),
    st.sampled_from((0.0, 1.0)),
    st.sampled_from((0.4, 1.0, np.inf)),
)
def test_decisions_equal_the_reference_on_correctness(case, rule, prior_weight, limit):
    n_columns, n_models = case.neighbours.shape[1], len(case.prior)
    options = {
        "prior": case.prior,
        "preference": case.preference,
        "k": int(case.rng.integers(0, n_columns + 1)),
        "kappa": int(case.rng.integers(0, n_columns + 1)),
        "rule": rule,
        "prior_weight": prior_weight,
        "threshold": 0.5,
        "p_table": case.p_table if rule == "s3" else None,
        "p_start": 0.1,
        "p_step": 0.3,
        "distance_limit": limit,
        "fallback_model": int(case.rng.integers(0, n_models)),
    }
    expected = reference.decide(case.neighbours, case.similarities, case.outcomes, **options)
    for outcomes in (case.outcomes, pack(case.outcomes)):
        for simd in LEVELS:
            found = decide(case.neighbours, case.similarities, outcomes, simd=simd, **options)
            for i, decision in enumerate(expected):
                assert_array_equal([values[i] for values in found], decision)


@some
@given(cases(), st.sampled_from(("mean", "s3")), st.sampled_from((0.4, np.inf)))
def test_decisions_among_some_models_are_those_of_a_benchmark_of_these_models(case, rule, limit):
    allowed, fallback = some_models(case)
    kept = np.flatnonzero(allowed)
    n_columns = case.neighbours.shape[1]
    p_table = case.p_table if rule == "s3" else None
    options = {
        "k": int(case.rng.integers(0, n_columns + 1)),
        "kappa": int(case.rng.integers(0, n_columns + 1)),
        "rule": rule,
        "p_step": 0.3,
        "distance_limit": limit,
    }
    cut = decide(
        case.neighbours, case.similarities, case.outcomes[:, kept].copy(), prior=case.prior[kept],
        preference=case.preference[kept].argsort().argsort().astype(np.int32),
        p_table=None if p_table is None else p_table[:, kept].copy(),
        fallback_model=int((kept == fallback).argmax()), **options,
    )  # fmt: skip
    options |= {
        "prior": case.prior, "preference": case.preference, "p_table": p_table,
        "fallback_model": fallback, "allowed": allowed,
    }  # fmt: skip
    expected = reference.decide(case.neighbours, case.similarities, case.outcomes, **options)
    for outcomes in (case.outcomes, pack(case.outcomes)):
        for simd in LEVELS:
            found = decide(case.neighbours, case.similarities, outcomes, simd=simd, **options)
            for i, decision in enumerate(expected):
                assert_array_equal([values[i] for values in found], decision)
            assert_array_equal(found.model, kept[cut.model])
            for values, of_cut in zip(found[1:], cut[1:], strict=True):
                assert_array_equal(values, of_cut)


@some
@given(cases(), st.sampled_from((0.0, 0.5, 0.7)))
def test_task_scores_equal_the_reference_on_correctness(case, threshold):
    n_queries = len(case.neighbours)
    cuts = np.sort(case.rng.integers(0, n_queries + 1, 3))
    offsets = i64([0, *cuts, n_queries])
    options = {"prior": case.prior, "threshold": threshold}
    expected = reference.task_scores(case.neighbours, case.outcomes, offsets, **options)
    for outcomes in (case.outcomes, pack(case.outcomes)):
        for simd in LEVELS:
            found = task_scores(case.neighbours, outcomes, offsets, simd=simd, **options)
            for values, of_reference in zip(found, expected, strict=True):
                assert_array_equal(values, of_reference)


def naive_votes(case, prior_weight):
    """The same sums in float32, as a careless implementation would take them."""
    means = np.tile(case.prior, (len(case.neighbours), 1))
    for i, ids in enumerate(case.neighbours):
        kept = ids >= 0
        values = case.outcomes[ids[kept]]
        w = np.ones(kept.sum()) if case.weights is None else case.weights[i, kept]
        w = np.where(np.isnan(values), 0, f32(w)[:, None]).astype(np.float32)
        weight = w.sum(axis=0) + np.float32(prior_weight)
        total = (w * np.nan_to_num(values)).sum(axis=0) + np.float32(prior_weight) * case.prior
        np.divide(total, weight, out=means[i], where=weight > 0)
    return means


@some
@given(cases("scores"), st.sampled_from((0.0, 1.0)))
def test_votes_are_as_near_as_float32_allows_on_scores_and_weights(case, prior_weight):
    options = {"prior": case.prior, "prior_weight": prior_weight, "weights": case.weights}
    expected, support = reference.votes(case.neighbours, case.outcomes, **options)
    naive = np.abs(naive_votes(case, prior_weight) - expected).max(initial=0)
    scale = np.abs(expected).max(initial=1e-30)
    for simd in LEVELS:
        found = votes(case.neighbours, case.outcomes, simd=simd, **options)
        error = np.abs(found.votes - expected).max(initial=0)
        # Twice the naive error, and never beyond 1e-6 of the largest vote.
        assert error <= max(2 * naive, 2.0**-24 * scale) and error <= 1e-6 * scale
        assert_array_equal(found.support, support)


@some
@given(cases("scores"))
def test_weighted_bits_equal_weighted_scores(case):
    correctness = np.where(np.isnan(case.outcomes), NAN, case.outcomes > 0).astype(np.float32)
    for simd in LEVELS:
        options = {"prior": case.prior, "weights": case.weights, "simd": simd}
        packed = votes(case.neighbours, pack(correctness), **options)
        assert_array_equal(packed.votes, votes(case.neighbours, correctness, **options).votes)


@some
@given(cases("scores"), st.sampled_from(("mean", "s3")))
def test_decisions_on_scores_are_the_same_at_every_level(case, rule):
    n_columns = case.neighbours.shape[1]
    options = {
        "prior": case.prior, "preference": case.preference, "k": n_columns, "kappa": n_columns,
        "rule": rule, "weights": case.weights, "p_table": case.p_table if rule == "s3" else None,
    }  # fmt: skip
    expected = reference.decide(case.neighbours, case.similarities, case.outcomes, **options)
    for simd in LEVELS:
        found = decide(case.neighbours, case.similarities, case.outcomes, simd=simd, **options)
        for i, decision in enumerate(expected):
            assert_array_equal([values[i] for values in found], decision)


# ------------------------------------------------------------------------------------ properties


@some
@given(cases("scores"))
def test_order_of_models_and_of_queries_changes_nothing(case):
    of_models = case.rng.permutation(len(case.prior))
    of_queries = case.rng.permutation(len(case.neighbours))
    weights = None if case.weights is None else case.weights[of_queries]
    found = votes(case.neighbours, case.outcomes, prior=case.prior, weights=case.weights)
    permuted = votes(
        case.neighbours[of_queries], np.ascontiguousarray(case.outcomes[:, of_models]),
        prior=case.prior[of_models], weights=weights,
    )  # fmt: skip
    assert_array_equal(permuted.votes, found.votes[of_queries][:, of_models])
    assert_array_equal(permuted.support, found.support[of_queries][:, of_models])


@some
@given(cases())
def test_columns_without_neighbours_change_nothing(case):
    n_queries, n_columns = case.neighbours.shape
    where = np.sort(case.rng.integers(0, n_columns + 1, 3))
    more = np.insert(case.neighbours, where, -1, axis=1)
    more_similarities = np.insert(case.similarities, where, -np.inf, axis=1)
    options = {"prior": case.prior, "preference": case.preference}
    for outcomes in (case.outcomes, pack(case.outcomes)):
        found = votes(case.neighbours, outcomes, prior=case.prior)
        same = votes(more, outcomes, prior=case.prior)
        assert_array_equal(same.votes, found.votes)
        assert_array_equal(same.support, found.support)
        before = decide(
            case.neighbours, case.similarities, outcomes, k=n_columns, kappa=n_columns, **options
        )
        after = decide(
            more, more_similarities, outcomes, k=n_columns + 3, kappa=n_columns + 3, **options
        )
        for a, b in zip(before, after, strict=True):
            assert_array_equal(a, b)
        assert before.model.shape == (n_queries,)


# ------------------------------------------------------------------- many queries, threads, memory


def large_case(n_queries, n_models, missing, k=10, n_records=5000):
    rng = np.random.default_rng(n_queries + n_models)
    neighbours = rng.integers(0, n_records, (n_queries, k))
    outcomes = f32(rng.integers(0, 2, (n_records, n_models)))
    if missing:
        outcomes[rng.random(outcomes.shape) < 0.2] = NAN
        neighbours[rng.random(neighbours.shape) < 0.1] = -1
    return neighbours, outcomes, f32(rng.random(n_models))


def counted(neighbours, outcomes, prior):
    """Votes by NumPy's gather-mean, in float64 and in pieces."""
    padded = np.vstack([outcomes, np.full(outcomes.shape[1], NAN, np.float32)])
    parts = []
    for start in range(0, len(neighbours), 4096):
        values = padded[neighbours[start : start + 4096]]  # -1 takes the last row: all missing
        support = (~np.isnan(values)).sum(axis=1)
        total = np.nansum(values, axis=1, dtype=np.float64)
        means = np.where(support > 0, total / np.maximum(support, 1), prior)
        parts.append((means.astype(np.float32), support))
    return (np.concatenate(part) for part in zip(*parts, strict=True))


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize(("n_queries", "n_models"), [(100_000, 18), (30_000, 70)])
def test_large_outputs_are_exact_and_stay_within_their_bounds(n_queries, n_models, missing):
    # Beyond 8 MB outputs are streamed in whole cache lines: guard values stand on both sides, and
    # outputs begin at various places within a line.
    neighbours, outcomes, prior = large_case(n_queries, n_models, missing)
    expected, support = counted(neighbours, outcomes, prior)
    size = n_queries * n_models
    packed = pack(outcomes)
    for simd in LEVELS:
        for threads in (1, 2, 3):
            shift = 5 * threads
            room_votes = np.full(size + 64, -7, np.float32)
            room_support = np.full(size + 64, 777, np.uint16)
            out = Votes(
                room_votes[shift : shift + size].reshape(n_queries, n_models),
                room_support[shift : shift + size].reshape(n_queries, n_models),
            )
            found = votes(
                neighbours, packed, prior=prior, threads=threads, simd=simd, out=out
            )  # fmt: skip
            assert found.votes is out.votes and found.support is out.support
            assert_array_equal(found.votes, expected)
            assert_array_equal(found.support, support)
            for room, guard in ((room_votes, -7), (room_support, 777)):
                assert (room[:shift] == guard).all() and (room[shift + size :] == guard).all()


@pytest.mark.parametrize("packed", [False, True])
def test_threads_change_nothing(packed):
    neighbours, outcomes, prior = large_case(20_000, 18, missing=True)
    rng = np.random.default_rng(5)
    similarities = f32(rng.uniform(0, 1, neighbours.shape))
    weights = f32(rng.exponential(1, neighbours.shape))
    preference = rng.permutation(18).astype(np.int32)
    offsets = i64([0, 1, 1, 1500, 9000, 20_000])
    if packed:
        outcomes = pack(outcomes)
    answers = [
        (
            *votes(neighbours, outcomes, prior=prior, weights=weights, threads=threads, simd=simd),
            *decide(
                neighbours, similarities, outcomes, prior=prior, preference=preference, k=10,
                kappa=10, distance_limit=0.6, threads=threads, simd=simd,
            ),
            *task_scores(
                neighbours, outcomes, offsets, prior=prior, weights=weights, threads=threads,
                simd=simd,
            ),
        )
        for threads in (1, 2, 5)
        for simd in LEVELS
    ]  # fmt: skip
    assert 0 < answers[0][6].sum() < 20_000  # some fall back, some do not
    for answer in answers[1:]:
        for a, b in zip(answers[0], answer, strict=True):
            assert_array_equal(a, b)


def test_long_tasks_equal_the_reference():
    neighbours, outcomes, prior = large_case(3000, 3, missing=True, n_records=50)
    offsets = i64([0, 1024, 1024, 2500, 3000])
    rng = np.random.default_rng(1)
    scores = f32(rng.normal(0, 1, outcomes.shape))
    for values in (outcomes, scores):
        expected = reference.task_scores(neighbours, values, offsets, prior=prior)
        found = task_scores(neighbours, values, offsets, prior=prior, threads=2)
        for a, b in zip(found, expected, strict=True):
            assert_array_equal(a, b)
    assert _core.task_block == reference.TASK_BLOCK


def test_many_callers_at_once_get_the_same_answers():
    neighbours, outcomes, prior = large_case(5000, 18, missing=True)
    packed = pack(outcomes)
    expected = votes(neighbours, packed, prior=prior, threads=1)
    wrong = []

    def call():
        for _ in range(10):
            found = votes(neighbours, packed, prior=prior, threads=2)
            if not np.array_equal(found.votes, expected.votes):
                wrong.append(found)

    callers = [threading.Thread(target=call) for _ in range(8)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert wrong == []


def test_streaming_copy_is_a_copy():
    source = np.random.default_rng(0).integers(0, 256, 3_000_001, dtype=np.uint8)
    for shift in (0, 1, 63):
        room = np.zeros(source.size + 64, np.uint8)
        target = room[shift : shift + source.size]
        _core.stream_copy(source, target, 2)
        assert_array_equal(target, source)
        assert room[:shift].sum() == 0 and room[shift + source.size :].sum() == 0
    _core.stream_copy(source[:0], room[:0], 1)
    with pytest.raises(ValueError, match=r"target has shape \(1,\), expected \(2,\) as source"):
        _core.stream_copy(source[:2], room[:1], 1)


def test_as_many_neighbours_as_support_can_count():
    outcomes = f32([[1, 0], [0, NAN]])
    neighbours = np.zeros((1, 65535), np.int64)
    neighbours[0, :35] = 1
    for values in (outcomes, pack(outcomes)):
        for simd in LEVELS:
            found = votes(neighbours, values, prior=PRIOR, simd=simd)
            assert_array_equal(found.votes, f32([[65500 / 65535, 0]]))
            assert_array_equal(found.support, np.array([[65535, 65500]], np.uint16))


@pytest.mark.parametrize("packed", [False, True])
def test_nothing_at_all(packed):
    def outcomes_of(n_records, n_models):
        values = np.zeros((n_records, n_models), np.float32)
        return pack(values) if packed else values

    prior, preference = f32([0.5, 0.25]), np.array([0, 1], np.int32)
    # No queries; no columns; no records; no models.
    found = votes(np.empty((0, 3), np.int64), outcomes_of(4, 2), prior=prior)
    assert found.votes.shape == found.support.shape == (0, 2)
    found = votes(np.empty((3, 0), np.int64), outcomes_of(4, 2), prior=prior)
    assert_array_equal(found.votes, [[0.5, 0.25]] * 3)
    found = votes(np.full((3, 2), -1), outcomes_of(0, 2), prior=prior)
    assert_array_equal(found.votes, [[0.5, 0.25]] * 3)
    found = votes(np.zeros((3, 2), np.int64), outcomes_of(1, 0), prior=f32([]))
    assert found.votes.shape == (3, 0)
    chosen = decide(
        np.empty((2, 0), np.int64), np.empty((2, 0), np.float32), outcomes_of(4, 2), prior=prior,
        preference=preference, k=0, kappa=0, fallback_model=1,
    )  # fmt: skip
    assert_array_equal(chosen.model, [1, 1])
    assert chosen.fallback.all() and np.isnan(chosen.distance).all()
    chosen = decide(
        np.empty((0, 2), np.int64), np.empty((0, 2), np.float32), outcomes_of(4, 2), prior=prior,
        preference=preference, k=1, kappa=2,
    )  # fmt: skip
    assert [len(values) for values in chosen] == [0] * 5
    tasks = task_scores(np.empty((0, 2), np.int64), outcomes_of(4, 2), i64([0]), prior=prior)
    assert tasks.s1.shape == (0, 2)


def test_mapped_and_read_only_inputs_are_accepted(tmp_path):
    bits = pack(CORRECT)
    np.save(tmp_path / "bits.npy", bits.bits)
    np.save(tmp_path / "present.npy", bits.present)
    neighbours = i64([[0, 1, 2, 3]])
    neighbours.setflags(write=False)
    mapped = PackedOutcomes(
        np.load(tmp_path / "bits.npy", mmap_mode="r"),
        np.load(tmp_path / "present.npy", mmap_mode="r"),
        2,
    )
    found = votes(neighbours, mapped, prior=PRIOR)
    assert_array_equal(found.votes, f32([[0.75, 1 / 3]]))


def test_decisions_are_written_where_the_caller_says():
    out = Chosen(
        np.empty(1, np.int32), *(np.empty(1, np.float32) for _ in range(3)), np.empty(1, bool)
    )
    found = decide(
        i64([[1]]), f32([[1]]), CORRECT, prior=PRIOR, preference=np.array([0, 1], np.int32), k=1,
        kappa=1, out=out,
    )  # fmt: skip
    assert all(a is b for a, b in zip(found, out, strict=True))
    assert_array_equal(out.score, f32([0.875]))


# -------------------------------------------------------------------------------------- bad input


def unaligned(array):
    room = np.zeros(array.nbytes + 1, np.uint8)
    odd = room[1:].view(array.dtype).reshape(array.shape)
    odd[...] = array
    return odd


def read_only(array):
    array.setflags(write=False)
    return array


GOOD = {"neighbours": i64([[0, 1], [2, -1]]), "outcomes": CORRECT, "prior": PRIOR}
BITS = pack(CORRECT)
ROOM = np.zeros(64, np.float32)
VOTES_OUT = Votes(np.zeros((2, 2), np.float32), np.zeros((2, 2), np.uint16))

BAD_VOTES = [
    # dtype, kind
    ({"neighbours": [[0, 1]]}, TypeError, "neighbours must be a NumPy array of int64, got list"),
    ({"neighbours": f32([[0]])}, TypeError, "neighbours must be int64, got float32"),
    ({"neighbours": np.zeros((1, 1), np.int32)}, TypeError, "must be int64, got int32"),
    ({"neighbours": np.zeros((1, 1), np.uint64)}, TypeError, "must be int64, got uint64"),
    ({"neighbours": np.zeros((1, 1), ">i8")}, TypeError, "must be int64, got >i8"),
    ({"outcomes": [[1.0]]}, TypeError, "outcomes must be PackedOutcomes or a float32 array, got l"),
    ({"outcomes": np.zeros((4, 2))}, TypeError, "outcomes must be float32, got float64"),
    ({"outcomes": np.zeros((4, 2), bool)}, TypeError, "outcomes must be float32, got bool"),
    ({"prior": [0.5, 0.5]}, TypeError, "prior must be a NumPy array of float32, got list"),
    ({"prior": np.zeros(2)}, TypeError, "prior must be float32, got float64"),
    ({"weights": np.zeros((2, 2))}, TypeError, "weights must be float32, got float64"),
    ({"outcomes": PackedOutcomes(BITS.bits.view(np.int64), None, 2)}, TypeError,
     "bits must be uint64, got int64"),
    ({"outcomes": PackedOutcomes(BITS.bits, BITS.bits.view(np.int64), 2)}, TypeError,
     "present must be uint64, got int64"),
    # dimensions and shapes
    ({"neighbours": i64([0, 1])}, ValueError, r"must have 2 dimensions, got shape \(2,\)"),
    ({"outcomes": CORRECT[0]}, ValueError, r"outcomes must have 2 dimensions, got shape \(2,\)"),
    ({"prior": f32([[0.5, 0.5]])}, ValueError, r"prior must have 1 dimension, got shape \(1, 2\)"),
    ({"prior": f32([0.5])}, ValueError, "prior has 1 values, outcomes has models: 2"),
    ({"weights": f32([[1, 1]])}, ValueError,
     r"weights has shape \(1, 2\), expected \(2, 2\) as neighbours"),
    ({"outcomes": PackedOutcomes(BITS.bits, None, 65), "prior": np.zeros(65, np.float32)},
     ValueError, "bits has 1 words a row, 65 models need 2"),
    ({"outcomes": PackedOutcomes(BITS.bits, None, -1)}, ValueError, "n_models must be 0 or more"),
    ({"outcomes": PackedOutcomes(BITS.bits, BITS.bits[:3], 2)}, ValueError,
     r"present has shape \(3, 1\), expected \(4, 1\) as bits"),
    # order and alignment
    ({"neighbours": np.asfortranarray(i64([[0, 1], [2, 3]]))}, ValueError,
     r"neighbours must be C-contiguous, got strides \(8, 16\) for shape \(2, 2\)"),
    ({"neighbours": i64([[0, 1, 2, 3]])[:, ::2]}, ValueError, "neighbours must be C-contiguous"),
    ({"neighbours": i64([[0, 1], [2, 3]])[::-1]}, ValueError, "neighbours must be C-contiguous"),
    ({"outcomes": np.asfortranarray(CORRECT)}, ValueError, "outcomes must be C-contiguous"),
    ({"outcomes": PackedOutcomes(np.zeros((4, 2), np.uint64)[:, :1], None, 2)}, ValueError,
     "bits must be C-contiguous"),
    ({"prior": f32([1, 2, 3, 4])[::2]}, ValueError, "prior must be C-contiguous"),
    ({"neighbours": unaligned(i64([[0, 1]]))}, ValueError, "neighbours must be aligned"),
    ({"outcomes": unaligned(CORRECT)}, ValueError, "outcomes must be aligned"),
    # values
    ({"neighbours": i64([[0, 1], [4, 0]])}, ValueError,
     r"neighbours must be -1 \(none\) or a record number in \[0, 4\), got 4 at \[1, 0\]"),
    ({"neighbours": i64([[0, -2]])}, ValueError, r"got -2 at \[0, 1\]"),
    ({"neighbours": i64([[2**63 - 1]])}, ValueError, r"got 9223372036854775807 at \[0, 0\]"),
    ({"neighbours": i64([[-(2**63)]])}, ValueError, r"got -9223372036854775808 at \[0, 0\]"),
    ({"outcomes": CORRECT[:0]}, ValueError, r"a record number in \[0, 0\), got 0 at \[0, 0\]"),
    ({"outcomes": f32([[1, 0], [1, np.inf], [0, 0]])}, ValueError,
     r"outcomes must be finite or NaN \(missing\), got inf at \[1, 1\]"),
    ({"outcomes": f32([[1, 0], [1, 0], [-np.inf, 0]])}, ValueError, r"got -inf at \[2, 0\]"),
    ({"prior": f32([0.5, NAN])}, ValueError, r"prior must be finite, got nan at \[1\]"),
    ({"prior": f32([-np.inf, 0])}, ValueError, r"prior must be finite, got -inf at \[0\]"),
    ({"prior_weight": -1.0}, ValueError, "prior_weight must be finite and at least 0, got -1"),
    ({"prior_weight": NAN}, ValueError, "prior_weight must be finite and at least 0, got nan"),
    ({"prior_weight": np.inf}, ValueError, "prior_weight must be finite and at least 0, got inf"),
    ({"weights": f32([[1, -1], [1, 1]])}, ValueError,
     r"weights must be finite and at least 0, got -1 at \[0, 1\]"),
    ({"weights": f32([[1, 1], [1, NAN]])}, ValueError, r"weights .* got nan at \[1, 1\]"),
    ({"weights": f32([[np.inf, 1], [1, 1]])}, ValueError, r"weights .* got inf at \[0, 0\]"),
    ({"k": 3}, ValueError, "k must be between 0 and the 2 columns of neighbours, got 3"),
    ({"k": -1}, ValueError, "k must be between 0 and the 2 columns of neighbours, got -1"),
    ({"neighbours": np.zeros((1, 65536), np.int64)}, ValueError, "k must be at most 65535, got 6"),
    ({"threads": -1}, ValueError, r"threads must be 0 \(all\) or more, got -1"),
    ({"simd": "sse9"}, ValueError, "simd must be one of 'auto', 'scalar'.* got 'sse9'"),
    # outputs
    ({"out": (None, None)}, TypeError, "out must be Votes, got tuple"),
    ({"out": VOTES_OUT._replace(votes=np.zeros((2, 2)))}, TypeError,
     "out.votes must be float32, got float64"),
    ({"out": VOTES_OUT._replace(support=np.zeros((2, 2), np.int64))}, TypeError,
     "out.support must be uint16, got int64"),
    ({"out": VOTES_OUT._replace(votes=np.zeros((2, 3), np.float32))}, ValueError,
     r"out.votes has shape \(2, 3\), expected \(2, 2\) \(queries, models\)"),
    ({"out": VOTES_OUT._replace(support=np.zeros((3, 2), np.uint16))}, ValueError,
     r"out.support has shape \(3, 2\), expected \(2, 2\) \(queries, models\)"),
    ({"out": VOTES_OUT._replace(votes=read_only(np.zeros((2, 2), np.float32)))}, ValueError,
     "out.votes must be writeable, got a read-only array"),
    ({"out": VOTES_OUT._replace(votes=np.zeros((2, 4), np.float32)[:, ::2])}, ValueError,
     "out.votes must be C-contiguous"),
    ({"outcomes": ROOM[:8].reshape(4, 2),
      "out": VOTES_OUT._replace(votes=ROOM[6:10].reshape(2, 2))}, ValueError,
     "out.votes shares memory with outcomes"),
    ({"prior": ROOM[3:5], "out": VOTES_OUT._replace(votes=ROOM[:4].reshape(2, 2))}, ValueError,
     "out.votes shares memory with prior"),
    ({"out": Votes(ROOM[:4].reshape(2, 2), ROOM[3:5].view(np.uint16).reshape(2, 2))}, ValueError,
     "out.support shares memory with out.votes"),
]  # fmt: skip


@pytest.mark.parametrize("simd", LEVELS)
@pytest.mark.parametrize(("change", "error", "words"), BAD_VOTES)
def test_votes_refuse(change, error, words, simd):
    arguments = {"simd": simd, **GOOD, **change}
    neighbours, outcomes = arguments.pop("neighbours"), arguments.pop("outcomes")
    with pytest.raises(error, match=words):
        votes(neighbours, outcomes, **arguments)


@pytest.mark.parametrize("simd", LEVELS)
def test_the_first_wrong_record_number_is_named_whatever_the_threads(simd):
    neighbours, outcomes, prior = large_case(50_000, 18, missing=False)
    neighbours[[49_999, 30_001, 12_345], [0, 9, 3]] = 5000
    for values in (outcomes, pack(outcomes)):
        for threads in (1, 2, 4):
            with pytest.raises(ValueError, match=r"got 5000 at \[12345, 3\]"):
                votes(neighbours, values, prior=prior, threads=threads, simd=simd)


DECIDE = {
    "neighbours": i64([[0, 1], [2, -1]]),
    "similarities": f32([[0.5, 0.25], [0.5, -np.inf]]),
    "outcomes": CORRECT,
    "prior": PRIOR,
    "preference": np.array([0, 1], np.int32),
    "k": 2,
    "kappa": 2,
}
S3 = {"rule": "s3", "p_table": f32([[0.5, 0.5]])}
CHOSEN_OUT = Chosen(
    np.zeros(2, np.int32), *(np.zeros(2, np.float32) for _ in range(3)), np.zeros(2, bool)
)

BAD_DECIDE = [
    ({"similarities": f32([[0.5, 0.25]])}, ValueError,
     r"similarities has shape \(1, 2\), expected \(2, 2\) as neighbours"),
    ({"similarities": np.zeros((2, 2))}, TypeError, "similarities must be float32, got float64"),
    ({"similarities": f32([[0.5, NAN], [0.5, 0]])}, ValueError,
     r"similarities must be finite where there is a neighbour, got nan at \[0, 1\]"),
    ({"similarities": f32([[0.5, 0.5], [-np.inf, 0]])}, ValueError, r"got -inf at \[1, 0\]"),
    ({"similarities": f32([[np.inf, 0.5], [1, 0]])}, ValueError, r"got inf at \[0, 0\]"),
    ({"neighbours": i64([[0, 4], [2, -1]])}, ValueError, r"got 4 at \[0, 1\]"),
    ({"neighbours": i64([[0, 4], [2, -1]]), "k": 1}, ValueError, r"got 4 at \[0, 1\]"),
    ({"weights": f32([[1, 1], [-2, 1]])}, ValueError, r"weights .* got -2 at \[1, 0\]"),
    ({"outcomes": CORRECT[:, :0], "prior": PRIOR[:0]}, ValueError,
     "outcomes must have at least 1 model to decide, got 0"),
    ({"preference": np.array([0, 1])}, TypeError, "preference must be int32, got int64"),
    ({"preference": np.array([0], np.int32)}, ValueError,
     "preference has 1 values, outcomes has models: 2"),
    ({"preference": np.array([1, 1], np.int32)}, ValueError,
     r"preference must hold each of 0 to 1 once, got 1 again at \[1\]"),
    ({"preference": np.array([0, 2], np.int32)}, ValueError, r"once, got 2 at \[1\]"),
    ({"preference": np.array([-1, 0], np.int32)}, ValueError, r"once, got -1 at \[0\]"),
    ({"k": 3}, ValueError, "k must be between 0 and the 2 columns of neighbours, got 3"),
    ({"kappa": 3}, ValueError, "kappa must be between 0 and the 2 columns of neighbours, got 3"),
    ({"kappa": -1}, ValueError, "kappa must be between 0 and the 2 columns of neighbours, got -1"),
    ({"rule": "best"}, ValueError, "rule must be 'mean' or 's3', got 'best'"),
    ({"p_table": f32([[0.5, 0.5]])}, ValueError, "p_table is for rule 's3', got it with rule"),
    ({"rule": "s3"}, TypeError, "p_table must be a NumPy array of float32, got NoneType"),
    ({**S3, "p_table": f32([[0.5]])}, ValueError, "p_table has 1 columns, outcomes has models: 2"),
    ({**S3, "p_table": np.zeros((0, 2), np.float32)}, ValueError, "at least 1 row, got 0"),
    ({**S3, "p_table": f32([[0, 0], [0, NAN]])}, ValueError,
     r"p_table must be finite, got nan at \[1, 1\]"),
    ({**S3, "p_step": 0.0}, ValueError, "p_step must be finite and above 0, got 0"),
    ({**S3, "p_step": NAN}, ValueError, "p_step must be finite and above 0, got nan"),
    ({**S3, "p_start": np.inf}, ValueError, "p_start must be finite, got inf"),
    ({"threshold": NAN}, ValueError, "threshold must be finite, got nan"),
    ({"distance_limit": NAN}, ValueError, "distance_limit must be a number, got nan"),
    ({"fallback_model": 2}, ValueError, r"fallback_model must be in \[0, 2\), got 2"),
    ({"fallback_model": -1}, ValueError, r"fallback_model must be in \[0, 2\), got -1"),
    ({"allowed": np.array([0, 1])}, TypeError, "allowed must be bool, got int64"),
    ({"allowed": np.array([True])}, ValueError, "allowed has 1 values, outcomes has models: 2"),
    ({"allowed": np.zeros(2, bool)}, ValueError, "allowed must hold at least 1 model, got none"),
    ({"allowed": np.array([False, True])}, ValueError,
     "fallback_model must be a model allowed, got 0"),
    ({"out": VOTES_OUT}, TypeError, "out must be Chosen, got Votes"),
    ({"out": CHOSEN_OUT._replace(model=np.zeros(2, np.int64))}, TypeError,
     "out.model must be int32, got int64"),
    ({"out": CHOSEN_OUT._replace(fallback=np.zeros(2, np.uint8))}, TypeError,
     "out.fallback must be bool, got uint8"),
    ({"out": CHOSEN_OUT._replace(margin=np.zeros(3, np.float32))}, ValueError,
     r"out.margin has shape \(3,\), expected \(2,\) \(queries,\)"),
    ({"out": CHOSEN_OUT._replace(score=CHOSEN_OUT.margin)}, ValueError,
     "out.margin shares memory with out.score"),
    ({"similarities": ROOM[:4].reshape(2, 2), "out": CHOSEN_OUT._replace(score=ROOM[3:5])},
     ValueError, "out.score shares memory with similarities"),
]  # fmt: skip


@pytest.mark.parametrize("simd", LEVELS)
@pytest.mark.parametrize(("change", "error", "words"), BAD_DECIDE)
def test_decide_refuses(change, error, words, simd):
    arguments = {"simd": simd, **DECIDE, **change}
    first = [arguments.pop(name) for name in ("neighbours", "similarities", "outcomes")]
    with pytest.raises(error, match=words):
        decide(*first, **arguments)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"offsets": [0, 2]}, TypeError, "offsets must be a NumPy array of int64, got list"),
        ({"offsets": np.array([0, 2], np.int32)}, TypeError, "offsets must be int64, got int32"),
        ({"offsets": i64([])}, ValueError, "offsets must hold at least 1 value, got 0"),
        ({"offsets": i64([1, 2])}, ValueError, r"ascend from 0 to the 2 queries, got 1 at \[0\]"),
        ({"offsets": i64([0, 2, 1])}, ValueError, r"got 1 at \[2\] after 2"),
        ({"offsets": i64([0, 1])}, ValueError, "to the 2 queries, got 1 at the end"),
        ({"offsets": i64([0, 3])}, ValueError, "to the 2 queries, got 3 at the end"),
        ({"threshold": NAN}, ValueError, "threshold must be finite, got nan"),
        ({"neighbours": i64([[0], [9]])}, ValueError, r"got 9 at \[1, 0\]"),
        ({"weights": f32([[1, 1], [1, -1]])}, ValueError, r"weights .* got -1 at \[1, 1\]"),
        ({"outcomes": f32([[np.inf]]), "neighbours": i64([[0], [0]]), "prior": f32([0])},
         ValueError, r"outcomes must be finite or NaN \(missing\), got inf at \[0, 0\]"),
    ],
)  # fmt: skip
def test_task_scores_refuse(change, error, words):
    arguments = {**GOOD, "offsets": i64([0, 2]), **change}
    first = [arguments.pop(name) for name in ("neighbours", "outcomes", "offsets")]
    with pytest.raises(error, match=words):
        task_scores(*first, **arguments)


# ---------------------------------------------------------------------------------------- ranking


@some
@given(
    st.integers(0, 2**32 - 1),
    st.sampled_from((1, 2, 15, 16, 17, 31, 100, 384)),
    st.sampled_from((0, 1, 2, 3, 4, 5, 9, 33)),
    st.sampled_from((0, 1, 3, 10, 40)),
)
def test_rank_equals_the_reference(seed, dim, n_candidates, k):
    rng = np.random.default_rng(seed)
    records = f32(rng.normal(0, 1, (20, dim)))
    records = np.vstack([records, records, -records])  # every record has a twin: ties by number
    queries = f32(rng.normal(0, 1, (int(rng.integers(0, 4)), dim)))
    candidates = np.array(
        [rng.permutation(60)[:n_candidates] for _ in queries], np.int64
    ).reshape(len(queries), n_candidates)  # fmt: skip
    candidates[rng.random(candidates.shape) < 0.1] = -1
    ids, similarities = reference.rank(queries, records, candidates, k)
    for simd in LEVELS:
        for threads in (1, 2):
            found = _core.rank(queries, records, candidates, k, threads, simd)
            assert_array_equal(found[0], ids)
            assert_array_equal(found[1], similarities)


def test_rank_by_hand():
    records = f32([[1, 0], [0, 1], [1, 0], [0.5, 0]])
    ids, similarities = _core.rank(f32([[1, 0]]), records, i64([[3, 2, -1, 1, 0]]), 5, 1)
    assert_array_equal(ids, [[0, 2, 3, 1, -1]])
    assert_array_equal(similarities, f32([[1, 1, 0.5, 0, -np.inf]]))


def test_rank_is_the_same_with_every_level_and_thread():
    rng = np.random.default_rng(2)
    records, queries = (f32(rng.normal(0, 1, (n, 384))) for n in (500, 300))
    candidates = np.array([rng.permutation(500)[:37] for _ in queries])
    answers = [
        _core.rank(queries, records, candidates, 19, threads, simd)
        for simd in LEVELS
        for threads in (1, 2, 5)
    ]
    for ids, similarities in answers[1:]:
        assert_array_equal(ids, answers[0][0])
        assert_array_equal(similarities, answers[0][1])
    exact = [
        float(sum(Fraction(float(a)) * Fraction(float(b)) for a, b in zip(q, r, strict=True)))
        for q, r in zip(queries[:5], records[answers[0][0][:5, 0]], strict=True)
    ]
    assert_array_equal(answers[0][1][:5, 0], f32(exact))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"queries": np.zeros((1, 2))}, TypeError, "queries must be float32, got float64"),
        ({"records": np.zeros((3, 2))}, TypeError, "records must be float32, got float64"),
        ({"candidates": np.zeros((1, 1), np.int32)}, TypeError, "must be int64, got int32"),
        ({"queries": f32([[1]])}, ValueError, "queries has 1 dimensions, records have 2"),
        ({"candidates": i64([[0], [1]])}, ValueError, "candidates has 2 rows, queries has 1"),
        ({"candidates": i64([[0, 3]])}, ValueError, r"in \[0, 3\), got 3 at \[0, 1\]"),
        ({"candidates": i64([[-2, 0]])}, ValueError, r"in \[0, 3\), got -2 at \[0, 0\]"),
        ({"records": np.asfortranarray(np.ones((3, 2), np.float32))}, ValueError, "C-contiguous"),
        ({"records": f32([[0, 0], [0, NAN], [0, 0]])}, ValueError,
         "similarities must be finite, got none for query 0 and record 1"),
        ({"k": -1}, ValueError, "k must be 0 or more, got -1"),
        ({"threads": -1}, ValueError, "threads must be 0"),
    ],
)  # fmt: skip
def test_rank_refuses(change, error, words):
    arguments = {
        "queries": f32([[1, 0]]), "records": np.ones((3, 2), np.float32),
        "candidates": i64([[0, 1]]), "k": 1, "threads": 1, **change,
    }  # fmt: skip
    with pytest.raises(error, match=words):
        _core.rank(**arguments)


# ----------------------------------------------------------------------------------------- device


@pytest.mark.skipif(shutil.which("nvcc") is None, reason="no nvcc on this machine")
def test_the_arithmetic_compiles_for_the_device(tmp_path):
    source = tmp_path / "arithmetic.cu"
    source.write_text(
        '#include "votes/vote.hpp"\n'
        "__global__ void all(float* out, double* values) {\n"
        "    using namespace benchrouter;\n"
        "    const GridCell cell = find_cell({0.0, 0.1, 8}, distance(out[0]));\n"
        "    const double g = vote(values[0], values[1], 3, values[2], 1.0);\n"
        "    out[0] = s3(g > 0.5, interpolate(out[cell.low], out[cell.high], cell.fraction));\n"
        "    out[1] = vote_of_counts(2, 3, 0.5f);\n"
        "}\n"
    )
    compiled = subprocess.run(
        ["nvcc", "-std=c++17", "-x", "cu", f"-I{CSRC}", "-ptx", "-o", os.devnull, str(source)],
        env={name: value for name, value in os.environ.items() if name != "LD_PRELOAD"},
        capture_output=True,
        text=True,
    )
    assert compiled.returncode == 0, compiled.stderr
