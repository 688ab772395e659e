"""Whether roots can be shown through the maps of a user namespace here: tried once, and kept.

It takes a kernel whose overlayfs has ID-mapped layers (Linux 5.19), a file system below the data
root that can be mounted so, and a storage driver that does. Looking is what a start would do.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from msgspec.structs import replace

from cais.engine.root_views import open_stopped_root
from cais.errors import InternalError, UnsupportedError

if TYPE_CHECKING:
    from cais.engine.core import Core
    from cais.engine.records import ContainerRecord


class MappedRoots:
    """What is known of it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._work = False

    def check(self, core: Core, record: ContainerRecord) -> None:
        """Try it with the root of a container that is being created, unless it has worked before.

        Raises:
            UnsupportedError: it does not; the text says why.

        Blocks: the first time, until a process has started.

        """
        with self._lock:
            if self._work:
                return
            try:
                with open_stopped_root(core, replace(record, mounts=[])):
                    pass
            except InternalError as exc:
                raise UnsupportedError(
                    "user namespaces need ID-mapped mounts, which do not work for "
                    f"{core.config.data_root} with the storage driver {core.snapshots.driver} "
                    f"({exc}); run the container with --userns=host"
                ) from exc
            core.snapshots.trim(record.id)
            self._work = bool(record.parent)  # one without layers proves nothing of them
