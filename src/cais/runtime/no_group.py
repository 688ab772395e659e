"""The control group of a container that has none: rootless, where none may be made.

Such a container runs all the same, as long as no limit was asked for.
"""
# ruff: noqa: D102 - the methods are documented on Cgroup

from __future__ import annotations

import errno

from cais.errors import UnsupportedError
from cais.linux.cgroups import Cgroup
from cais.runtime.launch import LaunchError
from cais.runtime.reasons import sentence

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Any, NoReturn

    from cais.spec.runtime import Resources

_DENIED = (errno.EACCES, errno.EPERM, errno.EROFS)


def is_denied(error: OSError) -> bool:
    """Say whether a group could not be made for want of a right."""
    return error.errno in _DENIED


def instead(resources: Resources, error: OSError) -> NoGroup:
    """Return what a container has whose group failed with ``error``.

    Raises:
        LaunchError: it was to have limits. Device rules are none: whoever has no rights has no
            device nodes but the host's, with their permissions.

    """
    limits = [name for name, value in resources.items() if value and name != "devices"]
    if limits:
        raise LaunchError(
            f"rootless container cannot have limits ({', '.join(limits)}): {sentence(error)}; "
            "they need a delegated control group, named by linux.cgroupsPath",
            errno=error.errno or 0,
            step="cgroup",
        ) from error
    return NoGroup()


class NoGroup(Cgroup):
    """Nothing: it has no path and no processes, limits nothing and is never there."""

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__("")

    def create(self, resources: Resources) -> None:
        del resources

    def apply(self, resources: Resources) -> None:
        del resources
        self._refuse()

    def add(self, pid: int) -> None:
        del pid

    def join_fds(self) -> Sequence[int]:
        return []

    def join_fds_below(self, subgroups: Mapping[str, str]) -> Sequence[int]:
        del subgroups
        self._refuse()

    def exists(self) -> bool:
        return False

    def freeze(self, timeout_s: float = 10) -> None:
        del timeout_s
        self._refuse()

    def thaw(self) -> None:
        self._refuse()

    def is_frozen(self) -> bool:
        return False

    def pids(self) -> list[int]:
        self._refuse()

    def oom_kills(self) -> int:
        return 0

    def oom_event_fd(self) -> int | None:
        return None

    def stats(self) -> dict[str, Any]:
        self._refuse()

    def details(self) -> dict[str, Any]:
        self._refuse()

    def _directories(self) -> Sequence[str]:
        return []

    def _refuse(self) -> NoReturn:
        raise UnsupportedError("this rootless container has no control group")
