"""Rows of (model, dataset, sample_id, prompt, score), gathered from a format's own structures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from benchrouter.readers.json_objects import Found
from benchrouter.readers.sidecar import Sidecar
from benchrouter.readers.source import Source

TEXTS = ("model", "dataset", "sample_id", "prompt")
NUMBERS = ("score", "cost_usd", "log_likelihood")


class Reading(NamedTuple):
    """What a file of some format says: a source of rows, and what holds for all of them."""

    source: Source
    sidecar: Sidecar
    """Metrics and thresholds by dataset, parameters and prices by model."""
    notes: tuple[str, ...] = ()
    """What the reader chose or left out, for the report: a line each.

    Of the source, which the report names; a line about a folder above it begins ``FOLDER:``.
    """
    layout: str = "long"
    """ "wide" where the columns of the source are dataset, sample_id, prompt and models."""


@dataclass
class Rows:
    """Long rows in the making, each with the place it was read at.

    A row that cannot be read is given to `refuse`; whether that is an error or is only listed is
    decided by whoever reads the source (``on_error``).

    Attributes
    ----------
    name : str
        What messages call the source: the path as it was given.
    """

    name: str
    cells: dict[str, list[Any]] = field(default_factory=lambda: {n: [] for n in TEXTS + NUMBERS})
    places: list[str] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    refused: list[tuple[int, str]] = field(default_factory=list)

    def add(
        self,
        place: str,
        *,
        model: str | None,
        dataset: str | None,
        sample_id: str | None,
        prompt: str | None,
        score: float | None,
        cost_usd: float | None = None,
        log_likelihood: float | None = None,
    ) -> None:
        """Add a row; None where the file has no value.

        Parameters
        ----------
        place : str
            File and position, as messages name it.
        model, dataset, sample_id, prompt : str or None
        score, cost_usd, log_likelihood : float or None
            US$ and natural logarithm.
        """
        self.positions.append(len(self.places))
        self.places.append(place)
        values = (model, dataset, sample_id, prompt, score, cost_usd, log_likelihood)
        for column, value in zip(self.cells.values(), values, strict=True):
            column.append(value)

    def refuse(self, place: str, found: str) -> None:
        """Note a row that cannot be read.

        Parameters
        ----------
        place : str
        found : str
            What was found and what was expected.
        """
        self.refused.append((len(self.places), found))
        self.places.append(place)

    def accepted(self, found: Iterable[tuple[str, Found]]) -> Iterator[tuple[str, dict[str, Any]]]:
        """Pass on objects, each with its place; refuse what was found instead of one."""
        for place, value in found:
            if isinstance(value, str):
                self.refuse(place, value)
            else:
                yield place, value

    def source(self) -> Source:
        """Return the rows as a source; a column of numbers without any is left out."""
        import pyarrow as pa

        columns: dict[str, pa.ChunkedArray] = {}
        for name, values in self.cells.items():
            if name in TEXTS:
                columns[name] = pa.chunked_array([pa.array(values, pa.large_string())])
            elif name == "score" or any(value is not None for value in values):
                columns[name] = pa.chunked_array([pa.array(values, pa.float64())])
        return Source(
            name=self.name,
            stem=self.name,
            columns={name: column.type for name, column in columns.items()},
            load=columns.__getitem__,
            positions=np.array(self.positions, dtype=np.int64),
            n_positions=len(self.places),
            unreadable=tuple(self.refused),
            places=self.places.__getitem__,
        )
