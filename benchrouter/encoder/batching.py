"""Windows of a stream, and batches of near-equal lengths under a token budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

# About 16 MB of text, whatever the number of prompts.
WINDOW_CHARACTERS = 8_000_000


def windows(
    prompts: Iterable[str], count: int, characters: int = WINDOW_CHARACTERS
) -> Iterator[list[str]]:
    """Cut a stream of prompts into consecutive lists of bounded size.

    Parameters
    ----------
    prompts : iterable of str
        Read no further than the window under way.
    count : int
        Most prompts in a window.
    characters : int
        Most characters in a window of several prompts; a longer prompt has a window to itself.

    Raises
    ------
    TypeError
        If a prompt is no str; the message names its position.
    """
    window: list[str] = []
    held = 0
    for position, prompt in enumerate(prompts):
        if not isinstance(prompt, str):
            raise TypeError(f"prompts[{position}] must be a str, got {type(prompt).__name__}")
        if window and (len(window) == count or held + len(prompt) > characters):
            yield window
            window, held = [], 0
        window.append(prompt)
        held += len(prompt)
    if window:
        yield window


def token_batches(lengths: NDArray[np.int64], budget: int) -> list[NDArray[np.int64]]:
    """Group rows of near-equal lengths so that no batch holds more than a number of tokens.

    Parameters
    ----------
    lengths : int64 array, shape (n_rows,)
        Tokens of each row.
    budget : int
        Most tokens of a batch, padding included; a longer row has a batch to itself.

    Returns
    -------
    list of int64 arrays
        Row numbers; every row stands in exactly one batch. Longest rows first, so that a batch too
        large for memory fails at once; equal lengths in the order given.
    """
    order = np.argsort(-lengths, kind="stable")
    batches = []
    start = 0
    while start < len(order):
        longest = max(1, int(lengths[order[start]]))
        stop = start + max(1, budget // longest)
        batches.append(order[start:stop])
        start = stop
    return batches


def pad(
    rows: list[NDArray[np.int32]], pad_token_id: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stack rows of tokens, filled up on the right.

    Parameters
    ----------
    rows : list of int32 arrays
        Tokens of each row, at least one row.
    pad_token_id : int
        The filler.

    Returns
    -------
    tokens, mask : int64 arrays, shape (n_rows, longest)
        The mask is 1 on tokens and 0 on the filler.
    """
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(lengths.max()) < lengths[:, None]
    tokens = np.full(mask.shape, pad_token_id, dtype=np.int64)
    tokens[mask] = np.concatenate(rows)
    return tokens, mask.astype(np.int64)
