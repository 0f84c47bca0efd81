"""Cells of held-out datasets against the slow reference: ties, exclusions, missing scores."""

from __future__ import annotations

import numpy as np
import pytest
import reference_method
from hypothesis import given, settings
from hypothesis import strategies as st
from tables import make_table, unit_rows

from benchrouter import _core
from benchrouter.neighbours.lists import Neighbours, join
from benchrouter.scores import cells
from benchrouter.scores.evidence import evidence_of, predict, prior_without, verdicts
from benchrouter.scores.held_out import hold_out, without


def made(rng, n=60, n_datasets=3, n_models=3, missing=0.0, **sizes):
    """Evidence with equal rows, so that neighbours tie within and across datasets."""
    dataset = np.concatenate([np.arange(n_datasets), rng.integers(0, n_datasets, n - n_datasets)])
    rng.shuffle(dataset)
    scores = (rng.random((n, n_models)) < 0.6).astype(np.float32)
    scores[rng.random(scores.shape) < missing] = np.nan
    rows = unit_rows(n, 4, int(rng.integers(1000)))
    copies = rng.integers(0, n, n // 4)
    rows[copies] = rows[rng.integers(0, n, len(copies))]
    return evidence_of(make_table(scores, dataset), rows, **sizes)


def check_against_reference(evidence, held_out, moved, each):
    rows, code = evidence.index.embeddings.astype(np.float64), held_out.code
    similarities = (rows @ rows.T).astype(np.float32)
    own = held_out.rows
    found = cells.cells_of(held_out, evidence, moved, each=each)
    exclusions = [code, *(range(evidence.n_datasets) if each else ())]
    for c, places in enumerate(moved):
        rest = np.delete(own, places)
        for e, other in enumerate(exclusions):
            pool = [
                r
                for r in range(len(rows))
                if evidence.dataset[r] not in (code, other) or r in own[places]
            ]
            u, s1, s2, p = reference_method.task(
                rest,
                pool,
                similarities,
                evidence.correctness.astype(np.float64),
                prior_without(evidence, code, other),
                evidence.k,
                evidence.kappa,
            )
            assert found.u[c, e] == pytest.approx(u, abs=1e-6)
            np.testing.assert_allclose(found.s1[c, e], s1, rtol=0, atol=1e-6)
            np.testing.assert_allclose(found.s2[c, e], s2, rtol=0, atol=1e-12)
            np.testing.assert_allclose(found.p[c, e], p, rtol=0, atol=1e-12)


@pytest.mark.filterwarnings("ignore:Mean of empty slice")  # of the reference
@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([0.0, 0.3, 0.8]), st.booleans())
def test_equal_the_reference(seed, missing, each):
    rng = np.random.default_rng(seed)
    evidence = made(
        rng,
        n=int(rng.integers(20, 50)),
        n_datasets=int(rng.integers(3, 6)),
        n_models=int(rng.choice([1, 3, 70])),
        missing=missing,
        k=int(rng.integers(1, 8)),
        kappa=int(rng.integers(1, 8)),
        threads=int(rng.integers(1, 4)),
    )
    held_out = list(hold_out(evidence))[int(rng.integers(evidence.n_datasets))]
    n = len(held_out.rows)
    moved = [rng.choice(n, int(rng.integers(0, n)), replace=False) for _ in range(3)]
    check_against_reference(evidence, held_out, moved, each)


def test_more_neighbours_wanted_than_there_are():
    rng = np.random.default_rng(3)
    evidence = made(rng, n=12, k=30, kappa=40)
    for held_out in hold_out(evidence):
        check_against_reference(evidence, held_out, [np.empty(0, np.int64)], True)


def test_votes_and_lists_are_those_of_voting_and_index():
    rng = np.random.default_rng(5)
    evidence = made(rng, n=200, n_datasets=4, missing=0.2, k=5, kappa=9)
    embeddings = evidence.index.embeddings
    for held_out in hold_out(evidence):
        rows = held_out.rows
        moved = rng.choice(len(rows), 8, replace=False)
        found = cells.cells_of(held_out, evidence, [moved], each=True)
        rest = np.delete(np.arange(len(rows)), moved)
        # each labelled record's exact similarity, as the index computes it
        candidates = np.broadcast_to(rows[moved], (len(rest), 8)).copy()
        labelled = Neighbours(*_core.rank(embeddings[rows[rest]], embeddings, candidates, 8, 1))
        for other in range(4):
            base = without(held_out, evidence, other)
            pool = join(
                Neighbours(base.ids[rest], base.similarities[rest]), labelled, evidence.depth
            )
            g = predict(pool, evidence, prior_without(evidence, held_out.code, other))
            np.testing.assert_allclose(found.s1[0, 1 + other], g.mean(axis=0, dtype=float))
            np.testing.assert_array_equal(
                found.s2[0, 1 + other], verdicts(g, evidence.threshold).mean(axis=0)
            )


def test_the_answer_does_not_depend_on_threads_or_blocks(monkeypatch):
    answers = []
    for threads, block in ((1, 64 << 20), (3, 64 << 20), (2, 100)):
        monkeypatch.setattr(cells, "BLOCK_BYTES", block)
        evidence = made(np.random.default_rng(8), n=300, missing=0.1, threads=threads)
        held_out = next(hold_out(evidence))
        moves = cells.moves_of(len(held_out.rows), 0, (0.0, 0.1, 0.2), 3, 0)
        answers.append(cells.cells_of(held_out, evidence, cells.distinct(moves)[0], each=True))
    for other in answers[1:]:
        for name in ("u", "s1", "s2", "p"):
            np.testing.assert_array_equal(getattr(answers[0], name), getattr(other, name))


