"""Many tasks in one pass: each decision is that of its task alone, however the prompts come."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise

import numpy as np
import pytest
from tables import make_table, unit_rows

from benchrouter import Router, Settings
from benchrouter.decisions.task import SCORES
from benchrouter.neighbours.lists import Neighbours
from benchrouter.scores.formulas import task_distance
from benchrouter.scores.neighbourhood import local_accuracy
from benchrouter.scores.task_sums import evidence_of_task, sums_of_tasks
from benchrouter.votes.votes import task_scores

NAN = float("nan")
DIM = 6


def near(directions, spread, seed):
    rows = directions + spread * unit_rows(len(directions), DIM, seed)
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def router():
    """Five datasets around five axes; 7 models, two of them twins, some run on few records only."""
    dataset = np.repeat(np.arange(5), 40)
    rows = near(np.eye(DIM, dtype=np.float32)[dataset], 0.9, seed=1)
    rng = np.random.default_rng(2)
    skill = rng.uniform(0.1, 0.9, (5, 7))
    scores = (rng.random((200, 7)) < skill[dataset]).astype(np.float32)
    scores[:, 3] = scores[:, 2]
    scores[rng.random(200) < 0.8, 4] = NAN
    scores[dataset > 1, 5] = NAN
    table = make_table(scores, dataset, params_b=np.array([7.0, 70, 34, 13, 8, 9, 70]))
    return Router.fit(table, embeddings=rows, settings=Settings(kappa=9, draws=2))


@pytest.fixture(scope="module")
def prompts():
    """400 embeddings: among the axes, far from all, and beyond the last axis where nobody ran."""
    return np.concatenate(
        [
            near(np.eye(DIM, dtype=np.float32)[np.arange(250) % 5], 0.8, seed=3),
            near(-np.ones((75, DIM), np.float32), 0.5, seed=4),
            near(np.eye(DIM, dtype=np.float32)[[5] * 75], 0.3, seed=5),
        ]
    )


def batches(groups, rows, cuts):
    for start, stop in zip([0, *cuts], [*cuts, len(rows)], strict=True):
        yield groups[start:stop], None, rows[start:stop]


def check(router, groups, rows, cuts, score):
    found = dict(router.choose_groups(batches(groups, rows, cuts), score=score))
    assert list(found) == list(dict.fromkeys(groups))  # by first appearance
    for group, decision in found.items():
        of_group = rows[[i for i, g in enumerate(groups) if g == group]]
        same(decision, router.choose(embeddings=of_group, score=score))
    return found


def same(one, other):
    """Equal choices and counts; numbers equal but for their rounding to 12 decimals."""
    for name in ("model", "fallback", "best_by_score", "best_on_average", "score", "n_labels"):
        assert getattr(one, name) == getattr(other, name), name
    assert one.n_prompts == other.n_prompts
    assert (one.warning is None) == (other.warning is None)
    assert one.reason == other.reason
    np.testing.assert_array_equal(one.support, other.support)
    np.testing.assert_array_equal(one.s2, other.s2)
    for name in ("expected_accuracy", "interval", "probability", "distance", "auto", "auto_sd"):
        np.testing.assert_allclose(
            getattr(one, name), getattr(other, name), rtol=0, atol=1e-9, err_msg=name
        )
    for name in ("s1", "s3", "p_hat", "standing"):
        np.testing.assert_allclose(
            getattr(one, name), getattr(other, name), rtol=0, atol=1e-9, err_msg=name
        )


@pytest.mark.parametrize("score", SCORES)
@pytest.mark.parametrize("seed", range(6))
def test_every_decision_is_that_of_its_prompts_alone(router, prompts, score, seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, len(prompts)))
    rows = prompts[rng.choice(len(prompts), n, replace=False)]
    n_groups = int(rng.integers(1, [3, 30, 2 * n][seed % 3] + 1))  # few, some, many of one prompt
    groups = [f"group {g}" for g in rng.integers(0, n_groups, n)]
    cuts = sorted(rng.integers(0, n + 1, int(rng.integers(0, 8))).tolist())  # also empty batches
    check(router, groups, rows, cuts, score)


def test_the_cases_that_matter_are_among_them(router, prompts):
    """Fallbacks, far tasks and models without evidence do occur where decisions are compared."""
    groups = ["near", "far", "aside"]
    names = [groups[0]] * 250 + [groups[1]] * 75 + [groups[2]] * 75
    order = np.random.default_rng(0).permutation(400)
    names, rows = [names[i] for i in order], np.ascontiguousarray(prompts[order])
    found = check(router, names, rows, [100, 101, 390], "s3")
    assert found["far"].warning is not None and found["near"].warning is None
    assert (found["far"].support < found["far"].n_prompts).any()
    by_one = check(router, [f"{i}" for i in range(400)], rows, [7, 300], "s3")
    assert {d.fallback for d in by_one.values()} == {True, False}
    assert any((d.support == 0).any() for d in by_one.values())


def test_the_sums_say_what_the_functions_of_one_task_say(router, prompts):
    fit, index = router._fit, router.decider.index
    found = index.search(prompts, 9)
    offsets = np.array([0, 1, 100, 260, 400])
    sums = sums_of_tasks(fit, found, offsets, prompts)
    scored = task_scores(found.ids, fit.correct, offsets, prior=fit.prior, k=5)
    for task, (start, stop) in enumerate(pairwise(offsets)):
        seen = evidence_of_task(fit, sums, task)
        of_task = Neighbours(found.ids[start:stop], found.similarities[start:stop])
        local = local_accuracy(
            of_task, fit.correct, fit.dataset, fit.means, fit.prior, k=5, kappa=9
        )
        np.testing.assert_allclose(seen.local, local, rtol=0, atol=1e-11)
        assert seen.distance == pytest.approx(task_distance(of_task.similarities), abs=1e-11)
        np.testing.assert_allclose(seen.s1, scored.s1[task], rtol=0, atol=1e-11)
        np.testing.assert_array_equal(seen.s2, scored.s2[task])
        np.testing.assert_array_equal(seen.support, scored.support[task])
        assert seen.n_prompts == stop - start


def test_a_tie_goes_to_the_cheaper_model_in_any_order():
    """0.2 + 0.4 + 0.6 is not 0.6 + 0.4 + 0.2 in floating point; the mean votes are a tie."""
    dataset = np.repeat(np.arange(3), 5)
    rows = np.eye(3, dtype=np.float32)[dataset]
    right = np.array([[1, 3, 0], [2, 2, 0], [3, 1, 0]])  # of the five records of each dataset
    scores = (np.tile(np.arange(5), 3)[:, None] < right[dataset]).astype(np.float32)
    table = make_table(scores, dataset, params_b=np.array([70.0, 7.0, 1.0]))
    router = Router.fit(table, embeddings=rows, settings=Settings(kappa=5, draws=1))
    task = np.eye(3, dtype=np.float32)
    for order in ([0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]):
        rows = np.ascontiguousarray(task[order])
        decision = router.choose(embeddings=rows, score="s1")
        assert decision.s1.tolist() == [0.4, 0.4, 0.0]
        assert decision.model == "model 1", order
        for cuts in ([], [1], [2], [1, 2]):
            (found,) = router.choose_groups(batches(["t"] * 3, rows, cuts), score="s1")
            assert found[1].model == "model 1", (order, cuts)


def test_names_are_whatever_can_be_compared(router, prompts):
    rows = prompts[:4]
    for names in ([3, 1, 3, 1], np.array([3, 1, 3, 1]), np.array(["b", "a", "b", "a"])):
        found = [group for group, _ in router.choose_groups([(names, None, rows)])]
        assert found in ([3, 1], ["b", "a"])
        assert not isinstance(found[0], np.generic)
    (pair,) = router.choose_groups([([("x", 1)] * 4, ["p"] * 4, rows)])
    assert pair[0] == ("x", 1) and pair[1].n_prompts == 4
    assert list(router.choose_groups([])) == []
    assert list(router.choose_groups([([], None, rows[:0])])) == []


@pytest.mark.parametrize(
    ("groups", "error", "words"),
    [
        (["a"], ValueError, "1 groups came with 2 prompts"),
        (["a", None], ValueError, "a name for every prompt, got None at 1"),
        ([NAN, "a"], ValueError, "a name for every prompt, got nan at 0"),
        ("ab", TypeError, "groups must be a list of names, got a single string"),
        (iter("ab"), TypeError, "groups must be a list of names, got str"),
        ([["a"], ["b"]], TypeError, "unhashable"),
    ],
)
def test_bad_groups(router, prompts, groups, error, words):
    with pytest.raises(error, match=words):
        router.choose_groups([(groups, None, prompts[:2])])


def test_what_choose_refuses_is_refused(router, prompts):
    with pytest.raises(ValueError, match="score must be one of 'auto'"):
        router.choose_groups([], score="s4")
    with pytest.raises(ValueError, match="embeddings have dim 3, the router's have dim 6"):
        router.choose_groups([(["a"], None, np.eye(3, dtype=np.float32)[:1])])
    with pytest.raises(ValueError, match="2 prompts came with 1 embeddings"):
        router.choose_groups([(["a"], ["p", "q"], prompts[:1])])
    scores = np.random.default_rng(0).random((20, 2))
    table = make_table(scores, np.repeat([0, 1], 10), thresholds=np.array([0.5, NAN]))
    raw = Router.fit(table, embeddings=unit_rows(20, DIM))
    with pytest.raises(ValueError, match="a task needs correctness"):
        raw.choose_groups([])


def test_memory_grows_with_groups_not_with_prompts(router, prompts):
    def peak(n_batches):
        def stream():
            for i in range(n_batches):
                yield (
                    [f"group {(i + j) % 50}" for j in range(1000)],
                    None,
                    np.tile(prompts[:250], (4, 1)),
                )

        tracemalloc.start()
        found = router.choose_groups(stream())
        highest = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(d.n_prompts for _, d in found) == 1000 * n_batches
        return highest

    peak(2)
    assert peak(40) < 1.2 * peak(4)
