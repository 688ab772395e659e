"""Network namespaces, made by the shim itself.

Only a single-threaded process may leave its namespace and come back: between the two every call it
makes happens in the other network. If the way back fails the process ends at once, as serving on
from a container's network would be worse than containers without a shim.
"""

from __future__ import annotations

import os
import socket

from cais.errors import AlreadyExistsError, InternalError, NotFoundError
from cais.linux import mount, namespaces

_PROC_SELF_NET = "/proc/self/ns/net"


class Home:
    """The network namespace this process belongs to."""

    def __init__(self) -> None:
        """Remember the present one."""
        self._fd = os.open(_PROC_SELF_NET, os.O_RDONLY | os.O_CLOEXEC)

    def create(self, path: str) -> tuple[int, int]:
        """Make a namespace and pin it at ``path``, which must not exist.

        Returns:
            The namespace and a NETLINK_ROUTE socket inside it, both owned by the caller.

        Raises:
            AlreadyExistsError: there is something at ``path``; it is left alone.
            InternalError: the kernel refused; nothing is left.

        """
        _make_file(path)
        try:
            netns_fd = self._unshare(path)
        except OSError as exc:
            os.unlink(path)
            raise InternalError(f"cannot make a network namespace at {path}: {exc}") from exc
        try:
            return netns_fd, self.open_netlink(netns_fd)
        except BaseException:
            os.close(netns_fd)
            mount.unmount(path, detach=True)
            os.unlink(path)
            raise

    def open_netlink_at(self, path: str) -> int:
        """Return a NETLINK_ROUTE socket inside the namespace pinned at ``path``.

        NotFoundError: no namespace is pinned there.
        """
        try:
            netns_fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except OSError as exc:
            raise NotFoundError(f"no network namespace is pinned at {path}") from exc
        try:
            return self.open_netlink(netns_fd)
        finally:
            os.close(netns_fd)

    def open_netlink(self, netns_fd: int) -> int:
        """Return a NETLINK_ROUTE socket inside ``netns_fd``, owned by the caller."""
        try:
            namespaces.join(netns_fd, namespaces.CLONE_NEWNET)
        except OSError as exc:
            raise NotFoundError("no network namespace is pinned there") from exc
        try:
            channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
        except OSError as exc:
            raise InternalError(f"cannot open a netlink socket: {exc}") from exc
        finally:
            self._return()
        return channel.detach()

    def close(self) -> None:
        """Forget the namespace."""
        os.close(self._fd)

    def _unshare(self, path: str) -> int:
        namespaces.unshare(namespaces.CLONE_NEWNET)
        try:
            netns_fd = os.open(_PROC_SELF_NET, os.O_RDONLY | os.O_CLOEXEC)
            try:
                _pin(path)
            except BaseException:
                os.close(netns_fd)
                raise
        finally:
            self._return()
        return netns_fd

    def _return(self) -> None:
        namespaces.return_home(self._fd, namespaces.CLONE_NEWNET)


def _make_file(path: str) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400))
    except FileExistsError as exc:
        raise AlreadyExistsError(f"{path} exists") from exc
    except OSError as exc:
        raise InternalError(f"cannot make {path}: {exc}") from exc


def _pin(path: str) -> None:
    tree_fd = mount.clone_tree(_PROC_SELF_NET, recursive=False)
    try:
        mount.place_at(tree_fd, path)
    finally:
        os.close(tree_fd)
