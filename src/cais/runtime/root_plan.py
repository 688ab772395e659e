"""What the root file system of a container shall be, as one value the steps share."""

from __future__ import annotations

from cais.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.runtime.devices import Device
    from cais.runtime.mounts import MountPlan


class RootPlan:
    """What the root file system shall be; descriptors appear in it as the steps run."""

    __slots__ = (
        "binds_devices",
        "bundle",
        "cgroup_controllers",
        "cgroup_directories",
        "cgroup_links",
        "cgroup_private",
        "devices",
        "has_host_trees",
        "hierarchy_trees",
        "kcore",
        "layers",
        "masked",
        "mounts",
        "null_fd",
        "path",
        "pivots",
        "propagation",
        "read_only",
        "read_only_paths",
        "sysctls",
        "unified",
    )

    def __init__(self, bundle: str) -> None:
        self.bundle = bundle
        self.layers: list[MountPlan] = []
        self.path = ""
        self.has_host_trees = False  # the bind sources and the layers are open
        self.pivots = True
        self.mounts: list[MountPlan] = []
        self.masked: Sequence[str] = ()
        self.read_only_paths: Sequence[str] = ()
        self.read_only = False
        self.propagation = (mount.MS_PRIVATE, True)  # MS_*, and whether also of what is below
        self.devices: list[Device] = []
        self.binds_devices = False  # a user namespace has no nodes of its own
        self.sysctls: list[tuple[str, str]] = []
        self.cgroup_directories: list[tuple[str, str]] = []  # (name in /sys/fs/cgroup, directory)
        self.cgroup_controllers: dict[str, list[str]] = {}  # of those to be mounted anew
        self.cgroup_links: list[tuple[str, str]] = []  # (controller, name of its hierarchy)
        self.hierarchy_trees: list[tuple[str, int]] = []
        self.cgroup_private = False
        self.unified = False
        self.kcore = False
        self.null_fd = -1

    def idmap_fds(self) -> list[int]:
        """Return the user namespaces of ID-mapped mounts, each once."""
        entries = (*self.layers, *self.mounts)
        return list(dict.fromkeys(entry.idmap_fd for entry in entries if entry.idmap_fd >= 0))

    def find_mount(self, destination: str) -> MountPlan | None:
        """Return the last mount at ``destination``: the one that is visible."""
        for entry in reversed(self.mounts):
            if entry.destination == destination:
                return entry
        return None
