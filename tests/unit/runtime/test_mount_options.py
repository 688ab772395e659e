"""Unit tests of cais.runtime.mounts: OCI options to attributes, propagation and layers."""

from __future__ import annotations

from typing import Any

import pytest

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.linux import mount
from cais.runtime.mounts import (
    MountPlan,
    known_options,
    label,
    overlay_layers,
    parse_mount,
    split_layers,
)

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
    assert plan.propagation == [(propagation, deep)]
    assert plan.asks_propagation


def test_propagation_options_add_up_in_their_order() -> None:
    plan = parsed("rbind", "slave", "rshared", type="bind")
    assert plan.propagation == [(mount.MS_SLAVE, False), (mount.MS_SHARED, True)]


def test_binds_are_private_unless_asked_and_start_at_the_bundle() -> None:
    plan = parsed("bind", type="none", source="data")
    assert (plan.kind, plan.source, plan.recursive) == ("bind", "/bundle/data", False)
    assert (plan.propagation, plan.asks_propagation) == ([(mount.MS_PRIVATE, True)], False)
    assert parsed("rbind").recursive


def test_a_bind_needs_a_source() -> None:
    with pytest.raises(InvalidArgumentError, match="/d: a bind mount needs a source"):
        parsed("bind", source="")


def test_remount_changes_what_is_there() -> None:
    assert (parsed("remount", "ro", "size=1m").kind, parsed("remount").options) == ("remount", [])
    assert parsed("remount", "bind", "ro", "size=1m", source="").options == []


def test_only_a_tmpfs_copies_up() -> None:
    assert parsed("tmpcopyup").copies_up
    assert not parsed("bind", "tmpcopyup", type="bind").copies_up


LINES = [{"containerID": 0, "hostID": 1000, "size": 1}, {"containerID": 1, "hostID": 5, "size": 2}]


def test_own_maps_mean_idmap() -> None:
    plan = parsed("bind", type="bind", uidMappings=LINES, gidMappings=LINES[:1])
    assert (plan.idmap, plan.idmap_deep) == (True, False)
    assert (plan.uid_map, plan.gid_map) == ([(0, 1000, 1), (1, 5, 2)], [(0, 1000, 1)])
    assert parsed("rbind", "ridmap", type="bind").idmap_deep
    assert not parsed("rbind", type="bind").idmap


def test_maps_come_in_pairs_and_for_binds() -> None:
    with pytest.raises(InvalidArgumentError, match="given together"):
        parsed("bind", type="bind", uidMappings=LINES)
    with pytest.raises(UnsupportedError, match="/d: only bind mounts can be ID-mapped"):
        parsed("idmap")


def test_labels_are_options_of_what_takes_them() -> None:
    plans = [parsed("mode=755"), parsed(type="proc"), parsed("bind", type="bind")]
    label(plans, "system_u:object_r:c")
    assert [plan.options for plan in plans] == [
        [("mode", "755"), ("context", "system_u:object_r:c")],
        [],
        [],
    ]


@pytest.mark.parametrize("recursive", ["", "r"])
def test_every_recursive_option_of_the_specification_is_known(recursive: str) -> None:
    names = "ro rw nosuid suid nodev dev noexec exec nodiratime diratime relatime norelatime"
    for name in (names + " noatime atime strictatime nostrictatime symfollow nosymfollow").split():
        assert recursive + name in known_options()
        assert parsed("rbind", recursive + name, type="bind").options == []
        assert parsed(recursive + name).options == []


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
