"""Networks with the real CLI: bridge, none, host, another container's; publishing is refused."""

import ipaddress
import json
import re

from cais.testing.daemon import TestDaemon


def test_the_bridge_gives_address_gateway_and_files(daemon: TestDaemon) -> None:
    script = "ip -o -4 addr show eth0; ip route; cat /etc/hosts; cat /etc/resolv.conf"
    out = daemon.docker("run", "--rm", "--name", "net", "busybox", "sh", "-c", script).stdout
    address = re.search(r"inet (\S+)/16", out)
    assert address, out
    assert ipaddress.ip_address(address[1]) in ipaddress.ip_network("172.17.0.0/16")
    assert "default via 172.17.0.1 dev eth0" in out
    assert re.search(rf"^{address[1]}\s+[0-9a-f]{{12}}$", out, re.MULTILINE)
    assert re.search(r"^127\.0\.0\.1\s+localhost$", out, re.MULTILINE)


def test_containers_reach_each_other_and_the_host_side(daemon: TestDaemon) -> None:
    daemon.docker("run", "-d", "--name", "srv", "busybox", "sh", "-c",
                  "while :; do echo served | nc -l -p 80; done")  # fmt: skip
    try:
        address = daemon.docker(
            "inspect", "-f", "{{.NetworkSettings.IPAddress}}", "srv"
        ).stdout.strip()
        fetch = f"until nc {address} 80 </dev/null; do sleep 0.1; done"
        out = daemon.docker("run", "--rm", "busybox", "sh", "-c", fetch)
        assert out.stdout == "served\n"
        assert (
            daemon.docker("run", "--rm", "busybox", "ping", "-c1", "-W30", "172.17.0.1").returncode
            == 0
        )
        (network,) = json.loads(daemon.docker("network", "inspect", "bridge").stdout)
        attached = [each["Name"] for each in network["Containers"].values()]
        assert attached == ["srv"]
    finally:
        daemon.docker("rm", "-f", "srv")


def test_none_has_only_loopback(daemon: TestDaemon) -> None:
    out = daemon.docker("run", "--rm", "--network", "none", "busybox", "ip", "-o", "link").stdout
    assert re.match(r"1: lo: <LOOPBACK,UP", out)
    assert len(out.splitlines()) == 1


def test_host_is_the_daemons_own(daemon: TestDaemon) -> None:
    inside = daemon.docker(
        "run", "--rm", "--network", "host", "busybox", "readlink", "/proc/self/ns/net"
    )
    assert inside.stdout == daemon.run_inside(["readlink", "/proc/self/ns/net"]).stdout


def test_another_containers_network(daemon: TestDaemon) -> None:
    daemon.docker("run", "-d", "--name", "owner", "busybox", "sleep", "600")
    try:
        link = ("readlink", "/proc/self/ns/net")
        theirs = daemon.docker("exec", "owner", *link).stdout
        shared = daemon.docker("run", "--rm", "--network", "container:owner", "busybox", *link)
        assert shared.stdout == theirs
    finally:
        daemon.docker("rm", "-f", "owner")


def test_publishing_is_refused_clearly(daemon: TestDaemon) -> None:
    result = daemon.docker("run", "--rm", "-p", "8080:80", "busybox", "true", check=False)
    assert result.returncode == 125
    assert re.search("publish|port", result.stderr, re.IGNORECASE)
    assert not daemon.docker("ps", "-aq").stdout


def test_dns_and_extra_hosts(daemon: TestDaemon) -> None:
    flags = ("--dns", "192.0.2.53", "--dns-search", "quay.example", "--add-host", "ship:192.0.2.7")
    out = daemon.docker(
        "run", "--rm", *flags, "busybox", "cat", "/etc/resolv.conf", "/etc/hosts"
    ).stdout
    assert "nameserver 192.0.2.53" in out
    assert "search quay.example" in out
    assert re.search(r"^192\.0\.2\.7\s+ship$", out, re.MULTILINE)
