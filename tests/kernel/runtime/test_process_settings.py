"""Kernel tests of how a process runs: scheduling, processors, memory, personality, labels.

Spec: OCI runtime-spec 1.3, config.md "Process", config-linux.md "Personality", "Memory policy".
"""

from __future__ import annotations

import ctypes
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from peers import BOTH, Peer

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.linux import credentials
from cais.linux.scheduling import SchedulingAttributes
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, Capture, end, read_terminal
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.skipif(os.uname().machine != "x86_64", reason="numbers of x86-64")

since_6_9 = pytest.mark.skipif(
    tuple(map(int, os.uname().release.split(".")[:2])) < (6, 9), reason="needs Linux 6.9"
)
_SCHED_GETATTR = 315
_MS = 1_000_000
SCHEDULERS: list[tuple[dict[str, Any], dict[str, int]]] = [
    ({"policy": "SCHED_OTHER", "nice": 7}, {"policy": 0, "nice": 7}),
    ({"policy": "SCHED_BATCH", "nice": -3}, {"policy": 3, "nice": -3}),
    ({"policy": "SCHED_IDLE"}, {"policy": 5}),
    ({"policy": "SCHED_FIFO", "priority": 2}, {"policy": 1, "priority": 2, "flags": 0}),
    (
        {"policy": "SCHED_RR", "priority": 3, "flags": ["SCHED_FLAG_RESET_ON_FORK"]},
        {"policy": 2, "priority": 3, "flags": 1},
    ),
    (
        {
            "policy": "SCHED_DEADLINE",
            "runtime": 300 * _MS,  # SIGXCPU ends what needs more at once
            "deadline": 500 * _MS,
            "period": 1000 * _MS,
            "flags": ["SCHED_FLAG_RECLAIM", "SCHED_FLAG_DL_OVERRUN"],
        },
        {
            "policy": 6,
            "runtime": 300 * _MS,
            "deadline": 500 * _MS,
            "period": 1000 * _MS,
            "flags": 6,
        },
    ),
]


def scheduling_of(pid: int) -> SchedulingAttributes:
    attributes = SchedulingAttributes()
    size = ctypes.sizeof(attributes)
    call = ctypes.CDLL(None, use_errno=True).syscall
    assert call(_SCHED_GETATTR, pid, ctypes.byref(attributes), size, 0) == 0
    return attributes


def let_run_in_real_time(bundle: Bundle) -> None:
    """Give the container's group some of the real-time budget, where the kernel divides it."""
    if Path("/sys/fs/cgroup/cpu/cpu.rt_runtime_us").exists():
        bundle.linux["cgroupsPath"] = f"/{bundle.id}"  # the shared parent has none to give
        bundle.linux["resources"] = {"cpu": {"realtimeRuntime": 100000, "realtimePeriod": 1000000}}


def while_running(bundle: Bundle, body: Callable[[Any], None]) -> None:
    """Call ``body`` while the container sleeps."""
    with Capture() as capture:
        running = bundle.start("sleep", "60", stdio=capture.stdio)
        try:
            body(running)
        finally:
            os.kill(running.pid, signal.SIGKILL)
            end(running)
            bundle.destroy()


def refused(tmp_path: Path, error: type[Exception], text: str, change: Any) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        change(bundle)
        with pytest.raises(error, match=text):
            bundle.run("true")

    isolated(body)


@pytest.mark.parametrize(("document", "expected"), SCHEDULERS)
def test_scheduler(tmp_path: Path, document: dict[str, Any], expected: dict[str, int]) -> None:
    # oci: process.scheduler.policy, .nice, .priority, .flags, .runtime, .deadline, .period
    def body() -> None:
        bundle = Bundle(tmp_path)
        let_run_in_real_time(bundle)
        bundle.process["scheduler"] = document

        def check(running: Any) -> None:
            found = scheduling_of(running.pid)
            assert {name: getattr(found, name) for name in expected} == expected

        while_running(bundle, check)

    isolated(body)


@pytest.mark.parametrize(("document", "expected"), SCHEDULERS)
def test_scheduler_of_an_exec(
    tmp_path: Path, document: dict[str, Any], expected: dict[str, int]
) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        let_run_in_real_time(bundle)

        def check(init: Any) -> None:
            with Capture() as capture:
                changes = {"scheduler": document}
                running = bundle.start_exec(
                    init, "sleep", "60", stdio=capture.stdio, process=changes
                )
                found = scheduling_of(running.pid)
                os.kill(running.pid, signal.SIGKILL)
                end(running)
            assert {name: getattr(found, name) for name in expected} == expected
            assert scheduling_of(init.pid).policy == 0

        while_running(bundle, check)

    isolated(body)


