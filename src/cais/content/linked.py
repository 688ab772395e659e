"""A store that shares its bytes with another program's store on the same filesystem.

Both have a name (hard link) of their own for a blob, so neither needs to know what the other one
refers to: each deletes its own name, and the filesystem frees the bytes with the last. Where a
link is not possible there are two copies, and nothing else is different.
"""

from __future__ import annotations

import contextlib
import os
import uuid
from typing import TYPE_CHECKING

from cais.content.store import ContentStore
from cais.spec.digest import encoded

if TYPE_CHECKING:
    from pathlib import Path

    from cais.spec.digest import Digest


class LinkedStore(ContentStore):
    """The blobs of one root, of which another one may have names, too."""

    def __init__(self, root: Path, other: Path) -> None:
        """Open or create the store below ``root``; ``other`` is the root of the other store."""
        super().__init__(root)
        self._theirs = other / "blobs" / "sha256"

    def _rename_in(self, source: Path, digest: Digest) -> None:
        theirs = self._theirs / encoded(digest)
        twin = self._ingest / uuid.uuid4().hex
        try:
            os.link(theirs, twin, follow_symlinks=False)
        except OSError:  # they have none, or it cannot be linked
            super()._rename_in(source, digest)
            with contextlib.suppress(OSError):
                os.link(self._path(digest), theirs, follow_symlinks=False)
            return
        if twin.stat().st_size == source.stat().st_size:
            source.unlink()
        else:  # theirs is damaged: ours was verified just now
            twin.unlink()
            twin = source
        super()._rename_in(twin, digest)
        twin.unlink(missing_ok=True)  # renaming to another name of the same file does nothing

    def _is_shared(self, digest: Digest) -> bool:  # noqa: ARG002
        return False  # our name is ours to delete
