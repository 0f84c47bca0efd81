"""The field of every record that names the task which its prompt belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from benchrouter.prompts.batches import Counted
from benchrouter.prompts.record_field import leave_out, values_of


def with_groups(
    counted: Iterable[Counted], column: str, *, name: str, on_error: str = "raise"
) -> Iterator[tuple[list[Any], Counted]]:
    """Take the group of every prompt from a field of its record.

    A group is text, a number, true or false, or whatever single value a Parquet column holds; all
    groups of a file are of one kind, that of the first. A record without a group (no such field,
    null, NaN, an empty text), or with one of another kind, is bad.

    Parameters
    ----------
    counted : iterable of (PromptBatch, embeddings or None, tokens or None)
        All the batches of one file.
    column : str
        Name of the field.
    name : str
        The file, for messages.
    on_error : "raise" or "skip"
        Whether a bad record ends the reading, or is left out and listed.

    Yields
    ------
    groups : list
        Group of every prompt.
    counted : (PromptBatch, embeddings or None, tokens or None)
        Bad records moved to the batch's `rejected`.

    Raises
    ------
    ValueError
        For a Parquet file without the column, or a bad record; the message names file and row, the
        first being 0.
    """
    kind: str | None = None
    for batch, block, tokens in counted:
        groups = values_of(batch, column, name)
        if kind is None:
            kind = next((_kind(g) for g in groups if _wrong(g, _kind(g)) is None), None)
        expected = f"in field {column!r}, expected {kind or 'text'} that names the prompt's group"
        found = {i: _wrong(group, kind) for i, group in enumerate(groups)}
        reasons = {i: f"found {what} {expected}" for i, what in found.items() if what is not None}
        if reasons:
            batch, kept = leave_out(batch, reasons, name=name, on_error=on_error)
            groups = [groups[i] for i in kept]
            block = None if block is None else block[kept]
            tokens = None if tokens is None else tokens[kept]
        yield groups, (batch, block, tokens)


def _kind(group: object) -> str:
    if isinstance(group, bool):
        return "true or false"
    if isinstance(group, (int, float)):
        return "a number"
    return "text" if isinstance(group, str) else f"a {type(group).__name__}"


def _wrong(group: object, kind: str | None) -> str | None:
    """What is wrong with a group, where others are of that kind; None if nothing is."""
    if group is None:
        return "nothing"
    if isinstance(group, str):
        if not group.strip():
            return "an empty text"
    elif group != group:
        return "NaN"
    elif isinstance(group, (list, dict)):
        return _kind(group)
    return None if _kind(group) == kind else _kind(group)