@pytest.mark.parametrize(
    ("document", "error", "text"),
    [
        ({"policy": "SCHED_ISO"}, LaunchError, "set scheduler: invalid argument"),
        ({"policy": "SCHED_NEW"}, InvalidArgumentError, "SCHED_NEW"),
        ({"policy": "SCHED_OTHER", "nice": 20}, InvalidArgumentError, "scheduler.nice: 20"),
        ({"policy": "SCHED_OTHER", "priority": 1}, InvalidArgumentError, "SchedFIFO or SchedRR"),
        ({"policy": "SCHED_FIFO", "priority": 100}, LaunchError, "set scheduler: invalid"),
        ({"policy": "SCHED_RR", "period": 1}, InvalidArgumentError, "SchedDeadline policy"),
        (
            {"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_NEW"]},
            InvalidArgumentError,
            "SCHED_FLAG_NEW",
        ),
    ],
)
def test_a_scheduler_no_kernel_has(
    tmp_path: Path, document: dict[str, Any], error: type[Exception], text: str
) -> None:
    refused(tmp_path, error, text, lambda bundle: bundle.process.update(scheduler=document))


@pytest.mark.parametrize(
    ("kind", "level", "shown"),
    [("RT", 2, "realtime: prio 2"), ("BE", 6, "best-effort: prio 6"), ("IDLE", 0, "idle")],
)
def test_io_priority(tmp_path: Path, kind: str, level: int, shown: str) -> None:
    # oci: process.ioPriority.class, .priority
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.process["ioPriority"] = {"class": f"IOPRIO_CLASS_{kind}", "priority": level}
        assert bundle.shell("ionice -p $$").stdout.startswith(shown)

        def check(init: Any) -> None:
            assert bundle.execute(init, "sh", "-c", "ionice -p $$").stdout.startswith(shown)

        while_running(bundle, check)

    isolated(body)


def test_an_io_priority_out_of_range(tmp_path: Path) -> None:
    document = {"class": "IOPRIO_CLASS_BE", "priority": 8}
    refused(
        *(tmp_path, InvalidArgumentError, "invalid ioPriority.Priority: 8"),
        lambda bundle: bundle.process.update(ioPriority=document),
    )


@pytest.mark.parametrize(
    ("document", "shown"),
    [
        ({"mode": "MPOL_DEFAULT"}, "default"),
        ({"mode": "MPOL_BIND", "nodes": "0"}, "bind:0"),
        ({"mode": "MPOL_INTERLEAVE", "nodes": "0-0"}, "interleave:0"),
        pytest.param(
            {"mode": "MPOL_WEIGHTED_INTERLEAVE", "nodes": "0"},
            "weighted interleave:0",
            marks=since_6_9,
        ),
        ({"mode": "MPOL_PREFERRED", "nodes": "0"}, "prefer:0"),
        ({"mode": "MPOL_PREFERRED_MANY", "nodes": "0"}, "prefer (many):0"),
        ({"mode": "MPOL_LOCAL"}, "local"),
        (
            {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]},
            "bind=static:0",
        ),
        (
            {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_RELATIVE_NODES"]},
            "bind=relative:0",
        ),
        (
            {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NUMA_BALANCING"]},
            "bind=balancing:0",
        ),
    ],
)
def test_memory_policy(tmp_path: Path, document: dict[str, Any], shown: str) -> None:
    # oci: linux.memoryPolicy.mode, .nodes, .flags
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["memoryPolicy"] = document
        assert f" {shown} " in bundle.shell("head -1 /proc/self/numa_maps").stdout

        def check(init: Any) -> None:
            found = bundle.execute(init, "head", "-1", "/proc/self/numa_maps").stdout
            assert f" {shown} " in found

        while_running(bundle, check)

    isolated(body)


@pytest.mark.parametrize(
    ("document", "error", "text"),
    [
        ({"mode": "MPOL_NEW"}, InvalidArgumentError, "MPOL_NEW"),
        ({"nodes": "0"}, InvalidArgumentError, "invalid memory policy mode"),
        ({"mode": "MPOL_LOCAL", "nodes": "0"}, InvalidArgumentError, "takes no nodes"),
        ({"mode": "MPOL_BIND", "nodes": "0-"}, InvalidArgumentError, "memoryPolicy.nodes"),
        ({"mode": "MPOL_BIND", "nodes": "1000"}, LaunchError, "set memory policy: invalid"),
        (
            {"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_NEW"]},
            InvalidArgumentError,
            "MPOL_F_NEW",
        ),
    ],
)
def test_a_memory_policy_no_kernel_has(
    tmp_path: Path, document: dict[str, Any], error: type[Exception], text: str
) -> None:
    refused(tmp_path, error, text, lambda bundle: bundle.linux.update(memoryPolicy=document))


