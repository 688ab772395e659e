"""Leases: what an operation still needs although no image refers to it yet.

Leases live in memory: a crash ends them all, and what they protected belongs to nobody, so the
next start collects it. One daemon owns a data root, so nobody else's leases exist.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Iterator
    from contextlib import AbstractContextManager


class Leases:
    """All leases of a store, and the lock under which something is added or collected."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._open: set[Lease] = set()

    def open(self) -> Lease:
        """Return a lease to be used with ``with``."""
        return Lease(self)

    def held(self) -> AbstractContextManager[object]:
        """Keep leases as they are: what is collected inside cannot be leased meanwhile."""
        return self._lock

    def names(self) -> set[str]:
        """Return every protected name."""
        with self._lock:
            return {name for lease in self._open for name in lease}


class Lease:
    """Protects names (digests of blobs, keys of snapshots) until its ``with`` block ends."""

    def __init__(self, leases: Leases) -> None:
        self._leases = leases
        self._names: set[str] = set()

    def add(self, name: str) -> None:
        """Protect a name from now on; returns before or after a collection, never during one."""
        with self._leases.held():
            self._names.add(name)

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._names))

    def __enter__(self) -> Self:
        with self._leases.held():
            self._leases._open.add(self)  # noqa: SLF001 - two halves of one thing
        return self

    def __exit__(self, *_: object) -> None:
        with self._leases.held():
            self._leases._open.discard(self)  # noqa: SLF001
