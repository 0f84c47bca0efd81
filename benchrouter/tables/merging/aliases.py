"""Names of models that are one model."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias, TypeVar

from benchrouter.files.errors import BadInput
from benchrouter.files.words import shown
from benchrouter.tables.layouts.part import Part

Given: TypeAlias = Mapping[str, str | Sequence[str]] | str | os.PathLike[str] | None
Value = TypeVar("Value")
COMMENT = re.compile(r"(^|\s)#.*")
BETWEEN = re.compile(r"\s=\s")


class Aliases:
    """Other names of models, and which of them were met.

    Parameters
    ----------
    pairs : iterable of (str, str, str)
        The name that stays, another name, and where that was said.

    Raises
    ------
    ValueError
        If a name is blank, has two names that stay, or stays and goes.
    """

    def __init__(self, pairs: Iterable[tuple[str, str, str]] = ()) -> None:
        self.kept: dict[str, str] = {}
        self._met: set[str] = set()
        said: dict[str, str] = {}
        stays: dict[str, str] = {}
        for name, other, where in pairs:
            if not name or not other:
                raise BadInput(f"{where}: found {shown(other or name)} beside a blank name")
            if self.kept.get(other, name) != name:
                raise BadInput(
                    f"{where}: {other!r} is another name of {name!r}, but of "
                    f"{self.kept[other]!r} in {said[other]}"
                )
            self.kept[other], said[other] = name, where
            stays.setdefault(name, where)
        for name, where in stays.items():
            if name in self.kept:
                raise BadInput(
                    f"{where}: {name!r} has other names, but is another name of "
                    f"{self.kept[name]!r} in {said[name]}; expected every name on one side"
                )

    def others(self, models: Sequence[str] | None) -> list[str] | None:
        """Return models, each with its other names after it; None for None."""
        if models is None:
            return None
        names = (
            name
            for model in models
            for name in (model, *(o for o, kept in self.kept.items() if kept == model))
        )
        return list(dict.fromkeys(names))

    def rename(self, part: Part) -> Part:
        """Return a part whose models, those of its sidecar included, have the names that stay."""
        if not self.kept:
            return part
        self._met.update(part.known_models)
        duplicates: Counter[tuple[str, str]] = Counter()
        for (dataset, model), n in part.duplicates.items():
            duplicates[dataset, self.kept.get(model, model)] += n
        return replace(
            part,
            sidecar=replace(
                part.sidecar,
                params_b=self._keys(part.sidecar.params_b, part),
                prices=self._keys(part.sidecar.prices, part),
            ),
            models=[self.kept.get(model, model) for model in part.models],
            known_models=[self.kept.get(model, model) for model in part.known_models],
            read_as=part.models,
            duplicates=duplicates,
        )

    def _keys(self, values: Mapping[str, Value], part: Part) -> dict[str, Value]:
        renamed: dict[str, Value] = {}
        for model, value in values.items():
            name = self.kept.get(model, model)
            if repr(renamed.setdefault(name, value)) != repr(value):
                raise BadInput(
                    f"{part.sidecar.path}: two names of model {name!r} state {renamed[name]} and "
                    f"{value}, expected one"
                )
        return renamed

    def unmet(self) -> list[str]:
        """Notes about other names that no source has."""
        return [
            f"aliases: no source has a model {other!r} (another name of {name!r})"
            for other, name in self.kept.items()
            if other not in self._met
        ]


def read_aliases(given: Given) -> Aliases:
    """Take aliases from a mapping or a file.

    Parameters
    ----------
    given : mapping or path, optional
        Name that stays to its other name or names; or a text file of lines
        ``name = other name, another name``, blanks around ``=``; ``#`` begins a comment.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    TypeError
        If names are no text.
    ValueError
        Names what is wrong, and in a file its line.
    """
    if given is None:
        return Aliases()
    if isinstance(given, str | os.PathLike):
        return Aliases(_lines(Path(given)))
    if not isinstance(given, Mapping):
        raise TypeError(f"aliases must be a mapping or a path, got {type(given).__name__}")
    pairs = []
    for name, others in given.items():
        for other in [others] if isinstance(others, str) else others:
            if not isinstance(name, str) or not isinstance(other, str):
                raise TypeError(f"aliases must be names, found {name!r}: {other!r}")
            pairs.append((name.strip(), other.strip(), "aliases"))
    return Aliases(pairs)


def _lines(path: Path) -> list[tuple[str, str, str]]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: expected UTF-8 text: {error}") from error
    pairs = []
    for number, line in enumerate(text.split("\n"), start=1):
        said = COMMENT.sub("", line.rstrip("\r")).strip()
        if not said:
            continue
        where = f"{path}, line {number}"
        # A blank on each side: names such as "pretrained=x" hold the sign.
        name, *others = BETWEEN.split(f" {said} ", maxsplit=1)
        if not others:
            raise BadInput(
                f"{where}: found {shown(said)}, expected NAME = OTHER NAME, with blanks around '='"
            )
        pairs += [(name.strip(), other.strip(), where) for other in others[0].split(",")]
    return pairs
