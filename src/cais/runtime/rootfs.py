"""The container's root file system, made by the child in its own mount namespace.

Order, and why:
1. ``open_sources``: everything that is looked up by a host path becomes a descriptor, while no
   file of the container is in reach. Copies of mounts keep their peers here, which is what
   ``rslave`` and ``rshared`` need; file systems such as proc are made while the host's full
   /proc is visible, which a user namespace needs.
   Then all propagation is cut.
2. ``enter``: the root is placed and becomes "/". From here on no path of the host exists, so a link
   in the image can lead nowhere else.
3. ``assemble``: each mount is placed on a descriptor that openat2 found below the root.
4. ``restrictions.restrict``: masks and read-only paths.

Where hooks must see the finished root by its path, ``show`` and ``assemble`` come before it is "/".
"""

from __future__ import annotations

import errno
import os

from cais.errors import InvalidArgumentError
from cais.linux import mount, namespaces, paths
from cais.linux.syscalls import KernelError
from cais.runtime import (
    bind_sources,
    cgroup_mounts,
    devices,
    foreign_proc,
    pivot,
    placement,
    root_layers,
    small_files,
    sysctls,
)
from cais.runtime.launch import LaunchError
from cais.runtime.mount_errors import explained

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.mounts import MountPlan
    from cais.runtime.root_plan import RootPlan

# File systems that live in memory: read-only is what their mount is, not what they are.
_MEMORY_KINDS = frozenset(
    {"proc", "sysfs", "tmpfs", "devpts", "mqueue", "ramfs", "cgroup", "cgroup2", "overlay"}
)


def open_host_trees(plan: RootPlan, *, alone: bool = False) -> None:
    """Open every bind source and make the root, as detached mounts.

    The parent does this for a container with a user namespace, whose root may neither mount an
    overlay with the host's privileges nor walk the host's private directories.

    Args:
        plan: gets the descriptors.
        alone: in a mount namespace of the container's own, where propagation may be cut once the
            bind sources, which can want theirs, are open.

    """
    for entry in plan.mounts:
        if entry.kind == "bind":
            with explained(entry):
                bind_sources.open_bind(entry)
    if alone:
        pivot.cut_propagation()
    root_layers.open_layers(plan, alone=alone)
    plan.has_host_trees = True


def open_sources(plan: RootPlan, pid_namespace_fd: int = -1) -> None:
    """Make or open every mount, detached; in the child, before the host's tree is left.

    Args:
        plan: gets the descriptors.
        pid_namespace_fd: whose processes a proc file system shows, not joined yet; -1: the
            caller's. Borrowed.

    """
    plan.null_fd = devices.clone_null()
    if plan.binds_devices and plan.devices[0].tree_fd < 0:
        devices.open_host_nodes(plan.devices)
    plan.kcore = os.path.exists("/proc/kcore")
    if not plan.has_host_trees:
        open_host_trees(plan, alone=True)
    else:
        pivot.cut_propagation()
    for entry in plan.mounts:
        with explained(entry):
            if entry.kind in cgroup_mounts.KINDS:
                cgroup_mounts.open_mount(plan, entry)
            elif entry.kind not in ("bind", "remount", small_files.KIND):
                if entry.kind == "proc" and pid_namespace_fd >= 0:
                    entry.tree_fd = _new_foreign_proc(entry, pid_namespace_fd)
                else:
                    entry.tree_fd = _new_mount(entry)
                if entry.asks_propagation:
                    bind_sources.set_propagation(entry)


def enter(plan: RootPlan) -> int:
    """Make the root "/" and return its descriptor (O_PATH semantics, owned)."""
    small_files.open_trees(plan.mounts, "/proc")  # any directory: all of them are left now
    root = plan.layers[0]
    with explained(root):
        pivot.enter(root.tree_fd, pivots=plan.pivots)
    for layer in plan.layers[1:]:
        placement.place(layer, root.tree_fd)
    return root.tree_fd


def show(plan: RootPlan, place_fd: int) -> int:
    """Put the root on the directory ``place_fd`` and return its descriptor, as ``enter`` does.

    It is not "/" yet: ``assemble`` may follow, and ``pivot.enter`` must.
    """
    small_files.open_trees(plan.mounts, place_fd)  # below the root, for hooks still see the rest
    root = plan.layers[0]
    with explained(root):
        mount.place(root.tree_fd, place_fd)
    for layer in plan.layers[1:]:
        placement.place(layer, root.tree_fd)
    return root.tree_fd


