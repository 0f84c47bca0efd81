"""What `benchrouter choose` says of its choice."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest

choose = importlib.import_module("benchrouter.cli.choose")  # the package's name is the command


@pytest.mark.parametrize(
    ("n_labels", "on"),
    [
        (0, "1,200 prompts of the task"),
        (50, "the 1,150 prompts without labels"),
        (1200, "1,200 prompts of the task"),  # all labelled: of others like them
    ],
)
def test_the_interval_is_one_of_what_will_be_measured(n_labels, on):
    decision = SimpleNamespace(
        expected_accuracy=0.6124,
        interval=(0.55, 0.68),
        n_prompts=1200,
        n_labels=n_labels,
        n_effective=1150.0,
    )
    assert choose._expected(decision) == (
        f"0.612; measured on {on}, with 80 % chance between 0.550 and 0.680 (sampling error "
        "included)"
    )


def test_prompts_that_repeat_are_told():
    decision = SimpleNamespace(
        expected_accuracy=0.6, interval=(0.2, 1.0), n_prompts=2000, n_labels=0, n_effective=1.0
    )
    assert "on 2,000 prompts of the task (many repeat: they tell as much as 1), with" in (
        choose._expected(decision)
    )


def test_without_an_interval_the_reason_is_said():
    decision = SimpleNamespace(expected_accuracy=0.6, interval=None)
    assert choose._expected(decision) == (
        "0.600 (too few datasets in the benchmark for an interval)"
    )
