"""Network namespaces, made by the shim itself, and the user namespaces that own some of them.

Only a single-threaded process may leave its namespace and come back: between the two every call it
makes happens in the other network. If the way back fails the process ends at once, as serving on
from a container's network would be worse than containers without a shim.

From a user namespace no process comes back. One that shall own a network namespace, so that its
root may do there what root may, is entered by a process that ends once both are pinned.
"""

from __future__ import annotations

import os
import socket

from cais.errors import AlreadyExistsError, InternalError, NotFoundError
from cais.linux import mount, namespaces

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.linux.user_namespaces import Inhabitant

    Lines = list[tuple[int, int, int]]

_PROC_SELF_NET = "/proc/self/ns/net"


class Home:
    """The network namespace this process belongs to."""

    def __init__(self) -> None:
        """Remember the present one."""
        self._fd = os.open(_PROC_SELF_NET, os.O_RDONLY | os.O_CLOEXEC)

    def create(self, path: str, owner: Owner | None = None) -> tuple[int, int]:
        """Make a namespace and pin it at ``path``, which must not exist.

        Args:
            path: where nothing may be yet.
            owner: the user namespace it belongs to; None: our own.

        Returns:
            The namespace and a NETLINK_ROUTE socket inside it, both owned by the caller.

        Raises:
            AlreadyExistsError: there is something at ``path``; it is left alone.
            InternalError: the kernel refused; nothing is left.

        """
        _make_file(path)
        try:
            netns_fd = self._unshare(path) if owner is None else owner.make(path)
        except OSError as exc:
            os.unlink(path)
            raise InternalError(f"cannot make a network namespace at {path}: {exc}") from exc
        except BaseException:
            os.unlink(path)
            raise
        try:
            return netns_fd, self.open_netlink(netns_fd)
        except BaseException:
            os.close(netns_fd)
            _unpin(path)
            if owner is not None:
                _unpin(owner.path)
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
                _pin(_PROC_SELF_NET, path)
            except BaseException:
                os.close(netns_fd)
                raise
        finally:
            self._return()
        return netns_fd

    def _return(self) -> None:
        namespaces.return_home(self._fd, namespaces.CLONE_NEWNET)


class Owner:
    """The user namespace of a network namespace to be made: a new one, or one that is there."""

    __slots__ = ("_maps", "_source", "path")

    def __init__(self, path: str, source: str | None, maps: tuple[Lines, Lines]) -> None:
        """Describe it.

        Args:
            path: where it is pinned; must not exist.
            source: where it is there already; None for a new one.
            maps: the (inside, outside, count) of users and of groups, for a new one.

        """
        self.path = path
        self._source = source
        self._maps = maps

    def make(self, path: str) -> int:
        """Make a network namespace that it owns, pin both; return that namespace (owned).

        Raises:
            AlreadyExistsError: there is something at the place of one of them.
            OSError: the kernel refuses; nothing is left of either, but for the file at ``path``.

        """
        _make_file(self.path)
        try:
            with self._inhabitant() as inhabitant:
                netns_fd = inhabitant.open("net")
                try:
                    _pin(f"/proc/{inhabitant.pid}/ns/user", self.path)
                    try:
                        _pin(f"/proc/{inhabitant.pid}/ns/net", path)
                    except BaseException:
                        mount.unmount(self.path, detach=True)
                        raise
                except BaseException:
                    os.close(netns_fd)
                    raise
        except BaseException:
            os.unlink(self.path)
            raise
        return netns_fd

    def _inhabitant(self) -> Inhabitant:
        # Only here: most containers have the host's users.
        from cais.linux.user_namespaces import Inhabitant, write_identity_maps

        if self._source is None:
            inhabitant = Inhabitant(namespaces.CLONE_NEWUSER | namespaces.CLONE_NEWNET)
            try:
                write_identity_maps(inhabitant.pid, *self._maps)
            except BaseException:
                inhabitant.__exit__()
                raise
            return inhabitant
        user_fd = os.open(self._source, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        try:
            return Inhabitant(namespaces.CLONE_NEWNET, user_fd)
        finally:
            os.close(user_fd)


def _make_file(path: str) -> None:
    try:
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o400))
    except FileExistsError as exc:
        raise AlreadyExistsError(f"{path} exists") from exc
    except OSError as exc:
        raise InternalError(f"cannot make {path}: {exc}") from exc


def _pin(source: str, path: str) -> None:
    tree_fd = mount.clone_tree(source, recursive=False)
    try:
        mount.place_at(tree_fd, path)
    finally:
        os.close(tree_fd)


def _unpin(path: str) -> None:
    mount.unmount(path, detach=True)
    os.unlink(path)
