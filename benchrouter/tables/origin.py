"""Where a table comes from: what reading and merging met, and the scores do not tell."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class SourceRead:
    """One source: a file, or a part of a folder.

    Attributes
    ----------
    name : str
    n_records : int
        Records of it that could be used.
    models : tuple of str
        By the names in the table.
    notes : tuple of str
        What its reader chose or left out.
    format : str
        "table", or a name of `benchrouter.tables.formats.FORMATS`.
    sidecar : str
        File that states metrics, parameters and the like; "" = none.
    passed_over : tuple of str
        Columns of a table that were not read.
    guessed : bool
        Whether the models are the numeric columns of a table, since nobody named them.
    """

    name: str
    n_records: int
    models: tuple[str, ...]
    notes: tuple[str, ...] = ()
    format: str = "table"
    sidecar: str = ""
    passed_over: tuple[str, ...] = ()
    guessed: bool = False


@dataclass(frozen=True)
class Origin:
    """What reading and merging met.

    Attributes
    ----------
    sources : tuple of SourceRead
        In the order of reading.
    duplicates : dict of (str, str) to int
        By (dataset, model): scores that were read more than once and counted once.
    conflicts : dict of (str, str) to int
        By (dataset, model): scores that differ from an earlier one of the same record, and were
        dropped or went into a mean.
    metrics : dict of str to tuple of (str, str)
        By dataset, where sources differ: metrics, the one kept first, and where they are stated.
    notes : tuple of str
        Whatever else was decided.
    """

    sources: tuple[SourceRead, ...] = ()
    duplicates: Mapping[tuple[str, str], int] = field(default_factory=dict)
    conflicts: Mapping[tuple[str, str], int] = field(default_factory=dict)
    metrics: Mapping[str, tuple[tuple[str, str], ...]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
