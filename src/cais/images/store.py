"""Images: names to records, layers to snapshots, and what may be deleted.

The store ties three others together: the catalog (``catalog``: rows and names), the content store
(configurations, manifests, layers as blobs) and a snapshotter (layers unpacked). An image comes in
like this, so that a crash at any step leaves nothing a later start does not collect::

    with store.content.leases.open() as lease:
        ...ingest and commit blobs under the lease...
        layers = unpack_layers(store, lease, ...)     # images.layers
        store.register([(NewImage(...), names)])      # one transaction, after everything is synced

Methods block and may be called from any thread.
"""

from __future__ import annotations

import contextlib
import logging
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self

from cais.database import has_database
from cais.errors import DataLossError, InvalidArgumentError, NotFoundError
from cais.images import describe
from cais.images.catalog import Catalog
from cais.images.deletion import Deletion
from cais.images.records import (
    ImageDamagedError,
    ImageNotFoundError,
    ImageRecord,
    ImageUse,
    make_record,
)
from cais.images.unpacker.pool import Unpacker
from cais.snapshots.snapshotter import Kind, SnapshotInUseError, SnapshotNotFoundError
from cais.spec.digest import Digest, ImageId, InvalidDigestError, parse_digest
from cais.spec.image import LIMIT_BYTES, InvalidImageError, decode_config
from cais.spec.reference import Reference, parse_reference, parse_tag

if TYPE_CHECKING:
    import builtins
    from collections.abc import Callable, Iterable, Sequence
    from pathlib import Path

    from cais.content.store import ContentStore
    from cais.images.catalog_view import ImageRow
    from cais.images.records import NewImage
    from cais.snapshots.snapshotter import Snapshotter
    from cais.spec.image import ImageConfig

log = logging.getLogger(__name__)

__all__ = [
    "IMPORT_KEY",
    "INIT_SUFFIX",
    "ImageNotFoundError",
    "ImageRecord",
    "ImageStore",
    "ImageUse",
]

IMPORT_KEY = "import-"
"""Start of the keys of snapshots that a layer is being unpacked into."""

INIT_SUFFIX = "-init"
"""After a chain id: the layer of mount points that containers have on top of that image."""

_CONFIGS_KEPT = 256


