"""A directory of the host that attacks point at; it must not change, nor may the mount table."""

from __future__ import annotations

import stat
from pathlib import Path
from typing import TYPE_CHECKING

from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable

Photograph = list[tuple[str, int, int, bytes]]


def make_sentinel(directory: Path) -> Path:
    """Make the directory, with files of names that attackers like."""
    sentinel = directory / "sentinel"
    sentinel.mkdir()
    for name in ("ptmx", "file"):
        (sentinel / name).write_text("mine\n")
    return sentinel


def photograph(directory: Path) -> Photograph:
    """Return what is below a directory: names, modes, times, content."""
    found = []
    for path in sorted(directory.rglob("*")):
        status = path.lstat()
        content = path.read_bytes() if stat.S_ISREG(status.st_mode) else b""
        found.append((str(path), status.st_mode, status.st_mtime_ns, content))
    return found


def mount_table() -> set[str]:
    """Return this namespace's mounts; the host's own may go meanwhile, and none may come."""
    return set(Path("/proc/self/mountinfo").read_text().splitlines())


def attack(tmp_path: Path, sentinel: Path, body: Callable[[Bundle], None]) -> None:
    """Run an attack with a bundle of its own; the host must be as it was."""

    def whole() -> None:
        before, mounts = photograph(sentinel), mount_table()
        (tmp_path / "bundle").mkdir()
        body(Bundle(tmp_path / "bundle"))
        assert photograph(sentinel) == before
        assert mount_table() <= mounts

    isolated(whole, timeout_s=100)


def outcome(bundle: Bundle, *args: str) -> int | str:
    """Return the exit code, or why it did not start."""
    try:
        return bundle.run(*args).code
    except LaunchError as refused:
        return refused.kind
