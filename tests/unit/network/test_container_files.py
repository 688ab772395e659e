import os
from pathlib import Path
from typing import Any

import pytest

from cais.errors import InvalidArgumentError
from cais.network import files
from cais.network.endpoint import Attachment, Endpoint, EndpointId, NetworkId, SandboxId
from cais.network.files import NameSettings, check_names, hosts_text, resolv_conf_text, write_files

ENDPOINT = Endpoint(
    network_id=NetworkId("n"),
    network_name="bridge",
    endpoint_id=EndpointId("e"),
    address="172.17.0.2",
)
BRIDGE = Attachment("bridge", "/netns/x", SandboxId("s"), ENDPOINT)
HOST = Attachment("host", None, SandboxId("s"))
LOCAL = """127.0.0.1\tlocalhost
::1\tlocalhost ip6-localhost ip6-loopback
fe00::\tip6-localnet
ff00::\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""


def hosts(attachment: Attachment = BRIDGE, **settings: Any) -> str:
    settings.setdefault("hostname", "web")
    return hosts_text(NameSettings(**settings), attachment, host_gateway="172.17.0.1")


def test_hosts_names_the_container_last() -> None:
    assert hosts() == LOCAL + "172.17.0.2\tweb\n"


def test_extra_hosts_come_before_it() -> None:
    extra = ("db:10.0.0.5", "six:2001:db8::7", "gw:host-gateway")
    assert hosts(extra_hosts=extra) == (
        LOCAL + "10.0.0.5\tdb\n2001:db8::7\tsix\n172.17.0.1\tgw\n172.17.0.2\tweb\n"
    )


@pytest.mark.parametrize(
    ("hostname", "domainname", "names"),
    [
        ("web", "example.com", "web.example.com web"),
        ("web.example.com", "", "web.example.com web"),
        ("web.a", "b", "web.a.b web"),
    ],
)
def test_a_domain_gives_two_names(hostname: str, domainname: str, names: str) -> None:
    text = hosts(hostname=hostname, domainname=domainname)
    assert text.endswith(f"172.17.0.2\t{names}\n")


def test_without_an_address_there_is_no_line_of_its_own() -> None:
    assert hosts(Attachment("none", "/netns/x", SandboxId("s"))) == LOCAL


def test_on_the_hosts_network_the_hosts_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "hosts").write_text("10.1.1.1 mine\n")
    monkeypatch.setattr(files, "_HOST_HOSTS", tmp_path / "hosts")
    assert hosts(HOST) == "10.1.1.1 mine\n"
    assert hosts(HOST, extra_hosts=("db:10.0.0.5",)) == LOCAL + "10.0.0.5\tdb\n"


def test_host_gateway_needs_a_gateway() -> None:
    settings = NameSettings("web", extra_hosts=("gw:host-gateway",))
    with pytest.raises(InvalidArgumentError, match="unable to derive the IP value"):
        hosts_text(settings, BRIDGE, host_gateway="")


HOST_FILE = """# a comment
nameserver 127.0.0.53
nameserver 10.0.0.53
nameserver 2001:db8::53
nameserver not-an-address
search old.example
search one.example two.example
options edns0 ndots:2
"""


def resolv_conf(
    text: str = HOST_FILE, *, keep_loopback: bool = False, **settings: Any
) -> list[str]:
    found = resolv_conf_text(NameSettings("web", **settings), text, keep_loopback=keep_loopback)
    assert found.endswith("\n")
    return found.splitlines()


def test_a_container_gets_the_servers_it_can_reach() -> None:
    assert resolv_conf() == [
        "nameserver 10.0.0.53",
        "search one.example two.example",
        "options edns0 ndots:2",
    ]


def test_on_the_hosts_network_all_of_them() -> None:
    assert resolv_conf(keep_loopback=True)[0] == "nameserver 127.0.0.53"


def test_without_one_it_gets_dockers() -> None:
    for text in ("", "nameserver 127.0.0.1\n", "nameserver ::1\n"):
        assert resolv_conf(text) == ["nameserver 8.8.8.8", "nameserver 8.8.4.4"]


def test_what_the_user_says_replaces_each_part() -> None:
    assert resolv_conf(dns=("9.9.9.9", "127.0.0.1"), dns_search=("x.example",)) == [
        "nameserver 9.9.9.9",
        "nameserver 127.0.0.1",
        "search x.example",
        "options edns0 ndots:2",
    ]
    assert resolv_conf(dns_options=("use-vc",))[-1] == "options use-vc"
    assert not any(line.startswith("search") for line in resolv_conf(dns_search=(".",)))


def test_behind_systemd_resolved_its_own_list(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "stub").write_text("nameserver 127.0.0.53\n")
    (tmp_path / "real").write_text("nameserver 10.2.2.2\n")
    monkeypatch.setattr(files, "_HOST_RESOLV_CONF", tmp_path / "stub")
    monkeypatch.setattr(files, "_RESOLVED_RESOLV_CONF", tmp_path / "real")
    assert files._host_resolv_conf() == "nameserver 10.2.2.2\n"
    (tmp_path / "real").unlink()
    assert files._host_resolv_conf() == "nameserver 127.0.0.53\n"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extra_hosts": ["db"]}, 'bad format for add-host: "db"'),
        ({"extra_hosts": [":1.2.3.4"]}, 'bad format for add-host: ":1.2.3.4"'),
        ({"extra_hosts": ["db:"]}, 'invalid IP address in add-host: ""'),
        ({"extra_hosts": ["db:1.2.3"]}, 'invalid IP address in add-host: "1.2.3"'),
        ({"extra_hosts": ["db:1.2.3.4\n5.6.7.8 evil"]}, r'"1.2.3.4\n5.6.7.8 evil"'),
        ({"extra_hosts": ["d b:1.2.3.4"]}, 'invalid host name in add-host: "d b"'),
        ({"extra_hosts": ["d\nb:1.2.3.4"]}, r'invalid host name in add-host: "d\nb"'),
        ({"extra_hosts": ["d\u2028b:1.2.3.4"]}, r'invalid host name in add-host: "d\u2028b"'),
        ({"hostname": "a\nb"}, r'invalid hostname format: "a\nb"'),
        ({"hostname": "a\0b"}, r'invalid hostname format: "a\u0000b"'),
        ({"hostname": ""}, 'invalid hostname format: ""'),
        ({"hostname": "x" * 65}, "invalid hostname format"),
        ({"domainname": "a b"}, 'invalid domain name: "a b"'),
        ({"dns": ["localhost"]}, "invalid IP address: localhost"),
        ({"dns": ["1.1.1.1\nsearch evil"]}, r"invalid IP address: \"1.1.1.1\nsearch evil\""),
        ({"dns_search": ["a\rb"]}, r'invalid search domain: "a\rb"'),
        ({"dns_options": ["a b"]}, 'invalid DNS option: "a b"'),
    ],
)
def test_what_would_bring_lines_of_its_own(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidArgumentError) as refused:
        check_names(NameSettings(**{"hostname": "web", **settings}))
    assert message.replace('\\"', '"') in str(refused.value)
    assert str(refused.value).isprintable()


def test_the_longest_hostname() -> None:
    check_names(NameSettings("x" * 64))


def test_files_are_new_at_every_start(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.write_text("kept")
    os.symlink(outside, tmp_path / "hosts")
    first = write_files(tmp_path, NameSettings("web"), BRIDGE)
    assert outside.read_text() == "kept"
    assert Path(first.hosts).read_text() == LOCAL + "172.17.0.2\tweb\n"
    assert Path(first.hostname).read_text() == "web\n"
    before = os.stat(first.resolv_conf).st_ino
    keep = os.open(first.resolv_conf, os.O_RDONLY)  # or the number may be given again
    assert write_files(tmp_path, NameSettings("web"), BRIDGE) == first
    assert os.stat(first.resolv_conf).st_ino != before
    os.close(keep)
    assert {os.stat(path).st_mode & 0o777 for path in (first.hosts, first.hostname)} == {0o644}
    assert sorted(os.listdir(tmp_path)) == ["hostname", "hosts", "outside", "resolv.conf"]


def test_a_huge_host_file_is_read_in_part(tmp_path: Path) -> None:
    with (tmp_path / "huge").open("wb") as file:
        file.truncate(1 << 40)
    assert len(files._read_bounded(tmp_path / "huge")) == 64 * 1024
