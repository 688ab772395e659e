"""Checks and adaptations at creation: Docker's texts, word for word."""

from __future__ import annotations

import tracemalloc
from typing import Any

import oci_kit as kit
import pytest

from cais.engine.oci import adapt_update
from cais.errors import CaisError, InvalidArgumentError, UnsupportedError
from cais.spec.container import (
    ContainerConfig,
    HostConfig,
    RestartPolicy,
    ThrottleDevice,
    Ulimit,
    UpdateBody,
    WeightDevice,
)

MIB = 1 << 20


def test_what_is_left_open_is_filled_in() -> None:
    adapted, warnings = kit.adapt()
    assert warnings == []
    assert adapted.network_mode == "bridge"
    assert adapted.ipc_mode == "private"
    assert adapted.cgroupns_mode == "host"
    assert adapted.shm_size == 64 * MIB
    assert adapted.oom_kill_disable is False
    assert kit.adapt(on=kit.host(2))[0].cgroupns_mode == "private"
    privileged, _ = kit.adapt(HostConfig(privileged=True), on=kit.host(2))
    assert privileged.cgroupns_mode == "private"


def test_adapting_twice_changes_nothing() -> None:
    once, _ = kit.adapt(HostConfig(memory=64 * MIB, cpu_shares=1, memory_swappiness=-1))
    assert kit.adapt(once) == (once, [])


def test_the_bounds_belong_to_the_ranges() -> None:
    kit.adapt(HostConfig(nano_cpus=2 * 10**9, memory=6 * MIB, oom_score_adj=-1000))
    kit.adapt(HostConfig(cpu_period=1_000_000, cpu_quota=1000, blkio_weight=10))
    kit.adapt(HostConfig(cpu_period=1000, blkio_weight=1000, memory_swappiness=100))


def test_memory_swap_is_twice_the_memory() -> None:
    assert kit.adapt(HostConfig(memory=64 * MIB))[0].memory_swap == 128 * MIB
    assert kit.adapt(HostConfig(memory=64 * MIB, memory_swap=-1))[0].memory_swap == -1


