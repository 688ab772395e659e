"""The ``local`` driver: a directory per volume.

    <data-root>/volumes/<name>/_data          mounted into containers
    <data-root>/volumes/<name>/volume.json    the record: {"version", "created", "labels", ...}
    <data-root>/volumes/.new-*  .gone-*       on their way in or out

A volume exists when its directory has its name: it is made complete and durable under a dot name
and renamed into place; removal first renames it back to a dot name. What a crash leaves are dot
names, removed when the next ``LocalDriver`` opens the root. Volume names cannot begin with a dot.
"""

import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from cais.errors import DataLossError, UnsupportedError
from cais.linux.durable import sync_directory, write_durably
from cais.linux.filesystem import remove_tree
from cais.linux.tree_size import tree_size_at
from cais.volumes.errors import InvalidVolumeNameError

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]+", re.ASCII)
_ALLOWED = '"[a-zA-Z0-9][a-zA-Z0-9_.-]"'
_NAME_LIMIT = 255
_VERSION = 1


def check_name(name: str) -> None:
    """Refuse a name outside the grammar.

    Raises:
        InvalidVolumeNameError: with Docker's text.

    """
    if len(name) == 1:
        raise InvalidVolumeNameError(
            f"create {name}: volume name is too short, names should be at least two alphanumeric "
            "characters"
        )
    if not _NAME.fullmatch(name):
        shown = name[:_NAME_LIMIT]
        raise InvalidVolumeNameError(
            f"create {shown}: {json.dumps(shown)} includes invalid characters for a local volume "
            f"name, only {_ALLOWED} are allowed. If you intended to pass a host directory, "
            "use absolute path"
        )
    if len(name) > _NAME_LIMIT:
        raise InvalidVolumeNameError(f"volume name is too long: at most {_NAME_LIMIT} characters")


def check_options(options: Mapping[str, str]) -> None:
    """Refuse driver options; none is supported yet.

    Raises:
        UnsupportedError: naming them.

    """
    if options:
        raise UnsupportedError(
            "volume driver options are not supported by this version: " + ", ".join(sorted(options))
        )


class LocalDriver:
    """The directories below one root. Not for two threads at once (``VolumeStore`` locks)."""

    def __init__(self, root: Path) -> None:
        """Open the root, making it if needed, and remove what a crash left."""
        root.mkdir(mode=0o701, parents=True, exist_ok=True)
        self._root = root
        self._fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        for name in os.listdir(self._fd):
            if name.startswith((".new-", ".gone-", ".remove-")):
                remove_tree(self._fd, name)

    def close(self) -> None:
        """Close the root."""
        os.close(self._fd)

    def mountpoint(self, name: str) -> str:
        """Return the data directory of a volume."""
        return str(self._root / name / "_data")

    def create(self, name: str, record: Mapping[str, Any], owner: tuple[int, int] = (0, 0)) -> None:
        """Make a volume, whose data is ``owner``'s; durable when this returns.

        Raises:
            OSError: ENOTEMPTY, it exists; ENOSPC and its like: nothing is left.

        """
        passing = f".new-{secrets.token_hex(8)}"
        try:
            os.mkdir(passing, 0o701, dir_fd=self._fd)
            self._make_data(self._root / passing, owner)
            text = json.dumps({"version": _VERSION, **record}).encode()
            write_durably(self._root / passing / "volume.json", text, mode=0o600)
            os.rename(passing, name, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except BaseException:
            remove_tree(self._fd, passing)
            raise
        os.fsync(self._fd)

    def records(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yield the name and record of each volume.

        A volume whose record is damaged still shows, with what is known: its data is all there.
        """
        for name in sorted(os.listdir(self._fd)):
            if not name.startswith("."):
                try:
                    yield name, self._load(name)
                except DataLossError:
                    yield name, {}

    def remove(self, name: str) -> None:
        """Remove a volume and its data: gone for good when this returns. Absent is fine.

        Blocks: as long as deleting the data takes.
        """
        passing = f".gone-{secrets.token_hex(8)}"
        try:
            os.rename(name, passing, src_dir_fd=self._fd, dst_dir_fd=self._fd)
        except FileNotFoundError:
            return
        os.fsync(self._fd)
        remove_tree(self._fd, passing)

    def usage(self, name: str) -> int:
        """Return the bytes a volume's files have on the disk, each counted once."""
        return tree_size_at(self.mountpoint(name))[1]

    def _make_data(self, directory: Path, owner: tuple[int, int]) -> None:
        data = directory / "_data"
        data.mkdir()
        if owner != (0, 0):
            os.chown(data, *owner)
        data.chmod(0o755)
        sync_directory(directory)

    def _load(self, name: str) -> dict[str, Any]:
        path = self._root / name / "volume.json"
        try:
            record = json.loads(path.read_bytes())
        except (OSError, ValueError) as exc:
            raise DataLossError(f"{path} is damaged: {exc}") from exc
        if not isinstance(record, dict) or record.get("version") != _VERSION:
            raise DataLossError(f"{path} is not a volume record of version {_VERSION}")
        return record
