"""The three files a container gets from its engine: hosts, hostname and resolv.conf.

    <exec-root>/bundles/<id>/hosts, hostname, resolv.conf

Written anew at every start, as a new inode each: what a container did to the old ones is gone.
Values come from the user, so none may bring a line of its own (control characters are refused).

Spec: hosts(5), resolv.conf(5).
"""

import ipaddress
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cais.errors import InvalidArgumentError
from cais.linux.durable import replace_file
from cais.network.endpoint import Attachment

HOST_GATEWAY = "host-gateway"
FALLBACK_NAMESERVERS = ("8.8.8.8", "8.8.4.4")
HOSTNAME_LIMIT_BYTES = 64  # the kernel's __NEW_UTS_LEN
_HOST_RESOLV_CONF = Path("/etc/resolv.conf")
_RESOLVED_RESOLV_CONF = Path("/run/systemd/resolve/resolv.conf")
_HOST_HOSTS = Path("/etc/hosts")
_READ_LIMIT_BYTES = 64 * 1024
_TOKEN = re.compile(r"[^\s\x00-\x1f\x7f-\x9f\u2028\u2029#]+")
_LOCAL_NAMES = (
    ("127.0.0.1", "localhost"),
    ("::1", "localhost ip6-localhost ip6-loopback"),
    ("fe00::", "ip6-localnet"),
    ("ff00::", "ip6-mcastprefix"),
    ("ff02::1", "ip6-allnodes"),
    ("ff02::2", "ip6-allrouters"),
)


@dataclass(frozen=True, slots=True)
class NameSettings:
    """What the user said about names; fields as in Config and HostConfig."""

    hostname: str
    domainname: str = ""
    extra_hosts: Sequence[str] = ()
    dns: Sequence[str] = ()
    dns_search: Sequence[str] = ()
    dns_options: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class ContainerFiles:
    """Paths of the files, to be mounted at ``/etc/<name>``."""

    hosts: str
    hostname: str
    resolv_conf: str


def check_names(settings: NameSettings) -> None:
    """Refuse what cannot stand in these files.

    Raises:
        InvalidArgumentError: Docker's texts where Docker checks; the rest names the value.

    """
    _check_hostname(settings.hostname)
    if settings.domainname:
        _check_token(settings.domainname, "invalid domain name")
    for entry in settings.extra_hosts:
        _split_extra_host(entry)
    for address in settings.dns:
        _check_address(address, "invalid IP address")
    for domain in settings.dns_search:
        _check_token(domain, "invalid search domain")
    for option in settings.dns_options:
        _check_token(option, "invalid DNS option")


def write_files(
    directory: Path, settings: NameSettings, attachment: Attachment, *, host_gateway: str = ""
) -> ContainerFiles:
    """Write all three for a container about to start.

    Args:
        directory: the container's own; exists.
        attachment: of any mode but ``container:``, which shares the other container's files.
        host_gateway: the address behind ``host-gateway`` in extra hosts.

    Raises:
        InvalidArgumentError: as ``check_names``; ``host-gateway`` without a gateway.

    """
    check_names(settings)
    on_host = attachment.mode == "host"
    files = {
        "hosts": hosts_text(settings, attachment, host_gateway=host_gateway),
        "hostname": f"{settings.hostname}\n",
        "resolv.conf": resolv_conf_text(settings, _host_resolv_conf(), keep_loopback=on_host),
    }
    for name, text in files.items():
        replace_file(directory / name, text.encode(), mode=0o644)
    hosts, hostname, resolv_conf = (str(directory / name) for name in files)
    return ContainerFiles(hosts, hostname, resolv_conf)


def hosts_text(settings: NameSettings, attachment: Attachment, *, host_gateway: str) -> str:
    """Return the content of ``hosts``: on the host's network its own file, if nothing is added."""
    if attachment.mode == "host" and not settings.extra_hosts:
        return _read_bounded(_HOST_HOSTS)
    lines = [f"{address}\t{names}" for address, names in _LOCAL_NAMES]
    for entry in settings.extra_hosts:
        host, address = _split_extra_host(entry)
        lines.append(f"{_resolve_gateway(address, host_gateway)}\t{host}")
    if attachment.endpoint and attachment.endpoint.address:
        lines.append(f"{attachment.endpoint.address}\t{_own_names(settings)}")
    return "".join(f"{line}\n" for line in lines)


