"""Documents for other runtimes: nothing is left to ``cais.json`` but the root and the user."""

from __future__ import annotations

import oci_kit as kit
import pytest

from cais.spec.container import ContainerConfig, HostConfig

CONFIG = ContainerConfig(cmd=["true"], hostname="box", domainname="sea.example", user="nobody")


def test_rules_are_in_the_document_and_no_program_beside_it() -> None:
    built = kit.build(on=kit.host(seccomp=True), inlined=True)
    rules = built.config["linux"]["seccomp"]
    assert rules["defaultAction"] == "SCMP_ACT_ERRNO"
    assert "SCMP_ARCH_X86_64" in rules["architectures"]
    assert all(set(rule) <= {"names", "action", "errnoRet", "args"} for rule in rules["syscalls"])
    assert built.cais.get("seccomp") is None


@pytest.mark.parametrize("options", [["seccomp=unconfined"], None])
def test_no_rules_where_none_are_wanted(options: list[str] | None) -> None:
    host_config = HostConfig(security_opt=options, privileged=options is None)
    built = kit.build(host_config, on=kit.host(seccomp=True), inlined=True)
    assert "seccomp" not in built.config["linux"]


def test_the_init_is_mounted_and_comes_first() -> None:
    host_config = HostConfig(init=True)
    built = kit.build(host_config, inlined=True, init_program="/data/docker-init")
    assert built.config["process"]["args"] == ["/sbin/docker-init", "--", "true"]
    assert built.config["mounts"][-1] == {
        "destination": "/sbin/docker-init",
        "type": "bind",
        "source": "/data/docker-init",
        "options": ["bind", "ro"],
    }
    ours = kit.build(host_config)
    assert ours.config["process"]["args"] == ["true"]


def test_it_keeps_to_the_first_version_of_the_specification() -> None:
    built = kit.build(config=CONFIG, inlined=True)
    assert built.config["ociVersion"] == "1.0.2"
    assert "domainname" not in built.config
    assert built.config["linux"]["sysctl"]["kernel.domainname"] == "sea.example"
    asked = kit.build(HostConfig(sysctls={"kernel.domainname": "mine"}), CONFIG, inlined=True)
    assert asked.config["linux"]["sysctl"]["kernel.domainname"] == "mine"


def test_who_the_user_is_is_left_to_whoever_sees_the_image() -> None:
    built = kit.build(config=CONFIG, inlined=True)
    assert built.cais["user"] == "nobody"
    assert built.config["process"]["user"]["uid"] == 0
