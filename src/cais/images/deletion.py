"""Which names and which images ``docker rmi`` takes away, in which order, and when it refuses.

A name given as argument goes first, and the image with its last name, unless a child image or a
running container keeps it, nameless. An id given takes all names away when they are one tag (and
digests) of one repository. Hard conflicts (a child image, a running container) always stand; soft
ones (more names, a stopped container) yield to ``force``. Nothing is changed when a conflict is
reported. Pulls go on meanwhile: a name that has moved to another image is left to that one, and an
image that was given a name stays.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cais.images.records import ImageInUseError, ImageNotFoundError
from cais.spec.digest import short
from cais.spec.reference import parse_reference

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from cais.images.catalog_view import ImageRow, Name
    from cais.images.records import ImageRecord, ImageUse
    from cais.images.store import ImageStore
    from cais.spec.digest import ImageId


class Deletion:
    """One run of ``rmi``."""

    def __init__(self, store: ImageStore, in_use: Callable[[ImageId], Sequence[ImageUse]]) -> None:
        self._store = store
        self._catalog = store.catalog
        self._in_use = in_use
        self._entries: list[dict[str, str]] = []
        self._parent: ImageId | None = None

    def delete(
        self, ref: str, *, force: bool, prune: bool, chosen: ImageRecord | None
    ) -> list[dict[str, str]]:
        """Do it and return what was done, in order; ``chosen`` as in ``ImageStore.delete``."""
        image_id = self._store.find_id(ref)
        names = self._catalog.names(image_id)
        if chosen is not None and not self._is_still(chosen, image_id):
            return []
        if _is_id(image_id, ref):
            self._check_by_id(image_id, names, force=force)
            self._untag(image_id, names)
        elif not self._remove_name(image_id, names, ref, force=force):
            return self._entries
        self._delete_image(image_id)
        if prune:
            self._prune_parents()
        self._store.collect()
        return self._entries

    def _is_still(self, chosen: ImageRecord, image_id: ImageId) -> bool:
        """Say whether a reference leads to the image it was chosen by, not named again since."""
        row = self._catalog.find(image_id)
        return row is not None and (row.id, row.tagged_ns) == (chosen.id, chosen.tagged_ns)

    def _remove_name(
        self, image_id: ImageId, names: Sequence[Name], ref: str, *, force: bool
    ) -> bool:
        """Take the name away; say whether the image is to follow."""
        name = _matching(names, ref)
        remaining = [other for other in names if other != name]
        if not name.is_digest:
            remaining = _without_orphaned_digests(remaining, name.repository)
        uses = self._in_use(image_id)
        if uses and not remaining and not force:
            raise ImageInUseError(
                f"conflict: unable to remove repository reference {_quoted(ref)} (must force) - "
                f"container {short(uses[0].container_id)} is using its referenced image "
                f"{short(image_id)}"
            )
        self._untag(image_id, [gone for gone in names if gone not in remaining])
        is_kept = any(use.is_running for use in uses) or self._catalog.children(image_id)
        return not remaining and not is_kept

    def _check_by_id(self, image_id: ImageId, names: Sequence[Name], *, force: bool) -> None:
        self._check_hard(image_id)
        if force:
            return
        if not _is_single(names):
            raise _conflict(image_id, "image is referenced in multiple repositories", hard=False)
        if uses := self._in_use(image_id):
            container = short(uses[0].container_id)
            raise _conflict(
                image_id, f"image is being used by stopped container {container}", hard=False
            )

    def _check_hard(self, image_id: ImageId) -> None:
        if self._catalog.children(image_id):
            raise _conflict(image_id, "image has dependent child images", hard=True)
        for use in self._in_use(image_id):
            if use.is_running:
                container = short(use.container_id)
                raise _conflict(
                    image_id, f"image is being used by running container {container}", hard=True
                )

    def _delete_image(self, image_id: ImageId) -> None:
        row = self._catalog.find(image_id)
        if row is None:
            raise ImageNotFoundError(image_id)
        self._forget(row)

    def _forget(self, row: ImageRow) -> None:
        if not self._catalog.remove(row.id):
            return
        self._parent = row.parent
        self._entries.append({"Deleted": row.id})
        self._entries += [{"Deleted": chain} for chain in self._store.remove_layers(row)]

    def _prune_parents(self) -> None:
        """Delete parents upwards until one has a name, another child or a container."""
        while self._parent is not None:
            row = self._catalog.find(self._parent)
            is_needed = row is None or row.names or self._catalog.children(row.id)
            if row is None or is_needed or self._in_use(row.id):
                return
            self._forget(row)

    def _untag(self, image_id: ImageId, names: Sequence[Name]) -> None:
        for name in names:
            if self._catalog.remove_name(name, image_id):
                self._entries.append({"Untagged": str(name)})


def _matching(names: Sequence[Name], ref: str) -> Name:
    wanted = parse_reference(ref).with_default_tag()
    suffix = wanted.digest or wanted.tag
    for name in names:
        if name.repository == wanted.repository and name.suffix == suffix:
            return name
    raise ImageNotFoundError(wanted.familiar())  # not this image's any more


def _is_id(image_id: ImageId, ref: str) -> bool:
    return image_id.startswith(ref) or image_id.removeprefix("sha256:").startswith(ref)


def _is_single(names: Sequence[Name]) -> bool:
    """Say whether the names are at most one tag, and digests of the same repository."""
    tags = sum(not name.is_digest for name in names)
    return tags <= 1 and len({name.repository for name in names}) <= 1


def _without_orphaned_digests(names: list[Name], repository: str) -> list[Name]:
    """Leave out digests of a repository that has no tag left."""
    if any(name.repository == repository and not name.is_digest for name in names):
        return names
    return [name for name in names if name.repository != repository]


def _conflict(image_id: ImageId, why: str, *, hard: bool) -> ImageInUseError:
    how = "cannot be forced" if hard else "must be forced"
    return ImageInUseError(f"conflict: unable to delete {short(image_id)} ({how}) - {why}")


def _quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
