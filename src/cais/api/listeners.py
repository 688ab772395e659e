"""Listening sockets for ``-H``: unix sockets, and TCP that only certified clients may use.

A unix socket is 0660, root's and perhaps a group's. One that is left over is replaced only if
nobody answers on it. Plain TCP is root access for whoever reaches it (SECURITY.md 3.7): refused.
"""

from __future__ import annotations

import errno
import grp
import os
import socket
import stat
from typing import NamedTuple

from cais.errors import ConflictError, InvalidArgumentError, UnsupportedError

BACKLOG = 4096
"""As much as the kernel gives by default: a connect(2) beyond it fails instead of waiting."""
_MODE = 0o660


class UnixAddress(NamedTuple):
    """``unix:///path``."""

    path: str

    def __str__(self) -> str:
        return self.path


class TcpAddress(NamedTuple):
    """``tcp://host:port``."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_host(text: str) -> UnixAddress | TcpAddress:
    """Read one ``-H``.

    Raises:
        InvalidArgumentError: no address of a kind dockerd knows.
        UnsupportedError: ``fd://`` and other kinds that are not here.

    """
    scheme, separator, rest = text.strip().partition("://")
    if not separator:
        scheme, rest = "tcp", text.strip()
    if scheme == "unix" and rest.startswith("/"):
        return UnixAddress(rest)
    if scheme == "tcp":
        host, colon, port = rest.rpartition(":")
        if colon and port.isdigit() and 0 < int(port) < 65536:
            return TcpAddress(host.strip("[]") or "127.0.0.1", int(port))
    if scheme in {"fd", "npipe", "ssh", "http"}:
        raise UnsupportedError(f"{scheme}:// is not supported by this version of cais: {text}")
    raise InvalidArgumentError(f"Invalid bind address format: {text}")


class UnixListener:
    """Owns a listening unix socket and, until a successor replaces it, its name."""

    def __init__(self, address: UnixAddress, gid: int) -> None:
        """Listen on a path, whose directory is made if need be (0711).

        Raises:
            ConflictError: somebody answers there, or it is no socket.

        """
        os.makedirs(os.path.dirname(address.path), mode=0o711, exist_ok=True)  # noqa: PTH103, PTH120
        _remove_stale(address.path)
        self.path = address.path
        self.sock = socket.socket(socket.AF_UNIX)
        previous = os.umask(0o777 & ~_MODE)  # from its first moment nobody else can connect
        try:
            self.sock.bind(self.path)
            self._identity = _identity(self.path)
            os.chown(self.path, -1, gid)
            self.sock.listen(BACKLOG)
        except BaseException:
            self.sock.close()
            raise
        finally:
            os.umask(previous)

    def close(self) -> None:
        """Stop listening and remove the name, unless it is another socket's by now."""
        self.sock.close()
        try:
            if _identity(self.path) == self._identity:
                os.unlink(self.path)  # noqa: PTH108
        except FileNotFoundError:
            pass


def open_tcp(address: TcpAddress) -> socket.socket:
    """Listen on a TCP port; the caller puts TLS in front."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    return socket.create_server((address.host, address.port), family=family, backlog=BACKLOG)


def find_group(name: str) -> int:
    """Return a group's id, given its name or number.

    Raises:
        InvalidArgumentError: no such group.

    """
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        if name.isdigit() and int(name) < 2**32 - 1:
            return int(name)
        raise InvalidArgumentError(f"group {name} not found") from None


def _remove_stale(path: str) -> None:
    try:
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            raise ConflictError(f"can't create unix socket {path}: the path exists")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(2)
        try:
            probe.connect(path)
        except OSError as exc:
            if exc.errno not in {errno.ECONNREFUSED, errno.ENOENT}:
                raise ConflictError(f"can't create unix socket {path}: {exc.strerror}") from exc
        else:
            raise ConflictError(f"can't create unix socket {path}: another daemon answers there")
    os.unlink(path)  # noqa: PTH108


def _identity(path: str) -> tuple[int, int]:
    found = os.lstat(path)
    return found.st_dev, found.st_ino
