"""Snapshots for overlayfs: a directory per difference, stacked by mount options.

On disk::

    <data-root>/snapshots/           0700: layers hold setuid files (CVE-2021-41091)
      snapshots.db                   WAL, synchronous=FULL
        snapshots(number, key UNIQUE, kind, parent -> number, created_ns, size_bytes, inodes)
      <number>/                      the difference, in overlayfs form; its own mode is the root's
      work/<number>/                 overlayfs's scratch directory, while mounted
      trash/                         removed trees, deleted by a thread

``prepare`` writes a row and nothing else: on ext4 an empty directory takes 4 KiB, so the two that
overlayfs needs are made when mounts are asked for. ``trim`` removes the scratch directory, and the
difference if there is none: a thousand containers that do not run cost little more than one.
Directories are numbered and lie flat to keep ``lowerdir`` short. The row is what counts: a
directory without a row is trash when the snapshotter is opened. A schema change appends to
``_MIGRATIONS``.

Spec: Linux Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import sqlite3
import stat
import time
import uuid
from dataclasses import replace
from typing import TYPE_CHECKING

from cais.database import Database
from cais.errors import ExhaustedError, InvalidArgumentError
from cais.linux.filesystem import sync_filesystem
from cais.snapshots.snapshotter import (
    Kind,
    Layer,
    Mount,
    Snapshot,
    SnapshotExistsError,
    SnapshotInUseError,
    SnapshotKey,
    SnapshotNotFoundError,
    SnapshotStateError,
    Usage,
)
from cais.snapshots.trash import Trash

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

log = logging.getLogger(__name__)

MAX_LAYERS = 128
"""Docker's own limit; overlayfs itself stacks 500."""

_FEATURES_OFF = ("index=off", "metacopy=off", "redirect_dir=nofollow")
"""A trusted.overlay.* attribute that slipped into a layer must not name a file to show."""

_OVERLAY_ATTRIBUTES = "trusted.overlay."
"""What overlayfs notes for itself on the uppermost directory."""

_MIGRATIONS = (
    """
    CREATE TABLE snapshots(
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        key TEXT NOT NULL UNIQUE,
        kind TEXT NOT NULL,
        parent INTEGER REFERENCES snapshots(number),
        created_ns INTEGER NOT NULL,
        size_bytes INTEGER,
        inodes INTEGER);
    CREATE INDEX snapshots_parent ON snapshots(parent)
    """,
)
_LINEAGE = """
    WITH RECURSIVE lineage(number, parent, depth) AS (
        SELECT number, parent, 0 FROM snapshots WHERE number = ?
        UNION ALL
        SELECT s.number, s.parent, depth + 1 FROM snapshots s JOIN lineage l ON s.number = l.parent)
    SELECT number FROM lineage ORDER BY depth
"""
_ALL = """
    SELECT s.*, p.key AS parent_key FROM snapshots s LEFT JOIN snapshots p ON s.parent = p.number
"""


