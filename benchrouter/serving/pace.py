"""Batch sizes and waiting times, learnt from the load."""

from __future__ import annotations

WEIGHT = 0.2  # of the newest measurement in a running mean
LEAST_TOKENS = 256  # of a batch, however slow the device
GROWTH = 4  # a batch may be this many times as large as the largest so far
NOISE_TOKENS = 32.0  # batches nearer in size tell nothing about the time of a token
SHARE_OF_DEADLINE = 0.25  # that a batch may take


class Pace:
    """Running means of the load and the device's speed.

    A batch's time is a linear function of its tokens, fitted to recent batches by least squares. It
    is not extrapolated beyond the largest batch so far, so that no prompt is given up for a guess.
    Not safe to share between threads: the queue calls it under its lock.

    Parameters
    ----------
    max_wait_s : float
        Longest wait for more prompts.
    max_batch_tokens : int
        Most tokens of a batch.
    deadline_s : float
        Usual deadline of a request; infinite = no limit.
    """

    def __init__(self, max_wait_s: float, max_batch_tokens: int, deadline_s: float) -> None:
        self._max_wait_s = max_wait_s
        self._max_batch_tokens = max_batch_tokens
        self._batch_s = SHARE_OF_DEADLINE * deadline_s
        self._last: float | None = None
        self._gap_s = float("inf")
        self._largest = 0
        self._tokens = self._seconds = self._variance = self._covariance = 0.0

    def arrived(self, now: float, n_prompts: int) -> None:
        """Learn from an arrival."""
        if self._last is not None:
            gap = (now - self._last) / n_prompts
            known = self._gap_s < float("inf")
            self._gap_s = gap if not known else self._gap_s + WEIGHT * (gap - self._gap_s)
        self._last = now

    def worked(self, n_tokens: int, seconds: float) -> None:
        """Learn from a batch."""
        self._largest = max(self._largest, n_tokens)
        if self._tokens == 0.0:
            self._tokens, self._seconds = float(n_tokens), seconds
            return
        more, longer = n_tokens - self._tokens, seconds - self._seconds
        self._tokens += WEIGHT * more
        self._seconds += WEIGHT * longer
        self._variance = (1.0 - WEIGHT) * (self._variance + WEIGHT * more * more)
        self._covariance = (1.0 - WEIGHT) * (self._covariance + WEIGHT * more * longer)

    def was_too_slow(self) -> None:
        """Halve the expected time: all prompts were given up, so nothing new was measured."""
        self._seconds *= 0.5
        self._covariance *= 0.5

    def wait_s(self) -> float:
        """Seconds to wait for more prompts; 0 if none is expected in that time."""
        return self._max_wait_s if self._gap_s <= self._max_wait_s else 0.0

    def batch_tokens(self) -> int:
        """Most tokens of the next batch: as many as fit into its share of the deadline."""
        most = max(LEAST_TOKENS, min(self._max_batch_tokens, GROWTH * self._largest))
        slope = self._seconds_per_token()
        if slope == 0.0 or self._batch_s == float("inf"):
            return most
        affordable = self._tokens + (self._batch_s - self._seconds) / slope
        return int(max(LEAST_TOKENS, min(most, affordable)))

    def expected_s(self, n_tokens: int) -> float:
        """Seconds that a batch will take, at least."""
        known = min(n_tokens, self._largest)
        return max(0.0, self._seconds + self._seconds_per_token() * (known - self._tokens))

    def _seconds_per_token(self) -> float:
        return max(0.0, self._covariance / (self._variance + NOISE_TOKENS**2))
