"""Whether the databases are sound, or there is at least a copy to rebuild them from.

What is repaired here would be by the next start of a daemon as well; it is done by opening the
database as the daemon does. What became of containers meanwhile the daemon asks the kernel, and it
does so at every start.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from cais.database.database import loss_of, mirror_path
from cais.engine.audit.findings import Finding
from cais.engine.copies import Copies
from cais.engine.state import rebuild
from cais.images.catalog import Catalog
from cais.snapshots.rows import Rows

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from cais.engine.audit.data_root import DataRoot

    class Closable(Protocol):
        """What is opened to have it rebuilt."""

        def close(self) -> None:
            """Close it."""


def check_databases(root: DataRoot) -> Iterator[Finding]:
    """Look at the structure of every database and of its copy."""
    yield from _check_containers(root)
    yield from _check_mirrored(root.path / "images.db", Catalog.open)
    yield from _check_mirrored(root.snapshots / "snapshots.db", Rows)


def _check_containers(root: DataRoot) -> Iterator[Finding]:
    path, copy = root.path / "state.db", root.path / "copies.db"
    loss, copy_loss = loss_of(path), loss_of(copy)

    def rebuild_database() -> str:
        with contextlib.closing(Copies.open(copy)) as copies:
            count = rebuild(path, copies.load())
        return f"rebuilt, with {count} containers, from its copy and what can be read of it"

    def write_copy() -> str:
        with contextlib.closing(Copies.open(copy)) as copies:
            copies.match(root.containers())
        return "written anew"

    if loss and copy_loss:
        start = "the next start of a daemon keeps what can be read"
        yield Finding(
            f"database {path.name}", f"{loss}, and its copy {copy.name} {copy_loss}: {start}"
        )
    elif loss:
        yield Finding(f"database {path.name}", loss, rebuild_database)
    elif copy_loss:
        yield Finding(f"database {copy.name}", copy_loss, write_copy)


def _check_mirrored(path: Path, open_it: Callable[[Path], Closable]) -> Iterator[Finding]:
    copy = mirror_path(path)
    loss, copy_loss = loss_of(path), loss_of(copy)

    def rebuild() -> str:
        open_it(path).close()
        return "rebuilt from its copy" if loss else "written anew"

    if loss and copy_loss:
        yield Finding(f"database {path.name}", f"{loss}, and its copy {copy.name} {copy_loss}")
    elif loss:
        yield Finding(f"database {path.name}", loss, rebuild)
    elif copy_loss:
        yield Finding(f"database {copy.name}", copy_loss, rebuild)