@pytest.mark.parametrize(
    ("host_config", "text"),
    [
        ({"memory": 6 * MIB - 1}, "Minimum memory limit allowed is 6MB"),
        ({"memory": -1}, "Minimum memory limit allowed is 6MB"),
        (
            {"memory": 64 * MIB, "memory_swap": 32 * MIB},
            "Minimum memoryswap limit should be larger than memory limit, see usage",
        ),
        (
            {"memory_swap": 32 * MIB},
            "You should always set the Memory limit when using Memoryswap limit, see usage",
        ),
        (
            {"memory_swappiness": 101},
            "Invalid value: 101, valid memory swappiness range is 0-100",
        ),
        ({"memory_reservation": 1}, "Minimum memory reservation allowed is 6MB"),
        (
            {"memory": 8 * MIB, "memory_reservation": 16 * MIB},
            "Minimum memory limit can not be less than memory reservation limit, see usage",
        ),
        (
            {"nano_cpus": 2_000_000_001},
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            {"nano_cpus": -1},
            "Range of CPUs is from 0.01 to 2.00, as there are only 2 CPUs available",
        ),
        (
            {"nano_cpus": 1, "cpu_period": 1000},
            "Conflicting options: Nano CPUs and CPU Period cannot both be set",
        ),
        (
            {"nano_cpus": 1, "cpu_quota": 1000},
            "Conflicting options: Nano CPUs and CPU Quota cannot both be set",
        ),
        (
            {"cpu_period": 999},
            "CPU cfs period can not be less than 1ms (i.e. 1000) or larger than 1s (i.e. 1000000)",
        ),
        ({"cpu_quota": 999}, "CPU cfs quota can not be less than 1ms (i.e. 1000)"),
        ({"cpu_shares": -1}, "invalid CPU shares (-1): value must be a positive integer"),
        (
            {"cpu_realtime_period": 10, "cpu_realtime_runtime": 20},
            "cpu real-time runtime cannot be higher than cpu real-time period",
        ),
        (
            {"cpuset_cpus": "2"},
            "Requested CPUs are not available - requested 2, available: 0-1",
        ),
        (
            {"cpuset_mems": "1"},
            "Requested memory nodes are not available - requested 1, available: 0",
        ),
        (
            {"cpuset_cpus": "0-9223372036854775807"},
            (
                "Invalid value 0-9223372036854775807 for cpuset cpus: "
                "value of out range, maximum is 8192"
            ),
        ),
        ({"cpuset_mems": "x"}, "Invalid value x for cpuset mems: invalid format: x"),
        ({"blkio_weight": 9}, "Range of blkio weight is from 10 to 1000"),
        ({"blkio_weight": 1001}, "Range of blkio weight is from 10 to 1000"),
        (
            {"io_maximum_iops": 1},
            "invalid option: QoS maximum IOPs configuration is not supported on linux",
        ),
        ({"shm_size": -1}, "SHM size can not be less than 0"),
        ({"oom_score_adj": 1001}, "Invalid value 1001, range for oom score adj is [-1000, 1000]"),
        ({"ipc_mode": "foo"}, "invalid IPC mode: foo"),
        ({"ipc_mode": "container:"}, "invalid IPC mode: container:"),
        ({"pid_mode": "private"}, "invalid PID mode: private"),
        ({"uts_mode": "private"}, "invalid UTS mode: private"),
        ({"cgroupns_mode": "x"}, "invalid cgroup namespace mode: x"),
        ({"network_mode": "container:"}, "invalid container format container:<name|id>"),
        ({"isolation": "hyperv"}, "invalid isolation (hyperv): linux only supports 'default'"),
        (
            {"annotations": {"": "x"}},
            "invalid Annotations: the empty string is not permitted as an annotation key",
        ),
        (
            {"auto_remove": True, "restart_policy": RestartPolicy("always")},
            "can't create 'AutoRemove' container with restart policy",
        ),
        (
            {"restart_policy": RestartPolicy("sometimes")},
            (
                "invalid restart policy: unknown policy 'sometimes'; use one of 'no', 'always', "
                "'on-failure', or 'unless-stopped'"
            ),
        ),
        (
            {"restart_policy": RestartPolicy("always", 3)},
            "invalid restart policy: maximum retry count can only be used with 'on-failure'",
        ),
        (
            {"restart_policy": RestartPolicy("on-failure", -1)},
            "invalid restart policy: maximum retry count cannot be negative",
        ),
        ({"ulimits": [Ulimit("nofiles", 1, 1)]}, "invalid ulimit type: nofiles"),
        (
            {"ulimits": [Ulimit("nofile", hard=1, soft=2)]},
            "ulimit soft limit must be less than or equal to hard limit: 2 > 1",
        ),
        (
            {"ulimits": [Ulimit("nofile", hard=-2, soft=1)]},
            "invalid ulimit nofile: value must be -1 or more",
        ),
        ({"cgroup_parent": "/.."}, "invalid cgroup path '/..': it names the root cgroup"),
    ],
)
def test_what_cannot_be(host_config: dict[str, Any], text: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        kit.adapt(HostConfig(**host_config))
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("config", "host_config", "text"),
    [
        (
            {"hostname": "h"},
            {"uts_mode": "host"},
            "conflicting options: hostname and the UTS mode",
        ),
        (
            {"hostname": "h"},
            {"network_mode": "container:x"},
            "conflicting options: hostname and the network mode",
        ),
        (
            {},
            {"network_mode": "host", "links": ["a"]},
            (
                "conflicting options: host type networking can't be used with links. "
                "This would result in undefined behavior"
            ),
        ),
        (
            {},
            {"network_mode": "container:x", "links": ["a"]},
            (
                "conflicting options: container type network can't be used with links. "
                "This would result in undefined behavior"
            ),
        ),
        (
            {},
            {"network_mode": "container:x", "dns": ["1.1.1.1"]},
            "conflicting options: dns and the network mode",
        ),
        (
            {},
            {"network_mode": "container:x", "extra_hosts": ["a:1.1.1.1"]},
            "conflicting options: custom host-to-IP mapping and the network mode",
        ),
        (
            {},
            {"network_mode": "container:x", "port_bindings": {"80/tcp": None}},
            "conflicting options: port publishing and the container type network mode",
        ),
        (
            {"exposed_ports": {"80/tcp": {}}},
            {"network_mode": "container:x"},
            "conflicting options: port exposing and the container type network mode",
        ),
    ],
)
def test_modes_that_contradict(
    config: dict[str, Any], host_config: dict[str, Any], text: str
) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        kit.adapt(HostConfig(**host_config), ContainerConfig(**config))
    assert str(refused.value) == text


