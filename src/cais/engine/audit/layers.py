"""Whether every unpacked layer is there, and is what its blob unpacks to.

That is found out by unpacking the blob again, in the daemon's confined workers, beside the layers:
for a repair the new directory only has to take the place of the old one.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from cais.engine.audit.findings import Finding
from cais.engine.audit.trees import first_difference
from cais.errors import CaisError, ConflictError, DataLossError
from cais.images.layer_imports import fill
from cais.images.unpacker.pool import Unpacker
from cais.linux.filesystem import sync_filesystem

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from cais.engine.audit.data_root import DataRoot, StoredSnapshot
    from cais.images.records import StoredLayer

_PLACE = "check-"
"""Start of the names of directories that layers are unpacked to."""


def check_layers(root: DataRoot) -> Iterator[Finding]:
    """Look for the directory of every layer."""
    for each in root.stored_snapshots():
        if each.is_layer and not _directory(root, each.number).is_dir():
            yield Finding(f"layer {each.key}", f"is gone: {_directory(root, each.number)}")


def check_layer_contents(root: DataRoot) -> Iterator[Finding]:
    """Unpack every layer of an image again and compare.

    Blocks: as long as that takes, and takes as much of the disk as the largest layer.
    """
    layers = root.layers()
    rows = {each.number: each for each in root.stored_snapshots()}
    unpacker = Unpacker()
    with unpacker.open():
        for row in rows.values():
            if row.key in layers and (root.blobs / _hex(layers[row.key])).exists():
                lowers = [str(_directory(root, each)) for each in _below(row, rows)]
                yield from _LayerCheck(root, unpacker, row, layers[row.key], lowers).run()


class _LayerCheck:
    """One layer, unpacked again."""

    def __init__(
        self,
        root: DataRoot,
        unpacker: Unpacker,
        row: StoredSnapshot,
        layer: StoredLayer,
        lowers: list[str],
    ) -> None:
        self._root = root
        self._unpacker = unpacker
        self._layer = layer
        self._lowers = lowers
        self._subject = f"layer {row.key}"
        self._found = _directory(root, row.number)

    def run(self) -> Iterator[Finding]:
        made = Path(tempfile.mkdtemp(prefix=_PLACE, dir=self._root.snapshots))
        try:
            self._unpack(made)
            if difference := self._difference(made):
                yield Finding(self._subject, f"is damaged: {difference}", self._exchanger(made))
        except (CaisError, OSError) as exc:
            yield Finding(self._subject, f"cannot be compared with its blob: {exc}")
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def _unpack(self, made: Path) -> None:
        lowers = self._lowers
        with (self._root.blobs / _hex(self._layer)).open("rb") as blob:
            open_lowers = (lambda: lowers) if lowers else None
            done = fill(self._unpacker.borrow(), blob, str(made), open_lowers)
        if f"sha256:{done.sha256}" != self._layer.diff_id:
            raise DataLossError(f"that unpacks to sha256:{done.sha256}, not {self._layer.diff_id}")
        if not done.has_root:
            _copy_root(self._found if self._found.is_dir() else None, made)

    def _difference(self, made: Path) -> str | None:
        return first_difference(made, self._found) if self._found.is_dir() else "it is gone"

    def _exchanger(self, made: Path) -> Callable[[], str]:
        def exchange() -> str:
            if self._root.has_containers_running:
                raise ConflictError("containers are running, perhaps on this layer: stop them")
            with _opened(self._root.snapshots) as directory_fd:
                sync_filesystem(directory_fd)
                told = "put there again"
                if self._found.exists():
                    told = f"made anew, {self._root.quarantine(self._found, 'layer')}"
                made.rename(self._found)
                os.fsync(directory_fd)
            return told

        return exchange


def _below(row: StoredSnapshot, rows: Mapping[int, StoredSnapshot]) -> Iterator[int]:
    number = row.parent
    while number is not None:
        yield number
        number = rows[number].parent


def _directory(root: DataRoot, number: int) -> Path:
    return root.snapshots / str(number)


def _hex(layer: StoredLayer) -> str:
    return layer.blob.removeprefix("sha256:")


def _copy_root(source: Path | None, target: Path) -> None:
    """Give a root that no archive describes the owner and mode it has had."""
    if source is None:
        target.chmod(0o755)
        return
    facts = source.stat()
    os.chown(target, facts.st_uid, facts.st_gid)
    target.chmod(stat.S_IMODE(facts.st_mode))
    os.utime(target, ns=(facts.st_atime_ns, facts.st_mtime_ns))


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)
