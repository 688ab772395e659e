"""Docker's profile on this kernel: what it blocks, lets through, answers (SECURITY.md 3.6, A25)."""

from __future__ import annotations

import ctypes
import errno
import json
import mmap
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cais.linux.seccomp import compiler, load, profiles
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")

DEFAULT_CAPABILITIES = frozenset(
    f"CAP_{name}"
    for name in (
        *("CHOWN", "DAC_OVERRIDE", "FSETID", "FOWNER", "MKNOD", "NET_RAW", "SETGID", "SETUID"),
        *("SETFCAP", "SETPCAP", "NET_BIND_SERVICE", "SYS_CHROOT", "KILL", "AUDIT_WRITE"),
    )
)
PROFILE = json.loads(
    (Path(profiles.__file__).parents[2] / "spec/data/seccomp-default.json").read_text()
)
X32 = 0x40000000
# Numbers of x86-64, of the calls the profile blocks with the default capabilities.
BLOCKED = {
    "_sysctl": 156, "acct": 163, "add_key": 248, "afs_syscall": 183, "bpf": 321,
    "clock_settime": 227, "create_module": 174, "delete_module": 176, "fanotify_init": 300,
    "file_getattr": 468, "file_setattr": 469, "finit_module": 313, "fsconfig": 431,
    "fsmount": 432, "fsopen": 430, "fspick": 433, "get_kernel_syms": 177, "get_mempolicy": 239,
    "getpmsg": 181, "init_module": 175, "io_uring_enter": 426, "io_uring_register": 427,
    "io_uring_setup": 425, "ioperm": 173, "iopl": 172, "kcmp": 312, "kexec_file_load": 320,
    "kexec_load": 246, "keyctl": 250, "lookup_dcookie": 212, "lsm_get_self_attr": 459,
    "lsm_list_modules": 461, "lsm_set_self_attr": 460, "mbind": 237, "migrate_pages": 256,
    "mount": 165, "mount_setattr": 442, "move_mount": 429, "move_pages": 279, "nfsservctl": 180,
    "open_by_handle_at": 304, "open_tree": 428, "open_tree_attr": 467, "perf_event_open": 298,
    "pidfd_getfd": 438, "pivot_root": 155, "process_madvise": 440, "putpmsg": 182,
    "query_module": 178, "quotactl": 179, "quotactl_fd": 443, "reboot": 169, "request_key": 249,
    "security": 185, "set_mempolicy": 238, "set_mempolicy_home_node": 450, "setdomainname": 171,
    "sethostname": 170, "setns": 308, "settimeofday": 164, "swapoff": 168, "swapon": 167,
    "sysfs": 139, "syslog": 103, "tuxcall": 184, "umount2": 166, "unshare": 272, "uselib": 134,
    "userfaultfd": 323, "ustat": 136, "vhangup": 153, "vserver": 236,
}  # fmt: skip

_libc = ctypes.CDLL(None, use_errno=True)


def program(capabilities: frozenset[str] = DEFAULT_CAPABILITIES) -> bytes:
    resolved = profiles.resolve(PROFILE, capabilities=capabilities, machine="x86_64", kernel=(6, 1))
    return compiler.compile_profile(resolved)


def call(number: int, *arguments: int) -> int:
    """Return the errno of a system call, 0 if it succeeded."""
    ctypes.set_errno(0)
    padded = [ctypes.c_long(argument) for argument in (*arguments, 0, 0, 0, 0, 0, 0)[:6]]
    return ctypes.get_errno() if _libc.syscall(ctypes.c_long(number), *padded) < 0 else 0


def filtered(body: Callable[[], None], code: bytes | None = None) -> None:
    """Run ``body`` under the filter, in a child."""
    compiled = code or program()

    def loaded() -> None:
        load(compiled)
        body()

    isolated(loaded, leftovers=False)


def test_what_is_blocked_says_eperm() -> None:
    # 74 in all, with clone3, which says ENOSYS, and uprobe, which the kernel filters for nobody.
    assert len(BLOCKED) == 72

    def body() -> None:
        answers = {name: call(number, 0, 0, 0, 0, 0, 0) for name, number in BLOCKED.items()}
        assert {name: code for name, code in answers.items() if code != errno.EPERM} == {}

    filtered(body)


def test_clone3_lets_the_c_library_fall_back() -> None:
    def body() -> None:
        assert call(435, 0, 0) == errno.ENOSYS

    filtered(body)


def test_clone_makes_no_namespace() -> None:
    """CVE-2022-0492: without a user namespace nothing mounts a cgroup."""
    flags = (0x20000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000, 0x2000000)

    def body() -> None:
        for flag in flags:
            assert call(56, flag | signal.SIGCHLD, 0, 0, 0, 0) == errno.EPERM, hex(flag)
        pid = os.fork()
        if pid == 0:
            os._exit(0)
        os.waitpid(pid, 0)

    filtered(body)


def test_socket_families() -> None:
    def body() -> None:
        for family in (38, 40):  # AF_ALG, AF_VSOCK
            assert call(41, family, 2, 0) == errno.EPERM, family
        for family in (1, 2, 10, 16):
            assert call(41, family, 2 if family != 16 else 3, 0) == 0, family
        assert call(41, 39, 2, 0) == errno.EAFNOSUPPORT
        assert call(41, 44, 3, 0) != errno.EPERM

    filtered(body)


def test_personalities() -> None:
    def body() -> None:
        for persona in (0x4, 0x40000, 0x0400000, 0x20001, 0x1):
            assert call(135, persona) == errno.EPERM, hex(persona)
        for persona in (0x20008, 0x20000, 0x8, 0x0, 0xFFFFFFFF):
            assert call(135, persona) == 0, hex(persona)

    filtered(body)


