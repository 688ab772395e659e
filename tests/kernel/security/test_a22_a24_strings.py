"""A22 to A24: names and values from a client or an image that try to be something else."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from security_daemon import connected, running

from cais.testing.archives import busybox_rootfs, docker_archive

if TYPE_CHECKING:
    from cais.testing.daemon import TestDaemon

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
HOST_PARAMETERS = (
    *("kernel/core_pattern", "kernel/hostname", "kernel/msgmax", "kernel/shm_rmid_forced"),
    *("fs/mqueue/msg_max", "net/ipv4/ip_forward", "vm/swappiness"),
)


def host_parameters() -> dict[str, str]:
    return {name: (Path("/proc/sys") / name).read_text() for name in HOST_PARAMETERS}


@pytest.mark.parametrize(
    "parameter",
    [
        "kernel.core_pattern=|/bin/evil",
        "kernel/core_pattern=|/bin/evil",
        "net/../kernel/core_pattern=|/bin/evil",
        "net.ipv4.ip_forward\nkernel.core_pattern=|/bin/evil",
        "net.ipv4.ip_forward=1\nkernel.core_pattern=|/bin/evil",
        "kernel.shm_rmid_forced+kernel.core_pattern=|/bin/evil",
        "kernel.shm_rmid_forced=1+kernel.core_pattern=|/bin/evil",
        "fs.mqueue/../../kernel/core_pattern=|/bin/evil",
        "vm.swappiness=1",
        "kernel.hostname=evil",
        "user.max_user_namespaces=1",
        "=1",
    ],
)
def test_cve_2022_0811_parameters_of_the_kernel_s_own(daemon: TestDaemon, parameter: str) -> None:
    """Refused when the container is made, or, where the value is wrong, when it starts."""
    before = host_parameters()
    name, _, value = parameter.partition("=")
    with connected(daemon) as client:
        try:
            made = client.containers.create("busybox", ["true"], sysctls={name: value})
        except Exception as refused:  # noqa: BLE001 - docker-py's own, by its status
            assert getattr(refused, "status_code", None) == 400  # noqa: PT017
        else:
            with pytest.raises(Exception, match=r"sysctl|parameter|/proc/sys"):
                made.start()
            made.remove(force=True)
    assert host_parameters() == before


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"network_mode": "host"}, "net.ipv4.ip_forward"),
        ({"ipc_mode": "host"}, "kernel.msgmax"),
        ({"ipc_mode": "host"}, "fs.mqueue.msg_max"),
        ({"uts_mode": "host"}, "kernel.domainname"),
    ],
)
def test_cve_2022_0532_parameters_of_the_host_s_namespaces(
    daemon: TestDaemon, options: dict[str, str], name: str
) -> None:
    before = host_parameters()
    with connected(daemon) as client, pytest.raises(Exception, match="400") as refused:
        client.containers.create("busybox", ["true"], sysctls={name: "1"}, **options)
    assert name in str(refused.value)
    assert host_parameters() == before


def test_cve_2025_52881_parameters_of_the_container_s_own_are_set(daemon: TestDaemon) -> None:
    before = host_parameters()
    wanted = {"net.ipv4.ip_forward": "1", "kernel.msgmax": "4321", "fs.mqueue.msg_max": "7"}
    script = "cd /proc/sys; cat net/ipv4/ip_forward kernel/msgmax fs/mqueue/msg_max"
    with connected(daemon) as client:
        output = client.containers.run("busybox", ["sh", "-c", script], sysctls=wanted, remove=True)
    assert output.split() == [b"1", b"4321", b"7"]
    assert host_parameters() == before


# A23 and A24: keys that some engine, runtime or init system acts on.
LABELS = {
    "org.systemd.property.ExecStartPre": "'/bin/evil'",
    "org.systemd.property.DevicePolicy": "'auto'",
    "run.oci.hooks.stdout": "/evil",
    "run.oci.mount_context_type": "rootcontext",
    "run.oci.keep_original_groups": "1",
    "io.kubernetes.cri-o.Devices": "/dev/mem",
    "io.containerd.runc.v2.group": "evil",
    "containerd.io/restart.loguri": "binary:///bin/evil",
    "io.container.manager": "evil",
    "io.cais.seccomp": "unconfined",
    "cais.privileged": "true",
    "com.docker.compose.project": "theirs",
}
PLACES = ("HostConfig", "LogPath", "AppArmorProfile", "Mounts", "Driver", "Path", "Args")


def facts(container: Any) -> dict[str, Any]:
    """Return what decides about a container, without what is its own."""
    container.reload()
    found = {place: container.attrs[place] for place in PLACES}
    found["LogPath"] = found["LogPath"].replace(container.id, "ID")
    status = container.exec_run(["grep", "-E", "Cap|Seccomp|NoNew|Groups", "/proc/1/status"])[1]
    mounts = container.exec_run(["grep", "-v", " / overlay ", "/proc/mounts"])[1]
    return {**found, "status": status, "mounts": mounts}


def test_cve_2026_53488_and_2024_3154_labels_of_an_image_decide_nothing(
    daemon: TestDaemon,
) -> None:
    """The same container from an image with every such label and from one with none."""
    for name, labels in (("plain", {}), ("evil", LABELS)):
        image = docker_archive(f"label:{name}", [busybox_rootfs()], Cmd=["sh"], Labels=labels)
        daemon.docker("load", stdin=image)
    try:
        with (
            connected(daemon) as client,
            running(client, "sleep", "60", image="label:plain") as plain,
            running(client, "sleep", "60", image="label:evil") as evil,
        ):
            evil.reload()
            assert LABELS.items() <= evil.attrs["Config"]["Labels"].items()
            assert evil.attrs["HostConfig"].get("Annotations") in (None, {})
            assert facts(plain) == facts(evil)
            for container in (plain, evil):
                container.restart(timeout=0)
            assert facts(plain) == facts(evil)
    finally:
        daemon.docker("rmi", "label:plain", "label:evil", check=False)


def test_cve_2024_3154_annotations_of_a_client_decide_nothing(daemon: TestDaemon) -> None:
    """They are the caller's and are kept, for hooks and other runtimes to see."""
    with (
        connected(daemon) as client,
        running(client, "sleep", "60") as plain,
        annotated(client, LABELS) as evil,
    ):
        assert evil.attrs["HostConfig"]["Annotations"] == LABELS
        same = facts(evil)
        same["HostConfig"]["Annotations"] = None
        other = facts(plain)
        other["HostConfig"]["Annotations"] = None
        assert same == other


