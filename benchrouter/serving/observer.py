"""Whom the engine tells what it does: metrics, logs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from benchrouter.serving.answer import Routed

log = logging.getLogger("benchrouter.serving")


class Observer:
    """Does nothing; subclasses do what they like, quickly, in whichever thread calls."""

    def answered(self, routed: Routed, prompt: str | None, seconds: float) -> None:
        """Take note of an answer.

        Parameters
        ----------
        routed : Routed
        prompt : str or None
            The text that was embedded; None where there was none.
        seconds : float
            From the request to the answer.
        """

    def batch(self, device: str, n_prompts: int, n_tokens: int, seconds: float) -> None:
        """Take note of a batch that was embedded and decided."""

    def reloaded(self, name: str, version: str, error: str | None) -> None:
        """Take note of a router that was read anew, or could not be and stays as it was."""


class Observers:
    """Several of them; what one raises is logged and goes no further."""

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)

    def answered(self, routed: Routed, prompt: str | None, seconds: float) -> None:
        """Tell all."""
        for each in self._observers:
            _guarded(each.answered, routed, prompt, seconds)

    def batch(self, device: str, n_prompts: int, n_tokens: int, seconds: float) -> None:
        """Tell all."""
        for each in self._observers:
            _guarded(each.batch, device, n_prompts, n_tokens, seconds)

    def reloaded(self, name: str, version: str, error: str | None) -> None:
        """Tell all."""
        for each in self._observers:
            _guarded(each.reloaded, name, version, error)


def _guarded(call: Callable[..., None], *arguments: Any) -> None:
    try:
        call(*arguments)
    except Exception:
        log.exception("an observer failed: %s", getattr(call, "__qualname__", call))
