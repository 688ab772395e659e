"""User namespaces: their identity maps, and what an ordinary user may do about them.

A process with CAP_SETUID over the parent namespace writes any map. An ordinary user may map its
own id alone, and its group once setgroups(2) is given up; ranges that /etc/subuid and /etc/subgid
grant are written by the set-uid programs newuidmap(1) and newgidmap(1).

Spec: user_namespaces(7), newuidmap(1), subuid(5).
"""

from __future__ import annotations

import errno
import os
from _socket import AF_UNIX, SOCK_CLOEXEC, SOCK_STREAM, socketpair  # socket builds enums: 5 ms

from cais.linux import namespaces, process
from cais.linux.namespaces import CLONE_NEWUSER
from cais.linux.syscalls import KernelError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from _socket import socket
    from collections.abc import Sequence
    from typing import NoReturn, Self

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
    with Inhabitant(CLONE_NEWUSER) as inhabitant:
        write_identity_maps(inhabitant.pid, uid_map, gid_map)
        return inhabitant.open("user")


class Inhabitant:
    """A process that is in new namespaces and does nothing; it ends with the block."""

    __slots__ = ("_line", "_pidfd", "pid")

    def __init__(self, flags: int, user_fd: int = -1) -> None:
        """Make it.

        Args:
            flags: the CLONE_NEW*.
            user_fd: a user namespace that is to own them. Borrowed.

        Raises:
            KernelError: as clone(2), setns(2) and unshare(2).

        """
        self._line, theirs = socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC)
        try:
            self.pid, self._pidfd = process.clone(0 if user_fd >= 0 else flags)
            if self.pid == 0:
                self._line.close()
                _inhabit(theirs, flags, user_fd)
        except BaseException:
            self._line.close()
            raise
        finally:
            theirs.close()
        failure = self._line.recv(1)
        if failure != b"\0":
            self.__exit__()
            raise KernelError(failure[0] if failure else errno.EIO, "enter a user namespace")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._line.close()
        os.waitid(os.P_PIDFD, self._pidfd, os.WEXITED)
        os.close(self._pidfd)

    def open(self, name: str) -> int:
        """Return one of its namespaces (``user``, ``net``), owned by the caller."""
        return os.open(f"/proc/{self.pid}/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)


def _inhabit(line: socket, flags: int, user_fd: int) -> NoReturn:
    """Say the error number of getting there, 0 for none; wait until the other side is closed."""
    code = 0
    try:
        if user_fd >= 0:
            process.set_dumpable(dumpable=False)  # its root could trace this process
            namespaces.join(user_fd, CLONE_NEWUSER)
            namespaces.unshare(flags)
    except KernelError as error:
        code = error.errno or errno.EIO
    try:
        line.send(bytes([code]))
        line.recv(1)
    finally:
        os._exit(0)


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
