"""Namespaces as the shim makes them, for tests that run inside ``isolated``."""

import ctypes
import os
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

from cais.network.endpoint import ReadyNamespace
from cais.testing.waiting import PATIENCE_S

CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


def make_namespace(path: str) -> ReadyNamespace:
    """Make and pin a namespace; this single-threaded process visits it for a moment."""
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    home_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _libc.unshare(CLONE_NEWNET) == 0
        netns_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        assert _libc.mount(b"/proc/self/ns/net", path.encode(), None, 0x1000, None) == 0
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        netlink = socket.socket(socket.AF_NETLINK, kind, socket.NETLINK_ROUTE)
        return ReadyNamespace(path, netns_fd, netlink.detach())
    finally:
        assert _libc.setns(home_fd, CLONE_NEWNET) == 0
        os.close(home_fd)


def remove_namespace(path: str) -> None:
    """Undo ``make_namespace``; its descriptors are the caller's."""
    assert _libc.umount2(path.encode(), 0) == 0
    os.unlink(path)


@contextmanager
def inside(path: str) -> Iterator[None]:
    """Run the block in the network namespace pinned at ``path``."""
    home_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    there_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        assert _libc.setns(there_fd, CLONE_NEWNET) == 0
        yield
    finally:
        assert _libc.setns(home_fd, CLONE_NEWNET) == 0
        os.close(home_fd)
        os.close(there_fd)


def ip(*arguments: str) -> str:
    """Run ip(8) in the current namespace."""
    return subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True).stdout


def exchange(
    server_path: str | None, client_path: str | None, address: str, timeout_s: float = PATIENCE_S
) -> str:
    """Connect from one namespace (None = here) to another; return the peer the server saw."""
    with _maybe(server_path):
        server = socket.create_server((address, 0))
    with server:
        with _maybe(client_path):
            client = socket.create_connection((address, server.getsockname()[1]), timeout=timeout_s)
        with client:
            connection, peer = server.accept()
            connection.close()
    return str(peer[0])


@contextmanager
def _maybe(path: str | None) -> Iterator[None]:
    if path is None:
        yield
    else:
        with inside(path):
            yield
