"""Every decision as a line of JSON, in files of bounded size."""

from __future__ import annotations

import atexit
import json
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from io import TextIOWrapper
from logging import LogRecord, makeLogRecord
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path
from queue import Queue

from benchrouter.serving.answer import CAUSES, Routed
from benchrouter.serving.observer import Observer, log

PENDING = 10_000  # lines that wait for the disk; further ones are lost
CLOSE_S = 5.0  # to write them when the log is closed


class DecisionLog(Observer):
    """Writes answers to a file, in a thread of its own; each process needs a file of its own.

    A line has time (seconds since the epoch), router, version, model, fallback, cause, reason,
    score, margin, distance, chance, chance_low, chance_high, cost_usd, over_limit, truncated,
    cached, seconds (from request to answer) and scores (by model, null if none was computed);
    and, if asked for, prompt.

    Parameters
    ----------
    path : path
        Lines are appended. If a killed process left half a line, a new one is begun first.
        FILE.1, FILE.2 … are older files.
    max_bytes : int
        Size at which a new file is begun; 0 = never.
    backups : int
        Older files to keep.
    with_prompts : bool
        Whether to write the text that was embedded.

    Attributes
    ----------
    lost : int
        Lines that were not written, because the disk was full or too slow, or the log closed.

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
        self._losing = threading.Lock()
        self._file = _File(path, max_bytes, backups, self._lose)
        self._pending: Queue[LogRecord | None] = Queue(PENDING)
        self._handler = _Handler(self._pending, self._lose)
        self._listener = _Listener(self._pending, self._file)
        self._listener.start()
        self._is_closed = False
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
            self._lose("it is closed")
        else:
            self._handler.handle(makeLogRecord({"msg": json.dumps(line)}))

    def close(self) -> None:
        """Write what is pending and close the file; wait at most 5 s for the disk."""
        if self._is_closed:
            return
        self._is_closed = True
        atexit.unregister(self.close)
        stopping = threading.Thread(target=self._listener.stop, daemon=True)
        stopping.start()
        stopping.join(CLOSE_S)
        self._file.hangs = stopping.is_alive()
        if self._file.hangs:
            log.error("the decision log could not be finished: the disk does not answer")
        self._file.close()

    def _lose(self, why: object) -> None:
        """Count a line that was not written; log the first."""
        with self._losing:
            if not self.lost:
                log.error("the decision log loses decisions: %s", why)
            self.lost += 1


class _Handler(QueueHandler):
    """Puts lines into a queue and loses those that it has no room for."""

    def __init__(self, queue: Queue[LogRecord | None], lose: Callable[[object], None]) -> None:
        super().__init__(queue)
        self._lose = lose

    def handleError(self, record: LogRecord) -> None:
        self._lose(f"more than {PENDING:,} wait for the disk")


class _Listener(QueueListener):
    """Stops after the lines that are in the queue, however full it is."""

    queue: Queue[LogRecord | None]

    def enqueue_sentinel(self) -> None:
        self.queue.put(None)


class _File(RotatingFileHandler):
    """Lines in a file of bounded size, and older ones beside it.

    Only the listener's thread writes, and does so without the handler's lock: at the end of the
    program logging takes the locks of all handlers, and would wait for a disk that hangs.
    """

    def __init__(
        self, path: str | Path, max_bytes: int, backups: int, lose: Callable[[object], None]
    ) -> None:
        super().__init__(
            path, maxBytes=max_bytes, backupCount=backups, encoding="utf-8", delay=True
        )
        self.hangs = False
        self._lose = lose
        self._cannot_rotate = False
        self.stream = self._open()

    def handle(self, record: LogRecord) -> bool:
        self.emit(record)
        return True

    def handleError(self, record: LogRecord) -> None:
        self._lose(sys.exc_info()[1])
        stream, self.stream = self.stream, None  # the next line opens the file again
        if stream is not None:
            with suppress(OSError):
                stream.close()

    def doRollover(self) -> None:
        try:
            super().doRollover()
            if not self.backupCount:
                os.remove(self.baseFilename)
        except OSError as e:
            if not self._cannot_rotate:
                log.error("the decision log goes on in the same file: %s", e)
            self._cannot_rotate = True

    def flush(self) -> None:
        if self.stream is not None and not self.hangs:
            self.stream.flush()

    def close(self) -> None:
        if not self.hangs:
            with suppress(OSError):
                super().close()

    def _open(self) -> TextIOWrapper:
        stream = super()._open()
        path = Path(self.baseFilename)
        if path.is_file() and path.stat().st_size and _last_byte(path) != b"\n":
            stream.write("\n")
        return stream


def _last_byte(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read()
