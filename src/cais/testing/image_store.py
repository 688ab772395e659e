"""A whole image store in a directory, and archives to fill it with."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from cais.content.store import ContentStore
from cais.images.store import ImageStore
from cais.snapshots.overlay import OverlaySnapshotter
from cais.testing.raw_tar import Member, tar

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path


@contextmanager
def open_image_store(data_root: Path) -> Iterator[ImageStore]:
    """Open all three stores below ``data_root``, as the engine does."""
    content = ContentStore(data_root / "content")
    snapshotter = OverlaySnapshotter(data_root / "snapshots")
    try:
        store = ImageStore.open(data_root, content, snapshotter)
        try:
            yield store
        finally:
            store.close()
    finally:
        snapshotter.close()


def hex_digest(content: bytes) -> str:
    """Return the hexadecimal sha256."""
    return hashlib.sha256(content).hexdigest()


def config_of(diff_ids: Sequence[str], **fields: Any) -> bytes:  # noqa: ANN401 - any JSON value
    """Return a configuration document with these diff ids (hexadecimal)."""
    return json.dumps(
        {
            "architecture": {"x86_64": "amd64", "aarch64": "arm64"}[os.uname().machine],
            "os": "linux",
            "created": "2026-01-02T03:04:05.678Z",
            "config": {"Cmd": ["sh"], "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{each}" for each in diff_ids]},
            "history": [{"created_by": f"step {n}"} for n in range(len(diff_ids))],
        }
        | fields
    ).encode()


def docker_archive(
    layers: Sequence[bytes],
    names: Sequence[str] | None = ("test:latest",),
    *,
    diff_ids: Sequence[str] | None = None,
    extra: Sequence[Member] = (),
    config: bytes | None = None,
    entry: Mapping[str, Any] | None = None,
) -> bytes:
    """Return a docker-archive of one image; every part can be replaced by a wrong one."""
    digests = [hex_digest(layer) for layer in layers]
    document = config_of(diff_ids or digests) if config is None else config
    config_name = f"{hex_digest(document)}.json"
    manifest = {
        "Config": config_name,
        "RepoTags": names if names is None else list(names),
        "Layers": [f"{each}/layer.tar" for each in digests],
    } | dict(entry or {})
    members = {f"{name}/layer.tar": layer for name, layer in zip(digests, layers, strict=True)}
    members |= {config_name: document, "manifest.json": json.dumps([manifest]).encode()}
    return tar([*(Member(name, content) for name, content in members.items()), *extra])


def left_over(store: ImageStore) -> list[str]:
    """Return every image, blob, snapshot and unfinished ingest the store holds."""
    ingest = os.listdir(store.content._ingest)  # noqa: SLF001 - nothing public shows it
    return [
        *(record.id for record in store.list()),
        *(blob.digest for blob in store.content.walk()),
        *(snapshot.key for snapshot in store.snapshotter.walk()),
        *ingest,
    ]
