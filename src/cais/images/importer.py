"""``docker import``: one root file system archive becomes an image of one layer."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from cais.errors import InvalidArgumentError
from cais.images.archive import make_manifest
from cais.images.changes import apply_changes
from cais.images.compression import open_decompressed
from cais.images.layer_imports import commit_layer, fill, import_snapshot
from cais.images.layers import MEDIA_TYPES
from cais.images.records import NewImage, StoredLayer, format_time
from cais.images.store import name_to_give
from cais.spec.digest import ChainId, DiffId, Digest, ImageId
from cais.spec.image import ContainerConfig, History, ImageConfig, RootFs, encode
from cais.spec.platform import Platform, host_platform, parse_platform
from cais.spec.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cais.content.leases import Lease
    from cais.content.store import Ingest
    from cais.images.compression import Compression, Readable
    from cais.images.store import ImageStore
    from cais.spec.reference import Reference

_CHUNK = 1024 * 1024


def import_rootfs(
    source: Readable,
    store: ImageStore,
    *,
    repository: str = "",
    tag: str = "",
    message: str = "",
    changes: Sequence[str] = (),
    platform: str = "",
    origin: str = "-",
    created_ns: int | None = None,
) -> ImageId:
    """Make an image of one layer; compressed archives are recognised. All of it or nothing.

    Args:
        source: read to its end.
        repository: may be empty: the image gets no name then.
        message: the comment of its history; "Imported from" its ``origin`` when empty.
        changes: Dockerfile instructions (CMD, ENTRYPOINT, ENV, EXPOSE, HEALTHCHECK, LABEL, ONBUILD,
            STOPSIGNAL, USER, VOLUME, WORKDIR).
        platform: ``os[/arch[/variant]]``; this machine's when empty.
        origin: where the archive is from, ``-`` or a URL.
        created_ns: now when None.

    Raises:
        InvalidArgumentError: a malformed archive, reference, change or platform.
        ExhaustedError: "no space left on device".

    Blocks: for as long as the source lasts, and for unpacking and syncing.

    """
    names = [_name_of(repository, tag)] if repository else []
    if tag and not repository:
        raise InvalidArgumentError("a tag needs a repository")
    container = apply_changes(ContainerConfig(), changes)
    wanted = parse_platform(platform) if platform else host_platform()
    created = format_time(time.time_ns() if created_ns is None else created_ns)
    try:
        with store.content.leases.open() as lease:
            layer = _take_layer(store, lease, source)
            config = _configuration(
                container, wanted, created, message or f"Imported from {origin}", layer
            )
            return _register(store, lease, config, layer, names)
    except BaseException:
        store.collect()  # the lease is gone: nothing of the attempt is needed
        raise


def _name_of(repository: str, tag: str) -> Reference:
    if parse_reference(repository).digest is not None:
        raise InvalidArgumentError("cannot import digest reference")
    return name_to_give(repository, tag)


def _take_layer(store: ImageStore, lease: Lease, source: Readable) -> StoredLayer:
    with store.unpacker.open(), store.content.open_ingest() as ingest:
        compression = _spool(source, ingest)
        ingest.finish()
        with import_snapshot(store, lease, None) as key:
            target = store.snapshotter.layer(key)
            with ingest.open_written() as blob:
                done = fill(store.unpacker.borrow(), blob, target.path)
            diff_id = DiffId(Digest(f"sha256:{done.sha256}"))
            chain = ChainId(diff_id)
            lease.add(chain)
            commit_layer(store, key, chain)
        blob_facts = ingest.commit(lease)
    return StoredLayer(
        diff_id,
        chain,
        blob_facts.digest,
        blob_facts.size_bytes,
        MEDIA_TYPES[compression],
        done.size_bytes,
    )


def _spool(source: Readable, ingest: Ingest) -> Compression:
    """Write the archive as it comes; what no media type exists for is decompressed."""
    recorder = _Recorder(source)
    plain, compression = open_decompressed(recorder)
    if compression in MEDIA_TYPES:
        ingest.write(recorder.head)
        plain = source
    while chunk := plain.read(_CHUNK):
        ingest.write(chunk)
    return compression if compression in MEDIA_TYPES else ""


class _Recorder:
    """Keeps what was read of a stream while its compression is being recognised."""

    def __init__(self, source: Readable) -> None:
        self._source = source
        self.head = b""

    def read(self, size: int) -> bytes:
        chunk = self._source.read(size)
        if len(self.head) < _CHUNK:
            self.head += chunk
        return chunk


def _configuration(
    container: ContainerConfig, platform: Platform, created: str, comment: str, layer: StoredLayer
) -> ImageConfig:
    return ImageConfig(
        architecture=platform.architecture,
        os=platform.os,
        variant=platform.variant,
        created=created,
        comment=comment,
        config=container,
        rootfs=RootFs("layers", [layer.diff_id]),
        history=[History(created=created, comment=comment)],
    )


def _register(
    store: ImageStore,
    lease: Lease,
    config: ImageConfig,
    layer: StoredLayer,
    names: Sequence[Reference],
) -> ImageId:
    blob = store.content.write(encode(config), lease)
    manifest = store.content.write(encode(make_manifest(blob, [layer])), lease)
    image = NewImage(ImageId(blob.digest), config, manifest.digest, (layer,))
    store.register([(image, names)])
    return image.id
