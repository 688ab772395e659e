"""Docker's profile format resolved; programs compiled and kept."""

from __future__ import annotations

import errno
import json
import os
import stat
import struct
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.linux.seccomp import compiler, library, loader, profiles, prologue

PROFILE = json.loads(
    (Path(profiles.__file__).parents[2] / "spec/data/seccomp-default.json").read_text()
)
DEFAULT = {"CAP_SYS_CHROOT", "CAP_KILL"}


def resolve(profile: object = None, **facts: Any) -> Any:
    defaults = {"capabilities": DEFAULT, "machine": "x86_64", "kernel": (6, 1)}
    return profiles.resolve(profile or PROFILE, **{**defaults, **facts})  # type: ignore[arg-type]


def named(seccomp: Any) -> set[str]:
    return {
        name
        for rule in seccomp["syscalls"]
        for name in rule["names"]
        if rule["action"] == "SCMP_ACT_ALLOW" and not rule.get("args")
    }


def test_rules_follow_capabilities() -> None:
    assert "chroot" in named(resolve())
    assert "chroot" not in named(resolve(capabilities=set()))
    assert "mount" not in named(resolve())
    assert {"mount", "bpf", "setns"} <= named(resolve(capabilities={"CAP_SYS_ADMIN"}))
    assert "bpf" in named(resolve(capabilities={"CAP_BPF"}))


def test_excluded_capabilities_take_a_rule_away() -> None:
    clone3 = [rule for rule in resolve()["syscalls"] if "clone3" in rule["names"]]
    assert [(rule["action"], rule["errnoRet"]) for rule in clone3] == [("SCMP_ACT_ERRNO", 38)]
    admin = resolve(capabilities={"CAP_SYS_ADMIN"})
    assert all(
        rule["action"] == "SCMP_ACT_ALLOW"
        for rule in admin["syscalls"]
        if "clone3" in rule["names"]
    )


def test_rules_follow_the_kernel_version() -> None:
    assert "ptrace" in named(resolve(kernel=(4, 8)))
    assert "ptrace" not in named(resolve(kernel=(4, 7)))
    assert "ptrace" in named(resolve(kernel=(10, 0)))


def test_rules_follow_the_architecture() -> None:
    assert "modify_ldt" in named(resolve())
    assert "modify_ldt" not in named(resolve(machine="aarch64"))
    s390 = [rule for rule in resolve(machine="s390x")["syscalls"] if rule["names"] == ["clone"]]
    assert [rule["args"][0]["index"] for rule in s390] == [1]


def test_32_bit_relatives_come_along() -> None:
    assert resolve()["architectures"] == ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]
    assert resolve(machine="aarch64")["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert resolve(machine="riscv64")["architectures"] == ["SCMP_ARCH_RISCV64"]


def test_nothing_of_docker_s_own_is_left() -> None:
    resolved = resolve()
    assert set(resolved) == {"defaultAction", "defaultErrnoRet", "architectures", "syscalls"}
    assert all(
        set(rule) <= {"names", "action", "errnoRet", "args"} for rule in resolved["syscalls"]
    )


def test_the_first_profiles_named_one_call_a_rule() -> None:
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"name": "mkdir", "action": "SCMP_ACT_ERRNO"}],
    }
    assert resolve(profile)["syscalls"] == [{"names": ["mkdir"], "action": "SCMP_ACT_ERRNO"}]


@pytest.mark.parametrize(
    ("profile", "text"),
    [
        ({"syscalls": []}, "defaultAction: is required"),
        ({"defaultAction": "ALLOW"}, "'ALLOW' is not one of"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": {}}, "an array of objects"),
        ({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": ["mkdir"]}, "an array of objects"),
        (
            {
                "defaultAction": "SCMP_ACT_ALLOW",
                "archMap": [{}],
                "architectures": ["SCMP_ARCH_X86"],
            },
            "use either 'architectures' or 'archMap'",
        ),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"name": "a", "names": ["b"]}]},
            "use either 'name' or 'names'",
        ),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"includes": {"minKernel": "new"}}]},
            "invalid kernel version: 'new'",
        ),
        (
            {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["a"], "includes": []}]},
            "includes and excludes are objects",
        ),
    ],
)
def test_malformed_profiles(profile: object, text: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        resolve(profile)
    assert text in str(refused.value)


def test_compiling_gives_a_whole_program() -> None:
    flags, code = loader.unpack(compiler.compile_profile(resolve()))
    assert flags == 0
    assert 100 < len(code) // 8 < 4096


def test_an_unknown_architecture_kills_the_process() -> None:
    _, code = loader.unpack(compiler.compile_profile(resolve()))
    instructions = [code[index : index + 8] for index in range(0, len(code), 8)]
    kill_process, kill_thread = (
        struct.pack("=HBBI", 6, 0, 0, action) for action in (library.KILL_PROCESS, 0)
    )
    assert kill_process in instructions
    assert kill_thread not in instructions


def flags_of(*names: str, action: str = "SCMP_ACT_LOG") -> int:
    profile: Any = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "flags": [f"SECCOMP_FILTER_FLAG_{name}" for name in names],
        "syscalls": [{"names": ["mkdir"], "action": action}],
    }
    return loader.unpack(compiler.compile_profile(profile))[0]


