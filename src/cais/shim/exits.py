"""Exits: told to whoever is connected, and kept until somebody has recorded them."""

from __future__ import annotations

import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cais.shim.processes import Exit, Process
    from cais.shim.protocol import Document
    from cais.shim.register import Key


class Exits:
    """Those of one shim."""

    def __init__(self, tell: Callable[[Document], None]) -> None:
        """``tell`` sends an event to every connection."""
        self._tell = tell
        self._kept: dict[int, Document] = {}
        self._last_seq = 0

    def add(self, key: Key, process: Process, how: Exit, *, oom_killed: bool) -> None:
        """Tell of one."""
        self._last_seq += 1
        document = self._kept[self._last_seq] = {
            "exit_seq": self._last_seq,
            "id": key[0],
            "exec_id": key[1],
            "pid": process.pid,
            "code": how.code,
            "signal": how.signal,
            "oom_killed": oom_killed,
            "exited_at_ns": time.time_ns(),
            "log_dropped": process.streams.log_dropped,
        }
        self._tell({"event": "exit", **document})

    def kept(self) -> list[Document]:
        """Return those nobody has recorded, oldest first."""
        return list(self._kept.values())

    def has(self, key: Key) -> bool:
        """Whether one of ``key`` is kept."""
        return any((each["id"], each["exec_id"]) == key for each in self._kept.values())

    def forget(self, numbers: Iterable[int]) -> None:
        """Drop those that have been recorded."""
        for number in numbers:
            self._kept.pop(number, None)