def assemble(plan: RootPlan, root_fd: int) -> None:
    """Place every mount, make the device nodes and links, and set the kernel parameters."""
    for entry in plan.mounts:
        with explained(entry):
            placement.place(entry, root_fd)
            if entry.kind in cgroup_mounts.KINDS:
                cgroup_mounts.fill(plan, entry)
    _make_dev(plan, root_fd)
    if plan.sysctls:
        _write_sysctls(plan)


def place_console(root_fd: int, slave_fd: int) -> None:
    """Bind the terminal on /dev/console, a file of ours or one that was there (CVE-2025-52565)."""
    dev_fd = placement.base_directory(root_fd, "/dev")
    try:
        try:
            target_fd = paths.create_file(dev_fd, "console", 0o600)
        except FileExistsError:
            target_fd = paths.open_in_root(dev_fd, "console", follow=False)
        tree_fd = mount.clone_tree("", dir_fd=slave_fd)
        placement.place_and_close(tree_fd, target_fd)
        os.close(target_fd)
    finally:
        os.close(dev_fd)


def make_working_directory(root_fd: int, path: str) -> None:
    """Make the working directory inside the root if it is missing (CVE-2026-55686).

    What cannot be made is left to the later chdir, which says why.

    Raises:
        LaunchError: something that is no directory has its name; the text is Docker's.

    """
    try:
        os.close(paths.ensure_directory(root_fd, path))
    except OSError as error:
        if error.errno == errno.ENOTDIR and list(placement.existing(root_fd, path)):
            message = f"Cannot mkdir: {path} is not a directory"
            raise LaunchError(message, step="mkdir", kind="user") from None


def _new_foreign_proc(entry: MountPlan, pid_namespace_fd: int) -> int:
    if foreign_proc.knows_option():
        entry.options.append(("pidns", f"/proc/self/fd/{pid_namespace_fd}"))
        return _new_mount(entry)
    return foreign_proc.new_mount(entry, pid_namespace_fd)


def _new_mount(entry: MountPlan) -> int:
    attributes = entry.set | entry.deep_set
    options = entry.options
    if attributes & mount.MOUNT_ATTR_RDONLY and entry.kind not in _MEMORY_KINDS:
        options = [*options, ("ro", None)]  # a device that cannot be written needs to be told
    if entry.copies_up:  # it is filled first
        attributes &= ~mount.MOUNT_ATTR_RDONLY
    try:
        return mount.new_mount(entry.kind, options, attributes, entry.source)
    except KernelError as error:
        if error.errno != errno.EPERM:
            raise
        if entry.kind != "sysfs":
            raise _denied(entry, error) from None
    # The network namespace belongs to another user namespace: show the host's, read-only.
    tree_fd = mount.clone_tree("/sys", recursive=True)
    mount.set_attributes(tree_fd, set_bits=mount.MOUNT_ATTR_RDONLY, recursive=True)
    return tree_fd


def _denied(entry: MountPlan, error: KernelError) -> KernelError:
    """Return the error with its reason, where it is whose the namespace is that it would show."""
    shown = {"proc": "pid", "mqueue": "ipc"}.get(entry.kind)
    if shown is None or not namespaces.is_of_another_user(shown):
        return error
    reason = f"its {shown} namespace belongs to another user namespace"
    return KernelError(errno.EPERM, error.step, reason)


def _make_dev(plan: RootPlan, root_fd: int) -> None:
    entry = plan.find_mount("/dev")
    if entry is not None and entry.kind == "bind":
        return  # somebody else's /dev: nothing of ours belongs there
    dev_fd = placement.base_directory(root_fd, "/dev")
    try:
        devices.make_devices(root_fd, plan.devices)
        devices.make_links(dev_fd, kcore=plan.kcore)
    finally:
        os.close(dev_fd)


def _write_sysctls(plan: RootPlan) -> None:
    entry = plan.find_mount("/proc")
    if entry is not None and entry.kind == "proc":
        sysctls.write_sysctls(entry.tree_fd, plan.sysctls)
        return
    raise InvalidArgumentError("sysctls need /proc to be mounted in the container")