class ImageStore:
    """The images of one data root."""

    def __init__(self, catalog: Catalog, content: ContentStore, snapshotter: Snapshotter) -> None:
        self.catalog = catalog
        self.content = content
        self.snapshotter = snapshotter
        self.unpacker = Unpacker()
        self._config = lru_cache(_CONFIGS_KEPT)(self._read_config)

    @classmethod
    def open(cls, data_root: Path, content: ContentStore, snapshotter: Snapshotter) -> Self:
        """Open or create ``<data-root>/images.db`` and collect what an earlier crash left.

        Raises:
            DataLossError: the database is lost and cannot be rebuilt; nothing was deleted.
            ConflictError: a newer version wrote it.

        """
        path = data_root / "images.db"
        if not has_database(path) and any(content.walk()):
            raise DataLossError(
                f"{path} is gone, and its copy, but not the blobs: nothing was deleted; see "
                "'cais system check'"
            )
        store = cls(Catalog.open(path), content, snapshotter)
        store.collect()
        return store

    def close(self) -> None:
        """Close the database; the content store and the snapshotter are the caller's."""
        self.catalog.close()

    def resolve(self, ref: str) -> ImageRecord:
        """Find an image by name, name:tag, name@digest, id, or unambiguous id prefix.

        Raises:
            ImageNotFoundError: "No such image: busybox:latest".
            ImageDamagedError: its configuration is lost.
            InvalidReferenceError: "invalid reference format".

        """
        return self.get(self.find_id(ref))

    def find_id(self, ref: str) -> ImageId:
        """Return the id of the image a reference names; raises as ``resolve``."""
        with contextlib.suppress(InvalidDigestError):
            digest = parse_digest(ref if ref.startswith("sha256:") else f"sha256:{ref}")
            if self.catalog.find(digest) is None:
                raise ImageNotFoundError(digest)
            return ImageId(digest)
        name = parse_reference(ref).with_default_tag()
        found = self.catalog.find_name(name) or self.catalog.find_prefix(ref)
        if found is None:
            raise ImageNotFoundError(name.familiar())
        return found

    def get(self, image_id: ImageId) -> ImageRecord:
        """Return the record of an id. ImageNotFoundError."""
        row = self.catalog.find(image_id)
        if row is None:
            raise ImageNotFoundError(image_id)
        return self._record(row)

    def list(self) -> list[ImageRecord]:
        """Return every image, the newest first; of a damaged one, what is known without it."""
        return [self._shown(row) for row in self.catalog.all()]

    def children(self, image_id: ImageId) -> builtins.list[ImageId]:
        """Return the images built on this one."""
        return self.catalog.children(image_id)

    def tag(self, ref: str, repository: str, tag: str | None = None) -> str:
        """Give an image another name, which moves over if taken; return it as shown.

        Args:
            repository: may end in a tag, which ``tag`` replaces.

        """
        name = name_to_give(repository, tag)
        if not self.catalog.set_name(name, self.find_id(ref)):
            raise ImageNotFoundError(ref)  # deleted since it was found
        return name.familiar()

    def add_digest(self, image_id: ImageId, repository: str, digest: Digest) -> bool:
        """Record the digest under which a registry knows the image, if it is still there."""
        name = parse_reference(repository)
        return self.catalog.set_name(Reference(name.domain, name.path, None, digest), image_id)

    def delete(
        self,
        ref: str,
        *,
        force: bool = False,
        prune: bool = True,
        in_use: Callable[[ImageId], Sequence[ImageUse]] = lambda _: (),
        chosen: ImageRecord | None = None,
    ) -> builtins.list[dict[str, str]]:
        """Untag, and delete what no name is left of: ``[{"Untagged": ...}, {"Deleted": ...}]``.

        Args:
            force: also when several names or stopped containers are left.
            prune: also delete parents that have no name and no other use.
            in_use: says which containers were made from an image.
            chosen: the image the reference was for some time ago. If it is another one's now, or
                the image was pulled, tagged or pushed since, nothing is done.

        Raises:
            ImageNotFoundError: no such image.
            ImageInUseError: Docker's texts.

        """
        entries = Deletion(self, in_use).delete(ref, force=force, prune=prune, chosen=chosen)
        self._config.cache_clear()
        return entries

    def history(self, ref: str) -> builtins.list[dict[str, Any]]:
        """Return the document of ``GET /images/{name}/history``."""
        return describe.history(self, self.resolve(ref))

    def inspect(self, ref: str) -> dict[str, Any]:
        """Return the document of ``GET /images/{name}/json``."""
        return describe.inspect(self, self.resolve(ref))

    def read_config(self, image_id: ImageId) -> bytes:
        """Return the bytes of the configuration, verified."""
        return self.content.read(image_id, LIMIT_BYTES)

    def has_blobs(self, row: ImageRow) -> bool:
        """Whether an image's blobs are here, undamaged; of a layer only the size is compared."""
        documents = (row.id, row.manifest)
        return all(self.content.holds_document(one, LIMIT_BYTES) for one in documents) and all(
            self.content.holds(layer.blob, layer.blob_size_bytes) for layer in row.layers
        )

    def register(
        self, images: Iterable[tuple[NewImage, Iterable[Reference]]]
    ) -> builtins.list[tuple[str, ImageId]]:
        """Add images with their names, all or none; return names that moved and who had them."""
        images = [(image, list(names)) for image, names in images]
        lost = {image.id for image, _ in images if self._lacks_blobs(image.id)}
        moved = self.catalog.register(images, replaced=lost)
        return [(name.familiar(), old) for name, old in moved]

    def remove_layers(self, row: ImageRow) -> builtins.list[str]:
        """Delete those layers of a forgotten image that nothing else needs, topmost first."""
        removed = []
        with self.content.leases.held():
            needed = self.catalog.live() | self.content.leases.names()
            for layer in reversed(row.layers):
                if layer.chain_id in needed or not self._remove_layer(layer.chain_id):
                    break
                removed.append(str(layer.chain_id))
        return removed

    def collect(self) -> int:
        """Delete blobs and layers that no image, lease or snapshot needs; return the blobs' bytes.

        Layers of a deleted image that a container still stands on go when this runs after the
        container.
        """
        with self.content.leases.held():
            live = self.catalog.live() | self.content.leases.names()
            for snapshot in reversed(list(self.snapshotter.walk())):
                is_layer = snapshot.kind is Kind.COMMITTED
                name = snapshot.key.removesuffix(INIT_SUFFIX)
                if (is_layer or name.startswith(IMPORT_KEY)) and name not in live:
                    self._remove_snapshot(snapshot.key)
            return self.content.collect(live)

    def _remove_layer(self, chain_id: str) -> bool:
        return self._remove_snapshot(chain_id + INIT_SUFFIX) and self._remove_snapshot(chain_id)

    def _remove_snapshot(self, key: str) -> bool:
        try:
            self.snapshotter.remove(key)
        except SnapshotInUseError:
            return False
        except SnapshotNotFoundError:
            return True
        return True

    def _lacks_blobs(self, image_id: ImageId) -> bool:
        """Whether an image is known whose blobs are not all there, or damaged."""
        row = self.catalog.find(image_id)
        return row is not None and not self.has_blobs(row)

    def _read_config(self, image_id: ImageId) -> ImageConfig:
        return decode_config(self.read_config(image_id))

    def _record(self, row: ImageRow) -> ImageRecord:
        try:
            return make_record(row, self._config(row.id))
        except (NotFoundError, DataLossError, InvalidImageError) as exc:
            raise ImageDamagedError(row.id, exc) from exc

    def _shown(self, row: ImageRow) -> ImageRecord:
        try:
            return self._record(row)
        except ImageDamagedError as exc:
            log.warning("%s", exc)
            return make_record(row, None)


def name_to_give(repository: str, tag: str | None) -> Reference:
    """Read a name that an image is about to get; ``tag`` replaces one in ``repository``.

    Raises:
        InvalidReferenceError: malformed.
        InvalidArgumentError: with a digest, or one that reads like a digest.

    """
    reference = parse_reference(repository)
    if reference.digest:
        raise InvalidArgumentError("refusing to create a tag with a digest reference")
    if reference.familiar_repository == "sha256":
        raise InvalidArgumentError(
            "refusing to create an ambiguous tag using digest algorithm as name"
        )
    if tag:
        return Reference(reference.domain, reference.path, parse_tag(tag))
    return reference.with_default_tag()
