"""A root file system as an image: an open docker-archive, ready to be loaded."""

from __future__ import annotations

import hashlib
import io
import tempfile
from typing import TYPE_CHECKING, BinaryIO

from cais.images import tar_writer
from cais.images.records import format_time
from cais.spec.digest import Digest, digest_of, encoded
from cais.spec.image import ArchiveEntry, ContainerConfig, History, ImageConfig, RootFs, encode
from cais.spec.platform import host_platform

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

_PATH = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_CHUNK = 1024 * 1024


def wrap(name: str, rootfs: BinaryIO, command: Sequence[str], created: int) -> BinaryIO:
    """Return the archive of an image of one layer.

    Args:
        name: of the image.
        rootfs: the layer, a plain tar. Taken over.
        command: what it runs.
        created: when, in seconds since 1970.

    """
    with rootfs:
        diff_id = _digest_of_file(rootfs)
        config = encode(_config(diff_id, list(command), format_time(created * 1_000_000_000)))
        layer, config_name = f"{encoded(diff_id)}.tar", f"{encoded(digest_of(config))}.json"
        entry = ArchiveEntry(config=config_name, repo_tags=[name], layers=[layer])
        return spooled(_members(layer, rootfs, config_name, config, encode(entry)))


def spooled(chunks: Iterator[bytes]) -> BinaryIO:
    """Return an open, nameless file of these bytes, at its start."""
    spool = tempfile.TemporaryFile()  # noqa: SIM115 - given away
    for chunk in chunks:
        spool.write(chunk)
    spool.seek(0)
    return spool


def _members(
    layer: str, rootfs: BinaryIO, config_name: str, config: bytes, entry: bytes
) -> Iterator[bytes]:
    size = rootfs.seek(0, io.SEEK_END)
    rootfs.seek(0)
    yield tar_writer.header(layer, size)
    while chunk := rootfs.read(_CHUNK):
        yield chunk
    yield tar_writer.padding(size)
    yield from tar_writer.file(config_name, config)
    yield from tar_writer.file("manifest.json", b"[" + entry + b"]")
    yield tar_writer.END


def _config(diff_id: Digest, command: list[str], created: str) -> ImageConfig:
    host = host_platform()
    return ImageConfig(
        architecture=host.architecture,
        os=host.os,
        variant=host.variant,
        created=created,
        config=ContainerConfig(env=[_PATH], cmd=command),
        rootfs=RootFs("layers", [diff_id]),
        history=[History(created=created, created_by="cais image bootstrap")],
    )


def _digest_of_file(file: BinaryIO) -> Digest:
    file.seek(0)
    digest = hashlib.sha256()
    while chunk := file.read(_CHUNK):
        digest.update(chunk)
    return Digest(f"sha256:{digest.hexdigest()}")