def resolv_conf_text(settings: NameSettings, host_text: str, *, keep_loopback: bool) -> str:
    """Return the content of ``resolv.conf``: the host's, overridden by what the user said.

    Args:
        host_text: the host's file.
        keep_loopback: the container shares the host's loopback and its name server there.

    """
    nameservers, search, options = _parse_resolv_conf(host_text)
    if not keep_loopback:
        nameservers = [address for address in nameservers if _is_reachable(address)]
    nameservers = list(settings.dns) or nameservers
    search = list(settings.dns_search) or search
    options = list(settings.dns_options) or options
    if not nameservers and not keep_loopback:
        nameservers = list(FALLBACK_NAMESERVERS)
    lines = [f"nameserver {address}" for address in nameservers]
    if search and search != ["."]:
        lines.append(f"search {' '.join(search)}")
    if options:
        lines.append(f"options {' '.join(options)}")
    return "".join(f"{line}\n" for line in lines)


def _parse_resolv_conf(text: str) -> tuple[list[str], list[str], list[str]]:
    """Return name servers, search domains (of the last line that gives any) and options."""
    nameservers: list[str] = []
    search: list[str] = []
    options: list[str] = []
    for line in text.splitlines():
        match line.split():
            case ["nameserver", address, *_]:
                nameservers.append(address)
            case ["search" | "domain", *domains] if domains:
                search = domains
            case ["options", *words]:
                options += words
    return nameservers, search, options


def _is_reachable(address: str) -> bool:
    """Tell whether an IPv4-only container can reach a name server of the host's list."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    return parsed.version == 4 and not parsed.is_loopback


def _host_resolv_conf() -> str:
    """Return the host's file; systemd-resolved's list of real servers instead of its stub."""
    text = _read_bounded(_HOST_RESOLV_CONF)
    if _parse_resolv_conf(text)[0] == ["127.0.0.53"]:
        return _read_bounded(_RESOLVED_RESOLV_CONF) or text
    return text


def _read_bounded(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(_READ_LIMIT_BYTES).decode(errors="replace")
    except OSError:
        return ""


def _own_names(settings: NameSettings) -> str:
    full = ".".join(filter(None, (settings.hostname, settings.domainname)))
    host, dot, _ = full.partition(".")
    return f"{full} {host}" if dot else full


def _resolve_gateway(address: str, host_gateway: str) -> str:
    if address != HOST_GATEWAY:
        return address
    if not host_gateway:
        raise InvalidArgumentError("unable to derive the IP value for host-gateway")
    return host_gateway


def _split_extra_host(entry: str) -> tuple[str, str]:
    host, colon, address = entry.partition(":")
    if not colon or not host:
        raise InvalidArgumentError(f"bad format for add-host: {quoted(entry)}")
    if not _TOKEN.fullmatch(host):
        raise InvalidArgumentError(f"invalid host name in add-host: {quoted(host)}")
    if address != HOST_GATEWAY:
        address = _check_address(address, "invalid IP address in add-host", quote=True)
    return host, address


def _check_address(address: str, complaint: str, *, quote: bool = False) -> str:
    try:
        return str(ipaddress.ip_address(address.strip()))
    except ValueError as exc:
        shown = quoted(address) if quote or not address.isprintable() else address
        raise InvalidArgumentError(f"{complaint}: {shown}") from exc


def _check_hostname(hostname: str) -> None:
    if not _TOKEN.fullmatch(hostname) or len(hostname.encode()) > HOSTNAME_LIMIT_BYTES:
        raise InvalidArgumentError(f"invalid hostname format: {quoted(hostname)}")


def _check_token(value: str, complaint: str) -> None:
    if not _TOKEN.fullmatch(value):
        raise InvalidArgumentError(f"{complaint}: {quoted(value)}")


def quoted(value: str) -> str:
    """Return a value in double quotes with control characters escaped, cut at 256 characters."""
    return json.dumps(value[:256])
