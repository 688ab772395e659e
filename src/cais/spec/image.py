"""Image documents: configuration, manifest, index, and the docker-archive's own manifest.

Decoding refuses what has two meanings (duplicate keys, NaN, deep nesting) and more than
``LIMIT_BYTES``; members nobody here needs are ignored. An image's id is the digest of its
configuration's bytes, so those bytes are kept as they came and never encoded again.

Spec: OCI image-spec 1.1 (config.md, manifest.md, image-index.md, descriptor.md); Docker image
specification 1.3 (the fields of ``config`` and of manifest.json).
"""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec
from msgspec import Struct, field

from cais.errors import InvalidArgumentError
from cais.spec import strict_json
from cais.spec.conversion import convert
from cais.spec.schema import without_nulls

LIMIT_BYTES = 4 * 1024 * 1024

DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
_FOREIGN = (
    "application/vnd.docker.image.rootfs.foreign.diff.tar",
    "application/vnd.oci.image.layer.nondistributable.v1.tar",
)

INDEX_TYPES = frozenset({DOCKER_INDEX, OCI_INDEX})
MANIFEST_TYPES = frozenset({DOCKER_MANIFEST, OCI_MANIFEST})
CONFIG_TYPES = frozenset({DOCKER_CONFIG, OCI_CONFIG})

T = TypeVar("T")


class InvalidImageError(InvalidArgumentError):
    """A document of an image is malformed, or contradicts another one."""


class Healthcheck(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """HEALTHCHECK; durations in nanoseconds."""

    test: list[str] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class ContainerConfig(Struct, frozen=True, rename="pascal", omit_defaults=True):
    """What a container made from the image starts with."""

    user: str = ""
    exposed_ports: dict[str, Any] | None = None
    env: list[str] | None = None
    cmd: list[str] | None = None
    healthcheck: Healthcheck | None = None
    args_escaped: bool = False
    volumes: dict[str, Any] | None = None
    working_dir: str = ""
    entrypoint: list[str] | None = None
    on_build: list[str] | None = None
    labels: dict[str, str] | None = None
    stop_signal: str = ""
    stop_timeout: int | None = None
    shell: list[str] | None = None


class RootFs(Struct, frozen=True):
    """The layers, lowest first."""

    type: str
    diff_ids: list[str] | None = None


class History(Struct, frozen=True, omit_defaults=True):
    """How one layer, or one change of configuration, came to be."""

    created: str | None = None
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class ImageConfig(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The document whose digest is the image's id."""

    architecture: str = ""
    os: str = ""
    variant: str = ""
    os_version: str = field(name="os.version", default="")
    os_features: list[str] | None = field(name="os.features", default=None)
    created: str | None = None
    author: str = ""
    comment: str = ""
    docker_version: str = ""
    config: ContainerConfig | None = None
    rootfs: RootFs
    history: list[History] | None = None


class DescriptorPlatform(Struct, frozen=True, omit_defaults=True):
    """The platform of a manifest in an index."""

    architecture: str = ""
    os: str = ""
    variant: str = ""


class Descriptor(Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """A blob: what it is, its digest, its size."""

    media_type: str = ""
    digest: str
    size: int
    urls: list[str] | None = None
    annotations: dict[str, str] | None = None
    platform: DescriptorPlatform | None = None
    artifact_type: str = ""


def is_foreign(layer: Descriptor) -> bool:
    """Whether a layer may not be handed on, but is had from where its URLs lead."""
    return layer.media_type.startswith(_FOREIGN)


class Manifest(Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """One image: its configuration and its layers, lowest first."""

    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor
    layers: list[Descriptor]
    annotations: dict[str, str] | None = None


class Index(Struct, frozen=True, rename="camel", omit_defaults=True, kw_only=True):
    """Several manifests, by platform or by name."""

    schema_version: int
    media_type: str = ""
    manifests: list[Descriptor] | None = None
    annotations: dict[str, str] | None = None


class ArchiveEntry(Struct, frozen=True, rename="pascal"):
    """One image in a docker-archive's manifest.json; the strings are names of archive members."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


def decode(text: bytes, kind: type[T], what: str) -> T:
    """Decode one document.

    Args:
        what: names the document in errors.

    Raises:
        InvalidImageError: not strict JSON, too large, or not of this shape.

    """
    try:
        document: T = convert(without_nulls(strict_json.loads(text, LIMIT_BYTES)), kind)
    except RecursionError as exc:
        raise InvalidImageError(f"{what}: nested too deeply") from exc
    except (strict_json.InvalidJsonError, msgspec.ValidationError) as exc:
        raise InvalidImageError(f"{what}: {exc}") from exc
    return document


def decode_config(text: bytes, what: str = "image configuration") -> ImageConfig:
    """Decode a configuration and check that it describes layers."""
    config = decode(text, ImageConfig, what)
    if config.rootfs.type != "layers":
        raise InvalidImageError(f"{what}: rootfs type {config.rootfs.type[:64]!r} is not supported")
    return config


def encode(document: Struct) -> bytes:
    """Encode a document of ours; the same document always gives the same bytes.

    Fields stand in the order of their declaration, the user's own names (labels, ports) sorted.
    """
    return msgspec.json.encode(document, order="deterministic")
