"""Kernel tests of ``linux.seccomp``: each action, comparison and architecture, as runc does it.

Spec: OCI runtime-spec 1.2, config-linux.md "Seccomp".
"""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from peers import BOTH, Peer
from probes import write_probe

from cais.errors import InvalidArgumentError
from cais.linux.seccomp import profiles
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="programs of x86-64")

FCHDIR, LSEEK, FCHDIR_32 = 81, 8, 133
X32 = 0x40000000
SIGSYS = 128 + 31
PROFILE = Path(profiles.__file__).parents[2] / "spec/data/seccomp-default.json"


def run_probe(
    tmp_path: Path,
    name: str,
    seccomp: dict[str, Any],
    call: Sequence[int] = (FCHDIR, -1),
    *,
    bits: int = 64,
) -> int:
    """Return the exit status of a probe under a filter; no filter answers EBADF."""
    codes: list[int] = []
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)

    def body() -> None:
        (tmp_path / "bundle").mkdir()
        bundle = Bundle(tmp_path / "bundle")
        write_probe(bundle.rootfs / "probe", *call, bits=bits)
        bundle.linux["seccomp"] = seccomp
        done = Peer(name, bundle, tmp_path).run("/probe", ok=False)
        assert not done.stderr, done.stderr
        os.write(write_fd, bytes([done.returncode]))

    isolated(body)
    codes += os.read(read_fd, 1)
    os.close(read_fd)
    os.close(write_fd)
    return codes[0]


def profile(action: str, *names: str, **members: Any) -> dict[str, Any]:
    rule = {"names": [*names] or ["fchdir"], "action": f"SCMP_ACT_{action}", **members}
    return {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("action", "members", "code"),
    [
        ("ALLOW", {}, errno.EBADF),
        ("LOG", {}, errno.EBADF),
        ("ERRNO", {}, errno.EPERM),
        ("ERRNO", {"errnoRet": 99}, 99),
        ("ERRNO", {"errnoRet": 0}, 0),
        ("TRACE", {}, errno.ENOSYS),  # without a tracer
        ("TRACE", {"errnoRet": 99}, errno.ENOSYS),
        ("TRAP", {}, SIGSYS),
        ("KILL", {}, SIGSYS),
        ("KILL_THREAD", {}, SIGSYS),
        ("KILL_PROCESS", {}, SIGSYS),
    ],
)
def test_actions(
    tmp_path: Path, name: str, action: str, members: dict[str, Any], code: int
) -> None:
    # oci: linux.seccomp.defaultAction; syscalls.names, .action, .errnoRet
    assert run_probe(tmp_path, name, profile(action, **members)) == code


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("operator", "value", "second", "answers"),
    [
        ("NE", 5, 0, {4: True, 5: False, 6: True}),
        ("LT", 5, 0, {4: True, 5: False, 6: False}),
        ("LE", 5, 0, {4: True, 5: True, 6: False}),
        ("EQ", 5 << 40, 0, {5 << 40: True, 5: False, 0: False}),
        ("GE", 5, 0, {4: False, 5: True, 6: True}),
        ("GT", 5, 0, {4: False, 5: False, 2**63: True}),
        ("MASKED_EQ", 0xF0, 0x50, {0x5F: True, 0x6F: False, 0x15F: True}),
    ],
)
def test_comparisons(
    tmp_path: Path, name: str, operator: str, value: int, second: int, answers: dict[int, bool]
) -> None:
    # oci: linux.seccomp.syscalls.args.index, .value, .valueTwo, .op
    argument = {"index": 1, "value": value, "valueTwo": second, "op": f"SCMP_CMP_{operator}"}
    rules = profile("ERRNO", "lseek", errnoRet=99, args=[argument])

    def body() -> None:
        (tmp_path / "bundle").mkdir()
        bundle = Bundle(tmp_path / "bundle")
        bundle.linux["seccomp"] = rules
        for offset in answers:
            write_probe(bundle.rootfs / f"probe-{offset}", LSEEK, -1, offset, 0)
        script = "; ".join(f"/probe-{offset}; echo $?" for offset in answers)
        found = Peer(name, bundle, tmp_path).run("sh", "-c", script).stdout.split()
        expected = [99 if answer else errno.EBADF for answer in answers.values()]
        assert found == [str(code) for code in expected]

    isolated(body)


