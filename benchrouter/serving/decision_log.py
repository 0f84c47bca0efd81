"""Every decision as a line of JSON, in files of bounded size."""

from __future__ import annotations

import json
import logging
import queue
import sys
import time
from contextlib import suppress
from logging.handlers import QueueHandler, QueueListener, RotatingFileHandler
from pathlib import Path

from benchrouter.serving.answer import CAUSES, Routed
from benchrouter.serving.observer import Observer, log

PENDING = 10_000  # lines that wait for the disk; more are left out, and counted


class DecisionLog(Observer):
    """Writes answers to a file, in a thread of its own.

    A line has time (seconds since the epoch), router, version, model, fallback, cause, reason,
    score, margin, distance, cost_usd, over_limit, truncated, cached, seconds (from request to
    answer) and scores (by model, null where none was computed); and, if asked for, prompt.

    Parameters
    ----------
    path : path
        Appended to. FILE.1, FILE.2 … are older ones.
    max_bytes : int
        Size at which a new file is begun; 0 = never.
    backups : int
        Older files that are kept.
    with_prompts : bool
        Whether to write the text that was embedded.

    Attributes
    ----------
    lost : int
        Lines that could not be written: a full disk, or one that is too slow.

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
        self._file = _File(self, path, max_bytes, backups)
        pending: queue.Queue[logging.LogRecord] = queue.Queue(PENDING)
        self._handler = _Pending(self, pending)
        self._listener = QueueListener(pending, self._file)
        self._listener.start()

    def answered(self, routed: Routed, prompt: str | None, seconds: float) -> None:
        """Write a decision."""
        line = {"time": round(time.time(), 3), **vars(routed), "seconds": round(seconds, 6)}
        line["scores"] = dict(zip(line.pop("ranking"), routed.scores, strict=True))
        if self._with_prompts:
            line["prompt"] = prompt
        elif routed.cause == "bad_prompt":  # its reason shows what was found
            line["reason"] = CAUSES[routed.cause]
        record = logging.makeLogRecord({"msg": json.dumps(line)})
        self._handler.enqueue(record)

    def close(self) -> None:
        """Write what is pending, and close the file."""
        self._listener.stop()
        with suppress(OSError):  # of lines that are counted as lost already
            self._file.close()

    def lose(self, why: object) -> None:
        """Count a line that was not written; the first is told."""
        if not self.lost:
            log.error("the decision log loses decisions: %s", why)
        self.lost += 1


class _Pending(QueueHandler):
    def __init__(self, owner: DecisionLog, pending: queue.Queue[logging.LogRecord]) -> None:
        super().__init__(pending)
        self._owner = owner

    def enqueue(self, record: logging.LogRecord) -> None:
        """Never wait for the disk."""
        try:
            self.queue.put_nowait(record)
        except queue.Full:
            self._owner.lose(f"more than {PENDING:,} wait for the disk")


class _File(RotatingFileHandler):
    def __init__(self, owner: DecisionLog, path: str | Path, most: int, backups: int) -> None:
        super().__init__(path, maxBytes=most, backupCount=backups, encoding="utf-8")
        self._owner = owner

    def handleError(self, record: logging.LogRecord) -> None:
        """Count it, and go on."""
        self._owner.lose(sys.exc_info()[1])
