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
4. ``restrict``: masks and read-only paths last, so that no mount can come over them.
"""

from __future__ import annotations

import errno
import os

from cais.errors import InvalidArgumentError
from cais.linux import mount, paths
from cais.linux.syscalls import KernelError
from cais.runtime import cgroup_mounts, devices, pivot, sysctls
from cais.runtime.launch import LaunchError
from cais.runtime.mounts import PROC_TARGETS, MountPlan, overlay_layers, split_layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_BASE = ("/proc", "/sys", "/dev")  # never through a link of the image (CVE-2019-19921)
_MASK_OPTIONS = (("nr_blocks", "1"), ("nr_inodes", "1"), ("mode", "0755"))
_ROOT_TEMPORARY = "rootfs"


class RootPlan:
    """What the root file system shall be; descriptors appear in it as the steps run."""

    __slots__ = (
        "bundle",
        "cgroup_directories",
        "cgroup_links",
        "cgroup_private",
        "devices",
        "hierarchy_trees",
        "kcore",
        "layers",
        "masked",
        "mounts",
        "null_fd",
        "path",
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
        self.mounts: list[MountPlan] = []
        self.masked: Sequence[str] = ()
        self.read_only_paths: Sequence[str] = ()
        self.read_only = False
        self.propagation = mount.MS_PRIVATE
        self.devices: list[devices.Device] = []
        self.sysctls: list[tuple[str, str]] = []
        self.cgroup_directories: list[tuple[str, str]] = []  # (name in /sys/fs/cgroup, directory)
        self.cgroup_links: list[tuple[str, str]] = []  # (controller, name of its hierarchy)
        self.hierarchy_trees: list[tuple[str, int]] = []
        self.cgroup_private = False
        self.unified = False
        self.kcore = False
        self.null_fd = -1


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
            with _explained(entry):
                entry.tree_fd = mount.clone_tree(entry.source, recursive=entry.recursive)
                _set_bind_attributes(entry)
    if alone:
        pivot.cut_propagation()
    _open_layers(plan)


def open_sources(plan: RootPlan, pid_namespace_fd: int = -1) -> None:
    """Make or open every mount, detached; in the child, before the host's tree is left.

    Args:
        plan: gets the descriptors.
        pid_namespace_fd: whose processes a proc file system shows; -1: the caller's. Borrowed.

    """
    plan.null_fd = devices.clone_null()
    plan.kcore = os.path.exists("/proc/kcore")
    if not plan.layers or plan.layers[0].tree_fd < 0:
        open_host_trees(plan, alone=True)
    else:
        pivot.cut_propagation()
    for entry in plan.mounts:
        with _explained(entry):
            if entry.kind in cgroup_mounts.KINDS:
                cgroup_mounts.open_mount(plan, entry)
            elif entry.kind != "bind":
                if entry.kind == "proc" and pid_namespace_fd >= 0:
                    entry.options.append(("pidns", f"/proc/self/fd/{pid_namespace_fd}"))
                entry.tree_fd = _new_mount(entry)


def enter(plan: RootPlan) -> int:
    """Make the root "/" and return its descriptor (O_PATH semantics, owned)."""
    root = plan.layers[0]
    with _explained(root):
        pivot.enter(root.tree_fd)
    for layer in plan.layers[1:]:
        _place(layer, root.tree_fd)
    return root.tree_fd


def assemble(plan: RootPlan, root_fd: int) -> None:
    """Place every mount, make the device nodes and links, and set the kernel parameters."""
    for entry in plan.mounts:
        with _explained(entry):
            _place(entry, root_fd)
            if entry.kind in cgroup_mounts.KINDS:
                cgroup_mounts.fill(plan, entry)
    _make_dev(plan, root_fd)
    if plan.sysctls:
        _write_sysctls(plan)


def place_console(root_fd: int, slave_fd: int) -> None:
    """Bind the terminal on /dev/console, a file of ours or one that was there (CVE-2025-52565)."""
    dev_fd = _base_directory(root_fd, "/dev")
    try:
        try:
            target_fd = paths.create_file(dev_fd, "console", 0o600)
        except FileExistsError:
            target_fd = paths.open_in_root(dev_fd, "console", follow=False)
        tree_fd = mount.clone_tree("", dir_fd=slave_fd)
        _place_and_close(tree_fd, target_fd)
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
        if error.errno == errno.ENOTDIR and list(_existing(root_fd, path)):
            message = f"Cannot mkdir: {path} is not a directory"
            raise LaunchError(message, step="mkdir", kind="user") from None


def restrict(plan: RootPlan, root_fd: int) -> None:
    """Hide the masked paths and make others, and the root itself if asked, read-only."""
    for path in plan.read_only_paths:
        for target_fd in _existing(root_fd, path):
            tree_fd = mount.clone_tree("", dir_fd=target_fd, recursive=True)
            mount.set_attributes(tree_fd, set_bits=mount.MOUNT_ATTR_RDONLY, recursive=True)
            _place_and_close(tree_fd, target_fd)
    _mask(plan, root_fd)
    if plan.propagation != mount.MS_PRIVATE:
        mount.set_attributes(root_fd, propagation=plan.propagation, recursive=True)
    if plan.read_only:
        mount.set_attributes(root_fd, set_bits=mount.MOUNT_ATTR_RDONLY)


def find_mount(plan: RootPlan, destination: str) -> MountPlan | None:
    """Return the last mount at ``destination``: the one that is visible."""
    for entry in reversed(plan.mounts):
        if entry.destination == destination:
            return entry
    return None


def _open_layers(plan: RootPlan) -> None:
    if not plan.layers:
        layer = MountPlan("bind", plan.path, "/")
        layer.recursive = True
        plan.layers.append(layer)
    for layer in plan.layers:
        with _explained(layer):
            if layer.kind == "bind":
                layer.tree_fd = mount.clone_tree(layer.source, recursive=layer.recursive)
                _set_bind_attributes(layer)
            else:
                layer.tree_fd = _new_layer(plan, layer)


def _new_layer(plan: RootPlan, layer: MountPlan) -> int:
    opened: list[int] = []
    try:
        options = [(key, _short(value, opened)) for key, value in overlay_layers(layer.options)]
        return mount.new_mount(layer.kind, options, layer.set, layer.source)
    except KernelError as error:
        if error.errno != errno.EINVAL or layer.kind != "overlay":
            raise
        try:
            return _new_layer_by_path(plan, layer, opened)
        except OSError:
            raise error from None  # its text has the kernel's own explanation
    finally:
        for fd in opened:
            os.close(fd)


def _new_layer_by_path(plan: RootPlan, layer: MountPlan, opened: list[int]) -> int:
    """Make an overlay where ``lowerdir+`` is unknown (before Linux 6.7), with mount(2).

    fsconfig(2) takes 255 bytes of ``lowerdir``, mount(2) takes a page of options.
    """
    target = os.path.join(plan.bundle, _ROOT_TEMPORARY)
    os.makedirs(target, 0o700, exist_ok=True)
    text = _option_text(layer.options)
    if not mount.fits_in_page(text):
        text = _option_text([(k, _short_layers(k, value, opened)) for k, value in layer.options])
    mount.mount_over(layer.kind, layer.source or layer.kind, target, text)
    try:
        tree_fd = mount.clone_tree(target)
    finally:
        mount.unmount(target, detach=True)
    if layer.set:
        mount.set_attributes(tree_fd, set_bits=layer.set)
    return tree_fd


def _option_text(options: Sequence[tuple[str, str | None]]) -> str:
    return ",".join(key if value is None else f"{key}={value}" for key, value in options)


def _short_layers(key: str, value: str | None, opened: list[int]) -> str | None:
    if key != "lowerdir" or value is None:
        return value
    return ":".join(_by_descriptor(layer, opened) for layer in split_layers(value))


def _short(value: str | None, opened: list[int]) -> str | None:
    """Replace a path too long for fsconfig by a descriptor's, which stays open for the mount."""
    if value is None or mount.fits_in_context(value):
        return value
    return _by_descriptor(value, opened)


