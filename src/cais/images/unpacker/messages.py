"""What the daemon and a worker tell each other: JSON objects in packets, with descriptors.

    daemon                                                 worker
      ◀──────────────────────── {"refused": ["measure (why)"]}     first: what does not confine it
      {"limits": [...], "is_verified", "has_lowers"} ─────▶        + archive, directory to fill
      ◀───────────────────────────── {"read": bytes}               now and then: it is alive
      ◀───────────────────────────── {"lowers": true}              at most once
      {"more": bool} ─────────────────────────────────────▶        + directories, nearest first
      ◀───────── {"sha256", "size_bytes", "has_root"}              the layer is there; or
      ◀───────────────────── {"error": {"kind", "message"}}        it is not, and the worker ends

The next job may follow the answer. On the control line the daemon sends ``b"worker"`` with two
descriptors: the worker's end of its line, and the warden's end of its *reins*. The warden writes
how the worker ended on the reins (``b"exited 1"``, ``b"killed 9"``, or why it was never born); when
the daemon lets go of them, the worker is killed.

Import-light: the warden loads it.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING, Any

from cais.errors import InternalError
from cais.spec import json_text

if TYPE_CHECKING:
    from collections.abc import Sequence

PACKET_LIMIT_BYTES = 16384
TEXT_LIMIT = 4096
DESCRIPTOR_LIMIT = 200
"""Of one packet, which can carry 253."""

SPAWN = b"worker"


class LineClosedError(InternalError):
    """The other side has ended."""


def send(line: socket.socket, message: dict[str, Any], fds: Sequence[int] = ()) -> None:
    """Send one message; the descriptors are borrowed. LineClosedError."""
    data = json_text.encode(message).encode()
    assert len(data) <= PACKET_LIMIT_BYTES
    try:
        socket.send_fds(line, [data], list(fds), socket.MSG_NOSIGNAL)
    except (BrokenPipeError, ConnectionResetError) as exc:
        raise LineClosedError("the other side is gone") from exc


def receive(line: socket.socket, descriptors: int = 0) -> tuple[dict[str, Any], list[int]]:
    """Return the next message and its descriptors (owned, close-on-exec).

    Args:
        line: to read from.
        descriptors: how many may come at most; the kernel drops more.

    Raises:
        LineClosedError: the other side has ended.
        InternalError: no message of the protocol.
        TimeoutError: the socket's own time limit is over.

    """
    flags = socket.MSG_CMSG_CLOEXEC
    try:
        data, fds, marks, _ = socket.recv_fds(line, PACKET_LIMIT_BYTES, descriptors, flags)
    except ConnectionResetError as exc:
        raise LineClosedError("the other side is gone") from exc
    if not data:
        raise LineClosedError("the other side is gone")
    try:
        message = json_text.decode(data)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or marks & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        close_all(fds)
        raise InternalError("the other side sent no message")
    return message, fds


def close_all(fds: Sequence[int]) -> None:
    """Close descriptors that came with a message nobody wanted."""
    for fd in fds:
        socket.close(fd)
