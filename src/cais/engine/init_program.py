"""The init of ``--init`` as a file, for runtimes that are not ours.

Ours hands it over in memory (docs/adr/0011); another one gets it as Docker's does: mounted
read-only, and put before the command.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from cais.runtime import reaper

if TYPE_CHECKING:
    from pathlib import Path

    from cais.engine.paths import Paths


def ensure_init_program(paths: Paths) -> str:
    """Return the path of the file, writing it if it is not there or another version's. Blocks.

    It lies in the data root: what is below /run may often not be executed.

    Raises:
        UnsupportedError: no program for this machine.

    """
    path = paths.init_program
    program = reaper.program()
    if _read(path) == program:
        return str(path)
    temporary = path.with_suffix(f".{os.getpid()}")
    temporary.write_bytes(program)
    temporary.chmod(0o755)
    temporary.replace(path)
    return str(path)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
