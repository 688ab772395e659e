"""Kernel parameters of the container's own namespaces.

Checked in the parent against an allow-list, because any other parameter belongs to the host
(CVE-2022-0811); written in the child through a private procfs that no container process can
have put anything over (CVE-2025-52881).
"""

from __future__ import annotations

import errno
import os

from cais.errors import InvalidArgumentError
from cais.linux import paths
from cais.linux.syscalls import KernelError
from cais.runtime.launch import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from cais.runtime.launch import Kind

_IPC = frozenset(
    f"kernel/{name}"
    for name in [
        "msgmax",
        "msgmnb",
        "msgmni",
        "sem",
        "shmall",
        "shmmax",
        "shmmni",
        "shm_rmid_forced",
    ]
)
_RESOLVE = (
    paths.RESOLVE_BENEATH
    | paths.RESOLVE_NO_XDEV
    | paths.RESOLVE_NO_SYMLINKS
    | paths.RESOLVE_NO_MAGICLINKS
)


def parse_sysctls(
    sysctls: Mapping[str, str], own_namespaces: Collection[str]
) -> list[tuple[str, str]]:
    """Return (path below /proc/sys, value) of each parameter.

    Args:
        sysctls: as in ``linux.sysctl``.
        own_namespaces: OCI names of the namespaces that are not the host's.

    Raises:
        InvalidArgumentError: the parameter is not namespaced, or its namespace is the host's.

    """
    return [(_path(name, own_namespaces), _value(name, text)) for name, text in sysctls.items()]


def write_sysctls(proc_fd: int, sysctls: Iterable[tuple[str, str]]) -> None:
    """Write parameters through the procfs instance whose root is ``proc_fd``.

    Raises:
        LaunchError: this kernel has no such parameter, or not for this container.
        KernelError: the kernel refuses the value.

    """
    for path, value in sysctls:
        fd = _open(proc_fd, path)
        try:
            os.write(fd, value.encode())
        except OSError as exc:
            raise KernelError(exc.errno or 0, f"write /proc/sys/{path}") from None
        finally:
            os.close(fd)


def _open(proc_fd: int, path: str) -> int:
    try:
        return paths.open_at(proc_fd, f"sys/{path}", os.O_WRONLY, resolve=_RESOLVE)
    except OSError as error:
        code = error.errno or errno.EIO
        kind: Kind = "not-found" if code == errno.ENOENT else "setup"
        message = f"open /proc/sys/{path}: {os.strerror(code).lower()}"
        raise LaunchError(message, errno=code, step="sysctl", kind=kind) from None


def _path(name: str, own: Collection[str]) -> str:
    first = min((name.find(char) for char in "./" if char in name), default=-1)
    # sysctl(8): where the first separator is a dot, dots separate and slashes are dots in names.
    path = name if first >= 0 and name[first] == "/" else name.translate({46: "/", 47: "."})
    parts = path.split("/")
    if not name.isprintable() or any(part in ("", ".", "..") for part in parts):
        raise InvalidArgumentError(f"invalid sysctl {name[:128]!r}")
    if path in _IPC or path.startswith("fs/mqueue/"):
        needed = "ipc"
    elif parts[0] == "net":
        needed = "network"
    elif parts[0] == "user":
        needed = "user"
    elif path == "kernel/domainname":
        needed = "uts"
    else:
        raise InvalidArgumentError(f'sysctl "{name}" is not in a separate kernel namespace')
    if needed not in own:
        raise InvalidArgumentError(f'sysctl "{name}" needs a {needed} namespace of its own')
    return path


def _value(name: str, text: str) -> str:
    if not text.replace("\t", " ").isprintable():
        raise InvalidArgumentError(f'sysctl "{name}": the value has control characters')
    return text
