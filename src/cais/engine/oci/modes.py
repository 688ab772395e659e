"""The namespace modes of HostConfig (``host``, ``container:<id>``, ``private``, ...), parsed.

Docker's words: an empty mode is the daemon's default; ``container:`` shares another's namespace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError

if TYPE_CHECKING:
    from cais.spec.container import HostConfig

CONTAINER = "container:"


def other_container(mode: str) -> str | None:
    """Return the name in ``container:<name>``, None for any other mode."""
    return mode.removeprefix(CONTAINER) if mode.startswith(CONTAINER) else None


def is_private_network(mode: str) -> bool:
    """Whether the container has a network namespace of its own, ``none`` included."""
    return mode != "host" and not mode.startswith(CONTAINER)


def check_modes(host_config: HostConfig) -> None:
    """Refuse a mode that is none.

    Raises:
        InvalidArgumentError: Docker's texts.

    """
    if not _is_mode(host_config.ipc_mode, ("", "none", "host", "private", "shareable")):
        raise InvalidArgumentError(f"invalid IPC mode: {host_config.ipc_mode[:128]}")
    if not _is_mode(host_config.pid_mode, ("", "host")):
        raise InvalidArgumentError(f"invalid PID mode: {host_config.pid_mode[:128]}")
    if host_config.uts_mode not in ("", "host"):
        raise InvalidArgumentError(f"invalid UTS mode: {host_config.uts_mode[:128]}")
    if host_config.userns_mode not in ("", "host"):
        raise InvalidArgumentError(f"invalid user namespace mode: {host_config.userns_mode[:128]}")
    if host_config.cgroupns_mode not in ("", "private", "host"):
        text = host_config.cgroupns_mode[:128]
        raise InvalidArgumentError(f"invalid cgroup namespace mode: {text}")
    if other_container(host_config.network_mode) == "":
        raise InvalidArgumentError("invalid container format container:<name|id>")


def _is_mode(mode: str, words: tuple[str, ...]) -> bool:
    return mode in words or bool(other_container(mode))