def test_cpu_affinity_is_of_an_exec_alone(tmp_path: Path) -> None:
    # oci: process.execCPUAffinity.initial, .final
    def body() -> None:
        bundle = Bundle(tmp_path)
        everything = sorted(os.sched_getaffinity(0))
        first, last = everything[0], everything[-1]
        bundle.process["execCPUAffinity"] = {"initial": f"{first}", "final": f"{last}"}

        def check(init: Any) -> None:
            assert sorted(os.sched_getaffinity(init.pid)) == everything

            def cpus(**affinity: str) -> str:
                changes = {"execCPUAffinity": affinity}
                script = "sed -n 's/Cpus_allowed_list:\t//p' /proc/self/status"
                return bundle.execute(init, "sh", "-c", script, process=changes).stdout.strip()

            assert cpus(initial=f"{first}", final=f"{last}") == f"{last}"
            assert cpus(final=f"{first}, {last}") == cpus()
            assert cpus(initial=f"{first}") == cpus()
            with pytest.raises(LaunchError, match="set CPU affinity: invalid argument"):
                cpus(initial="8191")
            with pytest.raises(LaunchError, match="set CPU affinity: invalid argument"):
                cpus(final="8191")
            with pytest.raises(InvalidArgumentError, match=r"execCPUAffinity\.final: '3-1'"):
                cpus(final="3-1")

        while_running(bundle, check)

    isolated(body)


@pytest.mark.parametrize(
    ("document", "machine", "shown"),
    [
        ({"domain": "LINUX"}, "x86_64", "00000000"),
        ({"domain": "LINUX32"}, "i686", "00000008"),
        ({"domain": "LINUX", "flags": ["ADDR_NO_RANDOMIZE"]}, "x86_64", "00040000"),
    ],
)
def test_personality(tmp_path: Path, document: dict[str, Any], machine: str, shown: str) -> None:
    # oci: linux.personality.domain, .flags
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["personality"] = document
        result = bundle.shell("uname -m; cat /proc/self/personality")
        assert result.stdout.split() == [machine, shown]

        def check(init: Any) -> None:
            assert bundle.execute(init, "uname", "-m").stdout.strip() == machine

        while_running(bundle, check)

    isolated(body)


def test_an_unknown_personality_flag(tmp_path: Path) -> None:
    document = {"domain": "LINUX", "flags": ["NO_SUCH_FLAG"]}
    refused(
        *(tmp_path, InvalidArgumentError, "unknown personality flag 'NO_SUCH_FLAG'"),
        lambda bundle: bundle.linux.update(personality=document),
    )


def test_console_size(tmp_path: Path) -> None:
    # oci: process.terminal, process.consoleSize.height, .width
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.process.update(terminal=True, consoleSize={"height": 31, "width": 97})
        running = bundle.start("stty", "size", stdio=None)
        assert running.terminal_fd is not None
        assert read_terminal(running.terminal_fd).strip() == "31 97"
        end(running)
        bundle.destroy()

    isolated(body)


