"""Content-addressed embeddings on disk: one SQLite file an encoder, one row a prompt.

The file's name is a hash of everything that shapes an embedding; the key of a row is the SHA-256 of
the prompt. Rows have a checksum, writes are transactions, and processes may share a file. The cache
never fails its caller: an unusable file is left alone with a warning. The file grows until it is
deleted, which is safe at any time.
"""

from __future__ import annotations

import hashlib
import json
import os
import sqlite3
import warnings
import zlib
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# "brEC" in ASCII marks our files.
_APPLICATION_ID = 0x62724543
_FORMAT = 1
_WAIT_SECONDS = 30.0
# Old SQLite builds allow 999 parameters in a statement.
_KEYS_AT_ONCE = 900


class CacheWarning(RuntimeWarning):
    """The cache cannot be used, or a part of it."""


def default_cache_dir() -> Path:
    """`benchrouter/embeddings` in the user's cache folder ($XDG_CACHE_HOME or ~/.cache)."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification says that relative paths are to be ignored.
    root = Path(base) if os.path.isabs(base) else Path.home() / ".cache"
    return root / "benchrouter" / "embeddings"


def key_of(text: str) -> bytes:
    """Key of a prompt: the SHA-256 of its UTF-8."""
    return hashlib.sha256(text.encode()).digest()


class EmbeddingCache:
    """Embeddings of one encoder on disk; safe to use from many threads and processes.

    Parameters
    ----------
    directory : path
        Created at the first write.
    identity : mapping
        Everything that shapes an embedding, as JSON can hold it.
    dim : int
        Length of an embedding.
    """

    def __init__(
        self, directory: str | os.PathLike[str], identity: Mapping[str, Any], dim: int
    ) -> None:
        self._identity = json.dumps(identity, sort_keys=True)
        name = hashlib.sha256(self._identity.encode()).hexdigest()[:32]
        self.path = Path(directory) / f"{name}.sqlite3"
        self._dim = dim
        self._usable = True

    def get(self, keys: list[bytes]) -> dict[bytes, NDArray[np.float32]]:
        """Return the embeddings of those keys that are stored, float32 of shape (dim,) each."""
        if not self._usable or not self.path.exists():
            return {}
        found: dict[bytes, NDArray[np.float32]] = {}
        damaged = 0
        try:
            with closing(self._open()) as database:
                for start in range(0, len(keys), _KEYS_AT_ONCE):
                    some = keys[start : start + _KEYS_AT_ONCE]
                    marks = ",".join("?" * len(some))
                    query = f"SELECT key, vector, crc FROM embeddings WHERE key IN ({marks})"
                    for key, vector, crc in database.execute(query, some):
                        if len(vector) == 4 * self._dim and zlib.crc32(vector) == crc:
                            found[key] = np.frombuffer(vector, dtype="<f4")
                        else:
                            damaged += 1
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)
            return {}
        if damaged:
            _warn(f"{self.path}: found {damaged} damaged embeddings; they are encoded again")
        return found

    def put(self, keys: list[bytes], rows: NDArray[np.float32]) -> None:
        """Store embeddings, float32 of shape (len(keys), dim), in one transaction."""
        if not self._usable or not keys:
            return
        vectors = (row.astype("<f4", copy=False).tobytes() for row in rows)
        entries = ((key, v, zlib.crc32(v)) for key, v in zip(keys, vectors, strict=True))
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with closing(self._open()) as database, database:
                database.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", entries)
        except (sqlite3.Error, OSError) as error:
            self._give_up(error)

    def _open(self) -> sqlite3.Connection:
        """Open the file; each call does, so that forks and deletion do no harm."""
        database = sqlite3.connect(self.path, timeout=_WAIT_SECONDS)
        try:
            self._check(database)
        except BaseException:
            database.close()
            raise
        return database

    def _check(self, database: sqlite3.Connection) -> None:
        application = database.execute("PRAGMA application_id").fetchone()[0]
        if application == 0:
            with database:
                # Lock before looking: another process may be creating the tables.
                database.execute("BEGIN IMMEDIATE")
                if database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0] == 0:
                    database.execute("CREATE TABLE identity (json TEXT NOT NULL)")
                    database.execute("INSERT INTO identity VALUES (?)", (self._identity,))
                    database.execute(
                        "CREATE TABLE embeddings "
                        "(key BLOB PRIMARY KEY, vector BLOB NOT NULL, crc INTEGER NOT NULL)"
                    )
                    database.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                    database.execute(f"PRAGMA user_version = {_FORMAT}")
            application = database.execute("PRAGMA application_id").fetchone()[0]
        version = database.execute("PRAGMA user_version").fetchone()[0]
        if (application, version) != (_APPLICATION_ID, _FORMAT):
            raise sqlite3.DatabaseError(
                f"application id {application:#x}, format {version}; "
                f"expected {_APPLICATION_ID:#x}, {_FORMAT}"
            )
        stored = database.execute("SELECT json FROM identity").fetchone()
        if stored is None or stored[0] != self._identity:
            raise sqlite3.DatabaseError("the embeddings of another encoder")

    def _give_up(self, error: Exception) -> None:
        self._usable = False
        if isinstance(error, OSError):
            _warn(f"{self.path}: no embedding can be kept there ({error.strerror})")
            return
        _warn(
            f"{self.path}: found no usable embedding cache ({error}); it is left as it is and not "
            "used, delete it to start anew"
        )


def _warn(message: str) -> None:
    warnings.warn(message, CacheWarning, stacklevel=4)
