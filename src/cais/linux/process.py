"""Processes: clone3, prctl, close_range, execve, and what /proc says about one.

``clone3`` is called from Python and returns twice. That is sound in a single-threaded process
with nothing buffered: the child is a copy of the interpreter in the middle of a foreign call. It
skips the at-fork hooks of ``os.fork``, so the child must neither use the asyncio, threading and
random modules nor return into its caller's frames; it ends in ``execve`` or ``os._exit``.

Spec: clone(2) (clone3: Linux 5.3; CLONE_INTO_CGROUP 5.7, CLONE_CLEAR_SIGHAND 5.5), prctl(2),
close_range(2) (Linux 5.9).
"""

from __future__ import annotations

import ctypes
import os

# Not the signal module, whose wrappers build an enum for each of 64 answers.
from _signal import SIG_DFL, SIG_IGN, getsignal, signal  # type: ignore[import-not-found]

from cais.linux.signals import SIGKILL, pidfd_send_signal
from cais.linux.syscalls import Bytes, Long, Pointer, ULong, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

SIGCHLD = 17
CLONE_PIDFD = 0x00001000
CLONE_CLEAR_SIGHAND = 0x100000000
CLONE_INTO_CGROUP = 0x200000000
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NAME = 15
PR_SET_CHILD_SUBREAPER = 36
PR_SET_NO_NEW_PRIVS = 38

FORK_FLAGS = CLONE_PIDFD | SIGCHLD  # of ``fork``

AT_EMPTY_PATH = 0x1000
_HIGHEST_FD = 0xFFFFFFFF
_LIBRARY_SIGNALS = (32, 33)  # SIGCANCEL, SIGSETXID: sigaction(3) refuses them
_DEFAULT_ACTION = bytes(32)  # struct sigaction of the kernel: SIG_DFL, no flags, an empty mask


class CloneArgs(ctypes.Structure):
    """The kernel's struct clone_args, version 2."""

    _fields_ = [
        (name, ctypes.c_uint64)
        for name in (
            "flags",
            "pidfd",
            "child_tid",
            "parent_tid",
            "exit_signal",
            "stack",
            "stack_size",
            "tls",
            "set_tid",
            "set_tid_size",
            "cgroup",
        )
    ]


_clone = system_call("clone", ULong, Pointer, Pointer, Pointer, ULong)
clone3 = system_call("clone3", Pointer, Long)
_prctl = system_call("prctl", Long, ULong, ULong, ULong, ULong)
_close_range = system_call("close_range", ULong, ULong, ULong)
_execve = system_call("execve", Bytes, Pointer, Pointer)
_execveat = system_call("execveat", Long, Bytes, Pointer, Pointer, Long)
_personality = system_call("personality", ULong)
_rt_sigaction = system_call("rt_sigaction", ULong, Bytes, Pointer, ULong)
_ioprio_set = system_call("ioprio_set", Long, Long, Long)
_pidfd_getfd = system_call("pidfd_getfd", Long, Long, ULong)


def clone(flags: int, *, cgroup_fd: int = -1) -> tuple[int, int]:
    """Clone this single-threaded process.

    Args:
        flags: CLONE_NEW* of the child.
        cgroup_fd: a cgroup v2 directory the child starts in. Borrowed.

    Returns:
        (0, -1) in the child; in the caller the pid and a pidfd (owned, close-on-exec).

    Raises:
        KernelError: EPERM, ENOSPC (namespace limits), EAGAIN (process limits), ENOMEM.

    """
    pidfd = ctypes.c_int(-1)
    args = CloneArgs(flags=flags | CLONE_PIDFD | CLONE_CLEAR_SIGHAND)
    args.pidfd = ctypes.addressof(pidfd)
    args.exit_signal = SIGCHLD
    if cgroup_fd >= 0:
        args.flags |= CLONE_INTO_CGROUP
        args.cgroup = cgroup_fd
    pid = clone3(ctypes.addressof(args), ctypes.sizeof(args))
    return pid, (pidfd.value if pid else -1)


def fork() -> tuple[int, int]:
    """Clone this process with clone(2), for one that may be under a filter that refuses clone3.

    Returns:
        (0, -1) in the child; in the caller the pid and a pidfd (owned, close-on-exec).

    """
    pidfd = ctypes.c_int(-1)
    pid = _clone(FORK_FLAGS, None, ctypes.addressof(pidfd), None, 0)
    return pid, (pidfd.value if pid else -1)


def copy_descriptor(pidfd: int, number: int) -> int:
    """Copy the descriptor ``number`` of another process; the result is owned, close-on-exec.

    Raises:
        KernelError: EPERM, no right to ptrace it; EBADF, it has no such descriptor; ESRCH, it
            has ended; ENOSYS before Linux 5.6.

    """
    return _pidfd_getfd(pidfd, number, 0)


