"""Rows of (model, dataset, sample_id, prompt, score), gathered from a format's own structures."""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchrouter.files.json_objects import Found
from benchrouter.tables.layouts.names import TEXTS
from benchrouter.tables.layouts.sidecar import Sidecar
from benchrouter.tables.sources.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

DENIED = "permission denied, expected it to be readable"
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
    lacks: tuple[str, ...] | None = None
    """Metrics that are there, where the one that was asked for is not."""


def refused(name: str, why: str) -> Reading:
    """Return what is read of a source that cannot be read.

    Parameters
    ----------
    name : str
        Of the source.
    why : str
        Place, and after a colon what was found and what was expected.
    """
    rows = Rows(name)
    place, _, found = why.partition(": ")
    rows.refuse(place, found)
    return Reading(rows.source(), Sidecar())


def denied(name: str, error: PermissionError | None = None) -> Reading:
    """Return what is read of a source of which something may not be opened: nothing.

    Parameters
    ----------
    name : str
        Of the source.
    error : PermissionError, optional
        Names the file in it.
    """
    place = name if error is None or error.filename is None else error.filename
    return refused(name, f"{place}: {DENIED}")


class _Texts:
    """A column of texts, of which each is held once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self.codes = array("i")

    def append(self, value: str | None) -> None:
        numbers = self.numbers
        self.codes.append(-1 if value is None else numbers.setdefault(value, len(numbers)))

    def as_arrow(self) -> pa.ChunkedArray:
        import pyarrow as pa

        codes = np.array(self.codes, dtype=np.int32)
        texts = pa.array(list(self.numbers), pa.large_string())
        coded = pa.DictionaryArray.from_arrays(pa.array(codes, mask=codes < 0), texts)
        return pa.chunked_array([coded])


class _Numbers:
    """A column of numbers; NaN = missing."""

    def __init__(self) -> None:
        self.values = array("d")
        self.has_any = False

    def append(self, value: float | None) -> None:
        self.has_any |= value is not None
        self.values.append(math.nan if value is None else value)

    def as_arrow(self) -> pa.ChunkedArray:
        import pyarrow as pa

        return pa.chunked_array([pa.array(np.array(self.values, dtype=np.float64))])


class Rows:
    """Long rows in the making, each with the place it was read at; a text is held once.

    A row that cannot be read is given to `refuse`; whether that is an error or is only listed is
    decided by whoever reads the source (``on_error``).

    Parameters
    ----------
    name : str
        What messages call the source: the path as it was given.

    Attributes
    ----------
    places : list of str
        Of all rows, refused ones included.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.places: list[str] = []
        self._positions = array("q")
        self._refused: list[tuple[int, str]] = []
        self._texts = {column: _Texts() for column in TEXTS}
        self._numbers = {column: _Numbers() for column in NUMBERS}

    @property
    def datasets(self) -> Collection[str]:
        """Datasets of the rows, each once."""
        return self._texts["dataset"].numbers.keys()

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
        self._positions.append(len(self.places))
        self.places.append(place)
        texts = (model, dataset, sample_id, prompt)
        for text_column, text in zip(self._texts.values(), texts, strict=True):
            text_column.append(text)
        numbers = (score, cost_usd, log_likelihood)
        for column, value in zip(self._numbers.values(), numbers, strict=True):
            column.append(value)

    def refuse(self, place: str, found: str) -> None:
        """Note a row that cannot be read.

        Parameters
        ----------
        place : str
        found : str
            What was found and what was expected.
        """
        self._refused.append((len(self.places), found))
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

        texts = {name: column.as_arrow() for name, column in self._texts.items()}
        numbers = {
            name: column.as_arrow()
            for name, column in self._numbers.items()
            if column.has_any or name == "score"
        }
        columns = {**texts, **numbers}
        return Source(
            name=self.name,
            stem=self.name,
            columns={
                **dict.fromkeys(texts, pa.large_string()),
                **dict.fromkeys(numbers, pa.float64()),
            },
            load=columns.__getitem__,
            load_coded=texts.__getitem__,
            positions=np.array(self._positions, dtype=np.int64),
            n_positions=len(self.places),
            unreadable=tuple(self._refused),
            places=self.places.__getitem__,
        )
