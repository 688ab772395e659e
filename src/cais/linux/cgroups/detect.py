"""Which control-group hierarchies this host has, read from the mount table.

Spec: proc(5), ``/proc/[pid]/mountinfo``; cgroups(7).
"""

from __future__ import annotations

from cais.errors import UnsupportedError
from cais.linux.cgroups import files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Literal

MOUNTINFO = "/proc/self/mountinfo"
_CONTROLLERS = frozenset(
    (
        *("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids"),
        *("hugetlb", "net_cls", "net_prio", "perf_event", "rdma", "misc"),
    )
)


class Hierarchy:
    """Where the controllers are.

    kind: ``v1``; ``hybrid``, v1 controllers beside a v2 mount that has few or none; or ``v2``.
    mounts: v1 controller, or ``name=...`` for a hierarchy without one, to mount point.
    unified: the v2 mount point, if there is one.
    unified_controllers: what ``cgroup.controllers`` of that mount lists.
    """

    __slots__ = ("kind", "mounts", "unified", "unified_controllers")

    kind: Literal["v1", "hybrid", "v2"]

    def __init__(
        self,
        mounts: Mapping[str, str],
        unified: str | None,
        unified_controllers: frozenset[str] = frozenset(),
    ) -> None:
        self.mounts = dict(mounts)
        self.unified = unified
        self.unified_controllers = unified_controllers
        if not any(name in _CONTROLLERS for name in mounts) and unified is not None:
            self.kind = "v2"
        else:
            self.kind = "hybrid" if unified is not None else "v1"

    @property
    def version(self) -> Literal[1, 2]:
        """The interface limits are set through; a hybrid host is version 1, as Docker says."""
        return 2 if self.kind == "v2" else 1

    @property
    def controllers(self) -> frozenset[str]:
        """The names of the controllers limits can be set with."""
        if self.version == 2:
            return self.unified_controllers
        return frozenset(self.mounts) & _CONTROLLERS


_cached: list[Hierarchy] = []


def detect() -> Hierarchy:
    """Return this process's view, read once: mounts made later are not seen.

    Raises:
        UnsupportedError: nothing is mounted.

    """
    if not _cached:
        with open(MOUNTINFO, encoding="utf-8", errors="surrogateescape") as table:
            _cached.append(parse_hierarchy(table.read()))
    return _cached[0]


def parse_hierarchy(mountinfo: str) -> Hierarchy:
    """Read a mount table; where one hierarchy is mounted twice, the first whole mount counts.

    Raises:
        UnsupportedError: it has no cgroup mount at all.

    """
    mounts: dict[str, str] = {}
    unified = None
    for kind, point, options, _ in sorted(_cgroup_mounts(mountinfo), key=lambda found: found[3]):
        if kind == "cgroup2":
            unified = unified or point
            continue
        for option in options:
            if option in _CONTROLLERS or option.startswith("name="):
                mounts.setdefault(option, point)
    if not mounts and unified is None:
        raise UnsupportedError("no cgroup hierarchy is mounted on this host")
    listed = files.find_text(f"{unified}/cgroup.controllers") if unified else ""
    return Hierarchy(mounts, unified, frozenset((listed or "").split()))


def _cgroup_mounts(mountinfo: str) -> Iterator[tuple[str, str, list[str], bool]]:
    """Yield type, mount point, super options, and whether only a part is mounted."""
    for line in mountinfo.splitlines():
        before, _, after = line.partition(" - ")
        kind, _, rest = after.partition(" ")
        if kind in ("cgroup", "cgroup2"):
            fields = before.split(" ")
            yield kind, _unescape(fields[4]), rest.split(" ")[-1].split(","), fields[3] != "/"


def _unescape(field: str) -> str:
    if "\\" not in field:
        return field
    for code, char in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, char)
    return field
