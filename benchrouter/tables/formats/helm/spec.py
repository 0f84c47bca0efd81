"""Recognise a HELM run by its folder, and read its ``run_spec.json``."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from benchrouter.files.errors import BadInput
from benchrouter.files.json_objects import document
from benchrouter.tables.formats.fields import field_of, name_of

SUFFIXES = ("", ".gz", ".zst")
SPEC = "run_spec.json"
MODEL = re.compile("[:,]model(?:_deployment)?=")


class Spec(NamedTuple):
    """Content of a run's ``run_spec.json``."""

    path: Path
    name: str
    model: str
    method: str
    groups: tuple[str, ...]

    @property
    def folder(self) -> Path:
        """The run's folder, whose name may have other separators than the run's."""
        return self.path.parent

    @property
    def dataset(self) -> str:
        """The run's name up to its model."""
        return MODEL.split(self.name, maxsplit=1)[0]

    @property
    def scenario(self) -> str:
        """The run's name up to its arguments."""
        return re.split("[:,]", self.name, maxsplit=1)[0]


def is_run(folder: Path) -> bool:
    """Whether a folder is a run."""
    return _find(folder, SPEC) is not None


def has_spec(names: Collection[str]) -> bool:
    """Whether these names of files include a run's specification."""
    return any(SPEC + suffix in names for suffix in SUFFIXES)


def is_run_name(name: str) -> bool:
    """Whether a folder is named like a run, with any character in place of ":"."""
    return re.search("[^a-z]model(?:_deployment)?=", name) is not None


def run_file(folder: Path, name: str) -> Path:
    """Path of a run's file, plain or compressed.

    Raises
    ------
    ValueError
        If there is none.
    """
    path = _find(folder, name)
    if path is None:
        raise BadInput(f"{folder / name}: no such file, expected it (or with .gz or .zst)")
    return path


def read_spec(folder: Path) -> Spec:
    """Read a run's specification.

    Raises
    ------
    ValueError
        If the run's name or model is not there.
    """
    path = run_file(folder, SPEC)
    values = document(path)
    try:
        adapter = field_of(values, "adapter_spec", dict)
        groups = field_of(values, "groups", list) if "groups" in values else []
        return Spec(
            path=path,
            name=name_of(values, "name"),
            model=name_of(adapter, "model"),
            method=str(adapter.get("method", "")),
            groups=tuple(group for group in groups if isinstance(group, str)),
        )
    except ValueError as error:
        raise BadInput(f"{path}: {error}") from error


def _find(folder: Path, name: str) -> Path | None:
    paths = [folder / f"{name}{suffix}" for suffix in SUFFIXES]
    return next((path for path in paths if path.is_file()), None)
