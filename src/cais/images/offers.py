"""What a registry offers under a name: which kind of document it sent, and which platforms.

A document with two meanings is refused: header, ``mediaType`` and form have to agree, or the same
digest could be one image here and another one elsewhere (CVE-2021-41190).

Spec: OCI image-spec 1.1 (image-index.md, manifest.md); Docker image manifest version 2, schema 2.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.images.records import platform_of
from cais.spec.digest import parse_digest
from cais.spec.image import (
    INDEX_TYPES,
    LIMIT_BYTES,
    MANIFEST_TYPES,
    Index,
    InvalidImageError,
    Manifest,
    decode,
    decode_config,
)
from cais.spec.platform import Platform, host_platform
from cais.spec.strict_json import loads

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.registry.repository import FetchedManifest, Repository
    from cais.spec.image import Descriptor
    from cais.spec.reference import Reference

_REFERENCE_TYPE = "vnd.docker.reference.type"
"""Annotation of what belongs to an image and is none, such as attestations."""

_SCHEMA_1 = (
    "[DEPRECATION NOTICE] Docker Image Format v1 and Docker Image manifest version 2, schema 1 "
    "support is disabled by default and will be removed in an upcoming release. Suggest the author "
    "of {} to upgrade the image to the OCI Format or Docker Image manifest v2, schema 2. "
    "More information at https://docs.docker.com/go/deprecated-image-specs/"
)


def kind_of(fetched: FetchedManifest, name: Reference) -> str:
    """Return a document's media type, one of ``MANIFEST_TYPES`` or ``INDEX_TYPES``.

    Raises:
        InvalidImageError: it could be read in two ways, or is of another kind.

    """
    document = loads(fetched.content, LIMIT_BYTES)
    if not isinstance(document, dict):
        raise InvalidImageError(f"manifest {fetched.digest}: not an object")
    if document.get("schemaVersion") == 1:
        raise InvalidImageError(_SCHEMA_1.format(name))
    is_index, is_manifest = "manifests" in document, "layers" in document or "config" in document
    said = document.get("mediaType") or fetched.media_type
    allowed = INDEX_TYPES if is_index else MANIFEST_TYPES
    is_clear = is_index is not is_manifest and said in allowed
    if not is_clear or (fetched.media_type in {*INDEX_TYPES, *MANIFEST_TYPES} - {said}):
        raise InvalidImageError(
            f"manifest {fetched.digest}: its type is ambiguous ({fetched.media_type[:100]!r}, "
            f"{str(said)[:100]!r})"
        )
    return str(said)


def best(descriptors: Sequence[Descriptor], wanted: Platform | None) -> Descriptor | None:
    """Return the entry of an index to take.

    One that says no platform is taken when no other one fits; what is no image at all, such as an
    attestation, never.

    Args:
        descriptors: of the index.
        wanted: the platform it has to provide; None: what this machine runs best.

    """
    host = wanted or host_platform()
    fitting: list[tuple[tuple[bool, str], Descriptor]] = []
    for descriptor in descriptors:
        given = descriptor.platform
        if descriptor.artifact_type or _REFERENCE_TYPE in (descriptor.annotations or {}):
            continue
        if given is None or not (given.os or given.architecture):
            fitting.append(((False, ""), descriptor))
            continue
        platform = Platform(given.os, given.architecture, given.variant)
        if platform.provides(host) if wanted else platform.runs_on(host):
            fitting.append(((True, platform.variant), descriptor))
    return max(fitting, key=lambda found: found[0])[1] if fitting else None


def platforms_of(
    fetched: FetchedManifest, source: Repository, name: Reference
) -> list[dict[str, str]]:
    """Return the platforms behind a manifest or index, as the API words them."""
    if kind_of(fetched, name) in INDEX_TYPES:
        index = decode(fetched.content, Index, f"index {fetched.digest}")
        given = [one.platform for one in index.manifests or [] if one.platform is not None]
        found = [Platform(one.os, one.architecture, one.variant) for one in given]
    else:
        manifest = decode(fetched.content, Manifest, f"manifest {fetched.digest}")
        content = source.read_blob(parse_digest(manifest.config.digest), LIMIT_BYTES)
        found = [platform_of(decode_config(content))]
    return [
        {
            "architecture": one.architecture,
            "os": one.os,
            **({"variant": one.variant} if one.variant else {}),
        }
        for one in found
    ]
