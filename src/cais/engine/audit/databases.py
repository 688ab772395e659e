"""Whether the databases are sound, or there is at least a copy to rebuild them from.

What is repaired here would be by the next start of a daemon as well; it is done by opening the
database as the daemon does. The containers' database is left to the daemon: to put together what
became of them it asks the kernel, too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from cais.database.database import loss_of, mirror_path
from cais.engine.audit.findings import Finding
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
    if loss := loss_of(root.path / "state.db"):
        yield Finding(
            "database state.db", f"{loss}: the next start of a daemon rebuilds it from copies.db"
        )
    yield from _check_mirrored(root.path / "images.db", Catalog.open)
    yield from _check_mirrored(root.snapshots / "snapshots.db", Rows)


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
