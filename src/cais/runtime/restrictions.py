"""What a container must not see or change: masks, read-only paths, a read-only root.

Last of all mounts, so that none can come over them.

Spec: OCI runtime-spec 1.2, config-linux.md "Masked Paths", "Readonly Paths", "Rootfs Mount
Propagation", config.md "Root".
"""

from __future__ import annotations

from cais.linux import mount, paths
from cais.runtime import placement

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.root_plan import RootPlan

_MASK_OPTIONS = (("nr_blocks", "1"), ("nr_inodes", "1"), ("mode", "0755"))


def restrict(plan: RootPlan, root_fd: int) -> None:
    """Hide the masked paths and make others, and the root itself if asked, read-only."""
    for path in plan.read_only_paths:
        for target_fd in placement.existing(root_fd, path):
            tree_fd = mount.clone_tree("", dir_fd=target_fd, recursive=True)
            mount.set_attributes(tree_fd, set_bits=mount.MOUNT_ATTR_RDONLY, recursive=True)
            placement.place_and_close(tree_fd, target_fd)
    _mask(plan, root_fd)
    kind, recursive = plan.propagation
    if kind != mount.MS_PRIVATE:  # which it is already, like all below
        mount.set_attributes(root_fd, propagation=kind, recursive=recursive)
    if plan.read_only:
        mount.set_attributes(root_fd, set_bits=mount.MOUNT_ATTR_RDONLY)


def _mask(plan: RootPlan, root_fd: int) -> None:
    null = _Cover(plan.null_fd)
    empty = _Cover(-1)
    for path in plan.masked:
        for target_fd in placement.existing(root_fd, path):
            if not paths.is_directory(target_fd):
                null.put(target_fd)
                continue
            if empty.tree_fd < 0:
                empty.tree_fd = mount.new_mount(
                    "tmpfs", _MASK_OPTIONS, mount.MOUNT_ATTR_RDONLY, "tmpfs"
                )
            empty.put(target_fd)


class _Cover:
    """One mount put over many places: the first time itself, then copies of itself.

    Only a mount that is in this namespace can be copied (until Linux 6.15), so a detached one
    must be placed before it can be copied by its descriptor.
    """

    __slots__ = ("_placed", "tree_fd")

    def __init__(self, tree_fd: int) -> None:
        self.tree_fd = tree_fd
        self._placed = False

    def put(self, target_fd: int) -> None:
        if not self._placed:
            mount.place(self.tree_fd, target_fd)
            self._placed = True
        else:
            placement.place_and_close(mount.clone_tree("", dir_fd=self.tree_fd), target_fd)