def _by_descriptor(path: str, opened: list[int]) -> str:
    opened.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
    return f"/proc/self/fd/{opened[-1]}"


def _new_mount(entry: MountPlan) -> int:
    attributes = entry.set | entry.deep_set
    if entry.kind == "sysfs":
        try:
            return mount.new_mount(entry.kind, entry.options, attributes, entry.source)
        except KernelError as error:
            if error.errno != errno.EPERM:
                raise
        # The network namespace belongs to another user namespace: show the host's, read-only.
        tree_fd = mount.clone_tree("/sys", recursive=True)
        mount.set_attributes(tree_fd, set_bits=mount.MOUNT_ATTR_RDONLY, recursive=True)
        return tree_fd
    return mount.new_mount(entry.kind, entry.options, attributes, entry.source)


def _set_bind_attributes(entry: MountPlan) -> None:
    if entry.set or entry.clear:
        mount.set_attributes(entry.tree_fd, set_bits=entry.set, clear_bits=entry.clear)
    if entry.deep_set or entry.deep_clear:
        mount.set_attributes(
            entry.tree_fd, set_bits=entry.deep_set, clear_bits=entry.deep_clear, recursive=True
        )
    mount.set_attributes(
        entry.tree_fd, propagation=entry.propagation, recursive=entry.propagation_deep
    )


