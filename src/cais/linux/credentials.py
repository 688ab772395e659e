"""Users, groups and capabilities of this process.

Capabilities are plain integers, one bit each: parsing happens before the clone, applying is a few
system calls.

Spec: capabilities(7), capset(2), prctl(2); Linux 6.18's list.
"""

from __future__ import annotations

import ctypes
import errno
import os

from cais.linux.syscalls import KernelError, Long, Pointer, ULong, system_call

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

NAMES = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
]
BITS = {f"CAP_{name}": 1 << number for number, name in enumerate(NAMES)}
MAX_ID = 0x7FFFFFFF  # Docker's and Go's limit; above it an id wraps to 0 in careless readers

_PR_SET_KEEPCAPS, _PR_CAPBSET_READ, _PR_CAPBSET_DROP, _PR_CAP_AMBIENT = 8, 23, 24, 47
_PR_CAP_AMBIENT_RAISE, _PR_CAP_AMBIENT_CLEAR_ALL = 2, 4
_VERSION_3 = 0x20080522


class _Header(ctypes.Structure):  # struct __user_cap_header_struct
    _fields_ = [("version", ctypes.c_uint32), ("pid", ctypes.c_int)]


class _Data(ctypes.Structure):  # struct __user_cap_data_struct, low and high words
    _fields_ = [(name, ctypes.c_uint32) for name in ("e0", "p0", "i0", "e1", "p1", "i1")]


_capget = system_call("capget", Pointer, Pointer)
_capset = system_call("capset", Pointer, Pointer)
_setfsuid = system_call("setfsuid", Long)
_setfsgid = system_call("setfsgid", Long)
_prctl = system_call("prctl", Long, ULong, ULong, ULong, ULong)


class Capabilities:
    """The five sets, as masks."""

    __slots__ = ("ambient", "bounding", "effective", "inheritable", "permitted")

    def __init__(
        self, bounding: int, permitted: int, effective: int, inheritable: int, ambient: int
    ) -> None:
        self.bounding = bounding
        self.permitted = permitted
        self.effective = effective
        self.inheritable = inheritable
        self.ambient = ambient

    def beyond(self, available: int) -> int:
        """Return what ``limited_to`` would leave out, of whichever set."""
        all_sets = self.bounding | self.permitted | self.effective | self.inheritable | self.ambient
        out_of_order = (self.effective | self.ambient) & ~self.permitted
        return all_sets & ~available | out_of_order | self.ambient & ~self.inheritable

    def limited_to(self, available: int) -> Capabilities:
        """Return the sets without what is not in ``available``; rules between sets are kept."""
        permitted = self.permitted & available
        inheritable = self.inheritable & available
        return Capabilities(
            self.bounding & available,
            permitted,
            self.effective & permitted,
            inheritable,
            self.ambient & permitted & inheritable,
        )


def mask_of(names: Iterable[str]) -> tuple[int, list[str]]:
    """Return the mask of ``CAP_*`` names and those names this kernel list does not know."""
    mask, unknown = 0, []
    for name in names:
        bit = BITS.get(name.upper())
        if bit is None:
            unknown.append(name)
        else:
            mask |= bit
    return mask, unknown


def permitted() -> int:
    """Return this process's permitted set."""
    data = _current_sets()
    return int(data.p0 | data.p1 << 32)


def _current_sets() -> _Data:
    header, data = _Header(_VERSION_3, 0), _Data()
    _capget(ctypes.addressof(header), ctypes.addressof(data))
    return data


def _set_sets(data: _Data) -> None:
    header = _Header(_VERSION_3, 0)
    _capset(ctypes.addressof(header), ctypes.addressof(data))


class acting_as:  # noqa: N801 - reads as a function
    """Make and mount files as another user for a moment, with the capabilities of now.

    Args:
        uid: effective id; the real and the saved one stay root's, by which it comes back.
        gid: likewise.

    Privileges: CAP_SETUID, CAP_SETGID; every thread of the process changes.

    """

    __slots__ = ("_gid", "_sets", "_uid")

    def __init__(self, uid: int, gid: int) -> None:
        self._uid = uid
        self._gid = gid

    def __enter__(self) -> None:
        self._sets = _current_sets()
        os.setegid(self._gid)
        try:
            os.seteuid(self._uid)
            _set_sets(self._sets)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        os.seteuid(0)
        os.setegid(0)
        _set_sets(self._sets)


