"""Bind mounts before they are placed: a copy of the source's mounts, with its own attributes.

Spec: OCI runtime-spec 1.2, config.md "Linux mount options"; mount_setattr(2).
"""

from __future__ import annotations

from cais.linux import mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cais.runtime.mounts import MountPlan


def open_bind(entry: MountPlan) -> None:
    """Copy the mount(s) at the source, detached, and set everything about them but the place.

    Propagation comes last, because what is private has no peers left to be a slave of.
    """
    entry.tree_fd = mount.clone_tree(entry.source, recursive=entry.recursive)
    if entry.idmap_fd >= 0:
        mount.map_identities(entry.tree_fd, entry.idmap_fd, recursive=entry.idmap_deep)
    set_attributes(entry)


def set_attributes(entry: MountPlan) -> None:
    """Apply the options about a bind's mount(s) to what is open at ``entry.tree_fd``."""
    if entry.set or entry.clear:
        mount.set_attributes(entry.tree_fd, set_bits=entry.set, clear_bits=entry.clear)
    if entry.deep_set or entry.deep_clear:
        mount.set_attributes(
            entry.tree_fd, set_bits=entry.deep_set, clear_bits=entry.deep_clear, recursive=True
        )
    set_propagation(entry)


def set_propagation(entry: MountPlan) -> None:
    """Apply the propagation options in their order: ``slave`` then ``shared`` is both."""
    for kind, recursive in entry.propagation:
        mount.set_attributes(entry.tree_fd, propagation=kind, recursive=recursive)
