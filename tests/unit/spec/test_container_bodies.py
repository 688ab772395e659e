"""Engine API bodies: as forgiving as Docker, and no more; stored and read back without loss."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cais.errors import InvalidArgumentError
from cais.spec.bodies import (
    parse_create_body,
    parse_exec_body,
    parse_update_body,
    to_document,
)
from cais.spec.container import (
    ContainerConfig,
    ExecBody,
    HostConfig,
    Mount,
    PortBinding,
    Ulimit,
)
from cais.spec.conversion import convert


def create(**members: Any) -> Any:
    return parse_create_body(json.dumps(members).encode())


def host(**members: Any) -> HostConfig:
    return create(HostConfig=members).host_config


def test_an_empty_body_has_go_s_zero_values() -> None:
    body = create()
    assert body.config == ContainerConfig()
    assert body.host_config == HostConfig()
    assert body.config.attach_stdout is False
    assert body.host_config.memory_swappiness is None


def test_names_that_snake_case_cannot_guess() -> None:
    parsed = host(
        UTSMode="host",
        ContainerIDFile="f",
        BlkioDeviceReadIOps=[{"Path": "/dev/x", "Rate": 1}],
        DeviceRequests=[{"DeviceIDs": ["0"]}],
        CpusetCpus="0",
        NanoCpus=5,
        IOMaximumIOps=7,
        KernelMemoryTCP=8,
        OomKillDisable=True,
    )
    assert parsed.uts_mode == "host"
    assert parsed.container_id_file == "f"
    assert parsed.blkio_device_read_iops is not None
    assert parsed.blkio_device_read_iops[0].rate == 1
    assert parsed.device_requests is not None
    assert parsed.device_requests[0].device_ids == ["0"]
    assert (parsed.cpuset_cpus, parsed.nano_cpus, parsed.io_maximum_iops) == ("0", 5, 7)
    assert (parsed.kernel_memory_tcp, parsed.oom_kill_disable) == (8, True)


def test_null_is_absent_and_unknown_is_ignored() -> None:
    body = create(
        Image="i",
        Env=None,
        Foo={"a": None},
        HostConfig={"Memory": None, "Binds": None, "X": 1},
        NetworkingConfig=None,
        Healthcheck=None,
    )
    assert body.config.image == "i"
    assert body.host_config == HostConfig()


def test_nulls_in_free_maps_are_values() -> None:
    body = create(
        Labels={"a": None},
        ExposedPorts={"80/tcp": None},
        Volumes={"/v": None},
        HostConfig={"PortBindings": {"80/tcp": None, "81/tcp": [{"HostPort": "8081"}]}},
        NetworkingConfig={"EndpointsConfig": {"bridge": None}},
    )
    assert body.config.labels == {"a": ""}
    assert body.config.exposed_ports == {"80/tcp": None}
    assert body.config.volumes == {"/v": None}
    assert body.host_config.port_bindings == {
        "80/tcp": None,
        "81/tcp": [PortBinding(host_port="8081")],
    }
    assert body.networking_config.endpoints_config == {"bridge": None}


def test_a_command_may_be_one_string() -> None:
    config = create(Cmd="ls", Entrypoint="/bin/sh").config
    assert (config.cmd, config.entrypoint) == (["ls"], ["/bin/sh"])


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[]", "must be an object"),
        ("null", "must be an object"),
        ('{"Tty":"yes"}', "`$.Tty`"),
        ('{"Cmd":[1]}', r"`$.Cmd[0]`"),
        ('{"Cmd":{"a":1}}', "`$.Cmd`"),
        ('{"HostConfig":{"Memory":"64m"}}', "`$.HostConfig.Memory`"),
        ('{"HostConfig":{"Memory":1e30}}', "`$.HostConfig.Memory`"),
        ('{"HostConfig":{"Memory":9223372036854775808}}', "`$.HostConfig.Memory`"),
        ('{"HostConfig":{"ShmSize":-9223372036854775809}}', "`$.HostConfig.ShmSize`"),
        ('{"HostConfig":{"BlkioWeight":65536}}', "`$.HostConfig.BlkioWeight`"),
        ('{"HostConfig":{"Ulimits":[{"Name":"nofile","Soft":1e99}]}}', "Ulimits[0].Soft"),
        ('{"HostConfig":{"Privileged":1}}', "`$.HostConfig.Privileged`"),
        ('{"HostConfig":{"Privileged":false,"Privileged":true}}', "duplicate key 'Privileged'"),
        ('{"HostConfig":[]}', "Expected `object`"),
        ("{" * 5000, "invalid JSON"),
        ('{"a":' * 5000 + "1" + "}" * 5000, "nested too deeply"),
        ('{"HostConfig":{"Memory":NaN}}', "NaN"),
    ],
)
def test_what_go_refuses_is_refused(text: str, why: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        parse_create_body(text.encode())
    assert why in str(refused.value)
    assert len(str(refused.value)) < 400


def test_keys_are_matched_exactly() -> None:
    """A filter in front of us that looks for ``Privileged`` must see all there is (G1)."""
    assert host(privileged=True, PRIVILEGED=True).privileged is False


def test_a_round_trip_loses_nothing() -> None:
    original = host(
        Binds=["/a:/b"],
        Ulimits=[{"Name": "nofile", "Soft": 1, "Hard": 2}],
        Init=False,
        Mounts=[{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 5, "Mode": 448}}],
        ConsoleSize=[24, 80],
        RestartPolicy={"Name": "on-failure", "MaximumRetryCount": 3},
        LogConfig={"Type": "json-file", "Config": {"max-size": "1m"}},
        Tmpfs={"/x": ""},
    )
    stored = json.loads(json.dumps(to_document(original)))
    assert convert(stored, HostConfig) == original
    assert original.ulimits == [Ulimit(name="nofile", soft=1, hard=2)]
    assert original.mounts is not None
    assert isinstance(original.mounts[0], Mount)


def test_the_document_has_docker_s_shape() -> None:
    document = to_document(HostConfig())
    assert document["Binds"] is None
    assert document["Memory"] == 0
    assert document["LogConfig"] == {"Type": "", "Config": None}
    left_out = {
        "Mounts",
        "Tmpfs",
        "Sysctls",
        "StorageOpt",
        "Runtime",
        "Init",
        "Annotations",
        "KernelMemory",
    }
    assert not left_out & set(document)
    assert to_document(host(Init=False))["Init"] is False
    assert not {"Healthcheck", "StopSignal", "Shell", "ExposedPorts"} & set(
        to_document(ContainerConfig())
    )
    health = create(Healthcheck={"Test": ["NONE"]}).config
    assert to_document(health)["Healthcheck"] == {"Test": ["NONE"]}


def test_update_and_exec_bodies() -> None:
    update = parse_update_body(b'{"Memory":1,"RestartPolicy":{"Name":"always"}}')
    assert (update.memory, update.restart_policy and update.restart_policy.name) == (1, "always")
    assert parse_update_body(b"{}").restart_policy is None
    body = parse_exec_body(b'{"Cmd":["ls"],"ConsoleSize":[1,2],"Tty":true}')
    assert body == ExecBody(cmd=["ls"], console_size=(1, 2), tty=True)


def test_a_large_body_is_refused_quickly() -> None:
    with pytest.raises(InvalidArgumentError, match="the limit is"):
        parse_create_body(b" " * (16 * 1024 * 1024 + 1))