def test_a_call_nobody_knows_yet_says_enosys() -> None:
    def body() -> None:
        for number in (470, 471, 500, 1000, 0x3FFFFFFF):
            assert call(number) == errno.ENOSYS, number

    filtered(body)


def test_calls_newer_than_the_library_are_let_through_by_name() -> None:
    newer = {"mseal": 462, "statmount": 457, "fchmodat2": 452}
    unfiltered = {name: call(number, 0, 0, 0, 0) for name, number in newer.items()}
    known = {name: code for name, code in unfiltered.items() if code != errno.ENOSYS}
    assert errno.EPERM not in known.values()
    if not known:
        pytest.skip("this kernel has none of them")

    def body() -> None:
        assert {name: call(newer[name], 0, 0, 0, 0) for name in known} == known

    filtered(body)


def test_x32_numbers_are_filtered_too() -> None:
    def body() -> None:
        for name in ("mount", "unshare", "bpf", "keyctl", "userfaultfd", "io_uring_setup", "setns"):
            assert call(X32 | BLOCKED[name]) == errno.EPERM, name
        assert call(X32 | 41, 38, 2, 0) == errno.EPERM
        assert call(X32 | 435) == errno.ENOSYS
        assert call(X32 | 470) == errno.ENOSYS

    filtered(body)


def int80(number: int, *arguments: int) -> int:
    """Make a system call of i386 with int 0x80; return what it answers (negative errno)."""
    code = bytes.fromhex("5389f889f389d189cacd805bc3")
    # edi number, esi first, edx second argument: push rbx; mov eax,edi; mov ebx,esi; mov ecx,edx
    memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    memory.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    function = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_uint, ctypes.c_uint, ctypes.c_uint)(address)
    first, second = (*arguments, 0, 0)[:2]
    return function(number, first, second)


def test_i386_numbers_are_filtered_too() -> None:
    blocked = {"mount": 21, "umount2": 52, "unshare": 310, "setns": 346, "bpf": 357}
    blocked |= {"keyctl": 288, "add_key": 286, "io_uring_setup": 425, "userfaultfd": 374}
    blocked |= {"perf_event_open": 336, "open_tree": 428, "iopl": 110, "reboot": 88}

    def body() -> None:
        assert int80(20) == os.getpid()
        answers = {name: int80(number) for name, number in blocked.items()}
        assert {name: code for name, code in answers.items() if code != -errno.EPERM} == {}
        assert int80(359, 38, 2) == -errno.EPERM
        assert int80(435) == -errno.ENOSYS
        assert int80(136, 4) == -errno.EPERM
        assert int80(470) == -errno.ENOSYS

    filtered(body)


def test_capabilities_open_what_belongs_to_them() -> None:
    def admin() -> None:
        assert call(272, 0) == 0  # unshare nothing
        assert call(165) != errno.EPERM
        assert call(435, 0, 0) != errno.ENOSYS
        assert call(304) == errno.EPERM  # CAP_DAC_READ_SEARCH

    def reader() -> None:
        assert call(304) != errno.EPERM
        assert call(272, 0) == errno.EPERM

    filtered(admin, program(DEFAULT_CAPABILITIES | {"CAP_SYS_ADMIN"}))
    filtered(reader, program(DEFAULT_CAPABILITIES | {"CAP_DAC_READ_SEARCH"}))


def test_an_ordinary_program_runs() -> None:
    def body() -> None:
        pid = os.fork()
        if pid == 0:
            os.execv("/bin/busybox", ["sh", "-c", "echo x | cat >/dev/null; ls / | wc -l"])
        assert os.waitpid(pid, 0)[1] == 0

    filtered(body)


def test_an_unknown_architecture_is_killed_as_a_process() -> None:
    """A filter for arm alone, run on x86-64: every call is of an unknown architecture."""
    resolved = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X86"]}
    code = compiler.compile_profile(resolved)  # type: ignore[arg-type]
    # The native one is always part of it, so take it out of the program: compare with another.
    native, other = (0xC000003E).to_bytes(4, "little"), (0xC00000B7).to_bytes(4, "little")
    pid = os.fork()
    if pid == 0:
        load(code.replace(native, other))
        os.getppid()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSYS


def test_without_privilege_no_new_privs_is_needed() -> None:
    compiled = program()

    def body() -> None:
        os.setresuid(65534, 65534, 65534)
        with pytest.raises(OSError, match="seccomp") as refused:
            load(compiled)
        assert refused.value.errno == errno.EACCES
        assert _libc.prctl(38, 1, 0, 0, 0) == 0  # PR_SET_NO_NEW_PRIVS
        load(compiled)
        assert call(BLOCKED["unshare"], 0) == errno.EPERM

    isolated(body, leftovers=False)


def test_docker_s_other_actions() -> None:
    resolved = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.EXDEV},
            {"names": ["rmdir"], "action": "SCMP_ACT_ERRNO"},
            {"names": ["chmod"], "action": "SCMP_ACT_KILL_PROCESS"},
            {
                "names": ["dup3"],
                "action": "SCMP_ACT_ERRNO",
                "args": [  # two conditions on one argument: either
                    {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"},
                    {"index": 0, "value": 1, "op": "SCMP_CMP_EQ"},
                ],
            },
        ],
    }
    code = compiler.compile_profile(resolved)  # type: ignore[arg-type]

    def body() -> None:
        assert call(83, 0) == errno.EXDEV
        assert call(84, 0) == errno.EPERM
        assert call(292, 0, 900) == call(292, 1, 900) == errno.EPERM
        assert call(292, 2, 900, 0) == 0
        os.close(900)
        assert call(1000) == errno.ENOSYS  # allowed, so the kernel's own answer
        pid = os.fork()
        if pid == 0:
            call(90, 0, 0)
            os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGSYS

    filtered(body, code)
