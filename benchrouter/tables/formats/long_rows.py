"""Rows of (model, dataset, sample_id, prompt, score), gathered from a format's own structures."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from benchrouter.files.errors import BadInput
from benchrouter.files.json_objects import Found
from benchrouter.tables.layouts.names import TEXTS
from benchrouter.tables.layouts.sidecar import Sidecar
from benchrouter.tables.sources.source import Source

if TYPE_CHECKING:
    import pyarrow as pa

DENIED = "permission denied, expected it to be readable"
NUMBERS = ("score", "cost_usd", "log_likelihood")


class FormatReading(NamedTuple):
    """The rows of one file, and what holds for all of them."""

    source: Source
    sidecar: Sidecar
    """Metrics and thresholds by dataset, parameters and prices by model."""
    notes: tuple[str, ...] = ()
    """What the reader chose or left out, a line each for the report.

    They are about the source, which the report names; one about a folder begins ``FOLDER:``.
    """
    layout: str = "long"
    """ "wide" where the columns of the source are dataset, sample_id, prompt and models."""
    lacks: tuple[str, ...] | None = None
    """The metrics there are, if the one asked for is missing."""


def refused(name: str, why: str) -> FormatReading:
    """Stand for a source that cannot be read.

    Parameters
    ----------
    name : str
        The source.
    why : str
        ``PLACE: found …, expected …``.
    """
    rows = Rows(name)
    place, _, found = why.partition(": ")
    rows.refuse(place, found)
    return FormatReading(rows.source(), Sidecar())


def denied(name: str, error: PermissionError | None = None) -> FormatReading:
    """Stand for a source that may not be opened, or a file in it that `error` names."""
    place = name if error is None or error.filename is None else error.filename
    return refused(name, f"{place}: {DENIED}")


def read_or_refused(name: str, read: Callable[[], FormatReading]) -> FormatReading:
    """Read a source; one that cannot be read has no rows, and says why."""
    try:
        return read()
    except PermissionError as error:
        return denied(name, error)
    except ValueError as error:
        return refused(name, str(error))


def with_notes(
    readings: Iterable[FormatReading], notes: Callable[[], Iterable[str]]
) -> Iterator[FormatReading]:
    """Pass readings on; the last gets the notes, which are asked for once all are read."""
    last = None
    for reading in readings:
        if last is not None:
            yield last
        last = reading
    if last is not None:
        yield last._replace(notes=tuple(notes()))


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
    """Collects long rows with their places; each distinct text is held once.

    `refuse` takes rows that cannot be read. The reader of the source decides whether they are an
    error or only listed (``on_error``).

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
        """Add a row; None where the file has no value, `place` as messages name it."""
        self._positions.append(len(self.places))
        self.places.append(place)
        texts = (model, dataset, sample_id, prompt)
        for text_column, text in zip(self._texts.values(), texts, strict=True):
            text_column.append(text)
        numbers = (score, cost_usd, log_likelihood)
        for column, value in zip(self._numbers.values(), numbers, strict=True):
            column.append(value)

    def refuse(self, place: str, found: str) -> None:
        """Add a row that cannot be read, with what was found and expected."""
        self._refused.append((len(self.places), found))
        self.places.append(place)

    def take_each(
        self, found: Iterable[tuple[str, Found]], take: Callable[[str, dict[str, Any]], None]
    ) -> None:
        """Hand each object and its place to `take`; refuse it where that raises a ValueError."""
        for place, value in found:
            try:
                if isinstance(value, str):
                    raise BadInput(value)
                take(place, value)
            except ValueError as error:
                self.refuse(place, str(error))

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
