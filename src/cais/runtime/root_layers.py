"""The mounts a root is made of: what a snapshotter described, or the bundle's directory.

Spec: docs/architecture.md 3.1 and 3.2; overlayfs of the kernel's Documentation/filesystems.
"""

from __future__ import annotations

import errno
import os

from cais.linux import mount
from cais.linux.syscalls import KernelError
from cais.runtime import bind_sources
from cais.runtime.mount_errors import explained
from cais.runtime.mounts import MountPlan, overlay_layers, split_layers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.runtime.root_plan import RootPlan

_ROOT_TEMPORARY = "rootfs"


def open_layers(plan: RootPlan) -> None:
    """Make every layer as a detached mount; one of the root's directory if there is none."""
    if not plan.layers:
        layer = MountPlan("bind", plan.path, "/")
        layer.recursive = True
        plan.layers.append(layer)
    for layer in plan.layers:
        with explained(layer):
            if layer.kind == "bind":
                bind_sources.open_bind(layer)
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
