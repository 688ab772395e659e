"""The init of ``--init``: a program of a page, sealed in memory, the same one for all containers.

docs/adr/0011-an-init-of-one-page.md says why it is no Python process and no file of the host.
"""

from __future__ import annotations

from binascii import a2b_base64

from cais.errors import UnsupportedError
from cais.linux import memfd
from cais.linux.syscalls import MACHINE
from cais.runtime.reaper_programs import PROGRAMS

_opened: list[int] = []


def program_fd() -> int:
    """Return the descriptor of the init program; borrowed, open for the life of this process.

    Raises:
        UnsupportedError: no program for this machine.

    """
    if not _opened:
        if MACHINE not in PROGRAMS:
            raise UnsupportedError(f"--init is not supported on {MACHINE}")
        _opened.append(memfd.sealed_bytes(a2b_base64(PROGRAMS[MACHINE]), "docker-init"))
    return _opened[0]
