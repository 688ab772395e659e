"""The packets between the engine and the shim, and the path socket they travel on.

```
engine                                   shim
  hello {seq, version}            ──▶
                                  ◀──    {seq, ok, more: true, containers|exits}   as many as needed
                                  ◀──    {seq, ok, version, pid, ...}
  start {seq, id, bundle, ...}    ──▶
                                  ◀──    {seq, ok, pid, ...} or {seq, error {kind, message, errno}}
                                  ◀──    {event: "exit", exit_seq, ...}            no seq
  ack {seq, exits}                ──▶
```

A packet is one JSON object of at most ``MAX_PACKET`` bytes with at most ``MAX_FDS`` descriptors.
A peer that sends anything else is answered with an error where a ``seq`` can be read from it, and
disconnected where not even a packet can.

Spec: docs/architecture.md 3.3; unix(7) SOCK_SEQPACKET, SCM_RIGHTS, SO_PEERCRED.
"""

from __future__ import annotations

import array
import json
import os
import socket
import struct

from cais import errors
from cais.runtime.launch import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    Document = dict[str, Any]

VERSION = 1
MAX_PACKET = 64 << 10
MAX_FDS = 4
SOCKET_NAME = "shim.sock"
LOCK_NAME = "shim.lock"
LOG_NAME = "shim.log"

_FD_SPACE = socket.CMSG_SPACE(MAX_FDS * 4)
_RECEIVE_FLAGS = socket.MSG_CMSG_CLOEXEC | socket.MSG_DONTWAIT


class PacketError(errors.InvalidArgumentError):
    """What arrived is not a packet of this protocol."""


class PeerGoneError(errors.UnavailableError):
    """The other side has closed the connection."""


def encode(document: Document) -> bytes:
    """Return the packet of ``document``.

    Raises:
        PacketError: it is larger than a packet may be.

    """
    packet = json.dumps(document, separators=(",", ":")).encode()
    if len(packet) > MAX_PACKET:
        raise PacketError(f"packet of {len(packet)} bytes is over the limit of {MAX_PACKET}")
    return packet


def decode(packet: bytes) -> Document:
    """Return the object in ``packet``. PacketError: it is not one JSON object."""
    try:
        document = json.loads(packet)
    except (ValueError, RecursionError) as exc:
        raise PacketError(f"packet is not JSON: {exc}") from exc
    if not isinstance(document, dict):
        raise PacketError("packet is not a JSON object")
    return document


def receive(channel: socket.socket) -> tuple[bytes, list[int]]:
    """Take one packet and its descriptors, which the caller closes. Never blocks.

    Raises:
        BlockingIOError: nothing has arrived.
        PeerGoneError: end of the connection.
        PacketError: the packet was cut off.

    Descriptors get lost, all together, when there is no room for them in this process.

    """
    try:
        packet, ancillary, flags, _ = channel.recvmsg(MAX_PACKET, _FD_SPACE, _RECEIVE_FLAGS)
    except ConnectionError as exc:
        raise PeerGoneError("the peer closed the connection") from exc
    fds = _descriptors(ancillary)
    if flags & socket.MSG_CTRUNC:
        close_all(fds)
        fds = []
    if flags & socket.MSG_TRUNC:
        close_all(fds)
        raise PacketError(f"packet is over the limit of {MAX_PACKET} bytes")
    if not packet:
        close_all(fds)
        raise PeerGoneError("the peer closed the connection")
    return packet, fds


def send(channel: socket.socket, packet: bytes, fds: Sequence[int] = ()) -> None:
    """Send one packet; never blocks. BlockingIOError: the peer's queue is full, nothing was sent.

    PeerGoneError: nobody will read it. Descriptors are borrowed.
    """
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
    try:
        channel.sendmsg([packet], ancillary, socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
    except ConnectionError as exc:
        raise PeerGoneError("the peer closed the connection") from exc


def connect(path: str) -> socket.socket:
    """Return a connected, non-blocking channel to the shim listening at ``path``.

    The socket is named through its directory's descriptor: sun_path holds 107 bytes only.

    Raises:
        PeerGoneError: nobody listens there.

    """
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with_directory(path, channel.connect)
    except (FileNotFoundError, NotADirectoryError, ConnectionError) as exc:
        channel.close()
        raise PeerGoneError(f"no shim listens on {path}") from exc
    except BaseException:
        channel.close()
        raise
    channel.settimeout(0)
    return channel


def listen(path: str, backlog: int = 64) -> socket.socket:
    """Return a non-blocking listening socket bound at ``path``, mode 0600; replaces a dead one.

    The caller holds the lock that makes it the only shim, so what lies at ``path`` is dead.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        if os.path.lexists(path):
            os.unlink(path)
        mask = os.umask(0o177)
        try:
            with_directory(path, listener.bind)
        finally:
            os.umask(mask)
        listener.listen(backlog)
        listener.settimeout(0)
    except BaseException:
        listener.close()
        raise
    return listener


def with_directory(path: str, use: object) -> None:
    """Call ``use`` with a short name of ``path`` that is valid during the call."""
    directory, name = os.path.split(path)
    directory_fd = os.open(directory or ".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        use(f"/proc/self/fd/{directory_fd}/{name}")  # type: ignore[operator]
    finally:
        os.close(directory_fd)


def peer_credentials(channel: socket.socket) -> tuple[int, int, int]:
    """Return pid, uid and gid of the peer as it connected; pid 0: not visible from here."""
    raw = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
    pid, uid, gid = struct.unpack("3i", raw)
    return pid, uid, gid


def close_all(fds: Sequence[int]) -> None:
    """Close every descriptor."""
    for fd in fds:
        os.close(fd)


def error_document(error: BaseException) -> Document:
    """Return the ``error`` member of an answer for ``error``."""
    kind = type(error)
    while kind.__module__ != errors.__name__ and kind.__base__ is not None:
        kind = kind.__base__
    known = isinstance(error, errors.CaisError)
    message = str(error) if known else f"{type(error).__name__}: {error}"
    document = {
        "kind": kind.__name__ if known else errors.InternalError.__name__,
        "message": message[:8000],
        "errno": getattr(error, "errno", None) or getattr(error.__cause__, "errno", None),
    }
    if isinstance(error, LaunchError):
        document["reason"] = error.kind
    return document


def error_from(document: Document) -> errors.CaisError:
    """Return the exception an ``error`` member stands for: a ``LaunchError`` or a class of errors.

    The kernel's number, or None, is its attribute ``errno``.
    """
    message, code = str(document.get("message", "unknown failure")), document.get("errno")
    if "reason" in document:
        return LaunchError(message, errno=code or 0, kind=document["reason"])
    kind = getattr(errors, str(document.get("kind")), errors.InternalError)
    if not (isinstance(kind, type) and issubclass(kind, errors.CaisError)):
        kind = errors.InternalError
    error: errors.CaisError = kind(message)
    error.errno = code  # type: ignore[attr-defined]
    return error


def _descriptors(ancillary: list[tuple[int, int, bytes]]) -> list[int]:
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % fds.itemsize])
    return list(fds)
