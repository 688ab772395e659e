"""The common part of all snapshotters: a directory for what each snapshot changes.

On disk::

    <data-root>/snapshots/           0700: layers hold setuid files (CVE-2021-41091)
      snapshots.db                   see ``rows``
      <number>/                      the difference, in overlayfs form; its own mode is the root's
      work/<number>/                 overlayfs's scratch directory, while mounted
      trees/<number>/                a whole root, of the drivers that do not stack directories
      trash/                         removed trees, deleted by a thread

Layers are the same for every driver, so whoever reads or writes one need not know which it is; how
a container's root is made of them is what a driver adds.

``prepare`` writes a row and nothing else: on ext4 an empty directory takes 4 KiB, so what a mount
needs is made when mounts are asked for. Directories are numbered and lie flat to keep ``lowerdir``
short. The row is what counts: a directory without a row is trash when the snapshotter is opened.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import uuid
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from cais.database import has_database
from cais.errors import DataLossError, ExhaustedError
from cais.linux.filesystem import sync_filesystem
from cais.snapshots.backing import describe_backing
from cais.snapshots.rows import Rows
from cais.snapshots.snapshotter import Kind, Layer, Mount, SnapshotStateError, Usage
from cais.snapshots.trash import Trash

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from cais.snapshots.rows import Row
    from cais.snapshots.snapshotter import Snapshot

log = logging.getLogger(__name__)

OVERLAY_ATTRIBUTES = "trusted.overlay."
"""What overlayfs notes for itself on a directory."""

MADE = ".made"
"""Ends the name of a file that stands beside a tree, see ``trees``."""

_PLACES = ("work", "trees")


class DifferenceSnapshotter(ABC):
    """The ``Snapshotter`` of one data root; a driver says how layers become a root."""

    driver: str
    """As Docker names it."""

    def __init__(self, root: Path) -> None:
        """Open or create the store and finish what a crash left half done.

        Raises:
            ConflictError: as ``Database``.
            DataLossError: as ``Database``, or the rows of snapshots that are there are gone.

        """
        self._root = os.fspath(root)
        os.makedirs(self._root, 0o700, exist_ok=True)
        os.chmod(self._root, 0o700)
        for place in _PLACES:
            os.makedirs(f"{self._root}/{place}", 0o700, exist_ok=True)
        if not has_database(root / "snapshots.db") and any(map(str.isdecimal, os.listdir(root))):
            raise DataLossError(
                f"{self._root}/snapshots.db is gone, and its copy, but not the snapshots: nothing "
                "was deleted; see 'cais system check'"
            )
        self._fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        self._rows = Rows(root / "snapshots.db")
        self._trash = Trash(os.path.join(self._root, "trash"))
        self._rows.set_driver(self.driver)
        self._rows.note_stand_ins(are_made=describe_backing(self._root) == "overlayfs")
        self._reconcile()

    def close(self) -> None:
        """Wait for the trash to be emptied and let go of the store."""
        self._trash.close()
        self._rows.close()
        os.close(self._fd)

    def status(self) -> list[tuple[str, str]]:
        """See ``Snapshotter.status``."""
        return []

    def prepare(self, key: str, parent: str | None) -> None:
        """See ``Snapshotter.prepare``."""
        self._rows.create(key, parent, Kind.ACTIVE)

    def view(self, key: str, parent: str | None) -> None:
        """See ``Snapshotter.view``."""
        self._rows.create(key, parent, Kind.VIEW)

    def mounts(self, key: str, *, ephemeral: bool = False) -> tuple[Mount, ...]:
        """See ``Snapshotter.mounts``."""
        row = self._rows.get(key)
        plain = self._plain(row)
        if plain is None:
            return (self._make_joined(row, ephemeral=ephemeral),)
        if plain.source == self._difference(row.number):
            self._ensure_difference(row)
        return (plain,)

    def planned_mounts(self, key: str) -> tuple[Mount, ...]:
        """See ``Snapshotter.planned_mounts``."""
        row = self._rows.get(key)
        return (self._plain(row) or self._joined(row),)

    def places(self, key: str) -> tuple[str, ...]:
        """See ``Snapshotter.places``."""
        number = self._rows.get(key).number
        own = self._difference(number)
        return (own, *(f"{self._root}/{place}/{number}" for place in _PLACES))

    def trim(self, key: str) -> None:
        """See ``Snapshotter.trim``."""
        row = self._rows.get(key)
        if row.kind is Kind.ACTIVE:
            self._trim(row)

    def layer(self, key: str) -> Layer:
        """See ``Snapshotter.layer``."""
        row = self._rows.get(key)
        if row.kind is not Kind.COMMITTED:
            self._ensure_difference(row)
            self._refresh(row)
        own, *lowers = map(self._difference, self._rows.lineage(row.number))
        return Layer(own, tuple(lowers))

    def commit(self, key: str, name: str, *, parent: str | None = None) -> None:
        """See ``Snapshotter.commit``."""
        row = self._rows.get(key)
        row.expect_active("only an active one commits")
        self._ensure_difference(row)
        self._refresh(row)
        sync_filesystem(self._fd)  # data before the row that vouches for it (SECURITY.md F-5)
        self._rows.commit(row, name, parent)
        self._discard(row)

    def remove(self, key: str) -> None:
        """See ``Snapshotter.remove``."""
        row = self._rows.remove(key)
        self._trash.take(self._fd, str(row.number))
        self._discard(row)

    def stat(self, key: str) -> Snapshot:
        """See ``Snapshotter.stat``."""
        return self._rows.get(key).snapshot

    def usage(self, key: str) -> Usage:
        """See ``Snapshotter.usage``: sizes of files, each inode once, as Docker counts."""
        row = self._rows.get(key)
        if row.usage is not None:
            return row.usage
        if row.kind is not Kind.COMMITTED:
            return self._count(row)
        usage = count(_walk(self._difference(row.number)))
        self._rows.keep_usage(row, usage)
        return usage

    def walk(self) -> Iterator[Snapshot]:
        """See ``Snapshotter.walk``."""
        for row in self._rows.walk():
            yield row.snapshot

    # What a driver adds

    @abstractmethod
    def _joined(self, row: Row) -> Mount:
        """Return the mount of a snapshot that has more than one directory."""

    @abstractmethod
    def _make_joined(self, row: Row, *, ephemeral: bool) -> Mount:
        """Return the mount of a snapshot that has more than one directory, ready to be mounted."""

    @abstractmethod
    def _trim(self, row: Row) -> None:
        """Free what an active snapshot can do without."""

    def _refresh(self, row: Row) -> None:  # noqa: B027 - stacked directories are always up to date
        """Have the difference of a snapshot that is not committed show what is in its root."""

    def _count(self, row: Row) -> Usage:
        """Return what a snapshot that is not committed takes."""
        return count(_walk(self._difference(row.number)))

    # What drivers use

    def _plain(self, row: Row) -> Mount | None:
        """Return the mount of a snapshot that is one directory alone.

        Raises:
            SnapshotStateError: it is committed.

        """
        if row.kind is Kind.COMMITTED:
            raise SnapshotStateError(
                f"snapshot {row.key} is committed: it cannot be mounted itself"
            )
        own, *lowers = self._rows.lineage(row.number)
        if not lowers:
            access = "rw" if row.kind is Kind.ACTIVE else "ro"
            return Mount("bind", self._difference(own), options=(access, "rbind"))
        if row.kind is Kind.VIEW and len(lowers) == 1:
            return Mount("bind", self._difference(lowers[0]), options=("ro", "rbind"))
        return None

    def _difference(self, number: int) -> str:
        return f"{self._root}/{number}"

    def _ensure_difference(self, row: Row) -> None:
        path = self._difference(row.number)
        if os.path.isdir(path):
            return
        complete = f"{self._root}/{uuid.uuid4().hex}"  # never seen with the wrong owner or mode
        with self._exhausted(path):
            os.mkdir(complete, 0o700)
            self._copy_root_attributes(row.parent, complete)
            self._publish(complete, path)

    def _publish(self, complete: str, path: str) -> bool:
        """Give a finished directory its name; False: another thread was faster, it is trash."""
        try:
            os.rename(complete, path)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
            self._trash.take(self._fd, os.path.relpath(complete, self._root))
            return False
        return True

    @contextlib.contextmanager
    def _exhausted(self, path: str) -> Iterator[None]:
        """Say in the engine's words that a directory cannot be made."""
        try:
            yield
        except OSError as exc:
            raise ExhaustedError(f"prepare snapshot {path}: {exc.strerror}") from exc

    def _discard(self, row: Row) -> None:
        """Remove what a snapshot has besides its difference."""
        for place in _PLACES:
            self._discard_at(place, row.number)

    def _discard_at(self, place: str, number: int) -> None:
        for name in (f"{place}/{number}", f"{place}/{number}{MADE}"):
            self._trash.take(self._fd, name)

    def _copy_root_attributes(self, parent: int | None, path: str) -> None:
        # The merged root shows the uppermost directory's own owner and mode.
        if parent is None:
            os.chmod(path, 0o755)  # noqa: S103 - a root directory's usual mode, inside 0700
            return
        above = os.stat(self._difference(parent))
        os.chown(path, above.st_uid, above.st_gid)
        os.chmod(path, stat.S_IMODE(above.st_mode))

    def _has_root_attributes(self, parent: int | None, path: str) -> bool:
        """Whether nobody has changed what ``_copy_root_attributes`` gave, nor added any."""
        if parent is None:
            return False
        own, above = os.stat(path), os.stat(self._difference(parent))
        return (own.st_uid, own.st_gid, own.st_mode) == (
            above.st_uid,
            above.st_gid,
            above.st_mode,
        ) and all(name.startswith(OVERLAY_ATTRIBUTES) for name in os.listxattr(path))

    def _keeps(self, place: str, row: Row) -> bool:
        """Whether ``<place>/<number>`` of this snapshot is anything but a crash's remains."""
        return place == "work" and row.kind is not Kind.COMMITTED

    def _reconcile(self) -> None:
        rows = {str(row.number): row for row in self._rows.walk()}
        with os.scandir(self._fd) as entries:
            directories = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        for name in directories - rows.keys() - {*_PLACES, "trash"}:
            self._trash.take(self._fd, name)
        for place in _PLACES:
            for name in os.listdir(f"{self._root}/{place}"):
                row = rows.get(name.removesuffix(MADE))
                if row is None or not self._keeps(place, row):
                    self._trash.take(self._fd, f"{place}/{name}")
        for name, row in rows.items():
            if row.kind is Kind.COMMITTED and name not in directories:
                log.error("layer %s: %s/%s is missing", row.key, self._root, name)


def count(files: Iterable[os.stat_result]) -> Usage:
    """Add up sizes of all but directories, each inode once."""
    size = 0
    seen: set[int] = set()
    for facts in files:
        if not stat.S_ISDIR(facts.st_mode) and facts.st_ino not in seen:
            size += facts.st_size
        seen.add(facts.st_ino)
    return Usage(size, len(seen))


def _walk(path: str) -> Iterator[os.stat_result]:
    pending = [path]
    while pending:
        with contextlib.suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode):
                    pending.append(entry.path)
                yield facts