class making_files_as:  # noqa: N801 - reads as a function
    """Make files as another user for a moment, with the capabilities of now: this thread alone.

    Args:
        uid: id for the file system; every other one stays.
        gid: likewise.

    Privileges: CAP_SETUID, CAP_SETGID.

    """

    __slots__ = ("_gid", "_ids", "_sets", "_uid")

    def __init__(self, uid: int, gid: int) -> None:
        self._uid = uid
        self._gid = gid

    def __enter__(self) -> None:
        self._sets = _current_sets()
        self._ids = (_setfsuid(self._uid), _setfsgid(self._gid))
        try:
            _set_sets(self._sets)
        except BaseException:
            self.__exit__()
            raise

    def __exit__(self, *_: object) -> None:
        uid, gid = self._ids
        _setfsgid(gid)
        _setfsuid(uid)
        _set_sets(self._sets)


def bounding() -> int:
    """Return this process's bounding set, of the capabilities this list knows."""
    mask = 0
    for number in range(len(NAMES)):
        try:
            mask |= _prctl(_PR_CAPBSET_READ, number, 0, 0, 0) << number
        except KernelError:  # an older kernel: the last capability is behind us
            break
    return mask


def drop_bounding(keep: int) -> None:
    """Drop every capability not in ``keep`` from the bounding set, known to this list or not."""
    for number in range(64):
        if keep >> number & 1:
            continue
        try:
            _prctl(_PR_CAPBSET_DROP, number, 0, 0, 0, about=f"PR_CAPBSET_DROP {number}")
        except KernelError as error:
            if error.errno == errno.EINVAL and number:  # past the kernel's last capability
                return
            raise


def set_capabilities(*, permitted: int, effective: int, inheritable: int) -> None:
    """Set three sets exactly.

    Raises:
        KernelError: EPERM, more permitted than now, or more inheritable than the bounding set has.

    """
    low = 0xFFFFFFFF
    _set_sets(
        _Data(
            effective & low,
            permitted & low,
            inheritable & low,
            effective >> 32,
            permitted >> 32,
            inheritable >> 32,
        )
    )


def set_ambient(mask: int) -> None:
    """Set the ambient set exactly; each must be permitted and inheritable."""
    _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0, about="PR_CAP_AMBIENT_CLEAR_ALL")
    for number in range(len(NAMES)):
        if mask >> number & 1:
            about = f"PR_CAP_AMBIENT_RAISE {NAMES[number]}"
            _prctl(_PR_CAP_AMBIENT, _PR_CAP_AMBIENT_RAISE, number, 0, 0, about=about)


def become(uid: int, gid: int, groups: Sequence[int], *, in_user_namespace: bool = False) -> None:
    """Take the user, group and exactly these supplementary groups; keep the permitted set.

    The effective set is lost for a user other than root; ``set_capabilities`` gives it back.
    A user namespace made by an ordinary user for itself alone denies setgroups(2): the caller's
    own groups then stay, which mean nothing inside.

    Raises:
        KernelError: EPERM, groups that cannot be had; EINVAL, an id that is not mapped, or beyond
            MAX_ID, or more groups than the kernel has room for.

    """
    for number in (uid, gid, *groups):
        if not 0 <= number <= MAX_ID:  # to setresuid(2), -1 is no id: it leaves root what it is
            raise KernelError(errno.EINVAL, f"become {number}")
    _prctl(_PR_SET_KEEPCAPS, 1, 0, 0, 0, about="PR_SET_KEEPCAPS")
    try:
        _change("setgroups", os.setgroups, groups)
    except KernelError as error:
        if error.errno != errno.EPERM or not in_user_namespace or set(groups) - {gid}:
            raise
    _change("setresgid", os.setresgid, gid, gid, gid)
    _change("setresuid", os.setresuid, uid, uid, uid)
    _prctl(_PR_SET_KEEPCAPS, 0, 0, 0, 0, about="PR_SET_KEEPCAPS")


def _change(name: str, call: Callable[..., None], *ids: object) -> None:
    try:
        call(*ids)
    except ValueError:  # os.setgroups, of more than there is room for
        raise KernelError(errno.EINVAL, name) from None
    except OSError as error:  # a number without a mapping in this user namespace
        raise KernelError(error.errno or 0, f"{name} {ids[0]}") from None
