"""Which labels to grade next: models that may be best, fresh prompts, and when it is enough."""

from __future__ import annotations

import json

import numpy as np
import pytest
from tables import make_table, unit_rows

from benchrouter import Router, Settings
from benchrouter.decisions.suggestions import chances, contenders
from benchrouter.scores.expected import task_accuracies

NAN = float("nan")


@pytest.fixture(scope="module")
def router():
    """Ten datasets on which three models contend, and two never do."""
    rng = np.random.default_rng(0)
    dataset = np.repeat(np.arange(10), 60)
    rows = unit_rows(10, 16, seed=1)[dataset] + 0.6 * unit_rows(600, 16, seed=2)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    skill = np.array([0.6, 0.6, 0.6, 0.2, 0.1]) + rng.normal(0, 0.08, (10, 5))
    table = make_table(rng.random((600, 5)) < skill[dataset], dataset)
    return Router.fit(table, embeddings=rows, settings=Settings(label_shares=(0.0,), draws=1))


PROMPTS = unit_rows(400, 16, seed=9)
TRUE = np.array([0.5, 0.8, 0.55, 0.2, 0.1])


def test_chances_by_hand():
    # Two models 0.1 apart, the difference has the deviation 0.1: one is the best with Φ(1).
    found = task_accuracies.Estimate(np.array([0.6, 0.5]), 0.005 * np.eye(2), 0.5, 9)
    of_best, chance = chances(found, 0, np.eye(2) / 4)
    np.testing.assert_allclose(of_best, [0.8413, 0.1587], atol=0.02)
    assert chance == pytest.approx(0.8643, abs=0.02)  # Φ(1.1): at most 0.01 behind
    assert chances(found, 0, np.eye(2) / 4, 1.0)[1] == 1.0
    np.testing.assert_array_equal(contenders(np.array([0.05, 0.6, 0.35])), [1, 2])
    np.testing.assert_array_equal(contenders(np.array([0.05, 0.95, 0.0])), [0, 1])
    np.testing.assert_array_equal(contenders(np.array([0.3, 0.4, 0.3])), [0, 1, 2])


def test_models_that_cannot_be_best_are_not_graded(router):
    found = router.suggest_labels(embeddings=PROMPTS, n=7)
    assert set(found.models) <= {"model 0", "model 1", "model 2"} and len(found.models) >= 2
    assert len(found.prompts) == 7 and not found.reached
    assert sum(found.chance_of_best.values()) == pytest.approx(1.0)
    again = router.suggest_labels(embeddings=PROMPTS, n=7)
    np.testing.assert_array_equal(again.prompts, found.prompts)


def test_grading_what_is_asked_finds_the_best_model(router):
    rng = np.random.default_rng(1)
    labels = np.full((400, 5), NAN)
    asked_before: set[int] = set()
    for _ in range(40):
        found = router.suggest_labels(embeddings=PROMPTS, labels=labels, n=10)
        if found.reached:
            break
        assert not asked_before & set(found.prompts.tolist())
        asked_before |= set(found.prompts.tolist())
        for name in found.models:
            m = router.models.index(name)
            labels[found.prompts, m] = rng.random(10) < TRUE[m]
    assert found.reached and found.chance >= 0.9 and len(found.prompts) == 0
    assert found.models == ()
    assert found.best == "model 1" == router.choose(embeddings=PROMPTS, labels=labels).model
    assert (~np.isnan(labels)).sum() < 1500  # of 2,000: three in four models × prompts
    content = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert content["reached"] is True and content["rows"] == [] and content["max_regret"] == 0.01


def test_only_models_that_may_be_chosen_are_graded(router):
    everything = router.suggest_labels(embeddings=PROMPTS, n=7)
    assert "model 1" in everything.models
    allowed = ["model 4", "model 2", "model 0"]
    found = router.suggest_labels(embeddings=PROMPTS, n=7, models=allowed)
    assert found.models == ("model 0", "model 2") and not found.reached
    assert found.best == router.choose(embeddings=PROMPTS, models=allowed).model
    assert found.chance_of_best["model 1"] == found.chance_of_best["model 3"] == 0.0
    assert sum(found.chance_of_best.values()) == pytest.approx(1.0)
    alone = router.suggest_labels(embeddings=PROMPTS, n=7, models=["model 4"])
    assert (alone.best, alone.chance, alone.reached, alone.models) == ("model 4", 1.0, True, ())
    with pytest.raises(ValueError, match="model 9"):
        router.suggest_labels(embeddings=PROMPTS, n=7, models=["model 9"])


def test_chances_among_the_models_allowed():
    found = task_accuracies.Estimate(np.array([0.9, 0.5, 0.5]), 0.005 * np.eye(3), 0.5, 9)
    allowed = np.array([False, True, True])
    of_best, chance = chances(found, 1, np.eye(3) / 4, allowed=allowed)
    assert of_best[0] == 0.0
    np.testing.assert_allclose(of_best[1:], 0.5, atol=0.02)
    assert chance == pytest.approx(0.5398, abs=0.02)  # Φ(0.1): at most 0.01 behind


def test_prompts_like_a_labelled_one_are_not_asked_again(router):
    prompts = np.tile(PROMPTS[:5], (10, 1))
    labels = np.full((2, 5), NAN)
    labels[1, 0] = 1.0
    found = router.suggest_labels(embeddings=prompts, labels=labels, n=50)
    assert sorted(found.prompts % 5) == [0, 2, 3, 4]


def test_it_needs_no_second_dataset():
    rows = unit_rows(40, 8, seed=0)
    scores = np.random.default_rng(0).random((40, 3)) < [0.5, 0.55, 0.6]
    router = Router.fit(
        make_table(scores, np.zeros(40, int)),
        embeddings=rows,
        settings=Settings(label_shares=(0.0,), draws=1),
    )
    found = router.suggest_labels(embeddings=rows[:30], n=3)
    assert 0.0 < found.chance < 1.0 and len(found.models) == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"n": 0}, "n must be at least 1, got 0"),
        ({"n": 3, "max_regret": -0.1}, "max_regret must be at least 0, got -0.1"),
        ({"n": 3, "max_regret": NAN}, "max_regret must be at least 0, got nan"),
        ({"n": 3, "labels": np.full((1, 5), 7.0)}, "labels must lie in .0, 1., found 7"),
        ({"n": 3, "embeddings": PROMPTS[:0]}, "a task needs at least one prompt, found none"),
    ],
)
def test_bad_arguments_are_refused(router, arguments, words):
    with pytest.raises(ValueError, match=words):
        router.suggest_labels(**{"embeddings": PROMPTS, **arguments})
