"""A25, 3.2, 3.3, 3.5: what the engine's document masks, protects and lets a container open."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from docker_bundle import docker_bundle, remove_parent

from cais.engine.oci import masks
from cais.spec.container import DeviceMapping, HostConfig
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from pathlib import Path


def shell(directory: Path, script: str, host_config: HostConfig | None = None) -> list[str]:
    """Run a script in a default container; return its lines."""
    bundle = docker_bundle(directory, host_config)
    try:
        result = bundle.shell(script)
    finally:
        remove_parent()
    assert result.code == 0, result.stderr
    return result.stdout.splitlines()


def test_every_masked_path_reads_empty_and_cannot_be_written(tmp_path: Path) -> None:
    def body() -> None:
        present = [path for path in masks.default_masked() if os.path.exists(path)]
        script = "".join(
            f"echo {path} $(cat {path} 2>/dev/null | wc -c) $(ls -A {path}/ 2>/dev/null | wc -l);"
            f"(echo x >{path}) 2>/dev/null; touch {path}/x 2>/dev/null && echo WROTE {path};"
            for path in present
        )
        assert shell(tmp_path, script + "true") == [f"{path} 0 0" for path in present]

    isolated(body)


def test_every_read_only_path_refuses_writing(tmp_path: Path) -> None:
    def body() -> None:
        script = "".join(
            f"grep -q ' {path} ' /proc/mounts && grep ' {path} ' /proc/mounts | cut -d' ' -f4;"
            for path in masks.READ_ONLY
            if os.path.exists(path)
        )
        lines = shell(
            tmp_path, script + "echo 0 2>/dev/null >/proc/sys/kernel/shmmax && echo WROTE; true"
        )
        assert lines
        for options in lines:
            assert {"ro", "nosuid", "nodev", "noexec"} <= set(options.split(","))

    isolated(body)


def test_devices_beyond_the_list_cannot_be_opened(tmp_path: Path) -> None:
    """C3: nodes can be made, as Docker allows, and none of them opened."""
    nodes = ("c 1 1", "c 1 11", "c 4 0", "c 10 229", "c 10 237", "b 7 0", "b 8 0", "b 254 0")

    def body() -> None:
        script = "".join(
            f"mknod /n {node} && {{ (cat /n | head -c1) 2>&1 | grep -qi 'not permitted' "
            f"&& echo denied || echo OPENED {node}; }}; rm /n;"
            for node in nodes
        )
        assert shell(tmp_path, script) == ["denied"] * len(nodes)

    isolated(body)


def test_a_device_asked_for_can(tmp_path: Path) -> None:
    def body() -> None:
        control = DeviceMapping("/dev/loop-control", "/dev/other-name", "r")
        script = "ls -l /dev/other-name | cut -c1; (: </dev/other-name) && echo read;"
        script += "(: >/dev/other-name) 2>/dev/null && echo WROTE; true"
        lines = shell(tmp_path, script, HostConfig(devices=[control]))
        assert lines == ["c", "read"]

    isolated(body)


def test_the_filter_is_on(tmp_path: Path) -> None:
    def body() -> None:
        lines = shell(tmp_path, "grep Seccomp: /proc/self/status; hostname x 2>&1 | tail -1")
        assert lines[0].split() == ["Seccomp:", "2"]
        assert "not permitted" in lines[1]

    isolated(body)


def test_privileged_has_neither_filter_nor_masks(tmp_path: Path) -> None:
    def body() -> None:
        script = "grep Seccomp: /proc/self/status; head -c1 /proc/interrupts | wc -c;"
        script += "hostname y && hostname; (: </dev/kmsg) && echo read"
        lines = shell(tmp_path, script, HostConfig(privileged=True))
        assert lines[0].split() == ["Seccomp:", "0"]
        assert lines[1:] == ["1", "y", "read"]

    isolated(body)
