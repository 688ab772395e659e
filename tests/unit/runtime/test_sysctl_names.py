"""A22, CVE-2022-0811: only parameters of the container's own namespaces can be set."""

from __future__ import annotations

import pytest

from cais.errors import InvalidArgumentError
from cais.runtime.sysctls import parse_sysctls

OWN = {"network", "ipc", "uts", "mount", "pid"}


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("net.ipv4.ip_forward", "net/ipv4/ip_forward"),
        ("net/ipv4/ip_forward", "net/ipv4/ip_forward"),
        ("net.ipv4.conf.eth0/100.rp_filter", "net/ipv4/conf/eth0.100/rp_filter"),
        ("kernel.shm_rmid_forced", "kernel/shm_rmid_forced"),
        ("kernel.sem", "kernel/sem"),
        ("fs.mqueue.msg_max", "fs/mqueue/msg_max"),
        ("kernel.domainname", "kernel/domainname"),
    ],
)
def test_own_parameters(name: str, path: str) -> None:
    assert parse_sysctls({name: "1"}, OWN) == [(path, "1")]


@pytest.mark.parametrize(
    "name",
    [
        "kernel.core_pattern",
        "net/../kernel/core_pattern",
        "net.ipv4.ip_forward\nkernel.core_pattern",
        "kernel.shm_rmid_forced+kernel.core_pattern",
        "fs.mqueue/../../kernel/core_pattern",
        "fs/mqueue/../../kernel/core_pattern",
        "/kernel/core_pattern",
        "net..ipv4",
        "vm.swappiness",
        "kernel",
        "",
        "user.max_user_namespaces",
    ],
)
def test_others_are_refused(name: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parse_sysctls({name: "1"}, OWN)


@pytest.mark.parametrize(
    ("name", "own"), [("net.ipv4.ip_forward", {"ipc"}), ("kernel.msgmax", {"network"})]
)
def test_parameters_of_the_hosts_namespaces_are_refused(name: str, own: set[str]) -> None:
    with pytest.raises(InvalidArgumentError, match="namespace of its own"):
        parse_sysctls({name: "1"}, own)


def test_values_have_no_control_characters() -> None:
    with pytest.raises(InvalidArgumentError):
        parse_sysctls({"net.ipv4.ip_forward": "1\n2"}, OWN)
    assert parse_sysctls({"net.ipv4.ping_group_range": "0\t5"}, OWN)
