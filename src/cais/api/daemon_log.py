"""The daemon's own log: a line an event on stderr, ``time="..." level=info msg="..."``."""

from __future__ import annotations

import json
import logging
import time

_LEVELS = {"WARNING": "warning", "CRITICAL": "fatal"}


class LineFormatter(logging.Formatter):
    """Formats a record, its traceback included, as one line of key=value pairs."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the line; quoting keeps what a client sent from looking like another line."""
        level = _LEVELS.get(record.levelname, record.levelname.lower())
        line = f'time="{_rfc3339(record.created)}" level={level} msg={_quoted(record.getMessage())}'
        if record.exc_info:
            line += f" error={_quoted(self.formatException(record.exc_info))}"
        return line


def set_up_logging(level: int) -> None:
    """Send the package's log to stderr from ``level`` on."""
    handler = logging.StreamHandler()
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(max(level, logging.INFO))  # libraries' debug output is not ours to vouch for
    set_level(level)


def set_level(level: int) -> None:
    """Change the level of what this package logs."""
    logging.getLogger("cais").setLevel(level)


def _rfc3339(seconds: float) -> str:
    whole = int(seconds)
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(whole))
    return f"{stamp}.{int((seconds - whole) * 1e9):09}Z"


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
