"""Manifests as a registry reads them: what they need, what they are about. Never written again.

Any media type is taken whose document is a JSON object in the way of an image manifest (``config``
and ``layers``, or ``blobs``) or an index (``manifests``); Docker's schema 1 is not.

Spec: OCI image-spec 1.1 (manifest.md, image-index.md, descriptor.md); distribution-spec 1.1,
"Pushing Manifests", "Listing Referrers".
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from msgspec import Struct

from cais.registry.server.errors import RefusalError
from cais.spec.digest import Digest, InvalidDigestError, parse_digest
from cais.spec.image import (
    INDEX_TYPES,
    LIMIT_BYTES,
    OCI_INDEX,
    OCI_MANIFEST,
    Descriptor,
    InvalidImageError,
    decode,
    is_foreign,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

_is_media_type = re.compile(
    r"[a-z0-9][a-z0-9!#$&^_.+-]{0,126}/[a-z0-9][a-z0-9!#$&^_.+-]{0,126}"
).fullmatch
_SCHEMA_1 = re.compile(r"application/vnd\.docker\.distribution\.manifest\.v1\+(json|prettyjws)")


class _Document(Struct, rename="camel", kw_only=True):
    schema_version: int
    media_type: str = ""
    artifact_type: str = ""
    config: Descriptor | None = None
    layers: list[Descriptor] = []
    blobs: list[Descriptor] = []
    manifests: list[Descriptor] = []
    subject: Descriptor | None = None
    annotations: dict[str, str] = {}


@dataclass(frozen=True, slots=True)
class Need:
    """A blob, or another manifest, that a manifest is made of."""

    digest: Digest
    size_bytes: int
    is_manifest: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What a registry keeps of a manifest beside its bytes."""

    media_type: str
    artifact_type: str
    """As in lists of referrers: of an image without one, its configuration's media type."""

    subject: Digest | None
    annotations: Mapping[str, str]
    needs: tuple[Need, ...]


def read_manifest(content: bytes, declared: str) -> Facts:
    """Read a manifest.

    Args:
        content: the bytes as they came.
        declared: the media type its client says it has; "" if it says nothing.

    Raises:
        RefusalError: MANIFEST_INVALID.

    """
    try:
        document = decode(content, _Document, "manifest")
        media_type = _media_type(document, declared)
        artifact_type = document.artifact_type
        if not artifact_type and document.config and media_type not in INDEX_TYPES:
            artifact_type = document.config.media_type
        return Facts(
            media_type,
            artifact_type,
            parse_digest(document.subject.digest) if document.subject else None,
            document.annotations,
            tuple(_needs(document)),
        )
    except (InvalidImageError, InvalidDigestError) as exc:
        raise invalid(str(exc)) from exc


def invalid(message: str, *, status: int | None = None) -> RefusalError:
    """Return the error of a manifest that cannot be taken."""
    return RefusalError("MANIFEST_INVALID", message, status=status)


def too_large() -> RefusalError:
    """Return the error of a manifest larger than any real one."""
    return invalid(f"manifest larger than {LIMIT_BYTES} bytes", status=413)


def _media_type(document: _Document, declared: str) -> str:
    if _SCHEMA_1.fullmatch(declared) or document.schema_version != 2:
        raise invalid("only schema version 2 is supported")
    if declared and document.media_type and document.media_type != declared:
        raise invalid(
            f"the manifest says it is {document.media_type[:200]!r}, the request {declared[:200]!r}"
        )
    guessed = OCI_INDEX if document.manifests and document.config is None else OCI_MANIFEST
    media_type = declared or document.media_type or guessed
    if not _is_media_type(media_type.lower()):
        raise invalid(f"malformed media type {media_type[:200]!r}")
    return media_type


def _needs(document: _Document) -> Iterable[Need]:
    parts = [*([document.config] if document.config else []), *document.layers, *document.blobs]
    found: dict[str, Need] = {}
    for descriptor in parts:
        if not is_foreign(descriptor):
            _add(found, descriptor, is_manifest=False)
    for descriptor in document.manifests:
        _add(found, descriptor, is_manifest=True)
    return found.values()


def _add(found: dict[str, Need], descriptor: Descriptor, *, is_manifest: bool) -> None:
    digest = parse_digest(descriptor.digest)
    if descriptor.size < 0:
        raise invalid(f"{digest}: negative size")
    found[digest] = Need(digest, descriptor.size, is_manifest)
