"""The mounts a root is made of: what a snapshotter described, or the bundle's directory.

Spec: docs/architecture.md 3.1 and 3.2; overlayfs of the kernel's Documentation/filesystems.
"""

from __future__ import annotations

import errno
import os

from cais.errors import UnsupportedError
from cais.linux import credentials, mount
from cais.linux.syscalls import KernelError
from cais.runtime import bind_sources
from cais.runtime.mount_errors import explained
from cais.runtime.mounts import MountPlan, overlay_layers, split_layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from contextlib import AbstractContextManager

    from cais.runtime.root_plan import RootPlan

_ROOT_TEMPORARY = "rootfs"
_SERVED = "fuse-overlayfs"


def open_layers(plan: RootPlan, *, alone: bool = True) -> None:
    """Make every layer as a detached mount; one of the root's directory if there is none.

    Those that are there already (``open_served_layers``) stay.

    Args:
        plan: gets the descriptors.
        alone: in a mount namespace of the caller's own, of which nothing below the bundle reaches
            the host's: older kernels can stack some layers only where they are mounted.

    """
    if not plan.layers:
        layer = MountPlan("bind", plan.path, "/")
        layer.recursive = True
        plan.layers.append(layer)
    for layer in plan.layers:
        if layer.tree_fd < 0:
            with explained(layer):
                _open_layer(plan, layer, alone=alone)


def open_served_layers(plan: RootPlan) -> None:
    """Make the layers that need a process to serve them, which must be none of the container's."""
    for layer in plan.layers:
        if layer.kind == _SERVED:
            with explained(layer):
                layer.tree_fd = _new_served_layer(layer)


def _open_layer(plan: RootPlan, layer: MountPlan, *, alone: bool) -> None:
    if layer.kind == "bind":
        bind_sources.open_bind(layer)
    elif layer.kind == _SERVED:
        layer.tree_fd = _new_served_layer(layer)
    else:
        layer.tree_fd = _new_layer(plan, layer, alone=alone)


def _new_served_layer(layer: MountPlan) -> int:
    # Only here: most hosts have an overlayfs.
    from cais.runtime import fuse_layers

    if layer.idmap:
        raise UnsupportedError(f"{layer.kind} cannot show its layers ID-mapped")
    return fuse_layers.new_layer(layer.options, layer.set)


def _new_layer(plan: RootPlan, layer: MountPlan, *, alone: bool) -> int:
    opened: list[int] = []
    try:
        base_fd = _open_mapped_base(layer)
        if base_fd >= 0:
            opened.append(base_fd)
        options = _below(layer, f"/proc/self/fd/{base_fd}") if base_fd >= 0 else layer.options
        short = [(key, _short(value, opened)) for key, value in overlay_layers(options)]
        with _as_owner(base_fd):
            return mount.new_mount(layer.kind, short, layer.set, layer.source)
    except KernelError as error:
        if error.errno != errno.EINVAL or layer.kind != "overlay":
            raise
        try:
            return _new_layer_by_path(plan, layer, alone=alone)
        except OSError:
            raise error from None  # its text has the kernel's own explanation
    finally:
        for fd in opened:
            os.close(fd)


def _new_layer_by_path(plan: RootPlan, layer: MountPlan, *, alone: bool) -> int:
    """Make an overlay where ``lowerdir+`` is unknown (before Linux 6.7), with mount(2).

    That takes a path to mount at, which must be none of the host's: whoever is in no mount
    namespace of its own has a process do it that is.
    """
    target = os.path.join(plan.bundle, _ROOT_TEMPORARY)
    os.makedirs(target, 0o700, exist_ok=True)
    if alone:
        return _stack_at(target, layer)
    # Only here: no kernel since Linux 6.7 needs it.
    from cais.runtime import apart

    return apart.make_tree(lambda: _stack_at(target, layer), [layer.idmap_fd])


