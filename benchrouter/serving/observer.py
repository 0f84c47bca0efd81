"""Observers of an engine, such as metrics and logs."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

from benchrouter.serving.answer import Routed

log = logging.getLogger("benchrouter.serving")


class Observer:
    """Is told what an engine does. Does nothing itself; subclasses override what they need.

    Methods are called in the engine's threads and should return quickly.
    """

    def answered(self, routed: Routed, prompt: str | None, seconds: float) -> None:
        """Note an answer.

        Parameters
        ----------
        routed : Routed
        prompt : str or None
            The text that was embedded; None if there was none.
        seconds : float
            From the request to the answer.
        """

    def batch(self, device: str, n_prompts: int, n_tokens: int, seconds: float) -> None:
        """Note a batch that was embedded and decided."""

    def reloaded(self, name: str, version: str, error: str | None) -> None:
        """Note a router that was read again, or could not be (`error`) and stays as it was."""


class Observers:
    """Tells several observers; what they raise is only logged."""

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
