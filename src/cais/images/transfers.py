"""The messages of a pull or push, as Docker streams them.

``{"status": "Downloading", "progressDetail": {"current": 1, "total": 2}, "progress": "[=> ]",
"id": "<12 digits>"}``: clients draw a line for each ``id``. Callable from any thread.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Any

from cais.spec.units import human_size

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    Report = Callable[[Mapping[str, Any]], None]

_EVERY_S = 0.1
_BAR_WIDTH = 50


class Line:
    """What is said about one layer."""

    def __init__(self, report: Report, line_id: str) -> None:
        self._report = report
        self._id = line_id
        self._lock = threading.Lock()
        self._last: tuple[str, float] = ("", 0.0)

    def say(self, status: str) -> None:
        """Say what happens now, without numbers."""
        self._report({"status": status, "progressDetail": {}, "id": self._id})

    def count(self, status: str, current: int, total: int) -> None:
        """Say how far it is, in bytes; at most ten times a second, but always the end."""
        now = time.monotonic()
        with self._lock:
            last, at = self._last
            if last == status and now - at < _EVERY_S and current != total:
                return
            self._last = (status, now)
        self._report(
            {
                "status": status,
                "progressDetail": {"current": current, "total": total},
                "progress": _bar(current, total),
                "id": self._id,
            }
        )


def _bar(current: int, total: int) -> str:
    """Draw what Docker's daemon draws: the head of the arrow has a place of its own."""
    if total <= 0:
        return f"{human_size(current):>8}"
    done = min(_BAR_WIDTH, current * _BAR_WIDTH // total)
    arrow = f"{'=' * done}>{' ' * (_BAR_WIDTH - done)}"
    return f"[{arrow}] {human_size(current):>8}/{human_size(total)}"
