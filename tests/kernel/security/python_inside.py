"""An attacker in the container who makes system calls of its own: Python, lent by the host."""

from __future__ import annotations

import json
import os
import platform
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterable

    from cais.testing.bundles import Bundle

PYTHON = os.path.realpath(sys.executable)  # noqa: TID251 - a host path
needs_x86_64 = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="numbers of system calls of x86-64"
)
# call(number, ...): "ok" or the name of the error; int80 the same with numbers of i386.
_PRELUDE = r"""
import ctypes, errno, json, mmap, os
libc = ctypes.CDLL(None, use_errno=True)
def name_of(code):
    return errno.errorcode.get(code, str(code))
def call(number, *arguments):
    answer = libc.syscall(ctypes.c_long(number), *map(ctypes.c_long, arguments))
    return "ok" if answer >= 0 else name_of(ctypes.get_errno())
# push rbx; mov eax,edi; mov ebx,esi; mov ecx,edx; int 0x80; pop rbx; ret
page = mmap.mmap(-1, 4096, prot=7)
page.write(bytes.fromhex("5389f889f389d189cacd805bc3"))
enter = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_uint] * 3)(
    ctypes.addressof(ctypes.c_char.from_buffer(page)))
def int80(number, first=0, second=0):
    answer = enter(number, first, second)
    return "ok" if answer >= 0 else name_of(-answer)
"""


def ask(bundle: Bundle, program: str) -> Any:
    """Run a program in the bundle's container; return the document it prints.

    It may use ``call``, ``int80``, and the modules imported above.
    """
    result = bundle.run(*lend(bundle, program))
    assert result.code == 0, result.stderr
    return json.loads(result.stdout)


def lend(bundle: Bundle, program: str) -> list[str]:
    """Put the interpreter into the bundle; return the command that runs a program."""
    for place in _libraries():
        path = Path(place)
        inside = bundle.rootfs / place.lstrip("/")
        if path.is_symlink():
            if not inside.is_symlink():
                inside.symlink_to(path.readlink())
            continue
        options = ["rbind", "ro"]
        mount = {"destination": place, "type": "bind", "source": place, "options": options}
        bundle.config["mounts"].append(mount)
    shutil.copy2(PYTHON, bundle.rootfs / "python")  # the tests' own is theirs: A1
    bundle.process["env"].append(f"PYTHONHOME={sys.base_prefix}")
    return ["/python", "-s", "-S", "-c", _PRELUDE + program]


def volumes() -> list[str]:
    """Return the same as options of ``docker run``."""
    return [
        word for place in _libraries() for word in ("-v", f"{Path(place).resolve()}:{place}:ro")
    ]


def script(program: str) -> list[str]:
    """Return the command that runs a program as ``ask`` does."""
    return [PYTHON, "-I", "-S", "-c", _PRELUDE + program]


def _libraries() -> Iterable[str]:
    """Return the directories the interpreter and its libraries are in."""
    places = ["/usr", "/lib", "/lib64"]
    if not sys.base_prefix.startswith("/usr"):
        places.append(sys.base_prefix)
    return [place for place in places if os.path.lexists(place)]
