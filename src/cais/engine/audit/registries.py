"""Whether a registry that is served from the data root has all it promised, and nothing else.

A blob that is put aside is unknown to the registry from then on: whoever pushes it makes it whole.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cais.database import Reader, has_database
from cais.database.database import loss_of, mirror_path
from cais.engine.audit.blobs import check_ingest, read_blobs, remover
from cais.engine.audit.findings import Finding
from cais.registry.server.catalog import Catalog

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from cais.engine.audit.data_root import DataRoot

_HELD = "SELECT digest, repository FROM blobs UNION SELECT digest, repository FROM manifests"


def check_registry(
    root: DataRoot, place: Path, *, quick: bool, is_at_rest: bool
) -> Iterator[Finding]:
    """Check the database, the blobs and what should be there of one registry.

    Args:
        root: where damaged blobs are moved to.
        place: the registry's own directory.
        quick: do not read blobs.
        is_at_rest: no server is at work: also look for what is nobody's, and mend the database.

    """
    path, blobs = place / "registry.db", place / "content" / "blobs" / "sha256"
    if not has_database(path) and not any(blobs.iterdir()):
        return
    yield from _check_database(path, is_at_rest=is_at_rest)
    if loss_of(path):
        return
    held = _held(path)
    if not quick:
        yield from read_blobs(root, blobs, {digest: names[0] for digest, names in held.items()})
    present = {f"sha256:{file.name}" for file in blobs.iterdir()}
    for digest, names in held.items():
        if digest not in present:
            yield Finding(f"repository {names[0]}", f"lacks blob {digest}: push it again")
    if is_at_rest:
        for digest in sorted(present - held.keys()):
            file = blobs / digest.removeprefix("sha256:")
            yield Finding(f"blob {digest}", "is in no repository", remover(file))
        yield from check_ingest(place / "content")


def _check_database(path: Path, *, is_at_rest: bool) -> Iterator[Finding]:
    copy = mirror_path(path)
    loss, copy_loss = loss_of(path), loss_of(copy)

    def rebuild() -> str:
        Catalog.open(path).close()
        return "rebuilt from its copy" if loss else "written anew"

    subject = f"database {path.parent.name}/{path.name if loss else copy.name}"
    if loss and copy_loss:
        yield Finding(subject, f"{loss}, and its copy {copy.name} {copy_loss}")
    elif loss or copy_loss:
        yield Finding(subject, loss or copy_loss or "", rebuild if is_at_rest else None)


def _held(path: Path) -> dict[str, list[str]]:
    """Return the repositories of each blob and manifest."""
    held: dict[str, list[str]] = {}
    with contextlib.closing(Reader.open(path)) as reader:
        for digest, repository in reader.rows(_HELD):
            held.setdefault(digest, []).append(repository)
    return held