def ignored_signals() -> list[int]:
    """Return the signals this process ignores: execve would hand that to the user's program."""
    return [number for number in range(1, 65) if getsignal(number) is SIG_IGN]


def restore_signals(numbers: Iterable[int]) -> None:
    """Give signals their default action, also the two that the C library keeps from us.

    Whoever was started by glibc's posix_spawn (from make, say) inherits those ignored.
    """
    for number in numbers:
        signal(number, SIG_DFL)
    for number in _LIBRARY_SIGNALS:
        _rt_sigaction(number, _DEFAULT_ACTION, None, 8)


def set_dumpable(*, dumpable: bool) -> None:
    """Forbid or allow ptrace and /proc/<pid>/{fd,exe,root,...} to processes without our caps."""
    _prctl(PR_SET_DUMPABLE, int(dumpable), 0, 0, 0, about="PR_SET_DUMPABLE")


def set_no_new_privileges() -> None:
    """Give up gaining privileges by execve, for good."""
    _prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, about="PR_SET_NO_NEW_PRIVS")


def set_name(name: bytes) -> None:
    """Set what ps shows (15 bytes)."""
    buffer = ctypes.create_string_buffer(name)  # it has to outlive the call
    _prctl(PR_SET_NAME, ctypes.addressof(buffer), 0, 0, 0)


def set_parent_death_signal(signal: int) -> None:
    """Have ``signal`` sent to this process when its parent ends."""
    _prctl(PR_SET_PDEATHSIG, signal, 0, 0, 0, about="PR_SET_PDEATHSIG")


def set_child_subreaper() -> None:
    """Become the parent of descendants whose parent has ended."""
    _prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0, about="PR_SET_CHILD_SUBREAPER")


def set_personality(domain: int) -> None:
    """Set the execution domain and its flags (personality(2))."""
    _personality(domain)


def set_io_priority(kind: int, level: int) -> None:
    """Set this process's I/O scheduling class (1 real-time, 2 best-effort, 3 idle) and level."""
    _ioprio_set(1, 0, kind << 13 | level)


def close_all_but(keep: Iterable[int]) -> None:
    """Close every descriptor that is not in ``keep``."""
    first = 0
    for fd in sorted(set(keep)):
        if fd > first:
            _close_range(first, fd - 1, 0)
        first = fd + 1
    _close_range(first, _HIGHEST_FD, 0)


class Program:
    """Arguments and environment as C arrays, made before the clone so that execve is one call.

    The environment is passed as it is written: order and duplicates survive, which a mapping
    (``os.execve``) would lose.
    """

    __slots__ = ("_argv", "_envp")

    def __init__(self, args: Sequence[bytes], env: Sequence[bytes]) -> None:
        self._argv = (ctypes.c_char_p * (len(args) + 1))(*args, None)
        self._envp = (ctypes.c_char_p * (len(env) + 1))(*env, None)

    def execute(self, path: bytes) -> None:
        """Replace this process; returns only by raising.

        Raises:
            KernelError: as execve(2).

        """
        argv, envp = ctypes.addressof(self._argv), ctypes.addressof(self._envp)
        _execve(path, argv, envp, about=path.decode(errors="replace"))

    def execute_fd(self, program_fd: int) -> None:
        """Replace this process by the program open at ``program_fd``; returns only by raising."""
        argv, envp = ctypes.addressof(self._argv), ctypes.addressof(self._envp)
        _execveat(program_fd, b"", argv, envp, AT_EMPTY_PATH)


def kill(pidfd: int) -> None:
    """End a process that may have ended already."""
    try:
        pidfd_send_signal(pidfd, SIGKILL)
    except ProcessLookupError:
        return


def start_ticks(pid: int) -> int:
    """Return when ``pid`` started, in clock ticks since boot: with the pid, it names a process.

    Raises:
        OSError: no such process.

    """
    fd = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)  # a file object: 7 calls more
    try:
        stat = os.read(fd, 4096)
    finally:
        os.close(fd)
    return int(stat[stat.rindex(b")") + 2 :].split()[19])


def pid_of(pidfd: int) -> int:
    """Return the pid of the process a pidfd stands for, as this process sees it; -1: it ended."""
    with open(f"/proc/self/fdinfo/{pidfd}", "rb") as file:
        lines = dict(line.split(b":", 1) for line in file)
    return int(lines[b"Pid"])


def reap(pidfd: int) -> int | None:
    """Reap an ended child and return its exit code, 128+n for signal n; None: it still runs.

    Blocks: no.
    """
    result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED | os.WNOHANG)
    if result is None:
        return None
    code: int = result.si_status
    return code if result.si_code == os.CLD_EXITED else 128 + code
