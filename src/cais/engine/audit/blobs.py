"""Whether every blob is what its name says, and whether it is anybody's."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from cais.engine.audit.findings import Finding
from cais.spec.digest import Digest, InvalidDigestError, parse_digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from cais.engine.audit.data_root import DataRoot


def check_blobs(root: DataRoot) -> Iterator[Finding]:
    """Read every blob to its end. Blocks: as long as the disk takes."""
    yield from read_blobs(root, root.blobs, _users(root))


def read_blobs(root: DataRoot, blobs: Path, users: Mapping[str, str]) -> Iterator[Finding]:
    """Read every blob of a directory to its end, but for those that were read by another name.

    Args:
        root: where damaged ones are moved to.
        blobs: the directory.
        users: what blobs belong to.

    """
    for path in sorted(blobs.iterdir()):
        try:
            digest = parse_digest(f"sha256:{path.name}")
        except InvalidDigestError:
            yield Finding(f"file {path}", "is no blob", _mover(root, path))
            continue
        if path.stat().st_ino in root.sound_inodes:
            continue
        if problem := _damage(path, digest):
            used_by = f" (of {users[digest]})" if digest in users else ""
            yield Finding(f"blob {digest}{used_by}", problem, _mover(root, path))
        else:
            root.sound_inodes.add(path.stat().st_ino)


def check_unused_blobs(root: DataRoot) -> Iterator[Finding]:
    """Find blobs that no image needs, and what never became one."""
    users = _users(root)
    for path in sorted(root.blobs.iterdir()):
        # One with a second name belongs to another program, too.
        if f"sha256:{path.name}" not in users and path.stat().st_nlink == 1:
            yield Finding(f"blob sha256:{path.name}", "belongs to no image", remover(path))
    yield from check_ingest(root.path / "content")


def check_ingest(content: Path) -> Iterator[Finding]:
    """Find what was being received when a program was killed."""
    for path in sorted((content / "ingest").iterdir()):
        yield Finding(f"file {path}", "was never completed", remover(path))


def _users(root: DataRoot) -> Mapping[str, str]:
    """Return what blobs belong to: an image that has it, for each."""
    return {
        digest: image.title
        for image in root.images()
        for digest in (image.id, image.manifest, *(layer.blob for layer in image.layers))
    }


def _damage(path: Path, digest: Digest) -> str | None:
    try:
        with path.open("rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
    except FileNotFoundError:
        return None  # deleted meanwhile
    except OSError as exc:
        return f"cannot be read: {exc.strerror}"
    return None if digest == f"sha256:{actual}" else f"is damaged: its digest is sha256:{actual}"


def _mover(root: DataRoot, path: Path) -> Callable[[], str]:
    return lambda: root.quarantine(path, "blob")


def remover(path: Path) -> Callable[[], str]:
    """Return what deletes a file."""

    def remove() -> str:
        path.unlink()
        return "removed"

    return remove
