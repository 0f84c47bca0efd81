"""Walk folders; links are followed, and no file is found twice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path


def folders_below(path: Path, denied: list[Path] | None = None) -> list[tuple[Path, list[str]]]:
    """List a folder and all below it, each with the names of its files.

    Parameters
    ----------
    path : Path
    denied : list of Path, optional
        Collects the folders below that may not be read; they are skipped.

    Returns
    -------
    list of (Path, list of str)
        Ordered by name, a folder before those in it, without hidden ones. Links come after
        everything else, and only if they lead to something new, so circles end.

    Raises
    ------
    PermissionError
        If the folder itself may not be read.
    """
    found: list[tuple[Path, str, list[os.DirEntry[str]]]] = []
    seen: set[str] = set()
    denied_below = [] if denied is None else denied
    folders, links = [(str(path), os.path.realpath(path))], list[str]()
    while folders or links:
        folder, real = folders.pop() if folders else (links[0], os.path.realpath(links.pop(0)))
        if real in seen:
            continue
        seen.add(real)
        entries = _entries(folder, None if len(seen) == 1 else denied_below)
        if entries is None:
            continue
        found.append((Path(folder), real, list(filter(_is_file, entries))))
        below = list(filter(_is_folder, entries))
        links += [e.path for e in below if e.is_symlink()]
        own = [(e.path, os.path.join(real, e.name)) for e in below if not e.is_symlink()]
        folders += reversed(own)
    return _each_once(found)


def _entries(folder: str, denied: list[Path] | None) -> list[os.DirEntry[str]] | None:
    """Entries of a folder; None if it may not be read, which `denied` notes if given."""
    try:
        with os.scandir(folder) as found:
            entries = [entry for entry in found if not entry.name.startswith(".")]
    except PermissionError:
        if denied is None:
            raise
        denied.append(Path(folder))
        return None
    return sorted(entries, key=lambda entry: entry.name)


def _each_once(
    found: list[tuple[Path, str, list[os.DirEntry[str]]]],
) -> list[tuple[Path, list[str]]]:
    """Drop links to files that were found under another name."""
    seen = {
        os.path.join(real, entry.name)
        for _, real, files in found
        for entry in files
        if not entry.is_symlink()
    }

    def is_new(entry: os.DirEntry[str]) -> bool:
        if not entry.is_symlink():
            return True
        real = os.path.realpath(entry.path)
        new = real not in seen
        seen.add(real)
        return new

    return [(folder, [e.name for e in files if is_new(e)]) for folder, _, files in found]


def files_below(path: Path, denied: list[Path] | None = None) -> Iterator[Path]:
    """All files below a folder, in the order of `folders_below`; a file yields itself."""
    if not path.is_dir():
        yield path
        return
    for folder, names in folders_below(path, denied):
        yield from (folder / name for name in names)


# An entry's methods may raise for a link that leads nowhere or in a circle.
def _is_folder(entry: os.DirEntry[str]) -> bool:
    return os.path.isdir(entry.path) if entry.is_symlink() else entry.is_dir()


def _is_file(entry: os.DirEntry[str]) -> bool:
    return os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file()
