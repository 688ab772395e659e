"""What a worker gives up before it reads the first byte of an archive.

Afterwards it has: its line to the daemon, an empty read-only root directory, and on request
descriptors of *detached mounts*: an archive to read, a directory to fill, directories to look
into. None of them leads anywhere else: ``..`` ends at a mount's root, and there is no /proc to
open anything anew. The filter has no call that makes a process, a socket or a mount, executes,
traces, or maps executable memory.

CAP_SYS_ADMIN stays for one thing, the ``trusted.overlay.*`` attributes (an opaque directory of a
lower layer must be seen too); of all else it allows, the filter leaves nothing.

Import-light: the warden loads it.

Spec: namespaces(7), pivot_root(2), capabilities(7), seccomp(2), setrlimit(2).
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

from cais.linux import credentials, mount, process, rlimits
from cais.linux.namespaces import (
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUTS,
)
from cais.linux.seccomp import load
from cais.runtime import pivot

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from cais.spec.runtime import Seccomp

NAMESPACES = CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID
MEMORY_LIMIT_BYTES = 1 << 30
"""Of address space: a decoder may have 128 MiB, and the interpreter's libraries are mapped."""

_CAPABILITIES = credentials.mask_of(
    f"CAP_{name}"
    for name in ("CHOWN", "DAC_OVERRIDE", "FOWNER", "FSETID", "MKNOD", "SETFCAP", "SYS_ADMIN")
)[0]
_LIMITS = {
    "RLIMIT_AS": MEMORY_LIMIT_BYTES,
    "RLIMIT_CORE": 0,
    "RLIMIT_FSIZE": 1 << 40,
    "RLIMIT_MEMLOCK": 0,
    "RLIMIT_MSGQUEUE": 0,
    "RLIMIT_NOFILE": 1024,
}
_CALLS = {
    "files": "openat openat2 close close_range dup fcntl fcntl64 lseek _llseek read readv pread64 "
    "write writev pwrite64 ftruncate ftruncate64 sendfile sendfile64 copy_file_range",
    "names": "linkat mkdirat mknodat readlinkat renameat renameat2 symlinkat unlinkat getdents64 "
    "chdir fchdir getcwd",
    "attributes": "fchmod fchmodat fchmodat2 fchown fchown32 fchownat utimensat utimensat_time64 "
    "fgetxattr flistxattr fsetxattr lsetxattr",
    "facts": "fstat fstat64 fstatat64 newfstatat statx fstatfs fstatfs64",
    "line": "recvmsg sendmsg sendto recvfrom poll ppoll ppoll_time64",
    "memory": "brk madvise mremap munmap",
    "interpreter": "clock_gettime clock_gettime64 exit exit_group futex futex_time64 getpid gettid "
    "getrandom gettimeofday membarrier restart_syscall rseq rt_sigaction rt_sigprocmask "
    "rt_sigreturn sched_yield set_robust_list sigaltstack sigreturn",
}
_NOT_EXECUTABLE = {"index": 2, "value": 4, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
_ENOSYS = 38


def compile_filter() -> bytes:
    """Return the workers' filter; whatever is not listed answers ENOSYS, so libraries fall back.

    Raises:
        UnsupportedError: no libseccomp.

    """
    from cais.linux.seccomp.compiler import compile_profile

    document: Seccomp = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": _ENOSYS,
        "syscalls": [
            {"names": " ".join(_CALLS.values()).split(), "action": "SCMP_ACT_ALLOW"},
            {
                "names": ["mmap", "mmap2", "mprotect"],
                "action": "SCMP_ACT_ALLOW",
                "args": [_NOT_EXECUTABLE],  # type: ignore[list-item]
            },
        ],
    }
    return compile_profile(document)


def confine(keep_fds: Iterable[int], program: bytes | None, *, is_in_namespaces: bool) -> list[str]:
    """Give everything up but ``keep_fds``; return what this host did not let be given up.

    Args:
        keep_fds: stay open.
        program: of ``compile_filter``; None: there is no libseccomp.
        is_in_namespaces: this process was cloned with ``NAMESPACES``.

    """
    refused: list[str] = []

    def attempt(measure: str, step: Callable[[], object]) -> None:
        try:
            step()
        except (OSError, ValueError) as exc:
            refused.append(f"{measure} ({exc})")

    process.close_all_but(keep_fds)
    attempt("end with its warden", lambda: process.set_parent_death_signal(signal.SIGKILL))
    if is_in_namespaces:
        attempt("a root of its own", _enter_empty_root)
    attempt("limits of memory and files", _set_limits)
    attempt("no new privileges", process.set_no_new_privileges)
    attempt("fewer capabilities", _drop_capabilities)
    if program is not None:
        attempt("a filter of system calls", lambda: load(program))
    return refused


def _enter_empty_root() -> None:
    every = mount.MOUNT_ATTR_NOSUID | mount.MOUNT_ATTR_NODEV | mount.MOUNT_ATTR_NOEXEC
    pivot.cut_propagation()
    root_fd = mount.new_mount("tmpfs", [("mode", "0555")], every | mount.MOUNT_ATTR_RDONLY)
    try:
        pivot.enter(root_fd)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        os.fchdir(root_fd)  # the host runs from an initramfs, which nobody can pivot away
        os.chroot(".")
    finally:
        os.close(root_fd)


def _set_limits() -> None:
    for name, value in _LIMITS.items():
        rlimits.apply(name, value, value)


def _drop_capabilities() -> None:
    kept = credentials.permitted() & _CAPABILITIES
    if credentials.permitted():
        credentials.drop_bounding(kept)
        credentials.set_ambient(0)
    credentials.set_capabilities(permitted=kept, effective=kept, inheritable=0)
