"""What a format leaves to the caller."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from benchrouter.tables.formats.helm.paper import PRESET
from benchrouter.tables.layouts.presets import PRESETS

ALLOWED: dict[str, Sequence[str | None]] = {
    "prompt": (None, "request", "instance"),
    "train_trials": ("mean", "first"),
    "perturbations": ("original", "all"),
    "runs": ("alike", "latest"),
    "preset": (None, PRESET, *PRESETS),
}


@dataclass(frozen=True)
class Choices:
    """Options of the formats, as `read_table` describes them.

    A format does not look at those of others.

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
        check_values(self, ALLOWED)


def check_values(options: object, allowed: Mapping[str, Sequence[str | None]]) -> None:
    """Refuse a value of an option that is none of those allowed.

    Raises
    ------
    ValueError
        Names the option and its values.
    """
    for name, values in allowed.items():
        value = getattr(options, name)
        if value not in values:
            known = [one for one in values if one is not None]
            few = len(known) == 2
            expected = " or ".join(map(repr, known)) if few else f"one of {', '.join(known)}"
            raise ValueError(f"{name} is {value!r}, expected {expected}")
