"""Every decision as a line of JSON, in files of bounded size."""

from __future__ import annotations

import atexit
import json
import os
import queue
import threading
import time
from contextlib import suppress
from io import FileIO
from pathlib import Path

from benchrouter.serving.answer import CAUSES, Routed
from benchrouter.serving.observer import Observer, log

PENDING = 10_000  # lines that wait for the disk; more are left out, and counted
CLOSE_S = 5.0  # that a disk may take for them in the end


class DecisionLog(Observer):
    """Writes answers to a file, in a thread of its own; one process to a file.

    A line has time (seconds since the epoch), router, version, model, fallback, cause, reason,
    score, margin, distance, chance, chance_low, chance_high, cost_usd, over_limit, truncated,
    cached, seconds (from request to answer) and scores (by model, null where none was computed);
    and, if asked for, prompt.

    Parameters
    ----------
    path : path
        Appended to, on a new line where a process that was killed left half of one. FILE.1,
        FILE.2 … are older ones.
    max_bytes : int
        Size at which a new file is begun; 0 = never.
    backups : int
        Older files that are kept.
    with_prompts : bool
        Whether to write the text that was embedded.

    Attributes
    ----------
    lost : int
        Lines that could not be written: a full disk, one that is too slow, or after closing.

    Raises
    ------
    OSError
        If the file cannot be opened.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        max_bytes: int = 100_000_000,
        backups: int = 5,
        with_prompts: bool = False,
    ) -> None:
        self._with_prompts = with_prompts
        self.lost = 0
        self._file = _File(Path(path), max_bytes, backups)
        self._pending: queue.Queue[bytes | None] = queue.Queue(PENDING)
        self._is_closed = False
        self._writer = threading.Thread(target=self._write, name="benchrouter-log", daemon=True)
        self._writer.start()
        atexit.register(self.close)

    def answered(self, routed: Routed, prompt: str | None, seconds: float) -> None:
        """Write a decision."""
        line = {"time": round(time.time(), 3), **vars(routed), "seconds": round(seconds, 6)}
        line["scores"] = dict(zip(line.pop("ranking"), routed.scores, strict=True))
        if self._with_prompts:
            line["prompt"] = prompt
        elif routed.cause == "bad_prompt":  # its reason shows what was found
            line["reason"] = CAUSES[routed.cause]
        if self._is_closed:
            self.lose("it is closed")
            return
        try:
            self._pending.put_nowait(json.dumps(line).encode() + b"\n")
        except queue.Full:
            self.lose(f"more than {PENDING:,} wait for the disk")

    def close(self) -> None:
        """Write what is pending, and close the file; wait no more than 5 s for the disk."""
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self.close)
        with suppress(queue.Full):
            self._pending.put(None, timeout=CLOSE_S)
            self._writer.join(CLOSE_S)
        if self._writer.is_alive():
            log.error("the decision log could not be finished: the disk does not answer")

    def _write(self) -> None:
        while (line := self._pending.get()) is not None:
            try:
                self._file.write(line)
            except OSError as e:
                self.lose(e)
        self._file.close()

    def lose(self, why: object) -> None:
        """Count a line that was not written; the first is told."""
        if not self.lost:
            log.error("the decision log loses decisions: %s", why)
        self.lost += 1


class _File:
    """Lines in a file of bounded size, and older ones beside it."""

    def __init__(self, path: Path, most: int, backups: int) -> None:
        self._path = path
        self._most = most
        self._backups = backups
        self._cannot_rotate = False
        self._file: FileIO | None = None
        self._size = 0
        self._open()

    def write(self, line: bytes) -> None:
        """Add a line; after an error half of it may be there.

        Raises
        ------
        OSError
            If the disk is full, the folder has gone, or the like.
        """
        if self._most and self._size and self._size + len(line) > self._most:
            self._rotate()
        file = self._open() if self._file is None else self._file
        left = memoryview(line)
        try:
            while left:
                left = left[file.write(left) :]
        except OSError:
            self.close()
            raise
        self._size += len(line)

    def close(self) -> None:
        """Close it; the next line opens it again."""
        file, self._file = self._file, None
        if file is not None:
            with suppress(OSError):
                file.close()

    def _open(self) -> FileIO:
        self._file = file = FileIO(self._path, "ab")  # as kill -9 loses what is buffered
        self._size = self._path.stat().st_size if self._path.is_file() else 0
        if self._size and _last_byte(self._path) != b"\n":
            self._size += file.write(b"\n")
        return file

    def _rotate(self) -> None:
        """Begin another file; where that cannot be, go on in the same."""
        names = [self._path, *(Path(f"{self._path}.{i}") for i in range(1, self._backups + 1))]
        self.close()
        try:
            for older, newer in zip(names[:0:-1], names[-2::-1], strict=True):
                if newer.exists():
                    newer.replace(older)
            if not self._backups:
                self._path.unlink()
        except OSError as e:
            if not self._cannot_rotate:
                log.error("the decision log goes on in the same file: %s", e)
            self._cannot_rotate = True


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read()
