"""Snapshots for overlayfs: a directory per difference, stacked by mount options.

On disk::

    <data-root>/snapshots/           0700: layers hold setuid files (CVE-2021-41091)
      snapshots.db                   WAL, synchronous=FULL
        snapshots(number, key UNIQUE, kind, parent -> number, created_ns, size_bytes, inodes)
      <number>/fs/                   the difference, in overlayfs form; its own mode is the root's
      <number>/work/                 overlayfs's scratch directory, while active
      trash/                         removed trees, deleted by a thread

Directories are numbered to keep ``lowerdir`` short. The row is what counts: a directory without a
row is trash, and an active row without its directory (power cut before the kernel wrote a mkdir)
gets an empty one back, when the snapshotter is opened. A schema change appends to ``_MIGRATIONS``.

Spec: Linux Documentation/filesystems/overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import stat
import time
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
        self._database = Database(root / "snapshots.db", _MIGRATIONS)
        self._trash = Trash(os.path.join(self._root, "trash"))
        self._reconcile()

    def close(self) -> None:
        """Wait for the trash to be emptied and let go of the store."""
        self._trash.close()
        self._database.close()
        os.close(self._fd)

    def prepare(self, key: str, parent: str | None) -> tuple[Mount, ...]:
        """See ``Snapshotter.prepare``: two directories and a row."""
        return self._create(key, parent, Kind.ACTIVE)

    def view(self, key: str, parent: str | None) -> tuple[Mount, ...]:
        """See ``Snapshotter.view``."""
        return self._create(key, parent, Kind.VIEW)

    def mounts(self, key: str) -> tuple[Mount, ...]:
        """See ``Snapshotter.mounts``."""
        row = self._row(key)
        if Kind(row["kind"]) is Kind.COMMITTED:
            raise SnapshotStateError(f"snapshot {key} is committed: it cannot be mounted itself")
        return self._mounts(Kind(row["kind"]), self._lineage(row["number"]))

    def layer(self, key: str) -> Layer:
        """See ``Snapshotter.layer``."""
        own, *lowers = map(self._difference, self._lineage(self._row(key)["number"]))
        return Layer(own, tuple(lowers))

    def commit(self, key: str, name: str) -> None:
        """See ``Snapshotter.commit``."""
        row = self._row(key)
        if Kind(row["kind"]) is not Kind.ACTIVE:
            raise SnapshotStateError(f"snapshot {key} is {row['kind']}: only an active one commits")
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
        self._trash.take(self._fd, f"{row['number']}/work")

    def remove(self, key: str) -> None:
        """See ``Snapshotter.remove``."""
        with self._database.transaction() as connection:
            row = self._row(key)
            try:
                connection.execute("DELETE FROM snapshots WHERE number = ?", (row["number"],))
            except sqlite3.IntegrityError as exc:
                raise SnapshotInUseError(key) from exc
        self._trash.take(self._fd, str(row["number"]))

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

    def _create(self, key: str, parent: str | None, kind: Kind) -> tuple[Mount, ...]:
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
            lineage = self._lineage(number)
            if len(lineage) - 1 > MAX_LAYERS:
                raise ExhaustedError(f"max depth exceeded: {key} has {len(lineage) - 1} layers")
            self._make_directories(number, parent_number)
        return self._mounts(kind, lineage)

    def _make_directories(self, number: int, parent: int | None) -> None:
        path = f"{self._root}/{number}"
        try:
            os.mkdir(path, 0o700)
            os.mkdir(f"{path}/work", 0o700)
            os.mkdir(f"{path}/fs", 0o700)
            self._copy_root_attributes(parent, f"{path}/fs")
        except OSError as exc:
            self._trash.take(self._fd, str(number))
            raise ExhaustedError(f"prepare snapshot {path}: {exc.strerror}") from exc

    def _copy_root_attributes(self, parent: int | None, path: str) -> None:
        # The merged root shows the uppermost directory's own owner and mode.
        if parent is None:
            os.chmod(path, 0o755)  # noqa: S103 - a root directory's usual mode, inside 0700
            return
        above = os.stat(self._difference(parent))
        os.chown(path, above.st_uid, above.st_gid)
        os.chmod(path, stat.S_IMODE(above.st_mode))

    def _mounts(self, kind: Kind, lineage: list[int]) -> tuple[Mount, ...]:
        own, *lowers = lineage
        lower = f"lowerdir={':'.join(map(self._difference, lowers))}"
        if not lowers:
            access = "rw" if kind is Kind.ACTIVE else "ro"
            return (Mount("bind", self._difference(own), options=(access, "rbind")),)
        if kind is Kind.ACTIVE:
            work = f"workdir={self._root}/{own}/work"
            upper = f"upperdir={self._difference(own)}"
            return (Mount("overlay", "overlay", options=(lower, upper, work, *_FEATURES_OFF)),)
        if len(lowers) == 1:
            return (Mount("bind", self._difference(lowers[0]), options=("ro", "rbind")),)
        return (Mount("overlay", "overlay", options=(lower, *_FEATURES_OFF)),)

    def _difference(self, number: int) -> str:
        return f"{self._root}/{number}/fs"

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
        present = {name for name in os.listdir(self._fd) if name.isdecimal()}
        for name in present - rows.keys():
            self._trash.take(self._fd, name)
        for name in rows.keys() - present:
            row = rows[name]
            if Kind(row["kind"]) is Kind.COMMITTED:
                log.error("layer %s: %s/%s is missing", row["key"], self._root, name)
                continue
            with contextlib.suppress(ExhaustedError):
                self._make_directories(row["number"], row["parent"])


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