class annotated:  # noqa: N801 - reads as a function
    """A running container with annotations, which docker-py has no argument for."""

    def __init__(self, client: Any, annotations: dict[str, str]) -> None:
        host_config = client.api.create_host_config()
        host_config["Annotations"] = annotations
        made = client.api.create_container("busybox", ["sleep", "60"], host_config=host_config)
        self._container = client.containers.get(made["Id"])

    def __enter__(self) -> Any:
        self._container.start()
        self._container.reload()
        return self._container

    def __exit__(self, *_: object) -> None:
        self._container.remove(force=True)


def test_cve_2026_23953_a_value_with_lines_is_one_value(daemon: TestDaemon) -> None:
    environment = {"A": "1\nB=2\r\nlxc.hook=/bin/evil", "C": '%h"${A}$(id)\t'}
    with (
        connected(daemon) as client,
        running(
            client, "sh", "-c", "cat /proc/1/environ; sleep 60", environment=environment
        ) as container,
    ):
        words = container.exec_run(["cat", "/proc/1/environ"])[1].decode().split("\0")
    assert {f"{name}={value}" for name, value in environment.items()} <= set(words)
    assert [word for word in words if word.startswith(("B=", "lxc"))] == []


@pytest.mark.parametrize("name", ["a/b", "..", "a\nb", "a%2fb", "-a", "/../a", "a b", "é", "."])
def test_cve_2026_23953_names_of_containers(daemon: TestDaemon, name: str) -> None:
    with connected(daemon) as client, pytest.raises(Exception, match="400"):
        client.containers.create("busybox", ["true"], name=name)