def test_a_sample_of_a_large_table(monkeypatch):
    monkeypatch.setattr("benchrouter.scores.held_out.ALL_RECORDS", 50)
    monkeypatch.setattr("benchrouter.scores.held_out.SAMPLE", 12)
    evidence = made(np.random.default_rng(2), n=90)
    for held_out in hold_out(evidence):
        assert len(held_out.rows) == 12
        check_against_reference(evidence, held_out, [np.array([1, 4])], True)


def test_two_datasets_leave_nothing_to_exclude():
    evidence = made(np.random.default_rng(1), n=30, n_datasets=2)
    held_out = next(hold_out(evidence))
    found = cells.cells_of(held_out, evidence, [np.array([0, 2])], each=True)
    assert np.isnan(found.u[0]).tolist() == [False, False, True]
    assert np.isnan(found.p[0]).all(axis=1).tolist() == [False, False, True]
    np.testing.assert_array_equal(found.s1[:, 0], found.s1[:, 1])


def test_moves():
    moves = cells.moves_of(10, 0, (0.0, 0.05, 0.1, 0.28), 3, 7)
    assert [chosen.shape for chosen in moves] == [(3, 0), (3, 0), (3, 1), (3, 2)]
    assert cells.moves_of(1000, 0, (0.28,), 2, 7)[0].shape == (2, 50)
    np.testing.assert_array_equal(moves[3], cells.moves_of(10, 0, (0.0, 0.05, 0.1, 0.28), 3, 7)[3])
    distinct, which = cells.distinct(moves)
    assert [len(places) for places in distinct] == [0, 1, 1, 1, 2, 2, 2]
    assert which.tolist() == [[0, 0, 0], [0, 0, 0], [1, 2, 3], [4, 5, 6]]


def arguments(**changes):
    """Two queries of a dataset of three records, one record elsewhere, one cell, one model."""
    shape = (1, 1, 1)
    given = dict(
        ids=np.array([[3], [3]]),
        similarities=np.full((2, 1), 0.5, np.float32),
        own_places=np.array([[2], [2]]),
        own_similarities=np.full((2, 1), 0.25, np.float32),
        first=0,
        records=np.arange(3),
        offsets=np.array([0, 0, 0, 1]),
        cells=np.zeros(1, np.int32),
        n_cells=1,
        correctness=np.array([[1], [0], [1], [0]], np.float32),
        dataset=np.array([0, 0, 0, 1], np.int32),
        n_datasets=2,
        k=2,
        kappa=1,
        threshold=0.5,
        each=False,
        threads=1,
        out=(
            np.zeros((1, 1), np.int64),
            np.zeros(shape),
            *(np.zeros(shape, np.int32) for _ in range(5)),
        ),
    )
    return {**given, **changes}


def test_by_hand():
    given = arguments()
    _core.cells(**given)
    distance, s1, s2, right, unsupported, *_ = given["out"]
    # both see record 3 (wrong, distance 0.5), then record 2 (right): votes of 1 of 2, not above t;
    # of the verdicts "wrong" that on record 1 is right
    assert distance[0, 0] == 2 * 0.5 * _core.distance_unit
    assert (s1[0, 0, 0], s2[0, 0, 0], right[0, 0, 0], unsupported[0, 0, 0]) == (1.0, 0, 1, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(ids=np.array([[3], [4]])),
            r"ids must be -1 \(none\) or .* \[0, 4\), got 4 at \[1, 0",
        ),
        (dict(own_places=np.array([[3], [2]])), r"own_places must be -1 .* \[0, 3\), got 3 at \[0"),
        (
            dict(similarities=np.full((2, 1), np.nan, np.float32)),
            r"^similarities must be in \[-2, 2\] where there is a neighbour, got nan at \[0, 0\]",
        ),
        (
            dict(similarities=np.array([[2], [-2.5]], np.float32)),
            r"^similarities must be in \[-2, 2\] .* got -2.500000 at \[1, 0\]",
        ),
        (
            dict(own_similarities=np.array([[0], [1e30]], np.float32)),
            r"^own_similarities must be in \[-2, 2\] .* at \[1, 0\]",
        ),
        (dict(own_similarities=np.full((2, 2), 0.0, np.float32)), r"own_similarities has shape"),
        (dict(offsets=np.array([0, 1, 0, 1])), "offsets must ascend from 0 to the 1 values"),
        (dict(offsets=np.array([0, 1])), "offsets has 2 values, records plus 1 is 4"),
        (dict(cells=np.ones(1, np.int32)), r"cells must be in \[0, 0\], got 1 at \[0\]"),
        (dict(records=np.array([0, 1, 4])), r"records must be in \[0, 3\], got 4 at \[2\]"),
        (dict(dataset=np.full(4, 2, np.int32)), r"dataset must be in \[0, 1\], got 2 at \[0\]"),
        (
            dict(records=np.arange(1), offsets=np.array([0, 1])),
            "ids has 2 rows, expected at most as many as records has: 1",
        ),
        (dict(first=2), r"first must be in \[0, 1\], got 2"),
        (dict(k=0), r"k must be in \[1, 65535\], got 0"),
        (dict(threshold=np.nan), "threshold must be finite"),
        (dict(each=True), r"out.distance has shape \(1, 1\), expected \(1, 3\)"),
        (dict(out=()), "out must hold 7 arrays, got 0"),
    ],
)
def test_bad_input_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        _core.cells(**arguments(**changes))