def test_the_size_of_no_console_is_ignored(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.process["consoleSize"] = {"height": 1, "width": 2**40}
        assert bundle.run("true").code == 0

    isolated(body)


@pytest.mark.skipif(Path("/sys/kernel/security/apparmor").exists(), reason="this host has AppArmor")
def test_a_profile_needs_apparmor(tmp_path: Path) -> None:
    # oci: process.apparmorProfile
    refused(
        *(tmp_path, LaunchError, "apparmor: config provided but apparmor not supported"),
        lambda bundle: bundle.process.update(apparmorProfile="docker-default"),
    )


@pytest.mark.skipif(Path("/sys/fs/selinux/enforce").exists(), reason="this host has SELinux")
def test_a_label_needs_selinux(tmp_path: Path) -> None:
    # oci: process.selinuxLabel
    refused(
        *(tmp_path, LaunchError, "selinux is disabled or not supported"),
        lambda bundle: bundle.process.update(selinuxLabel="system_u:system_r:svirt_lxc_net_t:s0"),
    )


@pytest.mark.skipif(Path("/sys/fs/resctrl/schemata").exists(), reason="this host has resctrl")
def test_cache_allocation_needs_resctrl(tmp_path: Path) -> None:
    # oci: linux.intelRdt.closID, .schemata, .l3CacheSchema, .memBwSchema, .enableMonitoring
    document = {
        "closID": "guaranteed",
        "schemata": ["L3:0=f"],
        "l3CacheSchema": "L3:0=f",
        "memBwSchema": "MB:0=20",
        "enableMonitoring": True,
    }
    refused(
        *(tmp_path, UnsupportedError, "Intel RDT is not supported or enabled"),
        lambda bundle: bundle.linux.update(intelRdt=document),
    )


@pytest.mark.parametrize(
    ("types", "text"),
    [
        (["RLIMIT_NEW"], "invalid rlimit type: RLIMIT_NEW"),
        (["RLIMIT_CORE", "RLIMIT_CORE"], "rlimit RLIMIT_CORE is given twice"),
    ],
)
def test_limits_no_kernel_has(tmp_path: Path, types: list[str], text: str) -> None:
    limits = [{"type": name, "soft": 0, "hard": 0} for name in types]
    refused(
        *(tmp_path, InvalidArgumentError, text),
        lambda bundle: bundle.process.update(rlimits=limits),
    )


def test_a_command_line_is_of_another_platform(tmp_path: Path) -> None:
    # oci: process.commandLine
    refused(
        *(tmp_path, UnsupportedError, "process.commandLine is not supported"),
        lambda bundle: bundle.process.update(commandLine="cmd.exe"),
    )


def test_what_cannot_be_granted_is_told(tmp_path: Path) -> None:
    # oci: process.capabilities.bounding, .permitted, .effective, .inheritable, .ambient
    def body() -> None:
        bundle = Bundle(tmp_path)
        here = credentials.permitted()
        names = [name for name, bit in credentials.BITS.items() if not here & bit]
        sets = {"bounding": [*names, "CAP_KILL"], "permitted": ["CAP_KILL"]}
        sets |= {"effective": ["CAP_KILL"], "inheritable": [], "ambient": ["CAP_KILL"]}
        bundle.process["capabilities"] = sets
        (warning,) = bundle.run("true").warnings
        said = warning.removeprefix("capabilities that cannot be granted: ").split(", ")
        assert sorted(said) == sorted([*names, "CAP_KILL"])  # ambient, but not inheritable

    isolated(body)


@pytest.mark.parametrize("name", BOTH)
def test_user_groups_umask_limits_and_capabilities(tmp_path: Path, name: str) -> None:
    # oci: process.user.uid, .gid, .umask, .additionalGids; process.rlimits.type, .soft, .hard
    # oci: process.args, .env, .cwd, .noNewPrivileges, .oomScoreAdj
    def body() -> None:
        (tmp_path / "bundle").mkdir()
        bundle = Bundle(tmp_path / "bundle")
        peer = Peer(name, bundle, tmp_path)
        changes = {
            "cwd": "/etc",
            "user": {"uid": 7, "gid": 8, "additionalGids": [10, 65534], "umask": 0o027},
            "noNewPrivileges": True,
            "oomScoreAdj": 321,
            "rlimits": [
                {"type": "RLIMIT_NOFILE", "soft": 64, "hard": 128},
                {"type": "RLIMIT_CORE", "soft": 0, "hard": 0},
            ],
            "capabilities": {
                "bounding": ["CAP_KILL", "CAP_CHOWN"],
                "permitted": ["CAP_KILL", "CAP_CHOWN"],
                "effective": ["CAP_KILL"],
                "inheritable": ["CAP_KILL"],
                "ambient": ["CAP_KILL"],
            },
        }
        bundle.process.update(changes)
        show = "^(Uid|Gid|Groups|Umask|Cap[A-Z][a-z]*|NoNewPrivs):"
        script = (
            f"grep -E '{show}' /proc/self/status; pwd; cat /proc/self/oom_score_adj;"
            "ulimit -Sn; ulimit -Hn; ulimit -c"
        )
        found = peer.run("sh", "-c", script).stdout.split()
        assert found == [
            *("Umask:", "0027", "Uid:", *["7"] * 4, "Gid:", *["8"] * 4, "Groups:", "10", "65534"),
            *("CapInh:", f"{0x20:016x}", "CapPrm:", f"{0x20:016x}", "CapEff:", f"{0x20:016x}"),
            *("CapBnd:", f"{0x21:016x}", "CapAmb:", f"{0x20:016x}", "NoNewPrivs:", "1"),
            *("/etc", "321", "64", "128", "0"),
        ]

    isolated(body)
