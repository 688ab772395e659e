"""What the container sees at /sys/fs/cgroup: its own groups, never the host's tree.

On v1 a small tmpfs with a directory for each hierarchy, each a copy of the mount of the
container's own directory (so no release_agent and no parent is in reach, CVE-2022-0492); on v2
the one hierarchy, of a cgroup namespace or again the container's own directory.
"""

from __future__ import annotations

import os

from cais.linux import mount, paths

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.linux.cgroups import Hierarchy
    from cais.runtime.mounts import MountPlan
    from cais.runtime.root_plan import RootPlan

KINDS = frozenset({"cgroup", "cgroup2"})
_TMPFS_OPTIONS = (("mode", "755"), ("size", "65536k"))


def describe(plan: RootPlan, hierarchy: Hierarchy, group: str, *, private: bool) -> None:
    """Write into ``plan`` where the container's group is; in the parent.

    Where it has none (``group`` is empty) it sees what its cgroup namespace shows of the
    hierarchies, or without such a namespace an empty directory.
    """
    plan.cgroup_private = private
    plan.unified = hierarchy.version == 2
    if not group:
        plan.cgroup_controllers = _controllers(hierarchy) if private else {}
        return
    if plan.unified:
        plan.cgroup_directories = [("", f"{hierarchy.unified}{group}")]
        return
    points = dict.fromkeys(hierarchy.mounts.values())
    plan.cgroup_directories = [(os.path.basename(point), point + group) for point in points]
    plan.cgroup_links = [
        (controller, os.path.basename(point))
        for controller, point in hierarchy.mounts.items()
        if controller != os.path.basename(point) and "=" not in controller
    ]


def _controllers(hierarchy: Hierarchy) -> dict[str, list[str]]:
    """Return the controllers of each v1 hierarchy by its directory's name."""
    found: dict[str, list[str]] = {}
    for controller, point in hierarchy.mounts.items():
        found.setdefault(os.path.basename(point), []).append(controller)
    return found


def _new_hierarchy(controllers: Iterable[str]) -> int:
    options: list[tuple[str, str | None]] = []
    for controller in controllers:
        key, equals, value = controller.partition("=")
        options += [("none", None), (key, value)] if equals else [(key, None)]
    return mount.new_mount("cgroup", options, 0, "cgroup")


def open_mount(plan: RootPlan, entry: MountPlan) -> None:
    """Make the mount of ``entry``, detached, and open the hierarchies; before the pivot."""
    attributes = entry.set | entry.deep_set
    if plan.unified and plan.cgroup_private:
        entry.tree_fd = mount.new_mount("cgroup2", (), attributes, "cgroup")
        return
    trees = [(name, mount.clone_tree(path)) for name, path in plan.cgroup_directories]
    trees += [(name, _new_hierarchy(wanted)) for name, wanted in plan.cgroup_controllers.items()]
    for _, tree_fd in trees:
        mount.set_attributes(tree_fd, set_bits=attributes, propagation=mount.MS_PRIVATE)
    if plan.unified and trees:
        entry.tree_fd = trees[0][1]
        return
    plan.hierarchy_trees = trees
    writable = attributes & ~mount.MOUNT_ATTR_RDONLY
    entry.tree_fd = mount.new_mount("tmpfs", _TMPFS_OPTIONS, writable, "cgroup")


def fill(plan: RootPlan, entry: MountPlan) -> None:
    """Place the hierarchies in the tmpfs of ``entry``, which has been placed itself."""
    if plan.unified:
        return
    for name, tree_fd in plan.hierarchy_trees:
        target_fd = paths.ensure_directory(entry.tree_fd, name)
        mount.place(tree_fd, target_fd)
        os.close(target_fd)
        os.close(tree_fd)
    for controller, name in plan.cgroup_links:
        os.symlink(name, controller, dir_fd=entry.tree_fd)
    if (entry.set | entry.deep_set) & mount.MOUNT_ATTR_RDONLY:
        mount.set_attributes(entry.tree_fd, set_bits=mount.MOUNT_ATTR_RDONLY)
