"""One writer at a time in a directory."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path


def locked(directory: Path) -> int:
    """Lock an existing directory against other runs.

    Returns
    -------
    int
        File descriptor; closing it, or the end of the process, unlocks.

    Raises
    ------
    ValueError
        If another run has it.
    """
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise ValueError(f"{directory}: another run is writing there") from None
    except OSError:
        pass  # a file system without locks
    return descriptor
