"""Unit tests of cais.runtime.mounts: OCI options to attributes, propagation and layers."""

from __future__ import annotations

from typing import Any

import pytest

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.linux import mount
from cais.runtime.mounts import MountPlan, overlay_layers, parse_mount, split_layers

RO, NOSUID, NODEV, NOEXEC = 1, 2, 4, 8


def parsed(*options: str, **entry: Any) -> MountPlan:
    document = {"destination": "/d", "type": "tmpfs", "source": "s", "options": list(options)}
    return parse_mount(document | entry, "/bundle")


@pytest.mark.parametrize(
    ("options", "set_", "clear"),
    [
        (["ro", "nosuid", "nodev", "noexec"], RO | NOSUID | NODEV | NOEXEC, 0),
        (["ro", "rw"], 0, RO),
        (["rw", "ro"], RO, 0),
        (["noatime"], mount.MOUNT_ATTR_NOATIME, mount.MOUNT_ATTR_ATIME_MASK),
        (["strictatime", "relatime"], 0, mount.MOUNT_ATTR_ATIME_MASK),
        (["defaults", "newinstance"], 0, 0),
    ],
)
def test_attributes(options: list[str], set_: int, clear: int) -> None:
    plan = parsed(*options)
    assert (plan.set, plan.clear & ~plan.set) == (set_, clear & ~set_)


def test_recursive_attributes_stay_apart() -> None:
    plan = parsed("rro", "nosuid", type="bind")
    assert (plan.set, plan.deep_set) == (NOSUID, RO)


def test_options_of_the_file_system_keep_order_and_shape() -> None:
    assert parsed("mode=755", "ro", "inode64", "size=64k").options == [
        ("mode", "755"),
        ("inode64", None),
        ("size", "64k"),
    ]


@pytest.mark.parametrize(
    ("option", "propagation", "deep"),
    [
        ("rslave", mount.MS_SLAVE, True),
        ("shared", mount.MS_SHARED, False),
        ("private", mount.MS_PRIVATE, False),
        ("runbindable", mount.MS_UNBINDABLE, True),
    ],
)
def test_propagation(option: str, propagation: int, deep: bool) -> None:
    plan = parsed("rbind", option, type="bind")
    assert (plan.propagation, plan.propagation_deep) == (propagation, deep)


def test_binds_are_private_unless_asked_and_start_at_the_bundle() -> None:
    plan = parsed("bind", type="none", source="data")
    assert (plan.kind, plan.source, plan.recursive) == ("bind", "/bundle/data", False)
    assert (plan.propagation, plan.propagation_deep) == (mount.MS_PRIVATE, True)
    assert parsed("rbind").recursive


@pytest.mark.parametrize("option", ["remount", "idmap", "ridmap", "tmpcopyup"])
def test_unsupported_options_are_named(option: str) -> None:
    with pytest.raises(UnsupportedError, match=option):
        parsed(option)


@pytest.mark.parametrize(
    ("destination", "kind"),
    [
        ("/", "bind"),
        ("//", "bind"),
        ("/proc", "tmpfs"),
        ("/proc/self", "bind"),
        ("/x/../proc/sys", "bind"),
        ("/proc/sys/kernel/ns_last_pid/..", "bind"),
    ],
)
def test_destinations_that_are_refused(destination: str, kind: str) -> None:
    with pytest.raises(InvalidArgumentError):
        parsed(destination=destination, type=kind)


@pytest.mark.parametrize("destination", ["/proc/uptime", "/procfs", "relative/dir", "/proc"])
def test_destinations_that_are_not(destination: str) -> None:
    plan = parsed(destination=destination, type="bind")
    assert plan.destination == "/" + destination.lstrip("/")


def test_layers_are_split_at_plain_colons() -> None:
    assert split_layers(r"/a\:b:/c\\d:/e") == ["/a:b", r"/c\d", "/e"]
    assert overlay_layers([("index", "off"), ("lowerdir", "/a:/b"), ("userxattr", None)]) == [
        ("index", "off"),
        ("lowerdir+", "/a"),
        ("lowerdir+", "/b"),
        ("userxattr", None),
    ]
