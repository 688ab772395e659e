"""What the image store knows about an image."""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from cais.errors import ConflictError, DataLossError, NotFoundError
from cais.spec.image import ImageConfig, RootFs
from cais.spec.platform import Platform

if TYPE_CHECKING:
    from cais.images.catalog_view import ImageRow
    from cais.spec.digest import ChainId, DiffId, Digest, ImageId

ZERO_TIME = "0001-01-01T00:00:00Z"
"""What Docker shows for a time that was never set."""

_FRACTION = re.compile(r"\.([0-9]{1,9})[0-9]*")


class ImageNotFoundError(NotFoundError):
    """No image answers to the reference; the text is Docker's."""

    def __init__(self, ref: str) -> None:
        super().__init__(f"No such image: {ref}")
        self.ref = ref


class PlatformNotFoundError(NotFoundError):
    """The image is for another platform than was asked for; the text is Docker's."""

    def __init__(self, ref: str, wanted: Platform) -> None:
        super().__init__(
            f"image with reference {ref} was found but does not provide the specified platform "
            f"({wanted})"
        )


class ImageDamagedError(DataLossError):
    """What the image is made of is not all there, or not what it was."""

    def __init__(self, image_id: ImageId, cause: Exception) -> None:
        super().__init__(f"image {image_id} is damaged ({cause}): pull or load it again")
        self.image_id = image_id


class ImageInUseError(ConflictError):
    """The image cannot be deleted now; the text is Docker's."""


@dataclass(frozen=True, slots=True)
class ImageUse:
    """A container made from an image."""

    container_id: str
    is_running: bool


@dataclass(frozen=True, slots=True)
class StoredLayer:
    """One layer of an image, unpacked as a snapshot and kept as a blob."""

    diff_id: DiffId
    chain_id: ChainId
    blob: Digest
    blob_size_bytes: int
    media_type: str
    size_bytes: int
    """Unpacked."""


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """An image and the names it has now."""

    id: ImageId
    repo_tags: tuple[str, ...]
    """As shown: ``busybox:latest``; sorted."""

    repo_digests: tuple[str, ...]
    config: ImageConfig
    layers: tuple[StoredLayer, ...]
    """Lowest first."""

    manifest: Digest
    created_ns: int
    """As the image says, nanoseconds since 1970; 0 when it does not say."""

    tagged_ns: int
    """When a name was last given to it here; 0: never."""

    parent: ImageId | None
    """The image it was built on, known only for images built here."""

    is_damaged: bool = False
    """Its configuration cannot be read: what is here of it is empty."""

    @property
    def platform(self) -> Platform:
        """What it runs on."""
        return platform_of(self.config)

    @property
    def diff_ids(self) -> tuple[DiffId, ...]:
        """The layers' digests, lowest first."""
        return tuple(layer.diff_id for layer in self.layers)

    @property
    def chain_id(self) -> ChainId | None:
        """The parent of a container's snapshot; None: an image without layers."""
        return self.layers[-1].chain_id if self.layers else None

    @property
    def size_bytes(self) -> int:
        """Sum of the unpacked layers."""
        return sum(layer.size_bytes for layer in self.layers)

    @property
    def created(self) -> str:
        """The creation time as RFC 3339 text, as the image says."""
        return self.config.created or ZERO_TIME


def make_record(row: ImageRow, config: ImageConfig | None) -> ImageRecord:
    """Put a row and its configuration together; None: that cannot be read."""
    diff_ids: list[str] = [layer.diff_id for layer in row.layers]
    return ImageRecord(
        row.id,
        tuple(str(name) for name in row.names if not name.is_digest),
        tuple(str(name) for name in row.names if name.is_digest),
        config or ImageConfig(rootfs=RootFs(type="layers", diff_ids=diff_ids)),
        row.layers,
        row.manifest,
        row.created_ns,
        row.tagged_ns,
        row.parent,
        is_damaged=config is None,
    )


def platform_of(config: ImageConfig) -> Platform:
    """Return what an image runs on."""
    return Platform(config.os or "linux", config.architecture, config.variant)


def check_platform(record: ImageRecord, ref: str, wanted: Platform | None) -> None:
    """Refuse an image that is for another platform; None: any will do. PlatformNotFoundError."""
    if wanted is not None and not record.platform.provides(wanted):
        raise PlatformNotFoundError(ref, wanted)


@dataclass(frozen=True, slots=True)
class NewImage:
    """An image about to be registered: its blobs and snapshots are there, under a lease."""

    id: ImageId
    config: ImageConfig
    manifest: Digest
    layers: tuple[StoredLayer, ...]
    parent: ImageId | None = None


def parse_time_ns(text: str | None) -> int:
    """Return an RFC 3339 time in nanoseconds since 1970; 0 for none and for nonsense."""
    if not text:
        return 0
    try:
        moment = datetime.fromisoformat(_FRACTION.sub("", text, count=1))
    except ValueError:
        return 0
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    fraction = _FRACTION.search(text)
    nanoseconds = int(fraction[1].ljust(9, "0")) if fraction else 0
    return max(0, int(moment.timestamp()) * 1_000_000_000 + nanoseconds)


def format_time(ns: int) -> str:
    """Return RFC 3339 text in UTC with nanoseconds, as Go prints it."""
    if ns == 0:
        return ZERO_TIME
    seconds, fraction = divmod(ns, 1_000_000_000)
    text = datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")
    return f"{text}.{fraction:09}".rstrip("0").rstrip(".") + "Z"
