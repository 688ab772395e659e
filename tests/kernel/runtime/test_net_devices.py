"""Kernel tests of linux.netDevices: devices of the host that move into the container."""

from __future__ import annotations

import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from cais.errors import InvalidArgumentError
from cais.runtime import net_devices
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from pathlib import Path


def ip(*args: str, inside: int = 0) -> Any:
    command = ["nsenter", "-t", str(inside), "-n"] if inside else []
    done = subprocess.run([*command, "ip", "-j", *args], capture_output=True, check=True)
    return json.loads(done.stdout or "[]")


def veth(name: str) -> None:
    ip("link", "add", name, "mtu", "1400", "type", "veth", "peer", "name", f"{name}-peer")
    ip("link", "set", name, "address", "02:00:00:00:00:07")
    ip("address", "add", "192.0.2.7/28", "brd", "+", "dev", name)
    ip("address", "add", "2001:db8::7/64", "dev", name)
    ip("link", "set", name, "up")


def given(bundle: Bundle, **devices: dict[str, str]) -> dict[str, Any]:
    """Run a container with the devices and return what ``ip address`` says inside, by name."""
    bundle.linux["netDevices"] = devices
    with Capture() as capture:
        init = bundle.start("sleep", "60", stdio=capture.stdio)
        found = {link["ifname"]: link for link in ip("address", inside=init.pid)}
        os.kill(init.pid, 9)
        end(init)
        bundle.destroy()
    return found


@pytest.mark.parametrize("user", [False, True])
def test_a_device_keeps_what_it_had_under_a_new_name(tmp_path: Path, user: bool) -> None:
    # oci: linux.netDevices, NetDevice.name

    def body() -> None:
        veth("one")
        veth("two")
        bundle = Bundle(tmp_path)
        if user:
            subprocess.run(["chown", "-hR", "100000:100000", bundle.rootfs], check=True)
            mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
            bundle.linux["namespaces"].append({"type": "user"})
            bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
        found = given(bundle, one={"name": "eth0"}, two={})
        assert sorted(found) == ["eth0", "lo", "two"]
        link = found["eth0"]
        assert (link["mtu"], link["address"]) == (1400, "02:00:00:00:00:07")
        assert "UP" in link["flags"]
        addresses = {
            (each["local"], each["prefixlen"], each.get("broadcast"))
            for each in link["addr_info"]
            if each["scope"] == "global"
        }
        assert addresses == {("192.0.2.7", 28, "192.0.2.15"), ("2001:db8::7", 64, None)}

    isolated(body)


def test_a_template_takes_the_first_free_number(tmp_path: Path) -> None:
    def body() -> None:
        veth("one")
        assert sorted(given(Bundle(tmp_path), one={"name": "net%d"})) == ["lo", "net0"]

    isolated(body)


def test_what_cannot_be_given_is_named_and_stays(tmp_path: Path) -> None:
    def body() -> None:
        veth("one")
        bundle = Bundle(tmp_path)
        with pytest.raises(LaunchError, match="network device none: no such device"):
            given(bundle, one={}, none={})
        with pytest.raises(LaunchError, match="network device one: lo exists in the container"):
            given(bundle, one={"name": "lo"})
        assert any(link["ifname"] == "one" for link in ip("link"))

    isolated(body)


@pytest.mark.parametrize("name", ["a" * 16, "a/b", "a b", "..", "a:b"])
def test_a_name_no_device_can_have_is_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError, match="invalid device name"):
        net_devices.parse_devices({"eth0": {"name": name}})


def test_two_devices_of_one_name_are_refused() -> None:
    with pytest.raises(InvalidArgumentError, match="same name"):
        net_devices.parse_devices({"a": {"name": "x"}, "b": {"name": "x"}})


@pytest.mark.parametrize("path", ["", "/proc/self/ns/net"])
def test_the_host_s_network_takes_no_devices_and_no_parameters(tmp_path: Path, path: str) -> None:
    bundle = Bundle(tmp_path)
    bundle.linux["namespaces"].remove({"type": "network"})
    if path:
        bundle.linux["namespaces"].append({"type": "network", "path": path})
    bundle.linux["netDevices"] = {"eth0": {}}
    with pytest.raises(InvalidArgumentError, match="netDevices"):
        bundle.start("true", stdio=None)
    del bundle.linux["netDevices"]
    bundle.linux["sysctl"] = {"net.ipv4.ip_forward": "1"}
    with pytest.raises(InvalidArgumentError, match="network namespace"):
        bundle.start("true", stdio=None)
