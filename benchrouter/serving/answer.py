"""The engine's answer to a prompt."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Cause = Literal[
    "far",
    "no_votes",
    "no_model",
    "bad_prompt",
    "deadline",
    "overloaded",
    "encoder",
    "error",
    "closed",
]
CAUSES: dict[Cause, str] = {
    "far": "the prompt is farther from the benchmark than 99 % of its own held-out prompts",
    "no_votes": "no neighbour of the prompt has a score",
    "no_model": "the router knows none of the models allowed",
    "bad_prompt": "the prompt has no text, or no shape that is known",
    "deadline": "no decision was made in time",
    "overloaded": "too many prompts were waiting until the deadline",
    "encoder": "the encoder or its device failed",
    "error": "the router failed",
    "closed": "the engine is closed",
}


@dataclass(frozen=True)
class Routed:
    """One decision.

    Attributes
    ----------
    model : str
    ranking : tuple of str
        The models allowed, best first; the first is `model`.
    scores : tuple of (float or None)
        Predicted scores in that order; None = not computed.
    fallback : bool
        Whether the prompt's neighbours did not decide.
    cause : Cause or None
        Why they did not (`CAUSES` has the words); None if they did.
    reason : str
        Why the model was chosen, in a sentence.
    score, margin, distance : float or None
        As in `Decisions`; None if no decision was computed.
    chance, chance_low, chance_high : float or None
        As in `Decisions`: the chance that `model` answers correctly, and its 80 % interval; None
        by other rules than "auto", or if correctness is not known.
    cost_usd : float or None
        Expected, under a cost policy.
    over_limit : bool or None
        As in `Decisions`, under a cost policy.
    truncated : bool
        Whether the prompt was longer than the encoder reads and lost its end.
    cached : bool
        Whether the decision was made for an equal request before.
    router, version : str
        Name of the router that decided, and its version.
    """

    model: str
    ranking: tuple[str, ...]
    scores: tuple[float | None, ...]
    fallback: bool
    cause: Cause | None
    reason: str
    score: float | None
    margin: float | None
    distance: float | None
    cost_usd: float | None
    over_limit: bool | None
    truncated: bool
    cached: bool
    router: str
    version: str
    chance: float | None = None
    chance_low: float | None = None
    chance_high: float | None = None

    def to_dict(self) -> dict[str, Any]:
        """Everything as plain values, ready for JSON (unknown = None)."""
        return {**vars(self), "ranking": list(self.ranking), "scores": list(self.scores)}
