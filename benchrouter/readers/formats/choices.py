"""What a format leaves to the caller."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Choices:
    """Options of the formats; one that a format does not know is not looked at.

    Attributes
    ----------
    metric : str or None
        Name of the score to take; None = the format's own choice.
    """

    metric: str | None = None