def _place(entry: MountPlan, root_fd: int) -> None:
    if entry.kind == "bind" and not paths.is_directory(entry.tree_fd):
        target_fd = _file_target(entry, root_fd)
    elif entry.destination in _BASE:
        target_fd = _base_directory(root_fd, entry.destination)
    else:
        target_fd = paths.ensure_directory(root_fd, entry.destination)
    try:
        _check_target(entry, target_fd, root_fd)
        mount.place(entry.tree_fd, target_fd)
    finally:
        os.close(target_fd)


def _file_target(entry: MountPlan, root_fd: int) -> int:
    """Open what a file is to be mounted on: the kernel only says EINVAL about a directory."""
    target_fd = paths.ensure_file(root_fd, entry.destination)
    if paths.is_directory(target_fd):
        os.close(target_fd)
        step = f"mount src={entry.source}, dst={entry.destination}"
        raise KernelError(errno.ENOTDIR, step)
    return target_fd


def _check_target(entry: MountPlan, target_fd: int, root_fd: int) -> None:
    """Refuse what a link of the image led into procfs or to the root, and a /proc that is none.

    A mount over the root would be the root of every exec: without /proc, and without its masks.
    """
    if os.path.samestat(os.fstat(target_fd), os.fstat(root_fd)):
        raise KernelError(errno.EPERM, "mount", "the destination is the root itself")
    if paths.filesystem_type(target_fd) == paths.PROC_SUPER_MAGIC:
        if entry.destination not in PROC_TARGETS:
            raise KernelError(errno.EPERM, "mount", "the destination is inside /proc")
    elif (
        entry.destination == "/proc"
        and paths.filesystem_type(entry.tree_fd) != paths.PROC_SUPER_MAGIC
    ):
        raise KernelError(errno.EPERM, "mount", "only a proc file system can be /proc")


def _base_directory(root_fd: int, path: str) -> int:
    """Open a top directory, made if it is missing; a link of the image with its name is refused."""
    rules = paths.RESOLVE_IN_ROOT | paths.RESOLVE_NO_SYMLINKS
    try:
        return paths.open_at(root_fd, path, os.O_PATH | os.O_DIRECTORY, resolve=rules)
    except KernelError as error:
        if error.errno == errno.ELOOP:
            text = "it must not be a symbolic link"
            raise KernelError(errno.ELOOP, f"open {path}", text) from None
        if error.errno != errno.ENOENT:
            raise
    os.mkdir(path[1:], 0o755, dir_fd=root_fd)
    return paths.open_at(root_fd, path, os.O_PATH | os.O_DIRECTORY, resolve=rules)


def _make_dev(plan: RootPlan, root_fd: int) -> None:
    entry = find_mount(plan, "/dev")
    if entry is not None and entry.kind == "bind":
        return  # somebody else's /dev: nothing of ours belongs there
    dev_fd = _base_directory(root_fd, "/dev")
    try:
        devices.make_devices(root_fd, plan.devices)
        devices.make_links(dev_fd, kcore=plan.kcore)
    finally:
        os.close(dev_fd)


def _write_sysctls(plan: RootPlan) -> None:
    entry = find_mount(plan, "/proc")
    if entry is not None and entry.kind == "proc":
        sysctls.write_sysctls(entry.tree_fd, plan.sysctls)
        return
    raise InvalidArgumentError("sysctls need /proc to be mounted in the container")


def _mask(plan: RootPlan, root_fd: int) -> None:
    null = _Cover(plan.null_fd)
    empty = _Cover(-1)
    for path in plan.masked:
        for target_fd in _existing(root_fd, path):
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
            _place_and_close(mount.clone_tree("", dir_fd=self.tree_fd), target_fd)


def _existing(root_fd: int, path: str) -> Iterator[int]:
    """Yield the descriptor of ``path`` if it is there; it is closed afterwards."""
    try:
        target_fd = paths.open_in_root(root_fd, path)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            return
        raise
    try:
        yield target_fd
    finally:
        os.close(target_fd)


def _place_and_close(tree_fd: int, target_fd: int) -> None:
    try:
        mount.place(tree_fd, target_fd)
    finally:
        os.close(tree_fd)


class _explained:  # noqa: N801 - reads as a function
    """Turn a kernel error inside into Docker's text about this mount."""

    __slots__ = ("_entry",)

    def __init__(self, entry: MountPlan) -> None:
        self._entry = entry

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, OSError):
            message = f"{self._entry.describe()}: {_sentence(error)}"
            raise LaunchError(message, errno=error.errno or 0, step="mount") from error


def _sentence(error: OSError) -> str:
    text = error.strerror or str(error)
    why = os.strerror(error.errno or 0)
    return text.replace(why, why.lower())
