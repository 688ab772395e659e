"""``docker save``: images as docker-archive and OCI layout in one, as Docker 25 and later write.

Blobs leave as they came in, plain or compressed. Members stand in the order of their names, with
no times, so the same images give the same bytes.
"""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from cais.errors import NotFoundError
from cais.images import tar_writer
from cais.images.layouts import IMAGE_NAME, INDEX_JSON, MANIFEST_JSON, REF_NAME
from cais.images.records import ImageNotFoundError, check_platform
from cais.spec import strict_json
from cais.spec.digest import Digest, encoded
from cais.spec.image import OCI_INDEX, OCI_MANIFEST
from cais.spec.reference import Reference, parse_reference

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from cais.images.records import ImageRecord
    from cais.images.store import ImageStore
    from cais.spec.digest import ImageId
    from cais.spec.platform import Platform

_CHUNK = 1024 * 1024
_BLOBS = "blobs/sha256"


class ReferenceNotFoundError(NotFoundError):
    """No image has this name and tag; the text is Docker's."""

    def __init__(self) -> None:
        super().__init__("reference does not exist")


@dataclass(slots=True)
class _Saved:
    record: ImageRecord
    names: list[Reference] = field(default_factory=list)


def save(
    store: ImageStore, refs: Sequence[str], platform: Platform | None = None
) -> Iterator[bytes]:
    """Write images as one archive; yields its bytes.

    A repository without a tag stands for all its tags; an id saves the image without a name. What
    is being saved cannot be deleted meanwhile.

    Raises:
        ImageNotFoundError, ReferenceNotFoundError, PlatformNotFoundError: before anything is
            yielded.

    """
    saved = _select(store, refs, platform)
    return _write(store, saved)


def _select(store: ImageStore, refs: Sequence[str], platform: Platform | None) -> list[_Saved]:
    chosen: dict[ImageId, _Saved] = {}
    for ref in refs:
        for image_id, name in _expand(store, ref):
            saved = chosen.setdefault(image_id, _Saved(store.get(image_id)))
            check_platform(saved.record, name.familiar() if name else ref, platform)
            if name is not None and name not in saved.names:
                saved.names.append(name)
    for saved in chosen.values():
        saved.names.sort(key=str)
    return list(chosen.values())


def _expand(store: ImageStore, ref: str) -> list[tuple[ImageId, Reference | None]]:
    """Return the images a reference stands for, each with the name it is saved under."""
    with contextlib.suppress(ImageNotFoundError):
        found = store.find_id(ref)
        if found in (ref, f"sha256:{ref}"):
            return [(found, None)]
    if len(ref) == 64 or ref.startswith("sha256:"):
        raise ImageNotFoundError(ref)
    name = parse_reference(ref)
    if name.tag or name.digest:
        owner = store.catalog.find_name(name)
        if owner is None:
            raise ReferenceNotFoundError
        return [(owner, name if name.tag and not name.digest else None)]
    if tags := store.catalog.tags(name.repository):
        return [(owner, Reference(name.domain, name.path, tag)) for tag, owner in tags]
    owner = store.catalog.find_prefix(ref)
    if owner is None:
        raise ImageNotFoundError(ref)
    return [(owner, None)]


def _write(store: ImageStore, images: list[_Saved]) -> Iterator[bytes]:
    with store.content.leases.open() as lease:
        blobs: set[Digest] = set()
        for image in images:
            blobs.update((image.record.id, image.record.manifest))
            blobs.update(layer.blob for layer in image.record.layers)
        for digest in blobs:
            lease.add(digest)
        yield tar_writer.directory("blobs")
        yield tar_writer.directory(_BLOBS)
        for digest in sorted(blobs):
            yield from _blob(store, digest)
        documents = {
            INDEX_JSON: _index(store, images),
            MANIFEST_JSON: [_entry(image) for image in images],
            "oci-layout": {"imageLayoutVersion": "1.0.0"},
            "repositories": _repositories(images),
        }
        for name, document in documents.items():
            if document:
                yield from tar_writer.file(name, strict_json.dumps(document))
        yield tar_writer.END


def _blob(store: ImageStore, digest: Digest) -> Iterator[bytes]:
    with store.content.open_blob(digest) as blob:
        size = store.content.stat(digest).size_bytes
        yield tar_writer.header(_blob_name(digest), size)
        while chunk := blob.read(_CHUNK):
            yield chunk
    if pad := tar_writer.padding(size):
        yield pad


def _blob_name(digest: Digest) -> str:
    return f"{_BLOBS}/{encoded(digest)}"


def _entry(image: _Saved) -> dict[str, Any]:
    record = image.record
    return {
        "Config": _blob_name(record.id),
        "RepoTags": [name.familiar() for name in image.names] or None,
        "Layers": [_blob_name(layer.blob) for layer in record.layers],
        "LayerSources": {
            layer.diff_id: {
                "mediaType": layer.media_type,
                "size": layer.blob_size_bytes,
                "digest": layer.blob,
            }
            for layer in record.layers
        },
    }


def _index(store: ImageStore, images: list[_Saved]) -> dict[str, Any]:
    manifests: list[dict[str, Any]] = []
    for image in images:
        descriptor = {
            "mediaType": _media_type(store, image.record.manifest),
            "digest": image.record.manifest,
            "size": store.content.stat(image.record.manifest).size_bytes,
        }
        annotations = [{IMAGE_NAME: str(n), REF_NAME: n.tag} for n in image.names]
        manifests += [descriptor | {"annotations": each} for each in annotations] or [descriptor]
    return {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests}


def _media_type(store: ImageStore, manifest: Digest) -> str:
    document = strict_json.loads(store.content.read(manifest, strict_json.DEFAULT_LIMIT_BYTES))
    return str(document.get("mediaType") or OCI_MANIFEST)


def _repositories(images: list[_Saved]) -> dict[str, dict[str, str]]:
    repositories: dict[str, dict[str, str]] = {}
    for image in images:
        if image.record.layers:
            for name in image.names:
                tags = repositories.setdefault(name.familiar_repository, {})
                tags[name.tag or ""] = encoded(image.record.layers[-1].blob)
    return repositories
