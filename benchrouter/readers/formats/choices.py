"""What a format leaves to the caller."""

from __future__ import annotations

from dataclasses import dataclass

from benchrouter.readers.formats.helm_paper import PRESET
from benchrouter.readers.presets import PRESETS

ALLOWED = {
    "prompt": (None, "request", "instance"),
    "train_trials": ("mean", "first"),
    "perturbations": ("original", "all"),
    "runs": ("alike", "latest"),
    "preset": (None, PRESET, *PRESETS),
}


@dataclass(frozen=True)
class Choices:
    """Options of the formats; one that a format does not know is not looked at.

    Attributes
    ----------
    metric : str or None
        Name of the score to take; None = the format's own choice.
    only_metric : bool
        Where a dataset lacks `metric` its scores are missing, and not those that the format
        chooses: for a metric to be written beside another.
    filter : str or None
        Name of the filter of the answers whose score to take; None = that of the main metric.
    prompt : str or None
        "request": what was sent to the models, with its few-shot examples; "instance": the
        record's own text; None = the format's own choice.
    split : str or None
        Take only instances of this split; None = all that were evaluated.
    train_trials : str
        Of runs with several choices of few-shot examples: the "mean" of their scores, or those
        of the "first".
    perturbations : str
        "original" leaves perturbed instances out, "all" makes each a record of its own.
    shots : int or None
        Take only runs with so many few-shot examples.
    runs : str
        Of several runs of a model: "alike" takes the latest if they are alike, "latest" always.
    groups : bool
        Take a group of tasks as one dataset.
    preset : str or None
        "helm-paper": take only runs of the datasets and models of arXiv 2309.15789. "embedllm",
        "routellm": names of the columns of tables that are published so.

    Raises
    ------
    ValueError
        If an option has a value that there is not.
    """

    metric: str | None = None
    only_metric: bool = False
    filter: str | None = None
    prompt: str | None = None
    split: str | None = None
    train_trials: str = "mean"
    perturbations: str = "original"
    shots: int | None = None
    runs: str = "alike"
    groups: bool = False
    preset: str | None = None

    def __post_init__(self) -> None:
        """Check the options that have few values."""
        for name, allowed in ALLOWED.items():
            value = getattr(self, name)
            if value not in allowed:
                expected = " or ".join(repr(known) for known in allowed if known is not None)
                raise ValueError(f"{name} is {value!r}, expected {expected}")
