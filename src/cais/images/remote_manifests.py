"""What a registry has under a name, document by document: ``docker manifest inspect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from cais.errors import ExhaustedError, UnsupportedError
from cais.images.offers import kind_of
from cais.spec import strict_json
from cais.spec.digest import parse_digest
from cais.spec.image import INDEX_TYPES, LIMIT_BYTES, Index, InvalidImageError, Manifest, decode

if TYPE_CHECKING:
    from cais.registry.repository import FetchedManifest, Repository
    from cais.spec.digest import Digest
    from cais.spec.reference import Reference

_MOST = 1000
"""Manifests of one index: each costs a request."""

_PLATFORM = ("architecture", "os", "os.version", "os.features", "variant")


class RemoteManifest(NamedTuple):
    """One image's manifest."""

    name: str
    """In full, with the digest if an index led to it."""

    media_type: str
    digest: Digest
    content: bytes
    platform: dict[str, Any]
    """As the index has it, or else the image's configuration."""


class RemoteManifests(NamedTuple):
    """All that is under a name."""

    is_list: bool
    manifests: list[RemoteManifest]


def fetch_manifests(source: Repository, name: Reference) -> RemoteManifests:
    """Fetch a manifest, or every manifest of an index.

    Args:
        source: the repository.
        name: with tag or digest.

    Raises:
        RegistryError, RegistryUnreachableError: as ``Repository``.
        InvalidImageError: a document is malformed.
        UnsupportedError: an index in an index.

    Blocks: for as long as the registry takes.

    """
    top = source.get_manifest(name.digest or name.tag or "")
    kind = kind_of(top, name)
    if kind not in INDEX_TYPES:
        platform = _configured_platform(source, top)
        return RemoteManifests(
            is_list=False,
            manifests=[RemoteManifest(str(name), kind, top.digest, top.content, platform)],
        )
    entries = decode(top.content, Index, f"index {top.digest}").manifests or []
    if len(entries) > _MOST:
        raise ExhaustedError(f"index {top.digest}: more than {_MOST} manifests")
    platforms = [_platform(entry.get("platform")) for entry in _entries(top)]
    found = [
        _fetch(source, name, parse_digest(entry.digest), platform)
        for entry, platform in zip(entries, platforms, strict=True)
    ]
    return RemoteManifests(is_list=True, manifests=found)


def _fetch(
    source: Repository, name: Reference, digest: Digest, platform: dict[str, Any]
) -> RemoteManifest:
    fetched = source.get_manifest(digest)
    kind = kind_of(fetched, name)
    if kind in INDEX_TYPES:
        raise UnsupportedError(f"unsupported manifest type: {kind} in an index")
    shown = str(name) if name.digest else f"{name}@{digest}"
    return RemoteManifest(shown, kind, digest, fetched.content, platform)


def _configured_platform(source: Repository, fetched: FetchedManifest) -> dict[str, Any]:
    manifest = decode(fetched.content, Manifest, f"manifest {fetched.digest}")
    content = source.read_blob(parse_digest(manifest.config.digest), LIMIT_BYTES)
    try:
        return _platform(strict_json.loads(content, LIMIT_BYTES))
    except strict_json.InvalidJsonError as exc:
        raise InvalidImageError(f"configuration of {fetched.digest}: {exc}") from exc


def _entries(fetched: FetchedManifest) -> list[Any]:
    """Return the entries of an index as they are written; it was decoded already."""
    document: Any = strict_json.loads(fetched.content, LIMIT_BYTES)
    found: list[Any] = document.get("manifests") or []
    return found


def _platform(document: Any) -> dict[str, Any]:  # noqa: ANN401 - any JSON value
    """Return the members of a platform, in the order in which docker shows them."""
    given = document if isinstance(document, dict) else {}
    found = {name: given[name] for name in _PLATFORM if given.get(name)}
    return {"architecture": "", "os": ""} | found
