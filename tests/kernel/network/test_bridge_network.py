"""Containers on the default bridge, in a network namespace of the test's own."""

import errno
import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import netns_kit as kit
import pytest

from cais.linux.netlink.route import RouteSocket
from cais.linux.nftables import Nftables
from cais.network.bridge import NetworkOptions
from cais.network.endpoint import Attachment
from cais.network.errors import NetworkFullError, NoReadyNamespaceError
from cais.network.manager import NetworkManager
from cais.testing.isolation import isolated
from cais.testing.waiting import wait_until

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
FORWARDING = Path("/proc/sys/net/ipv4/ip_forward")


class Host:
    """A manager in this namespace, fed with namespaces as the engine feeds it."""

    def __init__(self, root: Path, **options: Any) -> None:
        self.root = root
        self.warnings: list[str] = []
        kit.ip("link", "set", "lo", "up")
        FORWARDING.write_text("0")  # a new namespace has what the first one has now
        self.manager = self.start(**options)

    def start(self, **options: Any) -> NetworkManager:
        manager = NetworkManager(
            data_root=str(self.root / "data"),
            exec_root=str(self.root / "run"),
            options=NetworkOptions(**options),
            warn=self.warnings.append,
        )
        manager.setup()
        return manager

    def restart(self, live: dict[str, Attachment], **options: Any) -> None:
        self.manager.teardown()
        self.manager = self.start(**options)
        self.manager.reconcile(live)

    def attach(self, container_id: str, mode: str = "bridge", **more: Any) -> Attachment:
        if mode in {"bridge", "none"}:
            path = str(self.root / "run" / "netns" / secrets.token_hex(6))
            self.manager.offer(kit.make_namespace(path))
        return self.manager.attach(container_id, mode, **more)

    def ports(self) -> set[str]:
        with RouteSocket() as netlink:
            return {link.name for link in netlink.links() if link.kind == "veth"}

    def is_clean(self) -> bool:
        return not self.ports() and not os.listdir(self.root / "run" / "netns")


@pytest.fixture
def on_host(tmp_path: Path) -> Callable[..., None]:
    def run(body: Callable[[Host], None], **options: Any) -> None:
        def inside() -> None:
            host = Host(tmp_path, **options)
            body(host)
            host.manager.reconcile({})
            host.manager.teardown()

        isolated(inside)

    return run


def where(attachment: Attachment) -> tuple[str, str]:
    assert attachment.netns_path is not None
    assert attachment.endpoint is not None
    return attachment.netns_path, attachment.endpoint.address


