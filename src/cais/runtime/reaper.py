"""The init of ``--init``: a program of a page, sealed in memory, for each container its own.

docs/adr/0011-an-init-of-one-page.md says why it is no Python process and no file of the host.
"""

from __future__ import annotations

from cais.errors import UnsupportedError
from cais.linux import memfd
from cais.linux.syscalls import MACHINE
from cais.runtime.reaper_programs import PROGRAMS


def program_fd() -> int:
    """Return the descriptor of a new copy of the init program; owned.

    A copy, because seals keep the content only: root of a container may change the mode of its
    ``/proc/1/exe``, which would keep the inits of others from starting.

    Raises:
        UnsupportedError: no program for this machine.

    """
    return memfd.sealed_bytes(program(), "docker-init")


def program() -> bytes:
    """Return the init program. UnsupportedError: none for this machine."""
    if MACHINE not in PROGRAMS:
        raise UnsupportedError(f"--init is not supported on {MACHINE}")
    return bytes.fromhex(PROGRAMS[MACHINE])
