"""The rows of all parts, one after the other, with each text of a prompt held once."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from benchrouter.files.errors import BadInput
from benchrouter.files.words import counted
from benchrouter.tables.layouts.part import Part, key_shown, strings

if TYPE_CHECKING:
    import pyarrow as pa


class AllRows:
    """Rows of all parts in turn; a row is a record of one part.

    Parts are added one by one and give up the texts of their prompts, so that a prompt of many
    parts takes the memory of one.

    Parameters
    ----------
    by_prompt : bool
        Whether the prompts of a single part are compared as well.

    Attributes
    ----------
    parts : list of Part
        Without their prompts.
    starts : int64 array, shape (n_parts + 1,)
        Number of each part's first row, and of all rows.
    datasets, sample_ids : large string arrays, length n_rows
    skipped : list of str
        What was left out, by the readers and by merging.
    """

    starts: NDArray[np.int64]
    datasets: pa.LargeStringArray
    sample_ids: pa.LargeStringArray

    def __init__(self, *, by_prompt: bool = False) -> None:
        self.parts: list[Part] = []
        self.skipped: list[str] = []
        self._by_prompt = by_prompt
        self._numbers: dict[str, int] = {}
        self._coded_parts: list[NDArray[np.int64]] = []

    def add(self, part: Part) -> None:
        """Take one more part."""
        self.parts.append(part)
        self.skipped += part.skipped
        # The prompts of a single part are compared with nothing, and stay as they are.
        if self._by_prompt or len(self.parts) > 1:
            first = len(self._coded_parts)
            self._coded_parts += [self._coded(at) for at in range(first, len(self.parts))]

    def end(self) -> None:
        """Join the parts, once all are there."""
        import pyarrow as pa

        self._codes = np.concatenate(self._coded_parts) if self._coded_parts else None
        self._texts = list(self._numbers)
        self._numbers, self._coded_parts = {}, []
        self.starts = np.cumsum([0, *(part.n_records for part in self.parts)], dtype=np.int64)
        self.datasets = pa.concat_arrays([_kept(p, p.all_datasets) for p in self.parts])
        self.sample_ids = pa.concat_arrays([_kept(p, p.all_sample_ids) for p in self.parts])

    def __len__(self) -> int:
        """Count the rows."""
        return len(self.datasets)

    def _coded(self, at: int) -> NDArray[np.int64]:
        import pyarrow as pa

        part, numbers = self.parts[at], self._numbers
        texts = strings(part.prompts)
        self.parts[at] = replace(part, prompts=pa.array([], pa.large_string()))
        return np.array([numbers.setdefault(text, len(numbers)) for text in texts], np.int64)

    @property
    def prompt_codes(self) -> NDArray[np.int64]:
        """Equal numbers for equal texts, shape (n_rows,)."""
        assert self._codes is not None  # a single part that nobody compares has none
        return self._codes

    def prompts(self, rows: NDArray[np.int64]) -> list[str]:
        """Texts of the prompts of some rows."""
        import pyarrow as pa

        if self._codes is None:
            return strings(self.parts[0].prompts.take(pa.array(rows)))
        return [self._texts[code] for code in self._codes[rows].tolist()]

    def part_of(self, row: int) -> int:
        """Number of the part that a row is of."""
        return int(np.searchsorted(self.starts, row, side="right")) - 1

    def place(self, row: int, column: int | None = None) -> str:
        """Where a row, or its value in a column of its part, was read."""
        at = self.part_of(row)
        return self.parts[at].place(int(row - self.starts[at]), column)

    def key(self, row: int) -> str:
        """Write the key of a row for a message."""
        return key_shown(self.datasets, self.sample_ids, row)

    def leave_out(self, row: int, message: str, n_alike: int) -> None:
        """Raise what is wrong with a row, or list it if its part leaves such rows out."""
        if self.parts[self.part_of(row)].on_error == "raise":
            more = f" ({counted(n_alike - 1, 'more such record')})" if n_alike > 1 else ""
            raise BadInput(message + more)
        self.skipped.append(message)


def _kept(part: Part, values: pa.Array) -> pa.Array:
    import pyarrow as pa

    return values.take(pa.array(part.kept))
