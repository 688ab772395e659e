"""User namespaces: their identity maps, and what an ordinary user may do about them.

A process with CAP_SETUID over the parent namespace writes any map. An ordinary user may map its
own id alone, and its group once setgroups(2) is given up; ranges that /etc/subuid and /etc/subgid
grant are written by the set-uid programs newuidmap(1) and newgidmap(1).

Spec: user_namespaces(7), newuidmap(1), subuid(5).
"""

from __future__ import annotations

import errno
import os

from cais.linux import process
from cais.linux.namespaces import CLONE_NEWUSER
from cais.linux.syscalls import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    IdentityMap = Sequence[tuple[int, int, int]]

_TOOLS = {"uid_map": "newuidmap", "gid_map": "newgidmap"}
_TOOL_DIRECTORIES = ("/usr/bin", "/bin", "/usr/local/bin", "/usr/sbin", "/sbin")
_REPORT_BYTES = 2048
_LAST_LINE_SHOWN = 200


def write_identity_maps(pid: int, uid_map: IdentityMap, gid_map: IdentityMap) -> None:
    """Write both maps of ``pid``'s new user namespace: (inside, outside, count) a line.

    Where the caller may not, and asks for more than its own ids, newuidmap(1) does.

    Args:
        pid: a child that has not given its namespace any map; dumpable, if the caller is an
            ordinary user, because its files in /proc belong to root otherwise.
        uid_map: in the order of the lines.
        gid_map: likewise.

    Raises:
        KernelError: EPERM, the ids are not the caller's to give; EINVAL, overlapping lines. The
            text ends with what newuidmap(1) said.

    Blocks: while the programs run.

    """
    _write_map(pid, "uid_map", uid_map)
    if os.geteuid() and [line[1:] for line in gid_map] == [(os.getegid(), 1)]:
        _write(pid, "setgroups", "deny")
    _write_map(pid, "gid_map", gid_map)


def make_user_namespace(uid_map: IdentityMap, gid_map: IdentityMap) -> int:
    """Make a user namespace that no process is in, and return its descriptor, owned.

    Raises:
        KernelError: as clone(2) and ``write_identity_maps``.

    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        pid, pidfd = process.clone(CLONE_NEWUSER)
        if pid == 0:  # waits until it is no longer needed, or its parent is gone
            os.close(write_fd)
            os.read(read_fd, 1)
            os._exit(0)
    except BaseException:
        os.close(write_fd)
        raise
    finally:
        os.close(read_fd)
    try:
        write_identity_maps(pid, uid_map, gid_map)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(write_fd)
        os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        os.close(pidfd)


def _write_map(pid: int, name: str, lines: IdentityMap) -> None:
    text = "".join(f"{inside} {outside} {count}\n" for inside, outside, count in lines)
    try:
        _write(pid, name, text)
    except KernelError as error:
        if error.errno != errno.EPERM or os.geteuid() == 0:
            raise
        _run_tool(pid, name, lines, error)


def _write(pid: int, name: str, text: str) -> None:
    try:
        fd = os.open(f"/proc/{pid}/{name}", os.O_WRONLY | os.O_CLOEXEC)
        try:
            os.write(fd, text.encode())  # one write: the kernel takes no second
        finally:
            os.close(fd)
    except OSError as error:
        what = f"write {name} {text.rstrip()[:_LAST_LINE_SHOWN]!r}"
        raise KernelError(error.errno or 0, what) from None


def _run_tool(pid: int, name: str, lines: IdentityMap, refused: KernelError) -> None:
    tool = _find_tool(_TOOLS[name])
    if tool is None:
        missing = f"{_TOOLS[name]} is not installed, which maps subordinate ids"
        raise KernelError(errno.EPERM, refused.step, missing)
    args = [tool, str(pid), *(str(number) for line in lines for number in line)]
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, write_fd, 1), (os.POSIX_SPAWN_DUP2, write_fd, 2)]
        tool_pid = os.posix_spawn(tool, args, {}, file_actions=actions)
    finally:
        os.close(write_fd)
    with open(read_fd, "rb") as report:
        said = report.read(_REPORT_BYTES).decode(errors="replace").strip()
    _, status = os.waitpid(tool_pid, 0)
    if status:
        raise KernelError(errno.EPERM, refused.step, said or f"{tool} failed")


def _find_tool(name: str) -> str | None:
    for directory in _TOOL_DIRECTORIES:
        if os.access(f"{directory}/{name}", os.X_OK):
            return f"{directory}/{name}"
    return None
