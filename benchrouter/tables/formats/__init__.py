"""Formats of benchmark results of others; each is read as sources of long rows."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Protocol

from benchrouter.files.errors import BadInput
from benchrouter.tables.formats import every_eval_ever, mixinstruct, routerbench
from benchrouter.tables.formats.choices import Choices
from benchrouter.tables.formats.folders import folders_below
from benchrouter.tables.formats.helm import helm
from benchrouter.tables.formats.lm_eval import lm_eval
from benchrouter.tables.formats.long_rows import FormatReading
from benchrouter.tables.formats.paths import bare_name
from benchrouter.tables.formats.unknown import why_not_json
from benchrouter.tables.sources.open import SUFFIXES

TABLE = "table"  # our own: a wide or long file


class Format(Protocol):
    """Interface of the modules in this folder."""

    def recognises(self, path: Path) -> bool:
        """Whether a file or folder has this format, by names and first bytes alone."""

    def read(self, path: Path, choices: Choices) -> Iterable[FormatReading]:
        """Read a file or folder lazily: one `FormatReading` for each file with scores."""


# Tried in this order; what none recognises is a table.
FORMATS: dict[str, Format] = {
    "helm": helm,
    "lm-eval": lm_eval,
    "every-eval-ever": every_eval_ever,
    "mixinstruct": mixinstruct,
    "routerbench": routerbench,
}
OF_FOLDERS = ("helm", "lm-eval", "every-eval-ever")  # all others are of single files


def names() -> list[str]:
    """Names of all formats, "auto" and our own table first."""
    return ["auto", TABLE, *FORMATS]


def format_of(path: Path) -> str:
    """Recognise a file or folder.

    Returns
    -------
    str
        A key of `FORMATS`, or `TABLE`.

    Raises
    ------
    FileNotFoundError
        If there is no such file or folder.
    IsADirectoryError
        If it is a folder of no known format.
    PermissionError
        If it has folders that may not be read.
    ValueError
        If it is a folder of several formats, or JSON of none.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file")
    if not path.is_dir():
        found = next((name for name, format in FORMATS.items() if format.recognises(path)), TABLE)
        if found == TABLE and bare_name(path).lower().endswith(".json"):
            raise BadInput(why_not_json(path))
        return found
    several = [name for name, format in FORMATS.items() if format.recognises(path)]
    if len(several) > 1:
        raise BadInput(
            f"{path}: found results of several formats, {' and '.join(several)}; expected one: "
            "name it (format, --format), or give the folders of each one by one"
        )
    if not several:
        closed: list[Path] = []
        folders_below(path, closed)
        if closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(closed[0]))
        tables = (file for file in sorted(path.iterdir()) if file.name.lower().endswith(SUFFIXES))
        such = next((f" such as {table}" for table in tables), "")
        raise IsADirectoryError(
            f"{path}: is a directory without results of a known format ({', '.join(OF_FOLDERS)}), "
            f"expected one with such, or a file{such}"
        )
    return several[0]
