"""The line between a child that prepares itself and its parent: JSON objects in packets.

A packet is one message (SOCK_SEQPACKET keeps the borders), its length is checked on both sides.
Nothing of the container's configuration travels so: the child inherits that by the clone, or it is
given to a process that was cloned before (``give``, ``take``), on a line of their own.
"""

from __future__ import annotations

import os
import struct
from _socket import (  # socket builds enums: 5 ms of start-up
    AF_UNIX,
    CMSG_LEN,
    CMSG_SPACE,
    MSG_CMSG_CLOEXEC,
    MSG_CTRUNC,
    MSG_DONTWAIT,
    MSG_NOSIGNAL,
    MSG_TRUNC,
    SCM_CREDENTIALS,
    SCM_RIGHTS,
    SO_PASSCRED,
    SOCK_CLOEXEC,
    SOCK_SEQPACKET,
    SOL_SOCKET,
    socket,
    socketpair,
)

from cais.errors import InternalError
from cais.linux import process
from cais.linux.writing import write_all
from cais.spec import json_text

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any, NoReturn

__all__ = ["CHILD_FD", "Channel", "ChannelError", "adopt", "ask_child", "open_channel"]

PACKET_LIMIT_BYTES = 65536
GIFT_LIMIT_BYTES = 131072  # a packet must fit in a socket's buffer with what the kernel adds
_GIFT_LIMIT_FDS = 253  # SCM_MAX_FD
TEXT_LIMIT = 8192  # of an error message: a path can be 4 KiB, a packet holds it twice
CHILD_FD = 3  # where the child keeps its end
_CREDENTIALS = struct.Struct("iII")  # struct ucred: pid, uid, gid
_READY = json_text.encode({"ready": True}).encode()
_FD = struct.Struct("i")


class ChannelError(InternalError):
    """The other side sent something that is no message."""