def test_containers_reach_each_other_and_the_host(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        first_path, first = where(host.attach("a" * 64))
        second_path, second = where(host.attach("b" * 64))
        assert (first, second) == ("172.17.0.2", "172.17.0.3")
        assert kit.exchange(second_path, first_path, second) == first
        assert kit.exchange(None, first_path, "172.17.0.1") == first
        assert kit.exchange(first_path, None, first) == "172.17.0.1"
        with kit.inside(first_path):
            shown = kit.ip("-brief", "link", "show", "eth0")
            assert "02:42:ac:11:00:02" in shown
            assert "UP" in kit.ip("-brief", "link", "show", "lo")
            assert "default via 172.17.0.1 dev eth0" in kit.ip("route")
            assert "fe80" not in kit.ip("-6", "address", "show", "dev", "eth0")

    on_host(body)


def test_the_bridge_has_no_ipv6(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        endpoint = host.attach("a" * 64).endpoint
        assert endpoint is not None
        for interface in ("docker0", endpoint.host_interface):
            assert "inet6" not in kit.ip("address", "show", "dev", interface)
        conf = Path("/proc/sys/net/ipv6/conf/docker0")
        if conf.exists():
            assert (conf / "disable_ipv6").read_text() == "1\n"
            assert (conf / "accept_ra").read_text() == "0\n"

    on_host(body)


def enter_outside(root: Path) -> str:
    namespace = kit.make_namespace(str(root / "outside"))
    os.close(namespace.netlink_fd)
    os.close(namespace.netns_fd)
    kit.ip("link", "add", "up1", "type", "veth", "peer", "name", "up0")
    kit.ip("address", "add", "10.9.9.1/24", "dev", "up1")
    kit.ip("link", "set", "up1", "up")
    netns_fd = os.open(namespace.path, os.O_RDONLY)
    kit.ip("link", "set", "up0", "netns", f"/proc/{os.getpid()}/fd/{netns_fd}")
    os.close(netns_fd)
    with kit.inside(namespace.path):
        kit.ip("link", "set", "lo", "up")
        kit.ip("address", "add", "10.9.9.9/24", "dev", "up0")
        kit.ip("link", "set", "up0", "up")
    return namespace.path


def nft(commands: str) -> str:
    with Nftables() as nftables:
        return nftables.run(commands)


def leave_outside(path: str) -> None:
    kit.ip("link", "delete", "up1")
    kit.remove_namespace(path)


def test_what_leaves_the_host_wears_its_address(
    on_host: Callable[..., None], tmp_path: Path
) -> None:
    def body(host: Host) -> None:
        outside = enter_outside(tmp_path)
        path, _ = where(host.attach("a" * 64))
        assert kit.exchange(outside, path, "10.9.9.9") == "10.9.9.1"
        leave_outside(outside)

    on_host(body)


def test_a_neighbour_does_not_route_into_the_bridge(
    on_host: Callable[..., None], tmp_path: Path
) -> None:
    def body(host: Host) -> None:
        outside = enter_outside(tmp_path)
        path, address = where(host.attach("a" * 64))
        with kit.inside(outside):
            kit.ip("route", "add", "172.17.0.0/16", "via", "10.9.9.1")
        with pytest.raises(TimeoutError):
            kit.exchange(path, outside, address, 0.5)
        # Nor where the host forwards for others too, nor with only the forward chain left.
        os.unlink(host.root / "run" / "network" / "forwarding-was-off")
        host.restart(dict(host.manager._attachments))
        (table,) = nft("list tables").splitlines()
        nft(f"flush chain {table.removeprefix('table ')} raw-prerouting")
        with pytest.raises(TimeoutError):
            kit.exchange(path, outside, address, 0.5)
        leave_outside(outside)

    on_host(body)


def test_release_leaves_nothing(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        for mode in ("bridge", "none", "host"):
            host.attach("a" * 64, mode)
            host.manager.release("a" * 64)
            host.manager.release("a" * 64)
            wait_until(host.is_clean, f"nothing of mode {mode} is left")

    on_host(body)


def test_two_hundred_turns_on_five_addresses(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        seen = set()
        for turn in range(200):
            _, address = where(host.attach(f"{turn:064x}"))
            seen.add(address)
            host.manager.release(f"{turn:064x}")
        assert seen == {f"10.7.0.{last}" for last in range(2, 7)}
        for number in range(5):
            host.attach(f"{number:064x}")
        with pytest.raises(NetworkFullError, match="no available IPv4 addresses"):
            host.attach("f" * 64)
        host.manager.release(f"{3:064x}")
        host.attach("f" * 64)

    on_host(body, bip="10.7.0.1/29")


def test_an_address_waits_for_its_interface_to_go(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        attachments = [host.attach(f"{number:064x}") for number in range(5)]
        path, address = where(attachments[0])
        assert attachments[0].endpoint is not None
        lingering_fd = os.open(path, os.O_RDONLY)  # somebody looks into the namespace
        host.manager.release(f"{0:064x}")
        assert attachments[0].endpoint.host_interface in host.ports()
        assert where(host.attach("b" * 64))[1] == address
        assert attachments[0].endpoint.host_interface not in host.ports()
        os.close(lingering_fd)

    on_host(body, bip="10.7.0.1/29")


def test_a_repair_does_not_bring_the_released_back(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        path, _ = where(host.attach("a" * 64))
        lingering_fd = os.open(path, os.O_RDONLY)
        host.manager.release("a" * 64)
        kit.ip("link", "delete", "docker0")
        host.attach("b" * 64)
        os.close(lingering_fd)
        wait_until(lambda: len(host.ports()) == 1, "the released interface goes")
        for number in range(4):
            host.attach(f"{number:064x}")

    on_host(body, bip="10.7.0.1/29")


def test_a_restarted_container_has_its_address_again(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        _, first = where(host.attach("a" * 64))
        _, other = where(host.attach("b" * 64))
        host.manager.release("a" * 64)
        path, again = where(host.attach("a" * 64))
        assert again == first
        assert kit.exchange(path, None, again) == "172.17.0.1"
        host.manager.release("a" * 64)
        _, third = where(host.attach("c" * 64))
        assert third not in {first, other}

    on_host(body)


def test_a_failed_attach_leaves_nothing(
    on_host: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(errno.EBUSY, "refused by the test")

    def body(host: Host) -> None:
        for step in ("_make_pair", "_configure_inside", "_open_port"):
            with monkeypatch.context() as patch:
                patch.setattr(f"cais.network.bridge_network.BridgeNetwork.{step}", refuse)
                with pytest.raises(OSError, match="refused by the test"):
                    host.attach("a" * 64)
            wait_until(host.is_clean, f"nothing is left after {step} failed")
            assert host.manager.inspect("bridge")["Containers"] == {}
        for number in range(5):
            host.attach(f"{number:064x}")

    on_host(body, bip="10.7.0.1/29")


def test_a_full_bridge_is_named(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        batch = "".join(
            f"link add p{n} type veth peer name q{n}\nlink set p{n} master docker0\n"
            for n in range(1023)
        )
        (host.root / "batch").write_text(batch)
        kit.ip("-batch", str(host.root / "batch"))
        with pytest.raises(NetworkFullError, match="docker0 is full: the kernel allows 1023"):
            host.attach("a" * 64)
        assert os.listdir(host.root / "run" / "netns") == []
        kit.ip("link", "delete", "p7")
        host.attach("a" * 64)

    on_host(body)


def test_a_restart_keeps_the_living_and_their_addresses(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        kept, orphan = host.attach("a" * 64), host.attach("b" * 64)
        host.restart({"a" * 64: kept})
        wait_until(lambda: len(host.ports()) == 1, "the orphan's interface goes")
        assert orphan.netns_path is not None
        assert not os.path.exists(orphan.netns_path)
        _, address = where(host.attach("c" * 64))
        assert address != where(kept)[1]
        assert kit.exchange(where(kept)[0], None, where(kept)[1]) == "172.17.0.1"
        assert host.manager.inspect("bridge")["Containers"].keys() == {"a" * 64, "c" * 64}

    on_host(body)


def test_a_bridge_removed_by_hand_comes_back(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        path, address = where(host.attach("a" * 64))
        kit.ip("link", "delete", "docker0")
        other_path, other = where(host.attach("b" * 64))
        assert kit.exchange(path, other_path, address) == other
        assert any("restoring" in warning for warning in host.warnings)
        for damage in (
            ("address", "flush", "dev", "docker0"),
            ("link", "set", "docker0", "down"),
        ):
            kit.ip(*damage)
            host.attach("c" * 64)
            assert kit.exchange(None, path, "172.17.0.1") == address
        host.manager.release("c" * 64)

    on_host(body)


def test_a_lost_address_is_the_one_that_returns(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        live = {"a" * 64: host.attach("a" * 64)}
        kit.ip("address", "flush", "dev", "docker0")
        kit.ip("address", "add", "172.17.200.1/24", "dev", "lo")  # its subnet looks taken now
        endpoint = host.attach("b" * 64).endpoint
        assert endpoint is not None
        assert endpoint.gateway == "172.17.0.1"
        kit.ip("address", "flush", "dev", "docker0")
        host.restart(live)
        endpoint = host.attach("c" * 64).endpoint
        assert endpoint is not None
        assert endpoint.gateway == "172.17.0.1"

    on_host(body)


def test_a_flushed_packet_filter_comes_back(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        before = nft("list ruleset")
        (table,) = nft("list tables").splitlines()
        for damage in ("flush ruleset", f"flush {table}", f"delete {table}"):
            nft(damage)
            host.attach("a" * 64)
            assert nft("list ruleset") == before, damage
        assert len(host.warnings) == 3
        host.attach("b" * 64)
        assert len(host.warnings) == 3

    on_host(body)


def test_an_interface_removed_by_hand_frees_its_address(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        for number in range(5):
            host.attach(f"{number:064x}")
        endpoint = host.manager._attachments[f"{2:064x}"].endpoint
        assert endpoint is not None
        kit.ip("link", "delete", endpoint.host_interface)
        host.manager.release(f"{2:064x}")
        assert where(host.attach("c" * 64))[1] == endpoint.address

    on_host(body, bip="10.7.0.1/29")


def test_another_engines_bridge_and_subnet_are_left_alone(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        other = NetworkManager(
            data_root=str(host.root / "other"), exec_root=str(host.root / "other-run")
        )
        other.setup()
        other.reconcile({})
        document = other.inspect("bridge")
        assert document["Options"]["com.docker.network.bridge.name"] == "cais0"
        assert document["IPAM"]["Config"] == [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]
        path, address = where(host.attach("a" * 64))
        other.teardown(remove_bridge=True)
        assert kit.exchange(path, None, address) == "172.17.0.1"
        with RouteSocket() as netlink:
            assert netlink.find_link("cais0") is None
            assert netlink.find_link("docker0") is not None

    on_host(body)


def test_a_given_bridge_is_used_and_left(on_host: Callable[..., None], tmp_path: Path) -> None:
    def body(_host: Host) -> None:
        kit.ip("link", "add", "br-mine", "type", "bridge")
        kit.ip("address", "add", "10.8.0.254/24", "dev", "br-mine")
        root = tmp_path / "second"
        host = Host(root, bridge="br-mine")
        attachment = host.attach("a" * 64)
        assert where(attachment)[1] == "10.8.0.1"
        assert attachment.endpoint is not None
        assert attachment.endpoint.gateway == "10.8.0.254"
        host.restart({"a" * 64: attachment}, bridge="br-mine")
        assert kit.ip("-brief", "address", "show", "br-mine").count("10.8.0.") == 1
        host.manager.reconcile({})
        host.manager.teardown(remove_bridge=True)
        assert "br-mine" in kit.ip("link")

    on_host(body)


def test_none_has_only_loopback_and_host_has_the_hosts(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        alone = host.attach("a" * 64, "none")
        assert alone.netns_path is not None
        with kit.inside(alone.netns_path):
            links = kit.ip("-brief", "link").splitlines()
            assert any(line.startswith("lo ") and "UP" in line for line in links)
            assert not any(line.startswith("eth0") for line in links)
        assert host.attach("b" * 64, "host").netns_path is None
        joined = host.manager.attach("c" * 64, f"container:{'a' * 64}", joined=alone)
        assert joined.netns_path == alone.netns_path
        host.manager.release("c" * 64)
        assert os.path.exists(alone.netns_path)
        assert host.manager.inspect("none")["Containers"].keys() == {"a" * 64}

    on_host(body)


def test_without_a_namespace_attach_asks_for_one(on_host: Callable[..., None]) -> None:
    def body(host: Host) -> None:
        with pytest.raises(NoReadyNamespaceError):
            host.manager.attach("a" * 64, "bridge")
        assert host.manager.shortage() == 4

    on_host(body)


def test_forwarding_we_turned_on_serves_only_containers(
    on_host: Callable[..., None], tmp_path: Path
) -> None:
    def body(host: Host) -> None:
        outside = enter_outside(tmp_path)
        assert FORWARDING.read_text() == "1\n"
        host.restart({})
        stranger = kit.make_namespace(str(tmp_path / "stranger"))
        os.close(stranger.netlink_fd)
        kit.ip("link", "add", "st1", "type", "veth", "peer", "name", "st0")
        kit.ip("link", "set", "st0", "netns", f"/proc/{os.getpid()}/fd/{stranger.netns_fd}")
        os.close(stranger.netns_fd)
        kit.ip("address", "add", "10.6.0.1/24", "dev", "st1")
        kit.ip("link", "set", "st1", "up")
        with kit.inside(stranger.path):
            kit.ip("address", "add", "10.6.0.2/24", "dev", "st0")
            kit.ip("link", "set", "st0", "up")
            kit.ip("route", "add", "default", "via", "10.6.0.1")
        with kit.inside(outside):
            kit.ip("route", "add", "default", "via", "10.9.9.1")
        with suppress(TimeoutError):
            pytest.fail(f"routed: {kit.exchange(outside, stranger.path, '10.9.9.9', 0.5)}")
        leave_outside(outside)
        kit.ip("link", "delete", "st1")
        kit.remove_namespace(stranger.path)

    on_host(body)