class OverlaySnapshotter:
    """The ``Snapshotter`` of one data root."""

    def __init__(self, root: Path) -> None:
        """Open or create the store and finish what a crash left half done.

        Raises:
            InvalidArgumentError: the path cannot stand in overlayfs's options.

        """
        self._root = os.fspath(root)
        if any(mark in self._root for mark in ":,\\"):
            raise InvalidArgumentError(
                f"data root {self._root!r}: overlayfs options cannot hold a colon, a comma or a "
                "backslash"
            )
        os.makedirs(self._root, 0o700, exist_ok=True)
        os.chmod(self._root, 0o700)
        self._fd = os.open(self._root, os.O_RDONLY | os.O_DIRECTORY)
        os.makedirs(f"{self._root}/work", 0o700, exist_ok=True)
        self._database = Database(root / "snapshots.db", _MIGRATIONS)
        self._trash = Trash(os.path.join(self._root, "trash"))
        self._reconcile()

    def close(self) -> None:
        """Wait for the trash to be emptied and let go of the store."""
        self._trash.close()
        self._database.close()
        os.close(self._fd)

    def prepare(self, key: str, parent: str | None) -> None:
        """See ``Snapshotter.prepare``."""
        self._create(key, parent, Kind.ACTIVE)

    def view(self, key: str, parent: str | None) -> None:
        """See ``Snapshotter.view``."""
        self._create(key, parent, Kind.VIEW)

    def mounts(self, key: str, *, ephemeral: bool = False) -> tuple[Mount, ...]:
        """See ``Snapshotter.mounts``."""
        row = self._row(key)
        mounts = self._planned(row)
        is_active = Kind(row["kind"]) is Kind.ACTIVE
        if is_active or mounts[0].source == self._difference(row["number"]):
            self._ensure_directories(row)
        if ephemeral and is_active and row["parent"] is not None:
            return (self._unsynced(row["number"], mounts[0]),)
        return mounts

    def planned_mounts(self, key: str) -> tuple[Mount, ...]:
        """See ``Snapshotter.planned_mounts``."""
        return self._planned(self._row(key))

    def trim(self, key: str) -> None:
        """See ``Snapshotter.trim``."""
        row = self._row(key)
        if Kind(row["kind"]) is not Kind.ACTIVE:
            return
        self._trash.take(self._fd, f"work/{row['number']}")
        path = self._difference(row["number"])
        with contextlib.suppress(OSError):  # not there, or not empty: then it stays
            if self._has_root_attributes(row["parent"], path):
                os.rmdir(path)

    def layer(self, key: str) -> Layer:
        """See ``Snapshotter.layer``."""
        row = self._row(key)
        if Kind(row["kind"]) is not Kind.COMMITTED:
            self._ensure_directories(row)
        own, *lowers = map(self._difference, self._lineage(row["number"]))
        return Layer(own, tuple(lowers))

    def commit(self, key: str, name: str) -> None:
        """See ``Snapshotter.commit``."""
        row = self._row(key)
        if Kind(row["kind"]) is not Kind.ACTIVE:
            raise SnapshotStateError(f"snapshot {key} is {row['kind']}: only an active one commits")
        self._ensure_directories(row)
        sync_filesystem(self._fd)  # data before the row that vouches for it (SECURITY.md F-5)
        with self._database.transaction() as connection:
            try:
                changed = connection.execute(
                    "UPDATE snapshots SET key = ?, kind = ? WHERE number = ? AND kind = ?",
                    (name, Kind.COMMITTED.value, row["number"], Kind.ACTIVE.value),
                )
            except sqlite3.IntegrityError as exc:
                raise SnapshotExistsError(name) from exc
            if changed.rowcount != 1:
                raise SnapshotNotFoundError(key)
        self._trash.take(self._fd, f"work/{row['number']}")

    def remove(self, key: str) -> None:
        """See ``Snapshotter.remove``."""
        with self._database.transaction() as connection:
            row = self._row(key)
            try:
                connection.execute("DELETE FROM snapshots WHERE number = ?", (row["number"],))
            except sqlite3.IntegrityError as exc:
                raise SnapshotInUseError(key) from exc
        self._trash.take(self._fd, str(row["number"]))
        self._trash.take(self._fd, f"work/{row['number']}")

    def stat(self, key: str) -> Snapshot:
        """See ``Snapshotter.stat``."""
        return _snapshot(self._row(key))

    def usage(self, key: str) -> Usage:
        """See ``Snapshotter.usage``: sizes of files, each inode once, as Docker counts."""
        row = self._row(key)
        if row["size_bytes"] is not None:
            return Usage(row["size_bytes"], row["inodes"])
        usage = _usage(self._difference(row["number"]))
        if Kind(row["kind"]) is Kind.COMMITTED:
            with self._database.transaction() as connection:
                connection.execute(
                    "UPDATE snapshots SET size_bytes = ?, inodes = ? WHERE number = ?",
                    (usage.size_bytes, usage.inodes, row["number"]),
                )
        return usage

    def walk(self) -> Iterator[Snapshot]:
        """See ``Snapshotter.walk``: the order of creation has parents first."""
        yield from map(_snapshot, self._database.rows(f"{_ALL} ORDER BY s.number"))

    def _create(self, key: str, parent: str | None, kind: Kind) -> None:
        with self._database.transaction() as connection:
            parent_number = None if parent is None else self._committed(parent)
            try:
                number = connection.execute(
                    "INSERT INTO snapshots(key, kind, parent, created_ns) VALUES (?, ?, ?, ?)",
                    (key, kind.value, parent_number, time.time_ns()),
                ).lastrowid
            except sqlite3.IntegrityError as exc:
                raise SnapshotExistsError(key) from exc
            assert number is not None
            depth = len(self._lineage(number)) - 1
            if depth > MAX_LAYERS:
                raise ExhaustedError(f"max depth exceeded: {key} has {depth} layers")

    def _ensure_directories(self, row: sqlite3.Row) -> None:
        path = self._difference(row["number"])
        try:
            with contextlib.suppress(FileExistsError):
                os.mkdir(f"{self._root}/work/{row['number']}", 0o700)
            if os.path.isdir(path):
                return
            complete = f"{self._root}/{uuid.uuid4().hex}"  # never seen with the wrong owner or mode
            os.mkdir(complete, 0o700)
            self._copy_root_attributes(row["parent"], complete)
            os.rename(complete, path)
        except OSError as exc:
            if exc.errno not in (errno.ENOTEMPTY, errno.EEXIST):  # another thread was faster
                raise ExhaustedError(f"prepare snapshot {path}: {exc.strerror}") from exc

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
        ) and all(name.startswith(_OVERLAY_ATTRIBUTES) for name in os.listxattr(path))

    def _planned(self, row: sqlite3.Row) -> tuple[Mount, ...]:
        kind = Kind(row["kind"])
        if kind is Kind.COMMITTED:
            raise SnapshotStateError(
                f"snapshot {row['key']} is committed: it cannot be mounted itself"
            )
        own, *lowers = self._lineage(row["number"])
        return self._mounts(kind, own, [self._difference(lower) for lower in lowers])

    def _mounts(self, kind: Kind, own: int, lowers: list[str]) -> tuple[Mount, ...]:
        lower = f"lowerdir={':'.join(lowers)}"
        if not lowers:
            access = "rw" if kind is Kind.ACTIVE else "ro"
            return (Mount("bind", self._difference(own), options=(access, "rbind")),)
        if kind is Kind.ACTIVE:
            upper, work = f"upperdir={self._difference(own)}", f"workdir={self._root}/work/{own}"
            return (Mount("overlay", "overlay", options=(lower, upper, work, *_FEATURES_OFF)),)
        if len(lowers) == 1:
            return (Mount("bind", lowers[0], options=("ro", "rbind")),)
        return (Mount("overlay", "overlay", options=(lower, *_FEATURES_OFF)),)

    def _unsynced(self, own: int, overlay: Mount) -> Mount:
        """Return the overlay without its sync of the whole disk at each unmount."""
        mark = f"{self._root}/work/{own}/work/incompat"  # refuses a second mount
        shutil.rmtree(mark, ignore_errors=True)
        return replace(overlay, options=(*overlay.options, "volatile"))

    def _difference(self, number: int) -> str:
        return f"{self._root}/{number}"

    def _row(self, key: str) -> sqlite3.Row:
        rows = self._database.rows(f"{_ALL} WHERE s.key = ?", (key,))
        if not rows:
            raise SnapshotNotFoundError(key)
        return rows[0]

    def _committed(self, name: str) -> int:
        row = self._row(name)
        if Kind(row["kind"]) is not Kind.COMMITTED:
            raise SnapshotStateError(f"snapshot {name} is {row['kind']}: it cannot be a parent")
        number: int = row["number"]
        return number

    def _lineage(self, number: int) -> list[int]:
        return [row["number"] for row in self._database.rows(_LINEAGE, (number,))]

    def _reconcile(self) -> None:
        rows = {str(row["number"]): row for row in self._database.rows(_ALL)}
        with os.scandir(self._fd) as entries:
            directories = {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
        for name in directories - rows.keys() - {"work", "trash"}:
            self._trash.take(self._fd, name)
        active = {name for name, row in rows.items() if row["kind"] != Kind.COMMITTED.value}
        for name in set(os.listdir(f"{self._root}/work")) - active:
            self._trash.take(self._fd, f"work/{name}")
        for name in rows.keys() - directories - active:
            log.error("layer %s: %s/%s is missing", rows[name]["key"], self._root, name)


def _snapshot(row: sqlite3.Row) -> Snapshot:
    parent = row["parent_key"]
    return Snapshot(SnapshotKey(row["key"]), Kind(row["kind"]), parent, row["created_ns"])


def _usage(path: str) -> Usage:
    size = 0
    seen: set[int] = set()
    pending = [path]
    while pending:
        with contextlib.suppress(FileNotFoundError), os.scandir(pending.pop()) as entries:
            for entry in entries:
                facts = entry.stat(follow_symlinks=False)
                if stat.S_ISDIR(facts.st_mode):
                    pending.append(entry.path)
                elif facts.st_ino not in seen:
                    size += facts.st_size
                seen.add(facts.st_ino)
    return Usage(size, len(seen))
