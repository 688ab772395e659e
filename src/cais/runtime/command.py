"""cais-runtime: the OCI runtime as a command, with runc's command line.

The process that becomes a container must run from a sealed copy of the interpreter
(CVE-2019-5736), so this module imports next to nothing, makes that copy and starts again from it;
``cais.runtime.verbs`` does the work.
"""

from __future__ import annotations

import os
import sys

from cais.linux import memfd

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_CODE = """
import gc, sys
gc.disable()  # what a command leaves behind is gone when it ends
sys.path.insert(0, sys.argv.pop(1))
from cais.runtime import bytecode
bytecode.install(sys.path[0])
from cais.runtime.command import main
main()
"""
# What the commands read; nothing else of the caller's environment comes near a container.
_KEPT_ENVIRONMENT = ("PATH", "XDG_RUNTIME_DIR", "LISTEN_FDS")


def main() -> NoReturn:
    """Run the program; ends the process."""
    if not memfd.runs_sealed():
        _execute_sealed(sys.argv[1:])
    os.environ.pop("LD_LIBRARY_PATH", None)
    # Only the sealed process pays for these imports.
    from cais.runtime import verbs

    _end(verbs.run(sys.argv[1:]))


def arguments() -> list[str]:
    """Return what stands between the interpreter and the arguments of this program."""
    room = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
    return ["-I", "-S", "-B", "-c", _CODE, room]


def _execute_sealed(args: list[str]) -> None:
    program_fd = memfd.sealed_copy(sys.executable, "cais-runtime")
    os.set_inheritable(program_fd, True)  # noqa: FBT003 - it is the name of the program
    command = [sys.executable, *arguments(), *args]
    env = {name: os.environ[name] for name in _KEPT_ENVIRONMENT if name in os.environ}
    env |= memfd.library_environment()
    os.execve(f"/proc/self/fd/{program_fd}", command, env)  # noqa: S606


def _end(code: int) -> NoReturn:
    """Exit without taking the interpreter apart, which costs 3 ms."""
    try:
        sys.stdout.flush()
    except OSError:  # nobody reads it
        code = code or 1
    os._exit(code)
