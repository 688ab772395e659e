"""Whiteouts: entries that hide what lower layers have.

``.wh.name`` hides a name, ``.wh..wh..opq`` everything a directory has in lower layers; neither
hides what this layer brings itself, wherever they stand in the archive. On disk they take
overlayfs's form: a character device 0:0, and an attribute of the directory.

Spec: OCI image-spec 1.1, layer.md "Whiteouts".
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

from cais.images.layer_names import InvalidLayerError
from cais.linux.whiteouts import make_opaque, make_whiteout

if TYPE_CHECKING:
    from collections.abc import Callable

    from cais.images.layer_tree import LayerTree

WHITEOUT = ".wh."
WHITEOUT_OPAQUE = ".wh..wh..opq"
_META = ".wh..wh."
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Whiteouts:
    """Those of the layer that ``tree`` is unpacked into."""

    def __init__(self, tree: LayerTree) -> None:
        self._tree = tree
        self._root_is_opaque = False

    def apply(self, parent: str, name: str) -> bool:
        """Apply the entry ``parent/name`` if its name is reserved; False: it only looks so."""
        if name == WHITEOUT_OPAQUE:
            self._make_opaque(parent)
            return True
        components = [*filter(None, parent.split("/")), name]
        if any(part.startswith(_META) for part in components):
            return True  # bookkeeping of aufs, no part of the image
        if any(part.startswith(WHITEOUT) for part in components[:-1]):
            raise InvalidLayerError("/".join(components), "below a whiteout")
        if not name.startswith(WHITEOUT):
            return False
        hidden = name.removeprefix(WHITEOUT)
        if hidden in ("", ".", ".."):
            raise InvalidLayerError("/".join(components), "whiteout of no name")
        self.hide(parent, hidden)
        return True

    def hide(self, parent: str, name: str) -> None:
        """Hide a name of lower layers; nothing happens if they have none such."""
        if not self._tree.has_lowers or not self._tree.exists_below(parent, name):
            return
        parent_fd = self._tree.directory(parent)
        try:
            facts = os.stat(name, dir_fd=parent_fd, follow_symlinks=False)
        except FileNotFoundError:
            make_whiteout(parent_fd, name)
            self._tree.forget()
            return
        if stat.S_ISDIR(facts.st_mode):  # this layer's own directory stays, alone
            _with_directory(parent_fd, name, make_opaque)

    def _make_opaque(self, path: str) -> None:
        if not path:
            self._root_is_opaque = True
        elif self._tree.has_lowers and self._tree.shows_directory(path):
            make_opaque(self._tree.directory(path))
            self._tree.forget()

    def finish(self) -> None:
        """Do what could not be done before the last entry was there.

        Overlayfs merges roots whatever their attributes say: hide each name instead.
        """
        if self._root_is_opaque and self._tree.has_lowers:
            for name in set(self._tree.lower_names()):
                self.hide("", name)


def _with_directory(parent_fd: int, name: str, action: Callable[[int], None]) -> None:
    fd = os.open(name, _DIRECTORY, dir_fd=parent_fd)
    try:
        action(fd)
    finally:
        os.close(fd)