def test_flags_travel_with_the_program() -> None:
    # oci: linux.seccomp.flags[TSYNC, LOG, SPEC_ALLOW, WAIT_KILLABLE_RECV]
    assert flags_of("LOG", "TSYNC") == 2
    assert flags_of("SPEC_ALLOW") == 4
    assert flags_of(action="SCMP_ACT_NOTIFY") == 8
    assert flags_of("WAIT_KILLABLE_RECV", action="SCMP_ACT_NOTIFY") == 40
    assert flags_of("WAIT_KILLABLE_RECV") == 0  # nobody receives: the kernel would refuse it


def test_a_flag_that_is_not_supported_is_named() -> None:
    with pytest.raises(UnsupportedError, match="SECCOMP_FILTER_FLAG_NEW is not supported"):
        flags_of("NEW")


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"defaultAction": "SCMP_ACT_NOTIFY"}, "cannot be used as default action"),
        (
            {"syscalls": [{"names": ["read", "write"], "action": "SCMP_ACT_NOTIFY"}]},
            "cannot be used for the write syscall",
        ),
        ({"defaultErrnoRet": 1}, "SCMP_ACT_ALLOW takes no errno"),
        (
            {"syscalls": [{"names": ["read"], "action": "SCMP_ACT_LOG", "errnoRet": 1}]},
            "SCMP_ACT_LOG takes no errno",
        ),
    ],
)
def test_contradictions_are_refused(changes: dict[str, Any], text: str) -> None:
    profile: Any = {"defaultAction": "SCMP_ACT_ALLOW", **changes}
    with pytest.raises(InvalidArgumentError, match=text):
        compiler.compile_profile(profile)


def test_the_listener_of_a_docker_profile_is_kept() -> None:
    address = {"listenerPath": "/run/agent", "listenerMetadata": "m"}
    assert resolve({**PROFILE, **address}).items() >= address.items()


def test_an_unknown_architecture_is_named() -> None:
    profile: Any = {"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_VAX"]}
    with pytest.raises(InvalidArgumentError, match="SCMP_ARCH_VAX"):
        compiler.compile_profile(profile)


def test_programs_are_kept_by_digest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = tmp_path / "seccomp"
    path = compiler.ensure_compiled(resolve(), str(directory))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
    other = compiler.ensure_compiled(resolve(capabilities={"CAP_SYS_ADMIN"}), str(directory))
    assert other != path
    monkeypatch.setattr(compiler, "compile_profile", lambda _: pytest.fail("compiled again"))
    assert compiler.ensure_compiled(resolve(), str(directory)) == path
    assert sorted(os.listdir(directory)) == sorted(os.path.basename(p) for p in (path, other))


def test_starts_at_once_compile_a_program_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compiled: list[bytes] = []

    def compile_profile(_: object) -> bytes:
        compiled.append(b"program")
        return compiled[-1]

    monkeypatch.setattr(compiler, "compile_profile", compile_profile)
    seccomp, rounds, parallel = resolve(), 100, 4
    together = threading.Barrier(parallel)

    def start(directory: str) -> str:
        together.wait()
        return compiler.ensure_compiled(seccomp, directory)

    with ThreadPoolExecutor(parallel) as pool:
        for number in range(rounds):
            (path,) = set(pool.map(start, [str(tmp_path / str(number))] * parallel))
            assert Path(path).read_bytes() == b"program"
            assert os.listdir(os.path.dirname(path)) == [os.path.basename(path)]
    assert len(compiled) == rounds


def test_a_program_is_kept_whole_or_not_at_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full directory takes part of a write before it refuses the next one."""
    write, left = os.write, [1]

    def fill(fd: int, content: bytes) -> int:
        if not left:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(fd, content[: left.pop()])

    monkeypatch.setattr(os, "write", fill)
    with pytest.raises(OSError, match="No space"):
        compiler.ensure_compiled(resolve(), str(tmp_path))
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    "program", [b"", b"CSF1\0\0\0\0", b"XXXX\0\0\0\0" + bytes(8), b"CSF1" + bytes(9)]
)
def test_what_is_no_program_is_not_loaded(program: bytes) -> None:
    with pytest.raises(OSError, match="not a compiled filter"):
        loader.load(program)


def test_a_missing_library_is_said_clearly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(library, "_opened", [])
    monkeypatch.setattr(library, "SONAME", "libseccomp-not-there.so.2")
    with pytest.raises(
        UnsupportedError, match=r"seccomp profiles need libseccomp-not-there\.so\.2"
    ):
        library.version()


def test_the_prologue_jumps_stay_inside() -> None:
    answers = {"SCMP_ARCH_X86_64": {335: 1, 462: 2}, "SCMP_ARCH_X86": {462: 2}}
    newest = dict.fromkeys(("SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"), 456)
    code = prologue.assemble(newest, answers)
    count = len(code) // 8
    for index in range(count):
        opcode, if_true, if_false = code[index * 8], code[index * 8 + 2], code[index * 8 + 3]
        value = int.from_bytes(code[index * 8 + 4 : index * 8 + 8], "little")
        if opcode == 0x05:
            assert index + 1 + value == count, "every block ends where the filter begins"
        elif opcode & 7 == 5:
            assert index + 1 + max(if_true, if_false) <= count
