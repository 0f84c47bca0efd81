"""How much to take at once, and how long to wait for more: learnt from the load as it is."""

from __future__ import annotations

WEIGHT = 0.2  # of the newest measurement in a running mean
LEAST_TOKENS = 256  # of a batch, however slow the device
GROWTH = 4  # times the largest batch so far may be tried
NOISE_TOKENS = 32.0  # of batches nearer in size nothing is learnt of what a token takes
SHARE_OF_DEADLINE = 0.25  # that a batch may take


class Pace:
    """Running means of the load and of the device, and what follows from them.

    What a batch takes is a straight line of its tokens, by least squares over the recent batches,
    level beyond the largest so far: prompts are given up for what was measured, not for a guess.
    Not safe to share between threads: the queue calls it under its lock.

    Parameters
    ----------
    max_wait_s : float
        Longest wait for more prompts.
    max_batch_tokens : int
        Most tokens of a batch.
    deadline_s : float
        Usual deadline of a request; infinite = none.
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
        """Trust the device more, as all prompts were given up and nothing was learnt of it."""
        self._seconds *= 0.5
        self._covariance *= 0.5

    def wait_s(self) -> float:
        """Seconds to wait for more: none where no other prompt is to be expected in time."""
        return self._max_wait_s if self._gap_s <= self._max_wait_s else 0.0

    def batch_tokens(self) -> int:
        """Most tokens of the next batch: what the device does in its share of the deadline."""
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
