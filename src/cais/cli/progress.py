"""A progress bar for what takes seconds, on a terminal only."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from cais.cli.terminal import is_terminal

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

STDERR_FD = 2


@contextlib.contextmanager
def spinning(title: str) -> Iterator[None]:
    """Show on a terminal that something without a measure goes on inside the block."""
    if not is_terminal(STDERR_FD):
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(title):
        yield


def counted(
    pieces: Iterable[bytes], title: str, total: int | None = None, *, shown: bool = True
) -> Iterator[bytes]:
    """Yield ``pieces``; meanwhile standard error, if it is a terminal, shows how far they are."""
    if not (shown and is_terminal(STDERR_FD)):
        yield from pieces
        return
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        for piece in pieces:
            bar.advance(task, len(piece))
            yield piece
