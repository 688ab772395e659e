"""Images: names, records, and what may be deleted. (Contract first; filled in below.)"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

from cais.errors import NotFoundError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from cais.content.store import ContentStore
    from cais.snapshots.snapshotter import Snapshotter
    from cais.spec.digest import ChainId, DiffId, Digest, ImageId
    from cais.spec.image import ImageConfig


class ImageNotFoundError(NotFoundError):
    """No image answers to the reference; the text is Docker's."""

    def __init__(self, ref: str) -> None:
        super().__init__(f"No such image: {ref}")
        self.ref = ref


@dataclass(frozen=True, slots=True)
class ImageUse:
    """A container made from an image."""

    container_id: str
    is_running: bool


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image and the names it has now."""

    id: ImageId
    repo_tags: tuple[str, ...]
    """As shown: ``busybox:latest``; sorted."""

    repo_digests: tuple[str, ...]
    config: ImageConfig
    diff_ids: tuple[DiffId, ...]
    chain_id: ChainId | None
    """The parent of a container's snapshot; None: an image without layers."""

    size_bytes: int
    """Sum of the unpacked layers."""

    created_ns: int
    """As the image says, nanoseconds since 1970; 0 when it does not."""

    created: str
    """The same as RFC 3339 text; ``0001-01-01T00:00:00Z`` when it does not say."""

    tagged_ns: int
    """When a name was last given to it here; 0: never."""

    parent: ImageId | None
    """The image it was built on, known only for images built here."""

    layer_sizes: tuple[int, ...]
    """Unpacked size of each layer, lowest first."""


class ImageStore:
    """The images of one data root. Methods block and may be called from any thread."""

    @classmethod
    def open(cls, data_root: Path, content: ContentStore, snapshotter: Snapshotter) -> Self:
        """Open or create ``<data-root>/images.db`` and collect what an earlier crash left."""
        raise NotImplementedError

    def close(self) -> None:
        """Close the database."""
        raise NotImplementedError

    def resolve(self, ref: str) -> ImageRecord:
        """Find an image by name, name:tag, name@digest, id, or unambiguous id prefix.

        Raises:
            ImageNotFoundError: "No such image: busybox:latest".
            InvalidReferenceError: "invalid reference format".

        """
        raise NotImplementedError

    def list(self) -> list[ImageRecord]:
        """Return every image, the newest first."""
        raise NotImplementedError

    def children(self, image_id: ImageId) -> list[ImageId]:
        """Return the images built on this one."""
        raise NotImplementedError

    def tag(self, ref: str, repository: str, tag: str | None = None) -> str:
        """Give an image another name, which moves over if taken; return it as shown."""
        raise NotImplementedError

    def delete(
        self,
        ref: str,
        *,
        force: bool = False,
        prune: bool = True,
        in_use: Callable[[ImageId], Sequence[ImageUse]] = lambda _: (),
    ) -> list[dict[str, str]]:
        """Untag, and delete what no name is left of: ``[{"Untagged": ...}, {"Deleted": ...}]``.

        Raises:
            ConflictError: Docker's texts; ``in_use`` says which containers were made from it.

        """
        raise NotImplementedError

    def history(self, ref: str) -> list[dict[str, Any]]:
        """Return the document of ``GET /images/{name}/history``."""
        raise NotImplementedError

    def inspect(self, ref: str) -> dict[str, Any]:
        """Return the document of ``GET /images/{name}/json``."""
        raise NotImplementedError

    def add_digest(self, image_id: ImageId, repository: str, digest: Digest) -> None:
        """Record the digest under which a registry knows the image."""
        raise NotImplementedError

    def collect(self) -> int:
        """Delete blobs and layers that no image, lease or snapshot refers to; return the bytes."""
        raise NotImplementedError
