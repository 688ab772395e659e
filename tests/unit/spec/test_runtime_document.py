"""The OCI runtime document: every fault is found, and named by its path."""

from __future__ import annotations

import copy
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from cais.spec.runtime import (
    InvalidConfigError,
    parse_config,
    validate,
    validate_process,
    validate_resources,
)
from cais.spec.runtime_schema import sysctl_fault
from cais.spec.strict_json import InvalidJsonError
from cais.testing.peers import installed

if TYPE_CHECKING:
    from pathlib import Path

ALL = frozenset(("mount", "network", "ipc", "uts", "pid"))
GOOD: dict[str, Any] = {
    "ociVersion": "1.2.0",
    "process": {
        "cwd": "/",
        "args": ["true"],
        "env": ["A=1", "NAME"],
        "user": {"uid": 0, "gid": 0, "additionalGids": [0]},
        "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1, "hard": 2**64 - 1}],
        "capabilities": {"bounding": ["CAP_KILL"]},
    },
    "root": {"path": "rootfs"},
    "hostname": "h",
    "mounts": [{"destination": "/proc", "type": "proc", "source": "proc", "options": ["ro"]}],
    "linux": {
        "namespaces": [{"type": kind} for kind in ("mount", "network", "ipc", "uts", "pid")],
        "sysctl": {"net.ipv4.ip_forward": "1", "kernel.shm_rmid_forced": "1"},
        "cgroupsPath": "/cais/x",
        "resources": {
            "memory": {"limit": -1, "swap": 1},
            "devices": [{"allow": False, "access": "rwm"}],
            "pids": {"limit": 5},
        },
        "seccomp": {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": []},
    },
}


def with_member(path: str, value: object) -> dict[str, Any]:
    document = copy.deepcopy(GOOD)
    *parents, name = path.split(".")
    target: Any = document
    for parent in parents:
        target = target[int(parent) if parent.isdigit() else parent]
    target[int(name) if name.isdigit() else name] = value
    return document


def faults_of(document: object) -> tuple[str, ...]:
    with pytest.raises(InvalidConfigError) as refused:
        validate(document)
    return refused.value.faults


def test_a_good_document_passes_unchanged() -> None:
    assert parse_config(json.dumps(GOOD)) == GOOD


@pytest.mark.parametrize(
    ("path", "value", "fault"),
    [
        ("ociVersion", None, "ociVersion: is required"),
        ("ociVersion", "2.0.0", "ociVersion: '2.0.0' is malformed"),
        ("process", [], "process: must be an object, not an array"),
        ("process.cwd", "relative", "process.cwd: 'relative' is malformed"),
        ("process.args", "true", "process.args: must be an array, not a string"),
        ("process.args.0", 1, "process.args[0]: must be a string, not an integer"),
        ("process.args.0", "a\0b", "process.args[0]: must not contain NUL"),
        ("process.env.1", "=x", "process.env[1]: has no name"),
        ("process.user.uid", 2**32, "process.user.uid: must be in 0..2147483647"),
        ("process.user.uid", True, "process.user.uid: must be an integer, not a boolean"),
        ("process.user.uid", 1.0, "process.user.uid: must be an integer, not a fraction"),
        ("process.oomScoreAdj", 1001, "process.oomScoreAdj: must be in -1000..1000"),
        ("process.rlimits.0.hard", 0, "process.rlimits[0]: soft limit above the hard limit"),
        ("process.terminal", "yes", "process.terminal: must be a boolean, not a string"),
        ("mounts.0.destination", None, "mounts[0].destination: is required"),
        ("mounts.0.options", {}, "mounts[0].options: must be an array, not an object"),
        ("linux.namespaces.0.type", "net", "linux.namespaces[0].type: 'net' is not one of"),
        ("linux.namespaces.1.type", "mount", "linux.namespaces[1]: a second mount namespace"),
        ("linux.namespaces.1.path", "x", "linux.namespaces[1].path: must be absolute"),
        ("linux.maskedPaths", ["proc"], "linux.maskedPaths[0]: 'proc' is malformed"),
        ("linux.cgroupsPath", "/a/../../b", "linux.cgroupsPath: must not contain '..'"),
        ("linux.uidMappings", [{"containerID": 0, "hostID": 0, "size": 1}], "user namespace"),
        ("linux.resources.pids", {}, "linux.resources.pids.limit: is required"),
        ("linux.resources.devices.0.access", "rx", "linux.resources.devices[0].access: 'rx'"),
        ("linux.resources.devices.0.type", "d", "linux.resources.devices[0].type: 'd'"),
        ("linux.resources.memory.limit", 2**63, "linux.resources.memory.limit: must be in"),
        ("linux.seccomp.defaultAction", "ALLOW", "linux.seccomp.defaultAction: 'ALLOW'"),
        (
            "linux.seccomp.syscalls",
            [{"names": [], "action": "SCMP_ACT_ALLOW"}],
            "linux.seccomp.syscalls[0].names: must not be empty",
        ),
        ("linux.sysctl", {"kernel.core_pattern": "|x"}, "not in a separate kernel namespace"),
        ("linux.sysctl", {"": "x"}, "'' is not a usable key"),
        ("linux.timeOffsets", {"x": "y"}, "linux.timeOffsets['x']: must be an object"),
        ("linux.timeOffsets", {"realtime": {}}, "linux.timeOffsets: 'realtime' is no clock"),
        ("linux.personality", {"flags": []}, "linux.personality.domain: is required"),
        ("hooks", {"prestart": [{"path": "x"}]}, "hooks.prestart[0].path: 'x' is malformed"),
    ],
)
def test_a_fault_is_named_by_its_path(path: str, value: object, fault: str) -> None:
    assert any(fault in found for found in faults_of(with_member(path, value)))


def test_every_fault_is_reported_at_once() -> None:
    document = with_member("process.cwd", 1)
    document["hostname"] = 2
    document["mounts"] = [{}, {"destination": 3}]
    assert faults_of(document) == (
        "process.cwd: must be a string, not an integer",
        "hostname: must be a string, not an integer",
        "mounts[0].destination: is required",
        "mounts[1].destination: must be a string, not an integer",
    )


def test_the_report_is_bounded() -> None:
    faults = faults_of(with_member("process.args", [1] * 100_000))
    assert len(faults) == 50


def test_a_null_member_is_an_absent_one() -> None:
    document = with_member("linux.resources.memory", None)
    document["hooks"] = None
    parsed = parse_config(json.dumps(document))
    assert "hooks" not in parsed
    assert "memory" not in parsed["linux"]["resources"]


def test_unknown_members_are_ignored() -> None:
    parse_config(json.dumps({**GOOD, "org.example": {"x": [None]}}))


def test_what_is_of_other_platforms() -> None:
    """A user's name is of Windows: it says nothing here, and is no fault."""
    process = {**GOOD["process"], "user": {"username": "jane", "uid": 7}}
    assert parse_config(json.dumps({**GOOD, "process": process}))["process"]["user"]["uid"] == 7


@pytest.mark.parametrize("depth", [150, 400, 480, 900, 5000])
def test_nesting_cannot_overflow_the_checks(depth: int) -> None:
    text = '{"ociVersion":"1.0.0","x":' + '{"a":' * depth + "1" + "}" * depth + "}"
    with pytest.raises(InvalidJsonError, match="nested too deeply"):
        parse_config(text)


def test_process_and_resources_stand_alone() -> None:
    assert validate_process({"cwd": "/", "args": ["a"], "user": None}) == {
        "cwd": "/",
        "args": ["a"],
    }
    with pytest.raises(InvalidConfigError, match=r"process\.args: must not be empty"):
        validate_process({"cwd": "/", "args": []})
    with pytest.raises(InvalidConfigError, match=r"invalid process document: process\.cwd"):
        validate_process({})
    assert validate_resources({"memory": {"limit": 1}, "cpu": None}) == {"memory": {"limit": 1}}
    with pytest.raises(InvalidConfigError, match=r"resources\.memory\.limit"):
        validate_resources({"memory": {"limit": "1"}})


@pytest.mark.parametrize(
    "name",
    [
        "net.ipv4.ip_forward",
        "net/ipv4/ip_forward",
        "net.ipv4.conf.eth0/1.forwarding",
        "net/ipv4/conf/eth0.1/forwarding",
        "kernel.msgmax",
        "kernel.sem",
        "kernel.shm_rmid_forced",
        "fs.mqueue.msg_max",
        "kernel.domainname",
    ],
)
def test_sysctls_of_own_namespaces(name: str) -> None:
    assert sysctl_fault(name, ALL) is None


@pytest.mark.parametrize(
    "name",
    [  # CVE-2022-0811 and relatives (SECURITY.md A22)
        "kernel.core_pattern",
        "kernel/core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4.../kernel.core_pattern",
        "net/ipv4/../../kernel/core_pattern",
        "net..ipv4",
        "net.ipv4.ip_forward\nkernel.core_pattern",
        "net.ipv4.ip_forward\n",
        "net.ipv4.ip_forward=1",
        "kernel.shm_rmid_forced+kernel.core_pattern",
        "fs.mqueue/../../kernel/core_pattern",
        "fs.mqueue.",
        "kernel.shmmax/..",
        "net",
        "net.",
        "",
        ".",
        "..",
        "/",
        "/net/ipv4/ip_forward",
        "vm.overcommit_memory",
        "net.ipv4.ip_forwärd\0",
        "user.max_user_namespaces",
    ],
)
def test_sysctls_of_the_host(name: str) -> None:
    assert sysctl_fault(name, ALL) is not None


@pytest.mark.parametrize(
    ("name", "namespace"),
    [
        ("net.ipv4.ip_forward", "network"),
        ("kernel.sem", "ipc"),
        ("fs.mqueue.msg_max", "ipc"),
        ("kernel.hostname", "uts"),
    ],
)
def test_a_sysctl_needs_its_namespace(name: str, namespace: str) -> None:
    assert f"{namespace} namespace" in str(sysctl_fault(name, ALL - {namespace}))
    assert sysctl_fault(name, ALL) is None


def test_runc_s_own_example_passes(tmp_path: Path) -> None:
    subprocess.run([installed("runc"), "spec", "-b", tmp_path], check=True)
    parse_config((tmp_path / "config.json").read_bytes())


def test_importing_costs_nothing_heavy() -> None:
    code = "import sys, cais.spec.runtime; print(*sys.modules)"
    loaded = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import sys; sys.path.insert(0, 'src'); {code}"],
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    heavy = {"typing", "dataclasses", "logging", "pathlib", "msgspec", "ctypes", "subprocess"}
    assert not heavy & set(loaded)
