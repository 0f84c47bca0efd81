"""What a format leaves to the caller."""

from __future__ import annotations

from dataclasses import dataclass

ALLOWED = {"prompt": (None, "request", "instance"), "runs": ("alike", "latest")}


@dataclass(frozen=True)
class Choices:
    """Options of the formats; one that a format does not know is not looked at.

    Attributes
    ----------
    metric : str or None
        Name of the score to take; None = the format's own choice.
    filter : str or None
        Name of the filter of the answers whose score to take; None = that of the main metric.
    prompt : str or None
        "request": what was sent to the models, with its few-shot examples; "instance": the
        record's own text; None = the format's own choice.
    shots : int or None
        Take only runs with so many few-shot examples.
    runs : str
        Of several runs of a model: "alike" takes the latest if they are alike, "latest" always.
    groups : bool
        Take a group of tasks as one dataset.

    Raises
    ------
    ValueError
        If an option has a value that there is not.
    """

    metric: str | None = None
    filter: str | None = None
    prompt: str | None = None
    shots: int | None = None
    runs: str = "alike"
    groups: bool = False

    def __post_init__(self) -> None:
        """Check the options that have few values."""
        for name, allowed in ALLOWED.items():
            value = getattr(self, name)
            if value not in allowed:
                expected = " or ".join(repr(known) for known in allowed if known is not None)
                raise ValueError(f"{name} is {value!r}, expected {expected}")