@pytest.mark.parametrize("name", BOTH)
def test_all_comparisons_of_a_rule_must_hold(tmp_path: Path, name: str) -> None:
    args = [
        {"index": 0, "value": 2**32 - 1, "op": "SCMP_CMP_EQ"},
        {"index": 2, "value": 1, "op": "SCMP_CMP_EQ"},
    ]
    rules = profile("ERRNO", "lseek", errnoRet=99, args=args)
    assert run_probe(tmp_path, name, rules, (LSEEK, 2**32 - 1, 0, 0)) == errno.EBADF


@pytest.mark.parametrize("name", BOTH)
def test_two_comparisons_of_one_argument_are_alternatives(tmp_path: Path, name: str) -> None:
    args = [{"index": 2, "value": value, "op": "SCMP_CMP_EQ"} for value in (1, 2)]
    rules = profile("ERRNO", "lseek", errnoRet=99, args=args)
    assert run_probe(tmp_path, name, rules, (LSEEK, -1, 0, 2)) == 99


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(("members", "code"), [({}, errno.EPERM), ({"defaultErrnoRet": 99}, 99)])
def test_the_default_answer(tmp_path: Path, name: str, members: dict[str, Any], code: int) -> None:
    # oci: linux.seccomp.defaultErrnoRet
    allowed = [
        call
        for rule in json.loads(PROFILE.read_text())["syscalls"]
        for call in rule["names"]
        if rule["action"] == "SCMP_ACT_ALLOW" and call != "fchdir"
    ]
    rules = {
        "defaultAction": "SCMP_ACT_ERRNO",
        "syscalls": [{"names": allowed, "action": "SCMP_ACT_ALLOW"}],
        **members,
    }
    assert run_probe(tmp_path, name, rules) == code


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("architectures", "code"),
    [
        (["X86_64", "X86", "X32"], 99),
        (["X86"], 99),  # the native one is always among them
        (["X86_64"], SIGSYS),
        ([], SIGSYS),
    ],
)
def test_calls_of_another_architecture(
    tmp_path: Path, name: str, architectures: list[str], code: int
) -> None:
    # oci: linux.seccomp.architectures
    rules = profile("ERRNO", errnoRet=99)
    rules["architectures"] = [f"SCMP_ARCH_{each}" for each in architectures]
    assert run_probe(tmp_path, name, rules, (FCHDIR_32, -1), bits=32) == code


@pytest.mark.parametrize("name", BOTH)
def test_calls_of_x32(tmp_path: Path, name: str) -> None:
    rules = profile("ERRNO", errnoRet=99)
    rules["architectures"] = ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"]
    assert run_probe(tmp_path, name, rules, (X32 | FCHDIR, -1)) == 99


@pytest.mark.parametrize(
    "flags", [["TSYNC"], ["LOG"], ["SPEC_ALLOW"], ["TSYNC", "LOG", "SPEC_ALLOW"]]
)
@pytest.mark.parametrize("no_new_privileges", [False, True])
def test_flags_and_an_exec(tmp_path: Path, flags: list[str], *, no_new_privileges: bool) -> None:
    # oci: linux.seccomp.flags
    def body() -> None:
        bundle = Bundle(tmp_path)
        write_probe(bundle.rootfs / "probe", FCHDIR, -1)
        rules = profile("ERRNO", errnoRet=99)
        rules["flags"] = [f"SECCOMP_FILTER_FLAG_{flag}" for flag in flags]
        bundle.linux["seccomp"] = rules
        bundle.process["noNewPrivileges"] = no_new_privileges
        with Capture() as capture:
            running = bundle.start("sleep", "60", stdio=capture.stdio)
            assert bundle.execute(running, "/probe").code == 99
            os.kill(running.pid, 9)
            end(running)
        bundle.destroy()

    isolated(body)


@pytest.mark.parametrize(
    ("changes", "error", "text"),
    [
        (
            {"syscalls": [{"names": ["read"], "action": "SCMP_ACT_NOTIFY"}]},
            InvalidArgumentError,
            "seccomp listenerPath is not set",
        ),
        (
            {
                "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}],
                "listenerPath": "/no/such/agent",
            },
            LaunchError,
            "cannot send the seccomp listener to /no/such/agent: no such file or directory",
        ),
        ({"architectures": ["SCMP_ARCH_VAX"]}, InvalidArgumentError, "SCMP_ARCH_VAX"),
        ({"defaultErrnoRet": 5}, InvalidArgumentError, "takes no errno"),
    ],
)
def test_what_is_refused(
    tmp_path: Path, changes: dict[str, Any], error: type[Exception], text: str
) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["seccomp"] = {"defaultAction": "SCMP_ACT_ALLOW", **changes}
        with pytest.raises(error, match=text):
            bundle.run("true")

    isolated(body)
