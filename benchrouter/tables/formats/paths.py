"""File names and first bytes."""

from __future__ import annotations

import zlib
from pathlib import Path

from benchrouter.files.lines import BOM, COMPRESSIONS, open_bytes

HEAD_BYTES = 8192


def bare_name(path: Path) -> str:
    """Name of a file without a suffix of compression."""
    return path.stem if path.suffix.lower() in COMPRESSIONS else path.name


def head(path: Path, n_bytes: int = HEAD_BYTES) -> bytes:
    """First bytes of a file, decompressed, without a byte order mark; b"" if unreadable."""
    try:
        with open_bytes(path) as file:
            return file.read(n_bytes).removeprefix(BOM)
    except (OSError, EOFError, ValueError, zlib.error):
        return b""
