"""Trees on their way out: renamed aside at once, deleted by one worker thread.

What a crash leaves here is deleted at the next start.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import threading
import uuid

from cais.linux.filesystem import remove_tree

log = logging.getLogger(__name__)


class Trash:
    """One directory (0700) and the thread that empties it. ``close`` waits for the thread."""

    def __init__(self, path: str) -> None:
        with contextlib.suppress(FileExistsError):
            os.mkdir(path, 0o700)
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        self._queue: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        for name in os.listdir(self._fd):
            self._enqueue(name)

    def take(self, parent_fd: int, name: str) -> None:
        """Move ``name`` out of the directory; absent is fine. Its space is freed later."""
        aside = uuid.uuid4().hex
        try:
            os.rename(name, aside, src_dir_fd=parent_fd, dst_dir_fd=self._fd)
        except FileNotFoundError:
            return
        self._enqueue(aside)

    def close(self) -> None:
        """Delete what is still queued and stop."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread:
            self._queue.put(None)
            thread.join()
        os.close(self._fd)

    def _enqueue(self, name: str) -> None:
        self._queue.put(name)
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._empty, name="trash", daemon=True)
                self._thread.start()

    def _empty(self) -> None:
        while (name := self._queue.get()) is not None:
            try:
                remove_tree(self._fd, name)
            except OSError:
                log.exception("cannot delete %s: it stays in the trash until the next start", name)
