"""A field of every record: its values, and what becomes of records with a bad one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from benchrouter.files.arrays import Ids
from benchrouter.files.errors import BadInput
from benchrouter.prompts.batches import PromptBatch
from benchrouter.prompts.rejected import RAW_CHARACTERS, Rejected


def values_of(batch: PromptBatch, column: str, name: str) -> list[Any]:
    """Values of a field of every record with a prompt; None where a record lacks it.

    Raises
    ------
    ValueError
        If a Parquet file has no such column; the message begins with `name`.
    """
    if isinstance(batch.fields, list):
        return [fields.get(column) for fields in batch.fields]
    names = batch.fields.schema.names
    if names.count(column) != 1:
        raise BadInput(f"{name}: found columns {names}, expected one {column!r}")
    values: list[Any] = batch.fields.column(column).to_pylist()
    return values


def leave_out(
    batch: PromptBatch, reasons: Mapping[int, str], *, name: str, on_error: str
) -> tuple[PromptBatch, Ids]:
    """Leave out prompts whose records are bad.

    Parameters
    ----------
    batch : PromptBatch
    reasons : mapping of int to str
        What is wrong, by position in the batch, in order.
    name : str
        The file, for messages.
    on_error : "raise" or "skip"

    Returns
    -------
    batch : PromptBatch
        The other prompts; the bad records are among its `rejected`.
    kept : int64 array, shape (n_kept,)
        Positions of the other prompts in the batch that was given.

    Raises
    ------
    ValueError
        With `on_error` "raise"; the message names file and row, the first being 0.
    """
    rejected = [
        Rejected(name, int(batch.rows[i]), None, reason, batch.prompts[i][:RAW_CHARACTERS])
        for i, reason in reasons.items()
    ]
    if rejected and on_error == "raise":
        raise BadInput(rejected[0].message)
    kept = np.delete(np.arange(len(batch)), list(reasons))
    texts, fields = batch.texts, batch.fields
    all_rejected = sorted((*batch.rejected, *rejected), key=lambda record: record.row)
    others = replace(
        batch,
        texts=[texts[i] for i in kept] if isinstance(texts, list) else texts.take(kept),
        fields=[fields[i] for i in kept] if isinstance(fields, list) else fields.take(kept),
        rows=batch.rows[kept],
        rejected=tuple(all_rejected),
    )
    return others, kept
