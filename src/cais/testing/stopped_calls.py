"""Races without luck: an attacker who is told of every call of a start, before it happens.

The process under test runs behind a seccomp filter that reports the calls in which a path is used
(``NAMES``) and waits for an answer. So "swap the directory between the look-up and the mkdir" is
not tried a thousand times in the hope of hitting the moment: each moment is visited once.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import traceback
from array import array
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_NUMBERS = {  # asm/unistd.h
    "x86_64": {
        "seccomp": 317,
        "clone": 56,
        "openat": 257,
        "mkdirat": 258,
        "pwrite64": 18,
        "fsync": 74,
        "fdatasync": 75,
        "syncfs": 306,
        "rename": 82,
        "renameat": 264,
        "unlink": 87,
        "unlinkat": 263,
        "mkdir": 83,
    },
    "aarch64": {
        "seccomp": 277,
        "clone": 220,
        "openat": 56,
        "mkdirat": 34,
        "pwrite64": 68,
        "fsync": 82,
        "fdatasync": 83,
        "syncfs": 267,
        "renameat": 38,
        "unlinkat": 35,
    },
}
_SAME = {"openat2": 437, "move_mount": 429, "fsopen": 430, "clone3": 435}
NAMES = ("openat", "openat2", "mkdirat", "move_mount")
DISK_NAMES = (
    *("pwrite64", "fsync", "fdatasync", "syncfs", "rename", "renameat", "unlink", "unlinkat"),
    *("mkdir", "mkdirat"),
)
"""What changes a data root, but for the contents of files."""

_SET_MODE_FILTER, _NEW_LISTENER = 1, 8
_LOAD, _JUMP_EQUAL, _RETURN = 0x20, 0x15, 0x06
_NOTIFY, _ALLOW = 0x7FC00000, 0x7FFF0000
_RECEIVE, _SEND, _CONTINUE = 0xC0502100, 0xC0182101, 1
_libc = ctypes.CDLL(None, use_errno=True)


def run_stopped(
    body: Callable[[], str],
    at_call: Callable[[int, int], None],
    names: Sequence[str] = NAMES,
) -> str:
    """Run ``body`` in a fork; before each call of a process it makes, call ``at_call``.

    Args:
        body: its answer is returned.
        at_call: given the process and how many of its calls came before; only until it executes
            another program.
        names: of the calls.

    """
    ours, theirs = socket.socketpair()
    if (pid := os.fork()) == 0:
        ours.close()
        _runner(body, theirs, names)
    theirs.close()
    listener = int(array("i", socket.recv_fds(ours, 1, 1)[1])[0])
    try:
        _serve(listener, pid, at_call)
    finally:
        os.close(listener)
        os.waitpid(pid, 0)
        with ours:
            answer = b"".join(iter(lambda: ours.recv(65536), b""))
    if answer[:1] != b"=":
        raise AssertionError(answer.decode())
    return answer[1:].decode()


def exchange(one: str, other: str) -> None:
    """Exchange two names in one step."""
    if _libc.renameat2(-100, os.fsencode(one), -100, os.fsencode(other), 2):
        raise OSError(ctypes.get_errno(), "renameat2")


def _runner(body: Callable[[], str], line: socket.socket, names: Sequence[str]) -> None:
    try:
        socket.send_fds(line, [b"f"], [_install(names)])
        answer = "=" + body()
    except BaseException:  # noqa: BLE001 - the fork must never return into pytest
        answer = traceback.format_exc()
    line.sendall(answer.encode())
    os._exit(0)


def _install(names: Sequence[str]) -> int:
    """Put the filter on; return what its reports are read from."""
    known = {**_SAME, **_NUMBERS[platform.machine()]}
    numbers = [known[name] for name in names if name in known]
    count = len(numbers)
    code = [(_LOAD, 0, 0, 0)]
    code += [(_JUMP_EQUAL, count - i, 0, number) for i, number in enumerate(numbers)]
    code += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _NOTIFY)]
    raw = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *line) for line in code))
    program = struct.pack("HxxxxxxQ", len(code), ctypes.addressof(raw))
    listener: int = _libc.syscall(known["seccomp"], _SET_MODE_FILTER, _NEW_LISTENER, program)
    if listener < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return listener


def _serve(listener: int, runner: int, at_call: Callable[[int, int], None]) -> None:
    """Serve until the runner has ended: before Linux 6.11 its filter stays until it is reaped."""
    own_program = os.readlink("/proc/self/exe")
    counts: dict[int, int] = {}
    pidfd = os.pidfd_open(runner)
    poll = select.poll()
    poll.register(listener, select.POLLIN)
    poll.register(pidfd, select.POLLIN)
    try:
        while dict(poll.poll()).get(listener, 0) & select.POLLIN:
            try:
                report = fcntl.ioctl(listener, _RECEIVE, bytes(80))
            except FileNotFoundError:
                continue  # it was killed meanwhile
            request, pid = struct.unpack_from("QI", report)
            if pid != runner and _program(pid) == own_program:
                at_call(pid, counts.setdefault(pid, 0))
                counts[pid] += 1
            _answer(listener, request)
    except BaseException:
        os.kill(runner, signal.SIGKILL)
        raise
    finally:
        os.close(pidfd)


def _answer(listener: int, request: int) -> None:
    try:
        fcntl.ioctl(listener, _SEND, struct.pack("QqiI", request, 0, 0, _CONTINUE))
    except FileNotFoundError:
        return


def _program(pid: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/exe")
    except OSError:
        return ""