def _stack_at(target: str, layer: MountPlan) -> int:
    """Mount an overlay at ``target``, copy it detached and unmount it.

    fsconfig(2) takes 255 bytes of ``lowerdir``, mount(2) takes a page of options: enough for 500
    names that are relative to where they all lie, if they lie together. ID-mapped layers must be
    mounted somewhere then (before Linux 6.15): it is below the overlay for a moment, and no peer
    of the mount it was copied from, which would get the overlay too.
    """
    opened: list[int] = []
    base_fd = _open_mapped_base(layer)
    home_fd = os.open(".", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if base_fd >= 0:
            mount.set_attributes(base_fd, propagation=mount.MS_PRIVATE)
            mount.place_at(base_fd, target)
        os.chdir(target if base_fd >= 0 else _base(layer))
        try:
            options = _page_of_options(_below(layer, ""), opened)
            with _as_owner(base_fd):
                mount.mount_over(layer.kind, layer.source or layer.kind, target, options)
            try:
                tree_fd = mount.clone_tree(target)
            finally:
                mount.unmount(target, detach=True)
        finally:
            os.chdir("/")
            if base_fd >= 0:
                mount.unmount(target, detach=True)
    finally:
        os.fchdir(home_fd)
        for fd in (home_fd, base_fd, *opened):
            if fd >= 0:
                os.close(fd)
    if layer.set:
        mount.set_attributes(tree_fd, set_bits=layer.set)
    return tree_fd


def _open_mapped_base(layer: MountPlan) -> int:
    """Return the directory all layers lie in as an ID-mapped mount; -1: they shall not be mapped.

    One for all: overlayfs wants the upper and the work directory on the same mount.
    """
    if layer.idmap_fd < 0:
        return -1
    base_fd = mount.clone_tree(_base(layer))
    try:
        mount.map_identities(base_fd, layer.idmap_fd)
    except BaseException:
        os.close(base_fd)
        raise
    return base_fd


def _as_owner(base_fd: int) -> AbstractContextManager[None]:
    """Mount as who owns the layers: an overlay writes its own files as its mounter.

    The host's root has no id on an ID-mapped mount, and could make nothing there.
    """
    if base_fd < 0:
        return _AsWeAre()
    owner = os.fstat(base_fd)
    return credentials.acting_as(owner.st_uid, owner.st_gid)


class _AsWeAre:
    __slots__ = ()

    def __enter__(self) -> None:
        return

    def __exit__(self, *_: object) -> None:
        return


def _directories(layer: MountPlan) -> list[str]:
    return [path for key, value in layer.options if value for path in _paths(key, value)]


def _paths(key: str, value: str) -> list[str]:
    if key == "lowerdir":
        return split_layers(value)
    return [value] if key in ("upperdir", "workdir") else []


def _base(layer: MountPlan) -> str:
    """Return the deepest directory above all that the layers are."""
    return os.path.commonpath([os.path.dirname(path) for path in _directories(layer)])


def _below(layer: MountPlan, base: str) -> list[tuple[str, str | None]]:
    """Return the options with each path begun anew: at ``base``, or relative if that is empty."""
    start = len(_base(layer).rstrip("/")) + 1
    prefix = f"{base}/" if base else ""
    result: list[tuple[str, str | None]] = []
    for key, value in layer.options:
        moved = [prefix + path[start:] for path in (_paths(key, value) if value else ())]
        if key == "lowerdir":
            moved = [path.replace("\\", "\\\\").replace(":", "\\:") for path in moved]
        result.append((key, ":".join(moved) if moved else value))
    return result


def _page_of_options(options: Sequence[tuple[str, str | None]], opened: list[int]) -> str:
    """Return the options as mount(2) takes them, long names of layers by their descriptors."""
    text = _option_text(options)
    if mount.fits_in_page(text):
        return text
    return _option_text([(key, _short_layers(key, value, opened)) for key, value in options])


def _short_layers(key: str, value: str | None, opened: list[int]) -> str | None:
    if key != "lowerdir" or value is None:
        return value
    return ":".join(_by_descriptor(layer, opened) for layer in split_layers(value))


def _option_text(options: Sequence[tuple[str, str | None]]) -> str:
    return ",".join(key if value is None else f"{key}={value}" for key, value in options)


def _short(value: str | None, opened: list[int]) -> str | None:
    """Replace a path too long for fsconfig by a descriptor's, which stays open for the mount."""
    if value is None or mount.fits_in_context(value):
        return value
    return _by_descriptor(value, opened)


def _by_descriptor(path: str, opened: list[int]) -> str:
    opened.append(os.open(path, os.O_PATH | os.O_CLOEXEC))
    return f"/proc/self/fd/{opened[-1]}"
