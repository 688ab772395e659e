"""The init of ``--init`` as a file, for runtimes that are not ours.

Ours hands it over in memory (docs/adr/0011); another one gets it as Docker's does: mounted
read-only, and put before the command.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from cais.linux.durable import replace_file
from cais.runtime import reaper

if TYPE_CHECKING:
    from pathlib import Path

    from cais.engine.paths import Paths

_writing = threading.Lock()


def ensure_init_program(paths: Paths) -> str:
    """Return the path of the file, writing it if it is not there or another version's. Blocks.

    It lies in the data root: what is below /run may often not be executed.

    Raises:
        UnsupportedError: no program for this machine.

    """
    path = paths.init_program
    program = reaper.program()
    with _writing:
        if _read(path) != program:
            replace_file(path, program, mode=0o755)
    return str(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
