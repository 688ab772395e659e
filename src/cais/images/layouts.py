"""What an image archive says about its images, in either of its two forms.

``manifest.json`` (docker-archive) names configuration, layers and tags of each image by member.
``index.json`` (OCI layout) refers to manifests by digest, perhaps through an index of platforms.
Docker 25 and later write both: then ``manifest.json`` says which images and names there are, and
the index only which manifest belongs to a configuration, so that it keeps its digest.

Spec: OCI image-spec 1.1, image-layout.md, image-index.md; Docker image specification 1.3.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from cais.images.members import MANIFEST_LIMIT_BYTES
from cais.spec.digest import Digest, encoded, parse_digest
from cais.spec.image import (
    CONFIG_TYPES,
    INDEX_TYPES,
    MANIFEST_TYPES,
    ArchiveEntry,
    Descriptor,
    Index,
    InvalidImageError,
    Manifest,
    decode,
)
from cais.spec.platform import Platform, host_platform
from cais.spec.reference import InvalidReferenceError, Reference, parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.images.members import Members

IMAGE_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
MANIFEST_JSON, INDEX_JSON = "manifest.json", "index.json"
_IMAGE_LIMIT = 1000
_INDEX_DEPTH = 2


@dataclass(frozen=True, slots=True)
class ArchivedImage:
    """One image of an archive; configuration, layers and manifest are names of members."""

    config: str
    layers: tuple[str, ...]
    names: tuple[Reference, ...]
    manifest: str | None = None


def find_images(members: Members, wanted: Platform | None = None) -> list[ArchivedImage]:
    """Return the images an archive offers, in its order.

    Args:
        members: the archive.
        wanted: of several platforms the one to choose; None: this machine's.

    Raises:
        InvalidImageError: neither form, contradictory, or nothing for the platform in it.

    """
    is_choice = wanted is not None and members.has(INDEX_JSON)  # manifest.json made one already
    if members.has(MANIFEST_JSON) and not is_choice:
        images = _docker_images(members)
    elif members.has(INDEX_JSON):
        images = _oci_images(members, wanted or host_platform())
    elif members.has("repositories"):
        raise InvalidImageError("image archives from before Docker 1.10 are not supported")
    else:
        raise InvalidImageError("not an image archive: no manifest.json and no index.json in it")
    if len(images) > _IMAGE_LIMIT:
        raise InvalidImageError(f"image archive has more than {_IMAGE_LIMIT} images")
    _check_names(images)
    return images


def _docker_images(members: Members) -> list[ArchivedImage]:
    text = members.read(MANIFEST_JSON, MANIFEST_LIMIT_BYTES)
    entries = decode(text, list[ArchiveEntry], MANIFEST_JSON)
    manifests = _manifests_by_config(members)
    return [
        ArchivedImage(
            entry.config,
            tuple(entry.layers or ()),
            tuple(map(_tagged, entry.repo_tags or ())),
            manifests.get((entry.config, tuple(entry.layers or ()))),
        )
        for entry in entries
    ]


def _manifests_by_config(members: Members) -> dict[tuple[str, tuple[str, ...]], str]:
    """Map the members of each image to its manifest, where the archive has one as well."""
    if not members.has(INDEX_JSON):
        return {}
    try:
        images = _oci_images(members, host_platform())
    except InvalidImageError:
        return {}  # manifest.json alone is a whole archive
    return {(i.config, i.layers): i.manifest for i in images if i.manifest}


def _oci_images(members: Members, host: Platform) -> list[ArchivedImage]:
    index = decode(members.read(INDEX_JSON), Index, INDEX_JSON)
    descriptors = index.manifests or []
    found = [
        (descriptor, *chosen)
        for descriptor in descriptors
        for chosen in _choose(members, descriptor, host, depth=1)
    ]
    here = [item for item in found if _runs(item[1], host)]
    images: dict[str, ArchivedImage] = {}
    for outer, inner, manifest in here or found:
        name = _oci_name(outer) or _oci_name(inner)
        image = _oci_image(inner, manifest)
        names = images[inner.digest].names if inner.digest in images else ()
        if name and name not in names:
            names = (*names, name)
        images[inner.digest] = ArchivedImage(image.config, image.layers, names, image.manifest)
    if not images:
        raise InvalidImageError(f"image archive holds no image for {host}")
    return list(images.values())


def _choose(
    members: Members, descriptor: Descriptor, host: Platform, *, depth: int
) -> Iterator[tuple[Descriptor, Manifest]]:
    """Yield the manifest a descriptor leads to; of several platforms the host's."""
    name = _blob_name(descriptor.digest)
    if not members.has(name):
        return  # platforms nobody asked for are often left out of an archive
    if descriptor.media_type in INDEX_TYPES:
        if depth >= _INDEX_DEPTH:
            raise InvalidImageError(f"index {descriptor.digest}: nested more than {_INDEX_DEPTH}")
        inner = decode(members.read(name), Index, f"index {descriptor.digest}")
        choices = [
            choice
            for candidate in inner.manifests or []
            for choice in _choose(members, candidate, host, depth=depth + 1)
        ]
        yield from sorted((c for c in choices if _runs(c[0], host)), key=_variant, reverse=True)[:1]
    elif descriptor.media_type in MANIFEST_TYPES or not descriptor.media_type:
        manifest = decode(members.read(name), Manifest, f"manifest {descriptor.digest}")
        if manifest.config.media_type in CONFIG_TYPES:  # not an attestation or another artifact
            yield descriptor, manifest


def _runs(descriptor: Descriptor, host: Platform) -> bool:
    wanted = descriptor.platform
    if wanted is None or not wanted.os:
        return True
    return Platform(wanted.os, wanted.architecture, wanted.variant).runs_on(host)


def _variant(choice: tuple[Descriptor, Manifest]) -> str:
    platform = choice[0].platform
    return platform.variant if platform else ""


def _oci_image(descriptor: Descriptor, manifest: Manifest) -> ArchivedImage:
    return ArchivedImage(
        _blob_name(manifest.config.digest),
        tuple(_blob_name(layer.digest) for layer in manifest.layers),
        (),
        _blob_name(descriptor.digest),
    )


def _oci_name(descriptor: Descriptor) -> Reference | None:
    """Return the image name an index gives; a bare tag, as umoci writes it, names no image."""
    annotations = descriptor.annotations or {}
    text = annotations.get(IMAGE_NAME) or annotations.get(REF_NAME, "")
    if not any(mark in text for mark in "/:"):
        return None
    try:
        reference = parse_reference(text).with_default_tag()
    except InvalidReferenceError:
        return None
    return Reference(reference.domain, reference.path, reference.tag) if reference.tag else None


def _tagged(text: str) -> Reference:
    reference = parse_reference(text)
    if reference.tag is None or reference.digest is not None:
        raise InvalidReferenceError(f"invalid tag {text[:300]!r}")
    return reference


def _blob_name(digest: str) -> str:
    return f"blobs/sha256/{encoded(Digest(parse_digest(digest)))}"


def _check_names(images: list[ArchivedImage]) -> None:
    owners: dict[Reference, str] = {}
    for image in images:
        for name in image.names:
            if owners.setdefault(name, image.config) != image.config:
                raise InvalidImageError(
                    f"image archive gives two images the name {name.familiar()}"
                )