@pytest.mark.parametrize(
    ("host_config", "missing", "warning", "left"),
    [
        (
            {"memory": 64 * MIB},
            "memory_limit",
            (
                "Your kernel does not support memory limit capabilities or the cgroup "
                "is not mounted. Limitation discarded."
            ),
            {"memory": 0, "memory_swap": -1},
        ),
        (
            {"memory": 64 * MIB},
            "swap_limit",
            (
                "Your kernel does not support swap limit capabilities or the cgroup "
                "is not mounted. Memory limited without swap."
            ),
            {"memory": 64 * MIB, "memory_swap": -1},
        ),
        (
            {"memory_swappiness": 5},
            "memory_swappiness",
            (
                "Your kernel does not support memory swappiness capabilities or the cgroup is not "
                "mounted. Memory swappiness discarded."
            ),
            {"memory_swappiness": None},
        ),
        (
            {"memory_reservation": 64 * MIB},
            "memory_reservation",
            (
                "Your kernel does not support memory soft limit capabilities or the cgroup is not "
                "mounted. Limitation discarded."
            ),
            {"memory_reservation": 0},
        ),
        (
            {"kernel_memory": 64 * MIB},
            "kernel_memory",
            (
                "Your kernel does not support kernel memory limit capabilities or the cgroup "
                "is not mounted. Limitation discarded."
            ),
            {"kernel_memory": 0},
        ),
        (
            {"oom_kill_disable": True},
            "oom_kill_disable",
            "Your kernel does not support OomKillDisable. OomKillDisable discarded.",
            {"oom_kill_disable": None},
        ),
        (
            {"pids_limit": 5},
            "pids_limit",
            (
                "Your kernel does not support PIDs limit capabilities or the cgroup "
                "is not mounted. PIDs limit discarded."
            ),
            {"pids_limit": None},
        ),
        (
            {"cpu_shares": 5},
            "cpu_shares",
            (
                "Your kernel does not support CPU shares or the cgroup is not mounted. "
                "Shares discarded."
            ),
            {"cpu_shares": 0},
        ),
        (
            {"cpu_quota": 5000},
            "cpu_cfs_quota",
            "Your kernel does not support CPU CFS scheduler. CPU period/quota discarded.",
            {"cpu_quota": 0},
        ),
        (
            {"cpuset_cpus": "0"},
            "cpuset",
            "Your kernel does not support cpuset or the cgroup is not mounted. Cpuset discarded.",
            {"cpuset_cpus": ""},
        ),
        (
            {"blkio_weight": 100},
            "blkio_weight",
            (
                "Your kernel does not support Block I/O weight or the cgroup is not mounted. "
                "Weight discarded."
            ),
            {"blkio_weight": 0},
        ),
        (
            {"blkio_weight_device": [WeightDevice("/dev/x", 1)]},
            "blkio_weight_device",
            (
                "Your kernel does not support Block I/O weight_device or the cgroup "
                "is not mounted. Weight-device discarded."
            ),
            {"blkio_weight_device": []},
        ),
        (
            {"blkio_device_write_iops": [ThrottleDevice("/dev/x", 1)]},
            "blkio_write_iops",
            (
                "Your kernel does not support IOPS Block write limit or the cgroup is not mounted. "
                "Block I/O IOPS write limit discarded."
            ),
            {"blkio_device_write_iops": []},
        ),
    ],
)
def test_what_the_host_lacks_is_discarded(
    host_config: dict[str, Any], missing: str, warning: str, left: dict[str, Any]
) -> None:
    adapted, warnings = kit.adapt(HostConfig(**host_config), on=kit.host(**{missing: False}))
    assert warnings == [warning]
    assert {name: getattr(adapted, name) for name in left} == left


def test_unlimited_is_not_worth_a_warning() -> None:
    bare = kit.host(pids_limit=False, oom_kill_disable=False, memory_swappiness=False)
    asked = HostConfig(pids_limit=0, oom_kill_disable=False, memory_swappiness=-1)
    assert kit.adapt(asked, on=bare)[1] == []


def test_errors_where_docker_does_not_discard() -> None:
    without = kit.host(cpu_cfs_quota=False, cpu_realtime=False)
    with pytest.raises(InvalidArgumentError, match="NanoCPUs can not be set, as your kernel"):
        kit.adapt(HostConfig(nano_cpus=10**9), on=without)
    with pytest.raises(InvalidArgumentError, match="kernel does not support CPU real-time"):
        kit.adapt(HostConfig(cpu_realtime_runtime=1), on=without)


def test_warnings_about_combinations() -> None:
    _, warnings = kit.adapt(HostConfig(oom_kill_disable=True))
    assert warnings == [
        (
            "OOM killer is disabled for the container, but no memory limit is set, "
            "this can result in the system running out of resources."
        )
    ]
    published = HostConfig(network_mode="host", port_bindings={"80/tcp": None})
    assert kit.adapt(published)[1] == ["Published ports are discarded when using host network mode"]


