"""Logs as JSON, one object a line, on stderr."""

from __future__ import annotations

import json
import logging
import sys
import time
from typing import Any

REQUESTS = logging.getLogger("benchrouter.requests")
_encode = json.JSONEncoder(default=str).encode
SHOWN_CHARACTERS = 2000  # of a prompt in the log


class JsonLines(logging.Formatter):
    """Formats a record as one line, with the fields of `extra={"fields": …}` beside the message."""

    def format(self, record: logging.LogRecord) -> str:
        """Make the line."""
        seconds, fraction = divmod(record.created, 1)
        line: dict[str, Any] = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
            + f".{int(fraction * 1000):03d}Z",
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **getattr(record, "fields", {}),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return _encode(line)


def log_request(fields: dict[str, Any]) -> None:
    """Log one request; cheaper than `Logger.info`, which looks for the calling line too."""
    if REQUESTS.isEnabledFor(logging.INFO):
        record = logging.LogRecord(REQUESTS.name, logging.INFO, "", 0, "request", None, None)
        record.fields = fields
        REQUESTS.handle(record)


def log_to_stderr(level: int = logging.INFO) -> None:
    """Send everything that this process logs or warns of to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for name in ("benchrouter", "uvicorn"):
        logging.getLogger(name).setLevel(level)
    logging.captureWarnings(True)


def shown(text: str) -> str:
    """Beginning of a prompt, as the log holds it."""
    return text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
