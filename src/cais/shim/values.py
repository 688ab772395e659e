"""What the engine tells a shim and what it is told: the values of the protocol.

Spec: docs/architecture.md 3.3.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.spec.identities import IdentityMaps


@dataclass(frozen=True)
class LogTarget:
    """Where and how the output of a container is logged, in Docker's ``json-file`` format.

    ``max_size`` is in bytes, None for no limit; ``max_file`` counts the current file too;
    ``attrs`` (labels and variables chosen by log options) is repeated in every line.
    """

    path: str
    max_size: int | None = 20 << 20
    max_file: int = 5
    attrs: Mapping[str, str] = field(default_factory=dict)

    def document(self) -> dict[str, Any]:
        """Return it as a request carries it."""
        return {
            "path": os.fspath(self.path),
            "max_size": self.max_size,
            "max_file": self.max_file,
            "attrs": dict(self.attrs),
        }


@dataclass(frozen=True)
class OciRuntime:
    """Another OCI runtime: its program, arguments before the command, and a directory for it."""

    path: str
    arguments: tuple[str, ...]
    root: str

    def document(self) -> dict[str, Any]:
        """Return it as a request carries it."""
        return {"path": self.path, "args": list(self.arguments), "root": self.root}


@dataclass(frozen=True)
class NamespaceOwner:
    """The user namespace that a network namespace shall belong to.

    It is pinned at ``path``, which must not exist: that at ``source``, or a new one with ``maps``.
    """

    path: str
    maps: IdentityMaps | None = None
    source: str = ""

    def document(self) -> dict[str, Any]:
        """Return it as a request carries it."""
        maps = {} if self.maps is None else self.maps.document()
        return {"path": self.path, "source": self.source or None, **maps}


@dataclass(frozen=True)
class Started:
    """The user's program has been executed. ``start_ticks`` tells a reused pid apart."""

    pid: int
    started_at_ns: int
    start_ticks: int
    warnings: tuple[str, ...] = ()

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Self:
        """Read the answer of ``start`` or ``exec``."""
        return cls(
            pid=answer["pid"],
            started_at_ns=answer["started_at_ns"],
            start_ticks=answer["start_ticks"],
            warnings=tuple(answer["warnings"]),
        )


@dataclass(frozen=True)
class ExitEvent:
    """A container (``exec_id`` None) or an exec has ended; repeated until acknowledged.

    ``code`` is 0-255, 128+n for a signal n; None when it is not known (an adopted process).
    """

    exit_seq: int
    id: str
    exec_id: str | None
    pid: int
    code: int | None
    signal: int | None
    oom_killed: bool
    exited_at_ns: int
    log_dropped: int = 0


@dataclass(frozen=True)
class OomEvent:
    """The kernel killed a process of this container for memory; the container may live on."""

    id: str
    at_ns: int


ShimEvent = ExitEvent | OomEvent


def read_event(packet: Mapping[str, Any]) -> ShimEvent:
    """Read a packet that is an event."""
    fields = {name: value for name, value in packet.items() if name != "event"}
    return OomEvent(**fields) if packet["event"] == "oom" else ExitEvent(**fields)


@dataclass(frozen=True)
class ContainerStatus:
    """What the shim knows of a container it holds. ``execs`` are the running ones, id to pid."""

    id: str
    pid: int
    start_ticks: int
    started_at_ns: int
    bundle: str
    state: str  # "starting", "running" or "paused"
    tty: bool
    execs: Mapping[str, int]
    log_dropped: int
    adopted: bool


@dataclass(frozen=True)
class ShimHello:
    """The shim's first answer: who it is, what it holds, and the exits nobody acknowledged."""

    version: int
    pid: int
    containers: tuple[ContainerStatus, ...]
    exits: tuple[ExitEvent, ...]

    @classmethod
    def read(cls, answer: Mapping[str, Any]) -> Self:
        """Read the answer of ``hello``."""
        return cls(
            version=answer["version"],
            pid=answer["pid"],
            containers=tuple(ContainerStatus(**status) for status in answer["containers"]),
            exits=tuple(ExitEvent(**exit_) for exit_ in answer["exits"]),
        )
