"""An engine's images, for a registry beside it to hand out: no copy is made, nothing is changed.

``registry.example.com/team/app:v1`` of the engine is ``team/app:v1`` of the registry. Where several
registries' images have one name, Docker Hub's comes first, then the others by their names.

Only looked into: the engine may run meanwhile, and delete an image that is being pulled; what is
open stays readable, the rest is not found.
"""

from __future__ import annotations

import contextlib
import os
from typing import TYPE_CHECKING

from cais.content.blobs import BlobNotFoundError, Blobs
from cais.database import Reader
from cais.images.catalog_view import CatalogView
from cais.registry.server.storage import HeldManifest, OpenBlob
from cais.spec.image import LIMIT_BYTES, OCI_MANIFEST, Manifest, decode
from cais.spec.reference import DEFAULT_DOMAIN

if TYPE_CHECKING:
    from pathlib import Path

    from cais.images.catalog_view import ImageRow
    from cais.spec.digest import Digest


class LentImages:
    """A ``registry.server.shelf.Lender``. Methods block and may be called from any thread."""

    def __init__(self, data_root: Path) -> None:
        """Look into an engine's data root. DataLossError: it has no readable database."""
        self._database = Reader.open(data_root / "images.db")
        self._catalog = CatalogView(self._database)
        self._blobs = Blobs(data_root / "content")

    def find_manifest(self, repository: str, reference: str) -> HeldManifest | None:
        """Return a manifest by tag or digest."""
        for full_name in self._full_names(repository):
            for row in self._catalog.images_of(full_name):
                if _answers_to(row, full_name, reference):
                    with contextlib.suppress(BlobNotFoundError):
                        return self._read(row)
        return None

    def open_blob(self, repository: str, digest: Digest) -> OpenBlob | None:
        """Return a blob of one of the repository's images."""
        for full_name in self._full_names(repository):
            for row in self._catalog.images_of(full_name):
                if digest == row.id or any(digest == layer.blob for layer in row.layers):
                    with contextlib.suppress(BlobNotFoundError):
                        file = self._blobs.open_blob(digest)
                        return OpenBlob(file, os.fstat(file.fileno()).st_size)
        return None

    def tags(self, repository: str) -> list[str]:
        """Return every tag."""
        return sorted(
            {
                tag
                for full_name in self._full_names(repository)
                for tag, _ in self._catalog.tags(full_name)
            }
        )

    def repositories(self) -> list[str]:
        """Return the name of every repository."""
        return sorted({_path(full_name) for full_name in self._catalog.repositories()})

    def close(self) -> None:
        """Close the database; the object is not used again."""
        self._database.close()

    def _full_names(self, repository: str) -> list[str]:
        found = [name for name in self._catalog.repositories() if _path(name) == repository]
        return sorted(found, key=lambda name: (not name.startswith(f"{DEFAULT_DOMAIN}/"), name))

    def _read(self, row: ImageRow) -> HeldManifest:
        content = self._blobs.read(row.manifest, LIMIT_BYTES)
        document = decode(content, Manifest, f"manifest {row.manifest}")
        return HeldManifest(content, document.media_type or OCI_MANIFEST, row.manifest)


def _answers_to(row: ImageRow, full_name: str, reference: str) -> bool:
    if ":" in reference:  # the digest of an index leads to an image, too, but not to these bytes
        return reference == row.manifest
    return any(
        name.repository == full_name and not name.is_digest and name.suffix == reference
        for name in row.names
    )


def _path(full_name: str) -> str:
    return full_name.partition("/")[2]
