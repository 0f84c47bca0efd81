"""Files that a path stands for, their names, and how they begin."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from pathlib import Path

from benchrouter.batch.line_file import BOM, COMPRESSIONS, open_bytes

HEAD_BYTES = 8192


def files_below(path: Path) -> Iterator[Path]:
    """Files of a folder and of the folders in it, in the order of their names; a file itself."""
    if not path.is_dir():
        yield path
        return
    for folder, folders, names in os.walk(path):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def bare_name(path: Path) -> str:
    """Name of a file without the suffix of its compression."""
    return path.stem if path.suffix.lower() in COMPRESSIONS else path.name


def head(path: Path, n_bytes: int = HEAD_BYTES) -> bytes:
    """First bytes of a file, decompressed, without a byte order mark; none if it cannot be read."""
    try:
        with open_bytes(path) as file:
            return file.read(n_bytes).removeprefix(BOM)
    except (OSError, EOFError, ValueError, zlib.error):
        return b""
