"""Many tasks in one pass: prompts in any order, each with the task it belongs to."""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchrouter.decisions import TaskDecision
from benchrouter.fit import Fit
from benchrouter.index import Index
from benchrouter.neighbours import Neighbours
from benchrouter.rules import BLOCK
from benchrouter.tally import Tally, evidence_of_task, no_tally, tally
from benchrouter.task import Score, decide


class Groups:
    """What the prompts of many tasks add up to; of a prompt nothing is kept but its part in sums.

    Parameters
    ----------
    fit : Fit
        With correctness.
    index : Index
        Over the fit's embeddings.
    """

    def __init__(self, fit: Fit, index: Index) -> None:
        self._fit = fit
        self._index = index
        self._position: dict[Hashable, int] = {}
        self._sums = no_tally(fit, 0)

    def add(self, groups: Sequence[Hashable], embeddings: NDArray[np.float32]) -> None:
        """Add prompts.

        Parameters
        ----------
        groups : sequence of hashable, or array of shape (n_prompts,)
            Name of the task of every prompt; equal names are one task.
        embeddings : float32 array, shape (n_prompts, dim)
            Unit rows.

        Raises
        ------
        TypeError, ValueError
            If there are more or fewer names than embeddings, or a name is missing (None or NaN).
        """
        position = self._positions(groups, len(embeddings))
        for start in range(0, len(embeddings), BLOCK):
            self._add(position[start : start + BLOCK], embeddings[start : start + BLOCK])

    def decisions(self, score: Score) -> Iterator[tuple[Hashable, TaskDecision]]:
        """Choose a model for every task.

        Parameters
        ----------
        score : "auto", "s1", "s2" or "s3"

        Yields
        ------
        (hashable, TaskDecision)
            Name and decision, in the order in which the tasks first appeared.
        """
        for group, position in self._position.items():
            yield group, decide(self._fit, evidence_of_task(self._fit, self._sums, position), score)

    def _positions(self, groups: Any, n_prompts: int) -> NDArray[np.int64]:
        if isinstance(groups, str) or not hasattr(groups, "__len__"):
            found = "a single string" if isinstance(groups, str) else type(groups).__name__
            raise TypeError(f"groups must be a list of names, got {found}")
        if len(groups) != n_prompts:
            raise ValueError(f"{len(groups)} groups came with {n_prompts} prompts")
        names = groups.tolist() if isinstance(groups, np.ndarray) else groups
        for i, name in enumerate(names):
            if name is None or name != name:
                raise ValueError(f"groups must have a name for every prompt, got {name} at {i}")
        known = self._position
        return np.array([known.setdefault(name, len(known)) for name in names], np.int64)

    def _add(self, position: NDArray[np.int64], rows: NDArray[np.float32]) -> None:
        settings = self._fit.settings
        found = self._index.search(rows, max(settings.k, settings.kappa))
        order = np.argsort(position, kind="stable")
        tasks, counts = np.unique(position, return_counts=True)
        offsets = np.concatenate(([0], np.cumsum(counts)))
        by_task = Neighbours(found.ids[order], found.similarities[order])
        part = tally(self._fit, by_task, offsets, rows[order], threads=self._index.threads)
        self._make_room(int(tasks[-1]) + 1)
        sums: tuple[NDArray[Any], ...] = self._sums
        for total, some in zip(sums, part, strict=True):
            total[tasks] += some

    def _make_room(self, n_tasks: int) -> None:
        room = len(self._sums.n_prompts)
        if n_tasks > room:
            more = no_tally(self._fit, max(n_tasks, 2 * room) - room)
            self._sums = Tally(
                *(np.concatenate(pair) for pair in zip(self._sums, more, strict=True))
            )
