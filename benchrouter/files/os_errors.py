"""Name the user's file in errors of the operating system."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def naming(path: str | os.PathLike[str]) -> Iterator[None]:
    """Make OSErrors raised within name `path`, in place of no file or a temporary one.

    Raises
    ------
    OSError
        Of the same kind, with the file's name.
    """
    try:
        yield
    except OSError as e:
        if e.errno is None:
            raise OSError(f"{path}: {e}") from e
        raise OSError(e.errno, os.strerror(e.errno), str(path)) from e
