"""A registry that holds its blobs back: ``python -m cais.testing.gated_registry PORT DIRECTORY``.

It has one image, ``team/box``. The second half of each layer comes once ``DIRECTORY/go`` exists;
every request is a line of ``DIRECTORY/requests``.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from cais.testing.registry_shelf import Shelf
from cais.testing.scripted_registry import answering

if TYPE_CHECKING:
    from collections.abc import Iterator

    from cais.testing.scripted_registry import Asked, Reply

_LAYER_BYTES = 64 * 1024


def main(port: int, directory: Path) -> None:
    """Serve until killed."""
    shelf = Shelf([bytes(_LAYER_BYTES)])

    def script(asked: Asked) -> Reply:
        with (directory / "requests").open("a") as file:
            file.write(f"{asked.method} {asked.target}\n")
        status, fields, content = shelf.serve(asked)
        if isinstance(content, bytes) and len(content) == _LAYER_BYTES:
            return status, {"Content-Length": str(len(content))}, _held_back(content, directory)
        return status, fields, content

    with answering(script, port=port):
        while True:
            time.sleep(3600)


def _held_back(content: bytes, directory: Path) -> Iterator[bytes]:
    half = len(content) // 2
    yield content[:half]
    while not (directory / "go").exists():
        time.sleep(0.02)
    yield content[half:]


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
