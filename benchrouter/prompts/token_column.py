"""The field of every record that counts the tokens of its prompt."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.errors import BadInput
from benchrouter.prompts.batches import Counted, PromptBatch
from benchrouter.prompts.record_field import leave_out, values_of

MOST_TOKENS = 2**53  # whole numbers up to there are exact as float64, which counts their price

WHOLE = re.compile(r"\s*\d+(\.0*)?\s*", re.ASCII)  # "12", and "12.0" of columns with gaps


def with_tokens(
    pairs: Iterable[tuple[PromptBatch, NDArray[Any] | None]],
    column: str | None,
    *,
    name: str,
    on_error: str = "raise",
) -> Iterator[Counted]:
    """Take the number of tokens of every prompt from a field of its record.

    A count is a whole number of at least 0, or the text of one. A record without a count, or with
    anything else there, is bad.

    Parameters
    ----------
    pairs : iterable of (PromptBatch, embeddings or None)
        All the batches of one file.
    column : str, optional
        Name of the field; without it nothing is known of tokens.
    name : str
        The file, for messages.
    on_error : "raise" or "skip"
        Whether a bad record ends the reading, or is left out and listed.

    Yields
    ------
    (PromptBatch, embeddings or None, int64 array of shape (n_prompts,) or None)
        Bad records moved to the batch's `rejected`.

    Raises
    ------
    ValueError
        If no record of the first batch with a prompt has the field, or for a bad record; the
        message names the file and, for a record, its row, the first being 0.
    """
    is_first = True
    for batch, block in pairs:
        if column is None or not len(batch):
            yield batch, block, None
            continue
        if is_first and isinstance(batch.fields, list):
            _check_column(batch.fields, column, name)
        is_first = False
        tokens = [_count(value) for value in values_of(batch, column, name)]
        reasons = {
            i: f"found {count} in field {column!r}, expected a number of tokens"
            for i, count in enumerate(tokens)
            if isinstance(count, str)
        }
        if reasons:
            batch, kept = leave_out(batch, reasons, name=name, on_error=on_error)
            block = None if block is None else block[kept]
        counts = [count for count in tokens if isinstance(count, int)]
        yield batch, block, np.array(counts, np.int64)


def _check_column(fields: list[dict[str, Any]], column: str, name: str) -> None:
    if not any(column in record for record in fields):
        found = list(dict.fromkeys(field for record in fields for field in record))
        raise BadInput(f"{name}: found fields {found} beside the prompt, expected {column!r}")


def _count(value: Any) -> int | str:
    """A count, or what was found in its place."""
    if value is None or value == "" or value != value:
        return "nothing"
    is_number = WHOLE.fullmatch(value) if isinstance(value, str) else not isinstance(value, bool)
    try:
        number = float(value) if is_number else -1.0
    except (TypeError, ValueError, OverflowError):
        number = -1.0
    if number.is_integer() and 0 <= number <= MOST_TOKENS:
        return int(number)
    return f"{value!r:.60}"
