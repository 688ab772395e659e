"""What images take, alone and together: every part once, however many images have it.

Two measures. *Content* is what ``docker images`` shows: the sizes of an image's files, unpacked.
*Disk* is what ``docker system df`` shows: the blocks that its unpacked layers and its blobs (layers
as they came, manifest, configuration) have, which is what ``du`` counts and what deleting frees.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from cais.images.store import INIT_SUFFIX
from cais.linux.tree_size import tree_size_at
from cais.snapshots.snapshotter import Kind, SnapshotNotFoundError
from cais.spec.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from cais.images.records import ImageRecord
    from cais.images.store import ImageStore
    from cais.spec.digest import ImageId


class Part(NamedTuple):
    """One of the things an image is made of: an unpacked layer or a blob."""

    is_layer: bool
    name: str


@dataclass(frozen=True, slots=True)
class Footprint:
    """The sizes of several images, in bytes."""

    size_bytes: Mapping[ImageId, int]
    shared_bytes: Mapping[ImageId, int]
    """Of ``size_bytes``, what another of them has as well."""


def content_footprint(records: Iterable[ImageRecord]) -> Footprint:
    """Measure unpacked files."""
    return _footprint(
        {
            one.id: {Part(True, each.chain_id): each.size_bytes for each in one.layers}  # noqa: FBT003
            for one in records
        }
    )


class DiskFootprint:
    """Measures one store on its disk; remembers what layers take, since they never change.

    Methods may be called from any thread. They block: a layer that is new is walked.
    """

    def __init__(self, store: ImageStore) -> None:
        self._store = store
        self._layers: dict[str, int] = {}

    def measure(self, records: Iterable[ImageRecord]) -> Footprint:
        """Measure images."""
        return _footprint({one.id: self.parts(one) for one in records})

    def total(self) -> int:
        """Return what all blobs and layers take, also those that no image has (any more)."""
        keys = [each.key for each in self._store.snapshotter.walk() if each.kind is Kind.COMMITTED]
        for gone in self._layers.keys() - set(keys):
            self._layers.pop(gone, None)
        blobs = sum(
            self._store.content.allocated(each.digest) for each in self._store.content.walk()
        )
        return blobs + sum(map(self._layer, keys))

    def parts(self, record: ImageRecord) -> dict[Part, int]:
        """Measure the parts of one image."""
        return {part: self._size(part) for part in _parts_of(record)}

    def freed(self, before: Mapping[Part, int]) -> int:
        """Return how much of what ``parts`` told before is not there any more."""
        return sum(size for part, size in before.items() if size and not self._size(part))

    def _size(self, part: Part) -> int:
        if not part.is_layer:
            return self._store.content.allocated(Digest(part.name))
        return self._layer(part.name) + self._layer(part.name + INIT_SUFFIX)

    def _layer(self, key: str) -> int:
        try:
            path = self._store.snapshotter.layer(key).path
        except SnapshotNotFoundError:
            return 0
        if key not in self._layers:
            self._layers[key] = tree_size_at(path)[1]
        return self._layers[key]


def _parts_of(record: ImageRecord) -> set[Part]:
    layers = {Part(True, each.chain_id) for each in record.layers}  # noqa: FBT003
    blobs = {record.id, record.manifest, *(each.blob for each in record.layers)}
    return layers | {Part(False, digest) for digest in blobs}  # noqa: FBT003


def _footprint(images: Mapping[ImageId, Mapping[Part, int]]) -> Footprint:
    owners = Counter(part for parts in images.values() for part in parts)
    return Footprint(
        {image_id: sum(parts.values()) for image_id, parts in images.items()},
        {
            image_id: sum(size for part, size in parts.items() if owners[part] > 1)
            for image_id, parts in images.items()
        },
    )
