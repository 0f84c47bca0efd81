"""The field of every record that names the task which its prompt belongs to."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from benchrouter.prompts.rejected import RAW_CHARACTERS, Rejected

if TYPE_CHECKING:
    from benchrouter.prompts.batches import PromptBatch
    from benchrouter.prompts.token_column import Counted


class GroupedBatch(NamedTuple):
    """Consecutive prompts of one file, each with its group."""

    groups: list[Any]
    """Value of the column, of every prompt."""
    prompts: list[str]
    embeddings: NDArray[Any] | None
    """float16 or float32, shape (n_prompts, dim)."""
    tokens: NDArray[np.int64] | None
    """Tokens of the prompts, shape (n_prompts,), where they are known."""
    rejected: tuple[Rejected, ...]
    """The records left out, for want of a prompt or of a group."""
    share: float | None
    """Share of the file that has been read, as `PromptBatch` has it."""


def with_groups(
    counted: Iterable[Counted],
    column: str,
    *,
    name: str,
    on_error: str = "raise",
) -> Iterator[GroupedBatch]:
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
        Whether a bad record ends the reading or is left out and listed.

    Yields
    ------
    GroupedBatch

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
        wrong = {i: found for i, g in enumerate(groups) if (found := _wrong(g, kind)) is not None}
        rejected = [_rejected(batch, i, found, column, kind, name) for i, found in wrong.items()]
        if rejected and on_error == "raise":
            raise ValueError(rejected[0].message)
        kept = [i for i in range(len(groups)) if i not in wrong]
        if wrong:
            groups = [groups[i] for i in kept]
            left = np.array(kept, np.int64)
            block = None if block is None else block[left]
            tokens = None if tokens is None else tokens[left]
        prompts = [batch.prompts[i] for i in kept] if wrong else batch.prompts
        yield GroupedBatch(
            groups, prompts, block, tokens, (*batch.rejected, *rejected), batch.share
        )


def values_of(batch: PromptBatch, column: str, name: str) -> list[Any]:
    """Values of a field of every record with a prompt; None where a record lacks it.

    Raises
    ------
    ValueError
        If a Parquet file has no such column.
    """
    if isinstance(batch.fields, list):
        return [fields.get(column) for fields in batch.fields]
    names = batch.fields.schema.names
    if names.count(column) != 1:
        raise ValueError(f"{name}: found columns {names}, expected one {column!r}")
    values: list[Any] = batch.fields.column(column).to_pylist()
    return values


def _kind(group: Any) -> str:
    if isinstance(group, bool):
        return "true or false"
    if isinstance(group, (int, float)):
        return "a number"
    return "text" if isinstance(group, str) else f"a {type(group).__name__}"


def _wrong(group: Any, kind: str | None) -> str | None:
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


def _rejected(
    batch: PromptBatch, i: int, found: str, column: str, kind: str | None, name: str
) -> Rejected:
    expected = f"{kind or 'text'} that names the prompt's group"
    return Rejected(
        source=name,
        row=int(batch.rows[i]),
        line=None,
        reason=f"found {found} in field {column!r}, expected {expected}",
        raw=batch.prompts[i][:RAW_CHARACTERS],
    )
