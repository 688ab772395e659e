"""The owner, mode, times and extended attributes of what a layer's entry became."""

from __future__ import annotations

import contextlib
import errno
import os
import stat
from typing import TYPE_CHECKING

from cais.images.layer_tree import DEFAULT_ACL, set_mode_at
from cais.images.tar import SYMLINK
from cais.linux.whiteouts import is_steering_attribute

if TYPE_CHECKING:
    from cais.images.tar import Entry


def set_attributes(fd: int, entry: Entry) -> None:
    """Set owner, mode and extended attributes, each only where it is not so already.

    Every change is an entry in the file system's journal, and most files are born right. A
    directory's default ACL is left to ``LayerTree.set_default_acls``.
    """
    facts = os.fstat(fd)
    is_owned = (facts.st_uid, facts.st_gid) == (entry.uid, entry.gid)
    if not is_owned:
        os.fchown(fd, entry.uid, entry.gid)  # first: it clears set-id bits and capabilities
    if not is_owned or stat.S_IMODE(facts.st_mode) != entry.mode:
        os.fchmod(fd, entry.mode)
    if entry.xattrs:
        _set_xattrs(fd, entry.xattrs, follow=True)


def set_attributes_at(parent_fd: int, name: str, entry: Entry) -> None:
    """Give a node that must not be opened its owner, mode, attributes and time."""
    os.chown(name, entry.uid, entry.gid, dir_fd=parent_fd, follow_symlinks=False)
    if entry.kind != SYMLINK:
        set_mode_at(parent_fd, name, entry.mode)
    if entry.xattrs:
        with contextlib.chdir(parent_fd):  # lsetxattr(2) takes no descriptor (setxattrat: 6.13)
            _set_xattrs(name, entry.xattrs, follow=False)
    times = (entry.mtime_ns, entry.mtime_ns)
    os.utime(name, ns=times, dir_fd=parent_fd, follow_symlinks=False)


def _set_xattrs(target: int | str, xattrs: dict[str, bytes], *, follow: bool) -> None:
    for name, value in xattrs.items():
        if is_steering_attribute(name) or name == DEFAULT_ACL:
            continue
        try:
            if follow:
                os.setxattr(target, name, value)
            else:
                os.setxattr(target, name, value, follow_symlinks=False)
        except OSError as exc:
            # As Docker: an attribute this file system or this kind of node cannot hold is left out.
            is_capability = name == "security.capability"
            if exc.errno != errno.ENOTSUP and (exc.errno != errno.EPERM or is_capability):
                raise
