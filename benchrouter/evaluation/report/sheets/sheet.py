"""A table of results, for the terminal and the report.

In the functions that make cells, `why` is the reason to give if a value is missing (NaN or None),
`digits` are those after the point, and `signed` shows a plus, for a difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from benchrouter.evaluation.tasks.measures import FEW_DATASETS

MISSING = "–"
MINUS = "−"


@dataclass(frozen=True)
class Cell:
    """A value as it is shown, or the reason why it is missing.

    Attributes
    ----------
    text : str
    why : str
        Becomes a footnote; given wherever the text is a dash.
    is_number : bool
        Numbers stand right.
    """

    text: str
    why: str = ""
    is_number: bool = False


@dataclass(frozen=True)
class Sheet:
    """A titled table with the meaning of its columns.

    Attributes
    ----------
    name : str
        Short and distinct: an anchor in the report.
    title : str
    columns : tuple of str
    rows : tuple of tuple of Cell
        Each as long as `columns`.
    caption : str
        What one has to know to read it.
    definitions : tuple of (str, str)
        What columns or rows mean.
    marked : tuple of int
        Rows that are shown in bold.
    detail : bool
        Long, and folded in the report.

    Raises
    ------
    ValueError
        If a row has another length, or a dash has no reason.
    """

    name: str
    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    caption: str = ""
    definitions: tuple[tuple[str, str], ...] = ()
    marked: tuple[int, ...] = ()
    detail: bool = False

    def __post_init__(self) -> None:
        """Check the shape, and that every missing value has a reason."""
        for row in self.rows:
            if len(row) != len(self.columns):
                raise ValueError(
                    f"{self.title}: a row has {len(row)} cells, expected {len(self.columns)}"
                )
            for column, cell in zip(self.columns, row, strict=True):
                if cell.text == MISSING and not cell.why:
                    raise ValueError(
                        f"{self.title}: {row[0].text}, {column} is missing without a reason"
                    )

    def footnotes(self) -> list[str]:
        """The reasons of missing values, each once, in the order of the cells."""
        return list(dict.fromkeys(cell.why for row in self.rows for cell in row if cell.why))

    def mark(self, cell: Cell) -> str:
        """Letter of a cell's footnote: a, b, … aa, ab, …; empty for a cell without one."""
        return letter(self.footnotes().index(cell.why)) if cell.why else ""


def letter(number: int) -> str:
    """Name footnotes, counted from 0: a to z, then aa, ab and so on."""
    first, last = divmod(number, 26)
    return (letter(first - 1) if first else "") + chr(ord("a") + last)


def words(text: str) -> Cell:
    """Cell of words."""
    return Cell(text)


def absent(why: str) -> Cell:
    """Cell of a value that does not exist."""
    return Cell(MISSING, why, True)


def number(value: float | None, why: str, *, digits: int = 3, signed: bool = False) -> Cell:
    """Cell of a number."""
    if value is None or not math.isfinite(value):
        return absent(why)
    return Cell(decimal(value, digits=digits, signed=signed), is_number=True)


def noted(cell: Cell, note: str) -> Cell:
    """The cell with a footnote, unless it has one or the note is empty."""
    return cell if cell.why else replace(cell, why=note)


def mean_over(n: int, of: int, others: str) -> str:
    """Footnote of a mean over `n` of all datasets; empty if it is over all or none.

    `others` says why the others are left out.
    """
    return f"over {n} of {counted(of, 'dataset')}: {others}" if 0 < n < of else ""


def interval_over(ends: Sequence[float], n: int, why: str, *, signed: bool = False) -> Cell:
    """Cell of an interval (low, high) over `n` datasets; absent if these are too few."""
    if 0 < n < FEW_DATASETS:
        return absent(f"over {counted(n, 'dataset')}: an interval needs at least {FEW_DATASETS}")
    return interval(ends, why, signed=signed)


def counted(n: int, noun: str) -> str:
    """Write a number and what it counts, a noun in the singular: 1 dataset, 2 datasets."""
    return f"{n:,} {noun}{'' if n == 1 else 's'}"


def capitalised(text: str) -> str:
    """The text with a capital first letter, the others as they are."""
    return text[:1].upper() + text[1:]


def decimal(value: float, *, digits: int = 3, signed: bool = False) -> str:
    """Write a finite number with a true minus sign, and zero without any."""
    text = f"{value:+,.{digits}f}" if signed else f"{value:,.{digits}f}"
    if not any(c in "123456789" for c in text):
        return text.lstrip("+-")
    return text.replace("-", MINUS)


def percent(value: float | None, why: str, *, digits: int = 0) -> Cell:
    """Cell of a share of one, in percent."""
    if value is None or not math.isfinite(value):
        return absent(why)
    return Cell(decimal(100 * value, digits=digits) + " %", is_number=True)


def count(value: int) -> Cell:
    """Cell of a whole number."""
    return Cell(f"{value:,}", is_number=True)


def interval(ends: Sequence[float], why: str, *, digits: int = 3, signed: bool = False) -> Cell:
    """Cell of an interval (low, high)."""
    low, high = ends
    if not (math.isfinite(low) and math.isfinite(high)):
        return absent(why)
    texts = (decimal(end, digits=digits, signed=signed) for end in (low, high))
    return Cell(" … ".join(texts), is_number=True)


def listed(names: Iterable[str], most: int = 3) -> str:
    """Names with commas, the first few of them."""
    names = list(names)
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
