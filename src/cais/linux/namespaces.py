"""Namespaces: flags by OCI name, joining, clocks, host names, the session keyring.

Spec: namespaces(7), time_namespaces(7), setns(2) (a pidfd: Linux 5.8), keyctl(2).
"""

from __future__ import annotations

import errno
import fcntl
import os
import struct
from _socket import AF_INET, SOCK_CLOEXEC, SOCK_DGRAM, socket  # socket builds enums: 5 ms

from cais.linux.syscalls import Bytes, KernelError, Long, ULong, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

CLONE_NEWTIME = 0x00000080
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000

# OCI name -> (flag, file in /proc/<pid>/ns); in the order in which they must be joined.
KINDS = {
    "user": (CLONE_NEWUSER, "user"),
    "cgroup": (CLONE_NEWCGROUP, "cgroup"),
    "ipc": (CLONE_NEWIPC, "ipc"),
    "uts": (CLONE_NEWUTS, "uts"),
    "network": (CLONE_NEWNET, "net"),
    "pid": (CLONE_NEWPID, "pid"),
    "time": (CLONE_NEWTIME, "time"),
    "mount": (CLONE_NEWNS, "mnt"),
}
_KEYCTL_JOIN_SESSION_KEYRING = 1
_NS_GET_USERNS, _NS_GET_NSTYPE = 0xB701, 0xB703
_SIOCGIFFLAGS, _SIOCSIFFLAGS, _IFF_UP = 0x8913, 0x8914, 1

_setns = system_call("setns", Long, Long)
_unshare = system_call("unshare", ULong)
_sethostname = system_call("sethostname", Bytes, Long)
_setdomainname = system_call("setdomainname", Bytes, Long)
_keyctl = system_call("keyctl", Long, Bytes, Long, Long, Long)


def kind_of(fd: int) -> int:
    """Return the CLONE_NEW* flag of the namespace open at ``fd``; 0: it is none."""
    try:
        return fcntl.ioctl(fd, _NS_GET_NSTYPE)
    except OSError:
        return 0


def join(fd: int, flags: int) -> None:
    """Join the namespace open at ``fd``, or with a pidfd those of ``flags`` of that process."""
    _setns(fd, flags, about=f"{flags:#x}")


def leave_chroot() -> None:
    """Go to the root of the caller's mount namespace, out of a chroot(2) it may have begun in.

    Whatever lies above a chroot is still in the namespace: a later setns(2) begins there, and
    ``..`` from a second chroot leads there. Only the namespace's own root can be pivoted away.

    Privileges: CAP_SYS_ADMIN in the mount namespace's owner, CAP_SYS_CHROOT. Moves the working
    directory too.
    """
    own_pidfd = os.pidfd_open(os.getpid())
    try:
        join(own_pidfd, CLONE_NEWNS)
    finally:
        os.close(own_pidfd)


def is_of(pid: str, kind: str, path: str) -> bool:
    """Say whether the namespace at ``path``, of an OCI kind, is that of a process (or ``self``)."""
    try:
        there, here = os.stat(path), os.stat(f"/proc/{pid}/ns/{KINDS[kind][1]}")
    except OSError:  # joining it will say why
        return False
    return os.path.samestat(there, here)


def is_of_another_user(name: str) -> bool:
    """Say whether a user namespace outside owns the caller's namespace ``name``, such as ``pid``.

    Then the caller, root or not, has no privilege over it: it can make no file system of it.
    """
    fd = os.open(f"/proc/self/ns/{name}", os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.close(fcntl.ioctl(fd, _NS_GET_USERNS))
    except PermissionError:
        return True
    finally:
        os.close(fd)
    return False


def is_in_initial_user() -> bool:
    """Say whether the caller is in the host's user namespace: the one that maps every id."""
    try:
        with open("/proc/self/uid_map", "rb") as file:
            return file.read(64).split() == [b"0", b"0", b"4294967295"]
    except FileNotFoundError:  # a kernel without user namespaces
        return True


def uid_outside() -> int:
    """Return the caller's effective user id as the user namespace around its own knows it.

    In the host's own it is the same id; so it is where nothing outside stands for it.
    """
    uid = os.geteuid()
    try:
        with open("/proc/self/uid_map", "rb") as file:
            lines = [tuple(map(int, line.split())) for line in file]
    except FileNotFoundError:  # a kernel without user namespaces
        return uid
    for first, outside, size in lines:
        if first <= uid < first + size:
            return outside + uid - first
    return uid


def return_home(fd: int, flag: int) -> None:
    """Join the namespace the caller left for a moment; if that fails the process ends at once.

    To serve on from a container's namespace would be worse than not to serve.
    """
    try:
        join(fd, flag)
    except OSError:
        os.abort()


def unshare(flags: int) -> None:
    """Leave the caller's namespaces for new ones."""
    _unshare(flags, about=f"{flags:#x}")


def open_time_offsets() -> int:
    """Open the file in /proc by which the caller sets the clocks of its next time namespace."""
    return os.open("/proc/self/timens_offsets", os.O_WRONLY | os.O_CLOEXEC)


def enter_new_time(offsets: Mapping[str, tuple[int, int]], offsets_fd: int) -> None:
    """Move the caller, single-threaded, into a new time namespace.

    unshare(2) prepares the namespace for children alone, which is when its clocks can still be
    set; joining it fixes them.

    Args:
        offsets: clock (``monotonic``, ``boottime``) -> seconds and nanoseconds.
        offsets_fd: of ``open_time_offsets``. Borrowed.

    Privileges: CAP_SYS_ADMIN; with offsets CAP_SYS_TIME, of whoever opened the file. Needs /proc.

    Raises:
        KernelError: ERANGE or EINVAL, an offset the kernel does not take.

    """
    unshare(CLONE_NEWTIME)
    text = "".join(f"{clock} {secs} {nanosecs}\n" for clock, (secs, nanosecs) in offsets.items())
    if text:
        _write_offsets(offsets_fd, text)
    fd = os.open("/proc/self/ns/time_for_children", os.O_RDONLY | os.O_CLOEXEC)
    try:
        join(fd, CLONE_NEWTIME)
    finally:
        os.close(fd)


def set_host_name(name: str) -> None:
    """Set the host name of this UTS namespace."""
    raw = name.encode()
    _sethostname(raw, len(raw), about=name)


def set_domain_name(name: str) -> None:
    """Set the NIS domain name of this UTS namespace."""
    raw = name.encode()
    _setdomainname(raw, len(raw), about=name)


def join_session_keyring() -> bool:
    """Leave the caller's session keyring for a new, anonymous one.

    Returns:
        False when the user's key quota is used up: the caller's keyring was replaced by none
        of its own, and the user's program sees no key of the host either way.

    """
    try:
        _keyctl(_KEYCTL_JOIN_SESSION_KEYRING, None, 0, 0, 0)
    except KernelError as error:
        if error.errno in {errno.EDQUOT, errno.ENOSYS, errno.EPERM}:
            return False
        raise
    return True


def _write_offsets(fd: int, text: str) -> None:
    try:
        os.write(fd, text.encode())
    except OSError as error:
        what = f"write timens_offsets {text.rstrip()!r}"
        raise KernelError(error.errno or 0, what) from None


def bring_loopback_up() -> None:
    """Set ``lo`` of this network namespace up; the kernel gives it 127.0.0.1 and ::1."""
    control = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0)
    try:
        request = struct.pack("16sH22x", b"lo", 0)
        (flags,) = struct.unpack_from("H", fcntl.ioctl(control, _SIOCGIFFLAGS, request), 16)
        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH22x", b"lo", flags | _IFF_UP))
    finally:
        control.close()
