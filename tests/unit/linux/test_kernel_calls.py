"""Unit tests of the wrappers around system calls: errors, EINTR, structures, CLOEXEC."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cais.linux import credentials, memfd, mount, paths, process, rlimits, syscalls
from cais.linux.syscalls import KernelError


def test_structures_have_the_kernels_sizes() -> None:
    sizes = {
        process.CloneArgs: 88,
        mount._MountAttr: 32,
        paths._OpenHow: 24,
        credentials._Header: 8,
        credentials._Data: 24,
    }
    assert {kind: ctypes.sizeof(kind) for kind in sizes} == sizes


def test_both_machines_have_the_same_calls() -> None:
    x86_64, aarch64 = syscalls._OLDER.values()
    assert set(x86_64) == set(aarch64)
    assert all(number >= 424 for number in syscalls._COMMON.values())


def test_a_call_that_was_interrupted_is_repeated() -> None:
    answers = [-1, -1, 7]

    def raw(*_: object) -> int:
        ctypes.set_errno(errno.EINTR)
        return answers.pop(0)

    assert syscalls.raising("x", 1, raw)() == 7


def test_a_failure_names_the_call_and_its_operand() -> None:
    with pytest.raises(KernelError, match=r"openat2 nothing: No such file") as failed:
        paths.open_at(-100, "nothing", os.O_RDONLY, resolve=0)
    assert (failed.value.errno, failed.value.step) == (errno.ENOENT, "openat2 nothing")


def test_signals_do_not_break_calls() -> None:
    hits: list[int] = []
    old = signal.signal(signal.SIGALRM, lambda *_: hits.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.001, 0.001)
    try:
        while len(hits) < 20:
            os.close(paths.open_at(-100, "/", os.O_PATH, resolve=0))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)


def test_descriptors_are_closed_on_exec() -> None:
    """P2: nothing does that for ctypes."""
    fds = [
        paths.open_at(-100, "/", os.O_PATH, resolve=0),
        memfd.sealed_bytes(b"x"),
        memfd.sealed_copy("/etc/hostname"),
    ]
    assert not any(os.get_inheritable(fd) for fd in fds)
    for fd in fds:
        os.close(fd)


def test_no_wrapper_forgets_close_on_exec() -> None:
    """Every call that makes a descriptor is made with the flag of its own that says so."""
    source = Path(mount.__file__).read_text()
    for call, flag in (("_fsopen(", "CLOEXEC"), ("_fsmount(", "CLOEXEC"), ("_open_tree(", "flags")):
        uses = [line for line in source.splitlines() if call in line]
        assert uses
        assert all(flag in line for line in uses), call
    assert re.search(r"flags = _OPEN_TREE_CLONE \| os.O_CLOEXEC", source)


def test_capabilities_by_name() -> None:
    assert credentials.BITS["CAP_SYS_ADMIN"] == 1 << 21
    assert credentials.BITS["CAP_CHECKPOINT_RESTORE"] == 1 << 40
    assert credentials.mask_of(["CAP_CHOWN", "cap_kill", "CAP_X"]) == (0x21, ["CAP_X"])


def test_sets_are_limited_without_breaking_their_rules() -> None:
    sets = credentials.Capabilities(7, 7, 7, 7, 7).limited_to(5)
    assert (sets.bounding, sets.permitted, sets.effective, sets.inheritable, sets.ambient) == (
        *(5, 5, 5),
        *(5, 5),
    )


def test_a_sealed_copy_cannot_change() -> None:
    fd = memfd.sealed_bytes(b"program")
    assert memfd.is_sealed(fd)
    assert os.pread(fd, 10, 0) == b"program"
    with pytest.raises(PermissionError):
        os.write(fd, b"x")
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    os.close(fd)
    with open(sys.executable, "rb") as file:
        assert not memfd.is_sealed(file.fileno())
    assert not memfd.runs_sealed()


def test_ignored_signals_are_found() -> None:
    assert signal.SIGPIPE in process.ignored_signals()
    assert signal.SIGTERM not in process.ignored_signals()


def test_start_ticks_name_a_process() -> None:
    assert process.start_ticks(os.getpid()) == process.start_ticks(os.getpid()) > 0
    with pytest.raises(OSError, match="No such"):
        process.start_ticks(2**22 + 1)


def test_limits_that_can_be_set_need_no_warning() -> None:
    import resource

    before = resource.getrlimit(resource.RLIMIT_CORE)
    assert rlimits.apply("RLIMIT_CORE", before[0] % 2**64, before[1] % 2**64) is None
    assert resource.getrlimit(resource.RLIMIT_CORE) == before


def test_limits_beyond_python_s_numbers() -> None:
    script = """
from cais.linux import rlimits
print(rlimits.apply("RLIMIT_RTTIME", 2**63 - 1, 2**63))
print(next(line.split()[3:5] for line in open("/proc/self/limits") if "realtime timeout" in line))
"""
    shown = subprocess.run([sys.executable, "-c", script], check=True, stdout=subprocess.PIPE)
    assert shown.stdout.decode().splitlines() == ["None", f"['{2**63 - 1}', '{2**63}']"]


def test_a_program_keeps_order_and_duplicates_of_its_environment() -> None:
    program = process.Program([b"a"], [b"X=1", b"Y=2", b"X=3"])
    assert list(program._envp) == [b"X=1", b"Y=2", b"X=3", None]
    assert list(program._argv) == [b"a", None]
