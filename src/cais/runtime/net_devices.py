"""Network devices of the host, given to a container: they go into its network namespace.

The parent does it while the child waits, in all its namespaces and before its root: it has the
rights over both. What the kernel takes off a device that moves, its addresses, is put back. When
the namespace ends, the kernel returns a physical device to the host.

Imported only for a document that names one.

Spec: OCI runtime-spec 1.3, config-linux.md "Network Devices".
"""

from __future__ import annotations

import os

from cais.errors import InvalidArgumentError
from cais.linux import namespaces
from cais.linux.netlink import route
from cais.runtime.launch import LaunchError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

    from cais.linux.netlink.route import Link, RouteSocket

    Devices = Mapping[str, str]

_NAME_LIMIT_BYTES = 15


def parse_devices(entries: Mapping[str, Mapping[str, str]]) -> Devices:
    """Return the name inside of each device of ``linux.netDevices``.

    Raises:
        InvalidArgumentError: a name no device can have, or one given twice.

    """
    devices = {name: entry.get("name") or name for name, entry in entries.items()}
    for name in (*devices, *devices.values()):
        if not _is_name(name):
            raise InvalidArgumentError(f"linux.netDevices: invalid device name {name[:64]!r}")
    fixed = [name for name in devices.values() if "%" not in name]
    if len(set(fixed)) != len(fixed):
        raise InvalidArgumentError("linux.netDevices: two devices would have the same name")
    return devices


def give(devices: Devices, pidfd: int) -> None:
    """Move the devices into the network namespace of the process ``pidfd`` (borrowed).

    They keep their attributes and their permanent global addresses, and are up afterwards.

    Raises:
        LaunchError: no such device, or its name is taken inside: all are where they were; or the
            kernel refuses one, and those before it have moved.

    """
    netns_fd, inside = _look_inside(pidfd)
    try:
        with inside, route.RouteSocket() as outside:
            links = [_check(outside, inside, *names) for names in devices.items()]
            for link, new_name in zip(links, devices.values(), strict=True):
                _move(outside, inside, netns_fd, link, new_name)
    finally:
        os.close(netns_fd)


def _check(outside: RouteSocket, inside: RouteSocket, name: str, new_name: str) -> Link:
    """Return a device that can be moved. The kernel would move it first and rename it then."""
    link = outside.find_link(name)
    if link is None:
        raise LaunchError(f"network device {name}: no such device", step="network")
    if "%" not in new_name and inside.find_link(new_name) is not None:
        message = f"network device {name}: {new_name} exists in the container already"
        raise LaunchError(message, step="network")
    return link


def _move(
    outside: RouteSocket, inside: RouteSocket, netns_fd: int, link: Link, new_name: str
) -> None:
    try:
        addresses = outside.kept_addresses(link.index)
        before = {each.index for each in inside.links()}
        outside.batch([route.move_link(link.index, netns_fd, new_name)])
        index = _arrived(inside, before, link).index
        inside.batch([route.restore_address(index, address) for address in addresses])
        inside.batch([route.set_link(index, up=True)])
    except OSError as error:
        message = f"network device {link.name}: {error.strerror}"
        raise LaunchError(message, errno=error.errno or 0, step="network") from None


def _arrived(inside: RouteSocket, before: set[int], link: Link) -> Link:
    """Find the device in the namespace: its name may come from a template, its index be new."""
    for each in inside.links():
        if each.index not in before and each.mac == link.mac:
            return each
    raise LaunchError(f"network device {link.name}: it is gone after the move", step="network")


def _look_inside(pidfd: int) -> tuple[int, RouteSocket]:
    """Return the network namespace of a process and a socket that works in it."""
    home_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        namespaces.join(pidfd, namespaces.CLONE_NEWNET)
        try:
            inside = route.RouteSocket()
            return os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC), inside
        finally:
            namespaces.return_home(home_fd, namespaces.CLONE_NEWNET)
    finally:
        os.close(home_fd)


def _is_name(name: str) -> bool:
    """Say whether the kernel takes a name; ``%d`` in it stands for the first free number."""
    if not name or name in (".", "..") or len(name.encode()) > _NAME_LIMIT_BYTES:
        return False
    return not any(char in "/:" or char.isspace() for char in name)