class Channel:
    """One end; owns its descriptor.

    ``sender`` is the process that sent the last message, as the kernel knows it; of use at the
    parent's end only.
    """

    __slots__ = ("_socket", "sender")

    def __init__(self, end: socket) -> None:
        self._socket = end
        self.sender = 0

    def fileno(self) -> int:
        """Return the descriptor, for polling and for keeping it open."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close this end; idempotent."""
        self._socket.close()

    def send(self, message: dict[str, Any], fd: int = -1) -> None:
        """Send one message, with a descriptor if ``fd`` is given (borrowed).

        Blocks: while the other side's buffer is full.
        """
        data = json_text.encode(message).encode()
        if len(data) > PACKET_LIMIT_BYTES:
            raise ChannelError(f"message of {len(data)} bytes is over {PACKET_LIMIT_BYTES}")
        rights = [(SOL_SOCKET, SCM_RIGHTS, _FD.pack(fd))] if fd >= 0 else []
        self._socket.sendmsg([data], rights, MSG_NOSIGNAL)

    def give(self, data: bytes, fds: Sequence[int]) -> None:
        """Send bytes and descriptors (borrowed) to a child that waits in ``take``.

        Bytes that are over a packet go as a file in memory.

        Raises:
            ValueError: more descriptors than fit in a packet.
            OSError: it has ended; no memory or descriptor is left.

        """
        if len(data) <= GIFT_LIMIT_BYTES:
            self._give(data, fds)
            return
        file_fd = os.memfd_create("gift", os.MFD_CLOEXEC)
        try:
            write_all(file_fd, data)
            self._give(b"", [*fds, file_fd])
        finally:
            os.close(file_fd)

    def _give(self, data: bytes, fds: Sequence[int]) -> None:
        if len(fds) > _GIFT_LIMIT_FDS:
            raise ValueError(f"{len(fds)} descriptors are over a packet")
        rights = [(SOL_SOCKET, SCM_RIGHTS, struct.pack(f"{len(fds)}i", *fds))] if fds else []
        self._socket.sendmsg([data], rights, MSG_NOSIGNAL)

    def take(self) -> tuple[bytes, list[int]]:
        """Wait for what the parent gives; nothing: it is gone. The descriptors are owned.

        Raises:
            ChannelError: part of it did not arrive: no descriptor is left here.

        """
        space = CMSG_SPACE(_GIFT_LIMIT_FDS * _FD.size)
        data, ancillary, state, _ = self._socket.recvmsg(GIFT_LIMIT_BYTES, space, MSG_CMSG_CLOEXEC)
        fds = [fd for _, _, content in ancillary for (fd,) in _FD.iter_unpack(content)]
        if state & (MSG_TRUNC | MSG_CTRUNC):
            for fd in fds:
                os.close(fd)
            raise ChannelError("a gift was cut off")
        if fds and not data:
            data = _read_file(fds.pop())
        return data, fds

    def say(self, message: dict[str, Any]) -> None:
        """Send one message with write(2), which the strictest system-call filter still allows."""
        os.write(self._socket.fileno(), json_text.encode(message).encode())

    def say_ready(self) -> None:
        """Say that the next step is execve; nothing is encoded, which would copy 30 pages."""
        os.write(self._socket.fileno(), _READY)

    def wait_for_word(self) -> None:
        """Wait until the parent has said something, with read(2); exit when it is gone."""
        if not os.read(self._socket.fileno(), PACKET_LIMIT_BYTES):
            os._exit(1)

    def receive(self, *, wait: bool = False) -> tuple[dict[str, Any] | None, int]:
        """Return the next message and its descriptor (owned; -1: none); None at the end.

        Raises:
            BlockingIOError: nothing there, and ``wait`` is false.
            ChannelError: too long, not an object, more than one descriptor.

        """
        flags = MSG_CMSG_CLOEXEC | (0 if wait else MSG_DONTWAIT)
        try:
            data, ancillary, state, _ = self._socket.recvmsg(
                PACKET_LIMIT_BYTES, CMSG_SPACE(_CREDENTIALS.size) + CMSG_LEN(_FD.size), flags
            )
        except ConnectionResetError:
            return None, -1
        fds: list[int] = []
        for level, kind, content in ancillary:
            if (level, kind) == (SOL_SOCKET, SCM_RIGHTS):
                fds += (
                    fd for (fd,) in _FD.iter_unpack(content[: len(content) // _FD.size * _FD.size])
                )
            elif (level, kind) == (SOL_SOCKET, SCM_CREDENTIALS):
                self.sender = _CREDENTIALS.unpack(content)[0]
        if not data and not fds:
            return None, -1
        if state & (MSG_TRUNC | MSG_CTRUNC):
            for fd in fds:
                os.close(fd)
            raise ChannelError("a message was cut off")
        return _decode(data), fds[0] if fds else -1


def open_channel() -> tuple[Channel, Channel]:
    """Return two connected ends, both close-on-exec: the parent's and the child's."""
    one, other = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
    one.setsockopt(SOL_SOCKET, SO_PASSCRED, 1)
    return Channel(one), Channel(other)


def open_gift_line() -> tuple[Channel, Channel]:
    """Return the same without ``sender``: what knows it gets an abstract name as it sends."""
    one, other = socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0)
    return Channel(one), Channel(other)


def adopt(fd: int) -> Channel:
    """Return the end whose descriptor is ``fd``."""
    return Channel(socket(AF_UNIX, SOCK_SEQPACKET, 0, fd))


def ask_child(
    flags: int, child: Callable[[Channel], NoReturn]
) -> tuple[dict[str, Any] | None, int]:
    """Clone a process that says one thing, and return that and the descriptor that came with it.

    Args:
        flags: CLONE_NEW* of the process.
        child: run there with its end of the line; it never returns.

    Returns:
        The message, None of a process that ended without a word; and the descriptor, owned, -1 if
        there was none.

    Raises:
        ChannelError: as ``Channel.receive``.

    Blocks: until the process has ended.

    """
    ours, theirs = open_channel()
    try:
        pid, pidfd = process.clone(flags)
        if pid == 0:
            child(theirs)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)
        theirs.close()
        return ours.receive(wait=True)
    finally:
        theirs.close()
        ours.close()


def _read_file(fd: int) -> bytes:
    """Return all of the file; closes ``fd``."""
    with open(fd, "rb", buffering=0) as file:
        file.seek(0)
        return file.readall()


def _decode(data: bytes) -> dict[str, Any]:
    try:
        message = json_text.decode(data)
    except (ValueError, RecursionError) as error:
        raise ChannelError(f"not a message: {error}") from None
    if not isinstance(message, dict):
        raise ChannelError("not a message: no object")
    return message
