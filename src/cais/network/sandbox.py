"""Network namespaces made ahead of their use, and the pins that keep them.

A namespace takes the shim about a third of a millisecond and a round trip; with a few in stock a
start does not wait for it. A stocked one has its ``lo`` up and nothing else, so it serves a
container with or without a bridge. The pin is a bind mount of the namespace on a file under
``<exec-root>/netns``; when pin, descriptors and processes are gone the kernel removes the
namespace and its interfaces, many in one go and off our path.
"""

import contextlib
import errno
import os
from collections.abc import Iterable, Iterator
from pathlib import Path

from cais.linux.mount import unmount
from cais.linux.netlink import route
from cais.linux.netlink.route import RouteSocket
from cais.network.endpoint import ReadyNamespace
from cais.network.errors import NetworkUnavailableError, NoReadyNamespaceError

_LOOPBACK_INDEX = 1


class Sandbox:
    """Owner of a namespace that no container has yet; ``keep`` or ``discard`` ends it."""

    def __init__(self, namespace: ReadyNamespace) -> None:
        """Take over the descriptors and the pin, also when this fails.

        Raises:
            NetworkUnavailableError: ``lo`` does not come up.

        """
        self.path = namespace.path
        self.userns_path = namespace.userns_path
        self.users = namespace.users
        self.netns_fd = namespace.netns_fd
        self.netlink = RouteSocket(namespace.netlink_fd)
        try:
            self.netlink.batch([route.set_link(_LOOPBACK_INDEX, up=True)])
        except OSError as exc:
            self.discard()
            raise NetworkUnavailableError(f"namespace {self.path}: {exc}") from exc

    def keep(self) -> None:
        """Close the descriptors; from here on the pin alone holds the namespace."""
        self.netlink.close()
        os.close(self.netns_fd)

    def discard(self) -> None:
        """Close the descriptors and remove the pins."""
        self.keep()
        for pin in self.pins():
            unpin(pin)

    def pins(self) -> list[str]:
        """Return what is pinned: the namespace, and whose it is if that is not the host's."""
        return [path for path in (self.path, self.userns_path) if path]


class SandboxPool:
    """A stock of sandboxes, oldest first."""

    def __init__(self, size: int) -> None:
        """Args: size is how many ``shortage`` aims at."""
        self._size = size
        self._ready: list[Sandbox] = []

    def shortage(self) -> int:
        """Return how many are missing."""
        return max(0, self._size - len(self._ready))

    def offer(self, namespace: ReadyNamespace) -> None:
        """Put one in stock."""
        self._ready.append(Sandbox(namespace))

    def take(self, users: str) -> Sandbox:
        """Take one out that belongs to that user namespace; the caller ends it.

        Raises:
            NoReadyNamespaceError: there is none.

        """
        for index, sandbox in enumerate(self._ready):
            if sandbox.users == users:
                return self._ready.pop(index)
        raise NoReadyNamespaceError("no network namespace is ready")

    def paths(self) -> set[str]:
        """Return the pins of those in stock."""
        return {pin for sandbox in self._ready for pin in sandbox.pins()}

    def clear(self) -> None:
        """Discard all."""
        while self._ready:
            self._ready.pop().discard()


def unpin(path: str) -> None:
    """Remove a pin: the mount, then the file. Idempotent.

    A daemon restarted in another mount namespace does not see the mount; removing the file ends
    it there too (unlink of a mount point detaches it everywhere since Linux 3.18).
    """
    try:
        unmount(path, detach=True)
    except OSError as exc:
        if exc.errno not in {errno.EINVAL, errno.ENOENT}:
            raise NetworkUnavailableError(f"release namespace: {exc}") from exc
    with contextlib.suppress(FileNotFoundError):
        Path(path).unlink()


def orphaned_pins(directory: Path, known: Iterable[str]) -> Iterator[str]:
    """Yield the pins in ``directory`` that nobody knows."""
    kept = set(known)
    with contextlib.suppress(FileNotFoundError):
        yield from (str(pin) for pin in sorted(directory.iterdir()) if str(pin) not in kept)