def test_shares_are_clamped() -> None:
    assert kit.adapt(HostConfig(cpu_shares=1))[0].cpu_shares == 2
    assert kit.adapt(HostConfig(cpu_shares=10**9))[0].cpu_shares == 262_144


@pytest.mark.parametrize(
    ("name", "modes"),
    [  # SECURITY.md A22
        ("kernel.core_pattern", {}),
        ("net/../kernel/core_pattern", {}),
        ("net.ipv4.ip_forward\nkernel.core_pattern", {}),
        ("kernel.shm_rmid_forced+kernel.core_pattern", {}),
        ("fs.mqueue/../../kernel/core_pattern", {}),
        ("net.ipv4.ip_forward", {"network_mode": "host"}),
        ("kernel.sem", {"ipc_mode": "host"}),
        ("kernel.hostname", {"uts_mode": "host"}),
        ("user.max_user_namespaces", {}),
    ],
)
def test_sysctls_of_the_host(name: str, modes: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgumentError, match="is not allowed: it ") as refused:
        kit.adapt(HostConfig(sysctls={name: "secret"}, **modes))
    assert "secret" not in str(refused.value)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("value", ["1\n2", "a\0"])
def test_sysctl_values_are_one_line(value: str) -> None:
    with pytest.raises(InvalidArgumentError, match="value is malformed"):
        kit.adapt(HostConfig(sysctls={"net.ipv4.ip_forward": value}))


def test_own_sysctls_pass() -> None:
    names = ("net.ipv4.ip_forward", "net.core.somaxconn", "kernel.msgmax", "fs.mqueue.msg_max")
    kit.adapt(HostConfig(sysctls=dict.fromkeys(names, "1")))


def test_storage_options_are_refused_clearly() -> None:
    with pytest.raises(UnsupportedError, match="--storage-opt"):
        kit.adapt(HostConfig(storage_opt={"size": "1G"}))


@pytest.mark.parametrize(
    "host_config",
    [  # SECURITY.md G4
        {"cpuset_cpus": "1," * 1_000_000},
        {"cpuset_mems": "0-" + "9" * 1_000_000},
        {"ipc_mode": "x" * 1_000_000},
        {"security_opt": ["x" * 1_000_000]},
        {"cap_add": ["x" * 1_000_000]},
        {"device_cgroup_rules": ["c 1:" + "1" * 1_000_000 + " r"]},
        {"cgroup_parent": "/" + "x" * 1_000_000},
        {"ulimits": [Ulimit("x" * 1_000_000, 1, 1)]},
        {"sysctls": {"net." + "x" * 1_000_000 + "!": "1"}},
    ],
)
def test_hostile_lengths_cost_nothing(host_config: dict[str, Any]) -> None:
    asked = HostConfig(**host_config)
    tracemalloc.start()
    with pytest.raises(CaisError) as refused:
        kit.adapt(asked)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(str(refused.value)) < 400
    assert peak < 16 * MIB


def test_an_update_is_checked_by_the_same_rules() -> None:
    body, warnings = adapt_update(UpdateBody(memory=64 * MIB), kit.host())
    assert (body.memory, body.memory_swap, warnings) == (64 * MIB, 0, [])
    with pytest.raises(InvalidArgumentError, match="6MB"):
        adapt_update(UpdateBody(memory=1), kit.host())
    with pytest.raises(InvalidArgumentError, match="invalid restart policy"):
        adapt_update(UpdateBody(restart_policy=RestartPolicy("x")), kit.host())
    adapt_update(UpdateBody(memory_swap=64 * MIB), kit.host())


def test_forwarding_that_is_off_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    from cais.engine.oci import adapt, adapt_host_config

    monkeypatch.setattr(adapt, "_forwarding_warning", lambda: ["off"])
    for mode, warnings in (("bridge", ["off"]), ("none", []), ("host", [])):
        config = ContainerConfig(cmd=["true"])
        assert adapt_host_config(config, HostConfig(network_mode=mode), kit.host())[1] == warnings


@pytest.mark.parametrize("limit", [0, -1, -5])
def test_no_limit_of_processes(limit: int) -> None:
    assert kit.adapt(HostConfig(pids_limit=limit))[0].pids_limit is None
    assert adapt_update(UpdateBody(pids_limit=limit), kit.host())[0].pids_limit == 0
