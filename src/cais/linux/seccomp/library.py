"""libseccomp, as much of it as compiling a filter takes.

Loaded by its soname, never searched for: ``ctypes.util.find_library`` runs a compiler.

Spec: seccomp_init(3), seccomp_attr_set(3), seccomp_arch_add(3), seccomp_rule_add(3),
seccomp_syscall_resolve_name(3), seccomp_export_bpf(3).
"""

from __future__ import annotations

import ctypes
import errno
import os

from cais.errors import InternalError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Self

KILL_PROCESS, KILL_THREAD, TRAP = 0x80000000, 0x00000000, 0x00030000
ERRNO, TRACE, LOG, ALLOW = 0x00050000, 0x7FF00000, 0x7FFC0000, 0x7FFF0000
NOTIFY = 0x7FC00000
SONAME = "libseccomp.so.2"
_ATTR_BAD_ARCH, _ATTR_NO_NEW_PRIVS, _ATTR_OPTIMIZE = 2, 3, 8
_BINARY_TREE = 2
_ARCHITECTURES = tuple(
    f"SCMP_ARCH_{name}"
    for name in (
        *("AARCH64", "ARM", "LOONGARCH64", "M68K", "MIPS", "MIPS64", "MIPS64N32", "MIPSEL"),
        *("MIPSEL64", "MIPSEL64N32", "PARISC", "PARISC64", "PPC", "PPC64", "PPC64LE", "RISCV64"),
        *("S390", "S390X", "SH", "SHEB", "X32", "X86", "X86_64"),
    )
)
_UNKNOWN_CALL = -1  # __NR_SCMP_ERROR


class Comparison(ctypes.Structure):
    """``struct scmp_arg_cmp``: argument index, operator, value, second value."""

    _fields_ = (
        ("argument", ctypes.c_uint),
        ("operator", ctypes.c_int),
        ("first", ctypes.c_uint64),
        ("second", ctypes.c_uint64),
    )


class _Version(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_uint) for name in ("major", "minor", "micro"))


_opened: list[ctypes.CDLL] = []


class Filter:
    """A filter being built; a context manager, because libseccomp owns memory."""

    def __init__(self, default_action: int) -> None:
        self._library = _open()
        self._context = self._library.seccomp_init(default_action)
        if not self._context:
            raise InternalError("seccomp_init failed")
        # The child sets no_new_privs when it is asked to; the load must not.
        self._set(_ATTR_NO_NEW_PRIVS, 0)
        self._set(_ATTR_BAD_ARCH, KILL_PROCESS)
        # A list of 400 comparisons for every system call is a cost a tree does not have; older
        # libraries know only the list.
        self._library.seccomp_attr_set(self._context, _ATTR_OPTIMIZE, _BINARY_TREE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._library.seccomp_release(self._context)

    def add_architecture(self, token: int) -> None:
        """Make the filter hold for one more architecture; once is enough."""
        code = self._library.seccomp_arch_add(self._context, token)
        if code not in (0, -errno.EEXIST):
            raise _failure("seccomp_arch_add", code)

    def add_rule(self, action: int, number: int, comparisons: Sequence[Comparison]) -> None:
        """Answer the call ``number`` with ``action`` if all comparisons hold.

        On an architecture that cannot express the rule (socketcall's arguments) it is left out.
        """
        array = (Comparison * len(comparisons))(*comparisons)
        code = self._library.seccomp_rule_add_array(
            self._context, action, number, len(comparisons), array
        )
        if code not in (0, -errno.EEXIST):
            raise _failure("seccomp_rule_add", code)

    def export(self) -> bytes:
        """Return the instructions."""
        fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
        try:
            code = self._library.seccomp_export_bpf(self._context, fd)
            if code != 0:
                raise _failure("seccomp_export_bpf", code)
            return os.pread(fd, os.fstat(fd).st_size, 0)
        finally:
            os.close(fd)

    def _set(self, attribute: int, value: int) -> None:
        code = self._library.seccomp_attr_set(self._context, attribute, value)
        if code != 0:
            raise _failure("seccomp_attr_set", code)


def resolve(name: str) -> int | None:
    """Return libseccomp's number of a call, which may be a pseudo one; None if it is unknown."""
    number: int = _open().seccomp_syscall_resolve_name(name.encode())
    return None if number == _UNKNOWN_CALL else number


def architecture_token(name: str) -> int:
    """Return libseccomp's token of ``SCMP_ARCH_X86_64``; 0 if it is unknown."""
    short = name.removeprefix("SCMP_ARCH_").lower()
    token: int = _open().seccomp_arch_resolve_name(short.encode())
    return token


def known_architectures() -> list[str]:
    """Return the names, such as ``SCMP_ARCH_X86_64``, this library has a token for."""
    return [name for name in _ARCHITECTURES if architecture_token(name)]


def native_architecture() -> int:
    """Return the token of this machine."""
    token: int = _open().seccomp_arch_native()
    return token


def newest_number(token: int) -> int:
    """Return the highest number libseccomp can name on an architecture."""
    known = 0
    for number in range(400, 1000):
        name = _open().seccomp_syscall_resolve_num_arch(token, number)
        if name:
            _free(name)
            known = number
    return known


def version() -> str:
    """Return the library's version."""
    found = _open().seccomp_version().contents
    return f"{found.major}.{found.minor}.{found.micro}"


def _open() -> ctypes.CDLL:
    if not _opened:
        try:
            _opened.append(_declared(ctypes.CDLL(SONAME)))
        except OSError as exc:
            raise UnsupportedError(f"seccomp profiles need {SONAME}: {exc}") from exc
    return _opened[0]


def _declared(library: ctypes.CDLL) -> ctypes.CDLL:
    context, number, text = ctypes.c_void_p, ctypes.c_uint32, ctypes.c_char_p
    for name, result, arguments in (
        ("seccomp_init", context, (number,)),
        ("seccomp_release", None, (context,)),
        ("seccomp_attr_set", ctypes.c_int, (context, ctypes.c_int, number)),
        ("seccomp_arch_add", ctypes.c_int, (context, number)),
        ("seccomp_arch_resolve_name", number, (text,)),
        ("seccomp_arch_native", number, ()),
        (
            *("seccomp_rule_add_array", ctypes.c_int),
            (context, number, ctypes.c_int, ctypes.c_uint, ctypes.POINTER(Comparison)),
        ),
        ("seccomp_export_bpf", ctypes.c_int, (context, ctypes.c_int)),
        ("seccomp_syscall_resolve_name", ctypes.c_int, (text,)),
        ("seccomp_syscall_resolve_num_arch", context, (number, ctypes.c_int)),
        ("seccomp_version", ctypes.POINTER(_Version), ()),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


_free = ctypes.CDLL(None).free
_free.restype, _free.argtypes = None, (ctypes.c_void_p,)


def _failure(step: str, code: int) -> InternalError:
    return InternalError(f"{step}: {os.strerror(-code)}")
