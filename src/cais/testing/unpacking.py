"""Unpack a layer in the test's own process, where what goes wrong can be looked at."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cais.images.layer_tree import LayerTree
from cais.images.unpack import Limits, Unpacked, unpack

if TYPE_CHECKING:
    from cais.images.compression import Readable
    from cais.snapshots.snapshotter import Layer

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


def apply_layer(source: Readable, layer: Layer, limits: Limits | None = None) -> Unpacked:
    """Unpack an archive into a layer; raises as ``unpack``."""

    def open_lowers() -> list[int]:
        return [os.open(path, _DIRECTORY) for path in layer.lowers]

    root_fd = os.open(layer.path, _DIRECTORY)
    with LayerTree(root_fd, open_lowers if layer.lowers else None) as tree:
        return unpack(source, tree, limits or Limits(), is_verified=False)
