"""What `benchrouter choose` says of its choice."""

from __future__ import annotations

import importlib
from types import SimpleNamespace

import pytest

choose = importlib.import_module("benchrouter.cli.choose")  # the package's name is the command
NAN = float("nan")


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
        expected_accuracy=0.6124, interval=(0.55, 0.68), n_prompts=1200, n_labels=n_labels
    )
    assert choose._expected(decision) == (
        f"0.612; measured on {on}, with 80 % chance between 0.550 and 0.680 (sampling error "
        "included)"
    )


def test_without_an_interval_the_reason_is_said():
    decision = SimpleNamespace(expected_accuracy=0.6, interval=(NAN, NAN))
    assert choose._expected(decision) == (
        "0.600 (too few datasets in the benchmark for an interval)"
    )
