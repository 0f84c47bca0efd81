"""The rooms of the package: what lies at its root, and which way imports run."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "docs"))

import rooms  # noqa: E402

OF_PYTHON = {"__init__.py", "__main__.py", "_core.pyi", "py.typed"}
PAGE = ROOT / "docs" / "architecture.md"


@pytest.fixture(scope="module")
def imports():
    return rooms.imports()


def test_the_root_holds_twelve_folders_and_three_files():
    inside = [p for p in rooms.PACKAGE.iterdir() if p.name != "__pycache__" and p.suffix != ".so"]
    folders = {path.name for path in inside if path.is_dir()}
    files = {path.name for path in inside if path.is_file()} - OF_PYTHON
    assert folders | {Path(name).stem for name in files} == set(rooms.ORDER) - {"__main__"}
    assert len(folders) == 12 and len(files) == 3


def test_imports_run_one_way(imports):
    allowed = {room: set(rooms.ORDER[:i]) for i, room in enumerate(rooms.ORDER)}
    against = {
        f"{module} imports {other}"
        for module, imported in imports.items()
        for other in imported
        if (room := module.partition(".")[0]) in allowed
        and other.partition(".")[0] not in {room, "_core", *allowed[room]}
    }
    assert against == set()


def test_no_modules_import_each_other(imports):
    assert rooms.cycles(imports) == []


def test_every_module_is_in_a_room(imports):
    assert {name.partition(".")[0] for name in imports} == {*rooms.ORDER, "", "_core"}


def test_the_picture_is_that_of_the_imports():
    page = PAGE.read_text(encoding="utf-8")
    drawn = page.partition(rooms.BEGIN)[2].partition(rooms.END)[0]
    assert drawn == rooms.picture(), "run: python docs/rooms.py --write"


def test_cycles_are_found():
    assert rooms.cycles({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == [["a", "b", "c"]]
