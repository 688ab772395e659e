"""A worker: unpacks the layers it is told to, one after the other, and knows nothing else.

Confined before it comes here (``confinement``): it can neither open a path of the host nor import.
What goes wrong is said on the line, with the class of ``cais.errors`` it belongs to, and the worker
ends: an interpreter that met a hostile layer takes no other one.

Import-light: the warden loads it.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, Any

from cais.errors import CaisError
from cais.images.layer_tree import LayerTree
from cais.images.unpack import Limits, unpack
from cais.images.unpacker.messages import (
    DESCRIPTOR_LIMIT,
    TEXT_LIMIT,
    LineClosedError,
    receive,
    send,
)

if TYPE_CHECKING:
    import socket
    from collections.abc import Sequence

REPORT_BYTES = 4 * 1024 * 1024
REPORT_S = 1.0


def serve(line: socket.socket) -> int:
    """Take jobs until the daemon hangs up, or one fails; return the exit status."""
    while True:
        try:
            job, fds = receive(line, descriptors=2)
        except LineClosedError:
            return 0
        try:
            answer = _unpack(job, fds, line)
        except LineClosedError:
            return 0
        except Exception as exc:  # noqa: BLE001 - whatever a hostile layer brings about
            send(line, {"error": _described(exc)})
            return 1
        send(line, answer)


def _unpack(job: dict[str, Any], fds: Sequence[int], line: socket.socket) -> dict[str, Any]:
    archive_fd, root_fd = fds

    def open_lowers() -> Sequence[int]:
        send(line, {"lowers": True})
        lowers: list[int] = []
        has_more = True
        while has_more:
            answer, fds = receive(line, DESCRIPTOR_LIMIT)
            lowers += fds
            has_more = answer["more"]
        return lowers

    try:
        with LayerTree(root_fd, open_lowers if job["has_lowers"] else None) as tree:
            source = _Archive(archive_fd, line)
            limits, is_verified = Limits(*job["limits"]), job["is_verified"]
            done = unpack(source, tree, limits, is_verified=is_verified, tick=source.tick)
    finally:
        os.close(archive_fd)
    return done._asdict()


class _Archive:
    """The layer's archive; says how far it was read, and so that the worker is alive."""

    def __init__(self, fd: int, line: socket.socket) -> None:
        self._fd = fd
        self._line = line
        self._position = self._told = 0
        self._told_at = time.monotonic()

    def read(self, size: int) -> bytes:
        chunk = os.read(self._fd, size)
        self._position += len(chunk)
        if self._position - self._told >= REPORT_BYTES or (
            not chunk and self._told < self._position
        ):
            self._tell()
        return chunk

    def tick(self) -> None:
        """Say something when nothing was said for a while: a bomb's next byte can be far."""
        if time.monotonic() - self._told_at >= REPORT_S:
            self._tell()

    def _tell(self) -> None:
        send(self._line, {"read": self._position})
        self._told, self._told_at = self._position, time.monotonic()


def _described(exc: Exception) -> dict[str, str]:
    if isinstance(exc, CaisError):
        kind = next(c.__name__ for c in type(exc).__mro__ if c.__module__ == CaisError.__module__)
        return {"kind": kind, "message": str(exc)[:TEXT_LIMIT]}
    if isinstance(exc, MemoryError):
        message = "no memory left for unpacking: the layer asks for too much"
        return {"kind": "ExhaustedError", "message": message}
    message = f"unpacking failed: {type(exc).__name__}: {exc}"
    return {"kind": "InternalError", "message": message[:TEXT_LIMIT]}
