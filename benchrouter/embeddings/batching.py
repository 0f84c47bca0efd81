"""Windows of a stream, and batches of near-equal lengths under a token budget."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

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


class Run(NamedTuple):
    """Prompts of equal length, side by side in a batch."""

    prompts: int
    length: int


def runs_of(lengths: Sequence[int]) -> list[Run]:
    """Group neighbours of equal length.

    Parameters
    ----------
    lengths : sequence of int
        Tokens of each row.
    """
    return [Run(len(list(same)), length) for length, same in groupby(lengths)]


def pad(
    rows: Sequence[NDArray[np.int32]], pad_token_id: int, multiple: int = 1
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Stack rows of tokens, padded on the right.

    Parameters
    ----------
    rows : sequence of int32 arrays
        Tokens of each row, at least one row.
    pad_token_id : int
        The filler.
    multiple : int
        The length is rounded up to it.

    Returns
    -------
    tokens, mask : int64 arrays, shape (n_rows, longest or more)
        The mask is 1 on tokens and 0 on the filler.
    """
    lengths = np.array([len(row) for row in rows])
    mask = np.arange(-(-lengths.max() // multiple) * multiple) < lengths[:, None]
    tokens = np.full(mask.shape, pad_token_id, dtype=np.int64)
    tokens[mask] = np.concatenate(rows)
    return tokens, mask.astype(np.int64)


def positions_of(tokens: NDArray[np.integer], pad_token_id: int | None = None) -> NDArray[np.int64]:
    """Position numbers of the tokens of each row.

    Parameters
    ----------
    tokens : integer array, shape (n_rows, n_tokens)
    pad_token_id : int, optional
        For architectures (MPNet) that number positions from it on, and give the filler itself,
        even one that a prompt spells out, this number as position; None = number from 0.

    Returns
    -------
    int64 array, shape (n_rows, n_tokens)
    """
    if pad_token_id is None:
        return np.broadcast_to(np.arange(tokens.shape[1]), tokens.shape)
    counted = tokens != pad_token_id
    return np.cumsum(counted, axis=1) * counted + pad_token_id
