"""One file of decisions, or standard output, with a side file of the bad records."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from benchrouter.decisions.written.manifest import Totals
from benchrouter.decisions.written.writers import open_decisions
from benchrouter.prompts.rejected import RejectedWriter

if TYPE_CHECKING:
    from benchrouter.decisions.answers import Decisions
    from benchrouter.prompts.batches import PromptBatch


class SingleOutput:
    """Decisions as one file, which appears when it is complete; see `open_decisions`.

    To be used in a ``with`` block, like `PartsOutput`, whose attributes it has.

    Parameters
    ----------
    path : str or Path
        ``-`` writes to standard output.
    rejected : Path or None
        File for the bad records; None keeps none.
    prompt_column, prefix, further
        See `open_decisions`.

    Attributes
    ----------
    first_row : int
        0: always from the start.
    totals : Totals
    complete : bool
        False: nothing is done yet.
    rejected : Path or None
    n_parts : None
    """

    first_row = 0
    complete = False
    n_parts = None

    def __init__(
        self,
        path: str | Path,
        *,
        rejected: Path | None = None,
        prompt_column: str | None = "prompt",
        prefix: str = "",
        further: Sequence[str] = (),
    ) -> None:
        self.rejected = rejected
        self.totals = Totals()
        self._rejected = None if rejected is None else RejectedWriter(rejected)
        self._decisions = open_decisions(
            path, prompt_column=prompt_column, prefix=prefix, further=further
        )

    def write(self, batch: PromptBatch, decisions: Decisions | None) -> None:
        """Write one batch; `decisions` is None if it has no prompt."""
        if decisions is not None:
            self._decisions.write(batch, decisions)
        if self._rejected is not None:
            self._rejected.write(batch.rejected)
        self.totals.add(len(batch.rejected), decisions)

    def __enter__(self) -> SingleOutput:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        done = False
        try:
            if kind is None:
                if self._rejected is not None:
                    self._rejected.close()
                self._decisions.close()
                done = True
        finally:
            if not done:
                self._decisions.abort()
                if self._rejected is not None:
                    self._rejected.abort()
