"""Images as one tar file: ``docker load`` and ``docker save``. (Contract first.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from cais.images.store import ImageStore
    from cais.spec.digest import ImageId


class Readable(Protocol):
    """Where an archive comes from: an open file, or a queue fed by a request's body."""

    def read(self, size: int, /) -> bytes:
        """Return at most ``size`` bytes; empty at the end."""


@dataclass(frozen=True, slots=True)
class LoadedImage:
    """One image of a loaded archive."""

    id: ImageId
    names: tuple[str, ...]
    """As shown; empty: the archive gave it no name."""

    def lines(self) -> tuple[str, ...]:
        """Return Docker's report: "Loaded image: x:latest" or "Loaded image ID: sha256:..."."""
        raise NotImplementedError


def load(
    source: Readable,
    store: ImageStore,
    *,
    progress: Callable[[Mapping[str, Any]], None] | None = None,
    quiet: bool = False,
) -> tuple[LoadedImage, ...]:
    """Load a docker-archive or an OCI layout (plain, gzip, zstd, xz or bzip2); all of it or nothing.

    Args:
        progress: called with the JSON messages Docker streams (status, progressDetail, id), ended
            by ``{"stream": "Loaded image: x:latest\n"}`` for each name. May block.
        quiet: no messages about layers.

    Raises:
        InvalidArgumentError: not such an archive, or one that breaks a limit.
        DigestMismatchError: content is not what its name says.

    """
    raise NotImplementedError


def save(store: ImageStore, refs: Sequence[str]) -> Iterator[bytes]:
    """Write images as one archive: docker-archive and OCI layout together; yields its bytes.

    The same images give the same bytes. References are resolved before the first byte.

    Raises:
        ImageNotFoundError: before anything is yielded.

    """
    raise NotImplementedError
