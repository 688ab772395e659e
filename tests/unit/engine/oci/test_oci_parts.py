"""Each concern of the document: mounts, namespaces, devices, security, process, limits."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import oci_kit as kit
import pytest

from cais.engine.oci import capabilities, devices, exec_document, masks, mounts, resources_document
from cais.engine.oci.lists import InvalidListError, parse_numbers
from cais.engine.oci.process import DEFAULT_PATH, replace_or_append
from cais.engine.oci.security import apparmor_profile, parse_security_options
from cais.errors import (
    InternalError,
    InvalidArgumentError,
    UnavailableError,
    UnsupportedError,
)
from cais.linux import apparmor
from cais.spec.container import (
    ContainerConfig,
    DeviceMapping,
    DeviceRequest,
    ExecBody,
    HostConfig,
    Resources,
    ThrottleDevice,
    Ulimit,
)
from cais.volumes.mounts import MountPoint

if TYPE_CHECKING:
    from pathlib import Path

SHM = "/dev/shm"


def _refuse_profile() -> None:
    raise UnavailableError("no")


FILES = {"/etc/hosts": "/d/hosts", "/etc/resolv.conf": "/d/resolv.conf"}


def grant(adds: list[str], drops: list[str], **changes: Any) -> set[str]:
    return {
        name.removeprefix("CAP_")
        for name in capabilities.granted(adds, drops, kit.host(**changes), privileged=False)
    }


class TestCapabilities:
    def test_add_and_drop(self) -> None:
        default = grant([], [])
        assert len(default) == 14
        assert grant(["SYS_ADMIN"], []) == default | {"SYS_ADMIN"}
        assert grant(["cap_sys_admin"], ["Kill"]) == default - {"KILL"} | {"SYS_ADMIN"}

    def test_all(self) -> None:
        assert grant([], ["ALL"]) == set()
        assert grant(["KILL"], ["all"]) == {"KILL"}
        everything = {name.removeprefix("CAP_") for name in capabilities.NAMES}
        assert grant(["ALL"], []) == everything
        assert grant(["ALL"], ["MKNOD"]) == everything - {"MKNOD"}
        assert grant(["ALL"], ["ALL"]) == everything

    def test_what_the_daemon_lacks_cannot_be_given(self) -> None:
        without = kit.ALL_CAPABILITIES & ~(1 << capabilities.NAMES.index("CAP_SYS_RESOURCE"))
        assert "SYS_RESOURCE" not in grant(["ALL"], [], capabilities=without)
        with pytest.raises(InvalidArgumentError) as refused:
            grant(["SYS_RESOURCE"], [], capabilities=without)
        assert str(refused.value) == (
            "invalid CapAdd: capability not supported by your kernel or not available in the "
            'current environment: "CAP_SYS_RESOURCE"'
        )

    def test_a_default_the_daemon_lacks_is_left_out(self) -> None:
        without = kit.ALL_CAPABILITIES & ~(1 << capabilities.NAMES.index("CAP_MKNOD"))
        assert len(grant([], [], capabilities=without)) == 13

    @pytest.mark.parametrize("field", ["CapAdd", "CapDrop"])
    def test_unknown(self, field: str) -> None:
        with pytest.raises(InvalidArgumentError) as refused:
            kit.adapt(HostConfig(**{"cap_add" if field == "CapAdd" else "cap_drop": ["Foo"]}))
        assert str(refused.value) == f'invalid {field}: unknown capability: "CAP_FOO"'

    def test_the_numbers_are_the_kernel_s(self) -> None:
        known = {"CAP_CHOWN": 0, "CAP_KILL": 5, "CAP_SYS_ADMIN": 21, "CAP_SETFCAP": 31}
        known |= {"CAP_AUDIT_READ": 37, "CAP_BPF": 39, "CAP_CHECKPOINT_RESTORE": 40}
        for name, number in known.items():
            assert capabilities.NAMES.index(name) == number


class TestMounts:
    def test_names_come_as_files(self) -> None:
        assert kit.mount_at(kit.build(files=FILES), "/etc/hosts") == {
            "destination": "/etc/hosts",
            "type": "bind",
            "source": "/d/hosts",
            "options": ["rbind", "rprivate"],
        }

    def test_a_mount_takes_a_default_s_place(self) -> None:
        points = [MountPoint("bind", "/h", "/etc/hosts"), MountPoint("bind", "/s", "/sys")]
        built = kit.build(files=FILES, mounts=points)
        hosts, sys = kit.mount_at(built, "/etc/hosts"), kit.mount_at(built, "/sys")
        assert hosts is not None
        assert hosts["source"] == "/h"
        assert sys is not None
        assert sys["type"] == "bind"

    def test_a_mount_at_dev_takes_all_of_it(self) -> None:
        built = kit.build(mounts=[MountPoint("bind", "/x", "/dev")])
        assert not any(m["destination"].startswith("/dev/") for m in built.config["mounts"])

    def test_outer_mounts_come_first(self) -> None:
        points = [MountPoint("bind", "/1", "/a/b/c"), MountPoint("bind", "/2", "/a")]
        points.append(MountPoint("tmpfs", "", "/a/b"))
        built = kit.build(mounts=points)
        assert [m["destination"] for m in built.config["mounts"][-3:]] == ["/a", "/a/b", "/a/b/c"]

    @pytest.mark.parametrize(
        ("point", "options"),
        [
            ({}, ["rbind", "rprivate"]),
            ({"rw": False}, ["rbind", "ro", "rprivate"]),
            ({"rw": False, "read_only_recursive": True}, ["rbind", "rro", "rprivate"]),
            ({"recursive": False}, ["bind", "rprivate"]),
            ({"propagation": "private"}, ["rbind", "private"]),
            ({"options": ("noexec",)}, ["rbind", "rprivate", "noexec"]),
        ],
    )
    def test_bind_options(self, point: dict[str, Any], options: list[str]) -> None:
        found = kit.mount_at(kit.build(mounts=[MountPoint("bind", "/x", "/y", **point)]), "/y")
        assert found is not None
        assert found["options"] == options

    @pytest.mark.parametrize(
        ("asked", "options"),
        [
            ((), ["noexec", "nosuid", "nodev", "rprivate"]),
            (
                ("size=64m", "mode=1777"),
                ["noexec", "nosuid", "nodev", "rprivate", "size=64m", "mode=1777"],
            ),
            (("exec", "rw"), ["nosuid", "nodev", "rprivate", "exec", "rw"]),
            (("size=1", "size=2", "defaults"), ["noexec", "nosuid", "nodev", "rprivate", "size=2"]),
        ],
    )
    def test_tmpfs_options(self, asked: tuple[str, ...], options: list[str]) -> None:
        point = MountPoint("tmpfs", "", "/t", options=asked)
        found = kit.mount_at(kit.build(mounts=[point]), "/t")
        assert found == {
            "destination": "/t",
            "type": "tmpfs",
            "source": "tmpfs",
            "options": options,
        }

    @pytest.mark.parametrize("option", ["foo", "foo=1", "upperdir=/x", "size", "=1", ""])
    def test_tmpfs_options_are_an_allow_list(self, option: str) -> None:
        with pytest.raises(InvalidArgumentError, match="Invalid tmpfs option"):
            mounts.merge_tmpfs_options([option])

    def test_a_read_only_root(self) -> None:
        points = [MountPoint("bind", "/x", "/y")]
        built = kit.build(HostConfig(readonly_rootfs=True), files=FILES, mounts=points)
        assert built.config["root"]["readonly"] is True
        read_only = {m["destination"] for m in built.config["mounts"] if "ro" in m["options"]}
        assert read_only == {"/sys", "/sys/fs/cgroup", *FILES}
        for mount in built.config["mounts"]:
            assert mount["options"].count("ro") <= 1

    def test_privileged_may_write_to_sys_and_cgroups(self) -> None:
        built = kit.build(HostConfig(privileged=True))
        for destination in ("/sys", "/sys/fs/cgroup"):
            found = kit.mount_at(built, destination)
            assert found is not None
            assert "ro" not in found["options"]
        assert built.config["linux"]["maskedPaths"] == []
        assert built.config["linux"]["readonlyPaths"] == []

    def test_cgroups_are_read_only_in_both_namespace_modes(self) -> None:
        """SECURITY.md A14."""
        for mode in ("host", "private"):
            for version in (1, 2):
                built = kit.build(HostConfig(cgroupns_mode=mode), on=kit.host(version))
                found = kit.mount_at(built, "/sys/fs/cgroup")
                assert found is not None
                assert {"ro", "nosuid", "noexec", "nodev"} <= set(found["options"])

    @pytest.mark.parametrize(
        ("mode", "path", "kind", "source"),
        [
            ("private", None, "tmpfs", "shm"),
            ("shareable", None, "tmpfs", "shm"),
            ("shareable", "/shared", "bind", "/shared"),
            ("container:x", "/shared", "bind", "/shared"),
            ("host", None, "bind", SHM),
        ],
    )
    def test_shared_memory(self, mode: str, path: str | None, kind: str, source: str) -> None:
        spaces = {"ipc": "/proc/5/ns/ipc"} if mode.startswith("container") else {}
        built = kit.build(HostConfig(ipc_mode=mode), shm_path=path, namespaces=spaces)
        found = kit.mount_at(built, SHM)
        assert found is not None
        assert (found["type"], found["source"]) == (kind, source)

    def test_no_shared_memory(self) -> None:
        assert kit.mount_at(kit.build(HostConfig(ipc_mode="none")), SHM) is None

    def test_its_size(self) -> None:
        found = kit.mount_at(kit.build(HostConfig(shm_size=123)), SHM)
        assert found is not None
        assert "size=123" in found["options"]

    def test_sharing_needs_a_shared_source(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        table = tmp_path / "mountinfo"
        table.write_text(
            "1 0 0:1 / / rw - ext4 x rw\n"
            "2 1 0:2 / /s rw shared:1 - ext4 x rw\n"
            "3 1 0:3 / /m rw master:1 - ext4 x rw\n"
        )
        monkeypatch.setattr(mounts, "MOUNTINFO", str(table))
        shared = MountPoint("bind", "/s/x", "/y", propagation="rshared")
        assert kit.build(mounts=[shared]).config["linux"]["rootfsPropagation"] == "shared"
        slave = MountPoint("bind", "/m", "/y", propagation="slave")
        assert kit.build(mounts=[slave]).config["linux"]["rootfsPropagation"] == "rslave"
        for source, propagation, why in (
            ("/x", "shared", "path /x is mounted on / but it is not a shared mount"),
            ("/m/x", "rshared", "path /m/x is mounted on /m but it is not a shared mount"),
            ("/x", "rslave", "path /x is mounted on / but it is not a shared or slave mount"),
            ("/sx", "shared", "path /sx is mounted on / but it is not a shared mount"),
        ):
            with pytest.raises(InvalidArgumentError) as refused:
                kit.build(mounts=[MountPoint("bind", source, "/y", propagation=propagation)])
            assert str(refused.value) == why

    def test_a_directory_in_a_volume_is_refused_clearly(self) -> None:
        with pytest.raises(UnsupportedError, match="volume-subpath"):
            kit.build(mounts=[MountPoint("volume", "/v/_data", "/y", subpath="a")])

    def test_masks_follow_the_api(self) -> None:
        assert masks.masked_paths(HostConfig(masked_paths=["/x"])) == ["/x"]
        assert masks.masked_paths(HostConfig(masked_paths=[])) == []
        assert masks.read_only_paths(HostConfig(readonly_paths=[])) == []
        assert masks.read_only_paths(HostConfig(readonly_paths=["/y"], privileged=True)) == []
        built = kit.build(HostConfig(security_opt=["systempaths=unconfined"]))
        assert "maskedPaths" not in built.config["linux"]


class TestNamespaces:
    def kinds(self, host_config: HostConfig, **target: Any) -> dict[str, str | None]:
        built = kit.build(host_config, ContainerConfig(cmd=["x"]), **target)
        return {n["type"]: n.get("path") for n in built.config["linux"]["namespaces"]}

    def test_host_modes_take_namespaces_away(self) -> None:
        assert "network" not in self.kinds(HostConfig(network_mode="host"))
        assert "pid" not in self.kinds(HostConfig(pid_mode="host"))
        assert "ipc" not in self.kinds(HostConfig(ipc_mode="host"))
        assert "uts" not in self.kinds(HostConfig(uts_mode="host"))
        assert "cgroup" not in self.kinds(HostConfig(cgroupns_mode="host"), on=kit.host(2))
        assert "cgroup" in self.kinds(HostConfig(cgroupns_mode="private"))
        assert "hostname" not in kit.build(HostConfig(uts_mode="host"), ContainerConfig()).config

    def test_namespaces_that_exist_are_entered(self) -> None:
        spaces = {"network": "/run/netns/x", "pid": "/proc/7/ns/pid", "ipc": "/proc/7/ns/ipc"}
        modes = HostConfig(pid_mode="container:a", ipc_mode="container:a")
        found = self.kinds(modes, namespaces=spaces, shm_path="/s")
        assert {kind: found[kind] for kind in spaces} == spaces

    def test_a_container_to_share_with_must_run(self) -> None:
        with pytest.raises(InvalidArgumentError, match="pid namespace of other: not running"):
            self.kinds(HostConfig(pid_mode="container:other"))

    def test_sysctls_of_the_network_come_with_an_own_network(self) -> None:
        for mode, count in (("bridge", 2), ("none", 2), ("host", 0), ("container:x", 0)):
            spaces = {"network": "/n"}
            built = kit.build(HostConfig(network_mode=mode), ContainerConfig(), namespaces=spaces)
            assert len(built.config["linux"]["sysctl"]) == count

    def test_a_sysctl_asked_for_wins(self) -> None:
        asked = {"net.ipv4.ping_group_range": "1 0", "kernel.sem": "1 2 3 4"}
        found = kit.build(HostConfig(sysctls=asked)).config["linux"]["sysctl"]
        assert found["net.ipv4.ping_group_range"] == "1 0"
        assert found["kernel.sem"] == "1 2 3 4"


class TestDevices:
    def test_a_device(self) -> None:
        null = DeviceMapping("/dev/null", "/dev/nothing", "r")
        built = kit.build(HostConfig(devices=[null]))
        [node] = built.config["linux"]["devices"]
        assert (node["path"], node["type"], node["major"], node["minor"]) == (
            *("/dev/nothing", "c", 1, 3),
        )
        rules = built.config["linux"]["resources"]["devices"]
        assert rules[-1] == {"allow": True, "type": "c", "major": 1, "minor": 3, "access": "r"}

    def test_a_link_to_a_device(self, tmp_path: Path) -> None:
        (tmp_path / "link").symlink_to("/dev/null")
        (tmp_path / "evil").symlink_to("/etc/passwd")
        [node], _ = devices.devices_and_rules(
            HostConfig(devices=[DeviceMapping(f"{tmp_path}/link", "/dev/x", "rwm")])
        )
        assert (node["path"], node["minor"]) == ("/dev/x", 3)
        assert devices._resolve(f"{tmp_path}/evil") == f"{tmp_path}/evil"
        assert devices._resolve(f"{tmp_path}/link") == "/dev/null"
        with pytest.raises(InvalidArgumentError, match="not a device node"):
            devices.devices_and_rules(
                HostConfig(devices=[DeviceMapping(f"{tmp_path}/evil", "/dev/x", "rwm")])
            )

    @pytest.mark.parametrize(
        ("path", "why"),
        [
            ("/dev/not-there", "no such file or directory"),
            ("/etc/passwd", "not a device node"),
            ("/etc", "not a device node"),
            ("/a\0b", "no such file or directory"),
        ],
    )
    def test_no_device(self, path: str, why: str) -> None:
        with pytest.raises(InvalidArgumentError) as refused:
            kit.build(HostConfig(devices=[DeviceMapping(path, "/dev/x", "rwm")]))
        assert str(refused.value) == (
            f'error gathering device information while adding custom device "{path}": {why}'
        )

    def test_a_mode_that_is_none(self) -> None:
        with pytest.raises(InvalidArgumentError, match="invalid device mode: rx"):
            kit.build(HostConfig(devices=[DeviceMapping("/dev/null", "/dev/x", "rx")]))

    def test_rules(self) -> None:
        built = kit.build(HostConfig(device_cgroup_rules=["c 42:* rmw", "a *:* r"]))
        assert built.config["linux"]["resources"]["devices"][-2:] == [
            {"allow": True, "type": "c", "major": 42, "minor": -1, "access": "rmw"},
            {"allow": True, "type": "a", "major": -1, "minor": -1, "access": "r"},
        ]

    @pytest.mark.parametrize(
        "rule", ["", "c 1:3", "d 1:3 r", "c 1:3 x", "c 1 r", "c 1:3 rwmr", "c 1:3 r\n", "c ٣:1 r"]
    )
    def test_rules_that_are_none(self, rule: str) -> None:
        with pytest.raises(InvalidArgumentError, match="invalid device cgroup rule format: '"):
            kit.adapt(HostConfig(device_cgroup_rules=[rule]))

    def test_privileged_has_the_host_s(self) -> None:
        built = kit.build(HostConfig(privileged=True))
        paths = {node["path"] for node in built.config["linux"]["devices"]}
        assert "/dev/null" in paths
        assert not any(path.startswith(("/dev/pts/", SHM)) for path in paths)
        assert "/dev/console" not in paths
        assert built.config["linux"]["resources"]["devices"] == [{"allow": True, "access": "rwm"}]

    def test_devices_by_capability_are_refused_clearly(self) -> None:
        request = DeviceRequest(count=-1, capabilities=[["gpu"]])
        with pytest.raises(UnsupportedError) as refused:
            kit.build(HostConfig(device_requests=[request]))
        assert str(refused.value) == (
            'could not select device driver "" with capabilities: [[gpu]]'
        )


class TestSecurityOptions:
    def test_no_new_privileges(self) -> None:
        for option, value in (
            ("no-new-privileges", True),
            ("no-new-privileges=true", True),
            ("no-new-privileges:true", True),
            ("no-new-privileges=false", False),
        ):
            built = kit.build(HostConfig(security_opt=[option]))
            assert built.config["process"]["noNewPrivileges"] is value

    @pytest.mark.parametrize(
        ("option", "text"),
        [
            ("foo", 'invalid --security-opt 1: "foo"'),
            ("foo=bar", 'invalid --security-opt 2: "foo=bar"'),
            ("no-new-privileges=maybe", 'invalid --security-opt 2: "no-new-privileges=maybe"'),
            ("systempaths=x", 'invalid --security-opt 2: "systempaths=x"'),
            ("seccomp={", "Decoding seccomp profile failed: invalid JSON"),
            ("seccomp=[]", "Decoding seccomp profile failed"),
            ('seccomp={"a":1,"a":2}', "duplicate key"),
        ],
    )
    def test_options_that_are_none(self, option: str, text: str) -> None:
        with pytest.raises(InvalidArgumentError) as refused:
            kit.adapt(HostConfig(security_opt=[option]))
        assert text in str(refused.value)

    @pytest.mark.parametrize(
        ("asked", "stored"),
        [
            ({"privileged": True}, ["label=disable"]),
            (
                {"pid_mode": "host", "security_opt": ["seccomp=unconfined"]},
                ["seccomp=unconfined", "label=disable"],
            ),
            ({"ipc_mode": "host", "security_opt": ["label=type:x"]}, ["label=type:x"]),
            ({}, None),
        ],
    )
    def test_who_sees_the_host_has_no_label(self, asked: Any, stored: list[str] | None) -> None:
        assert kit.adapt(HostConfig(**asked))[0].security_opt == stored

    def test_labels_have_no_effect_without_selinux(self) -> None:
        options = ["label=disable", "label=user:x", "disable", "apparmor=unconfined"]
        assert kit.build(HostConfig(security_opt=options)).config == kit.build().config

    def test_apparmor(self, monkeypatch: pytest.MonkeyPatch) -> None:
        on_host = {"mine"}
        monkeypatch.setattr(apparmor, "is_loaded", on_host.__contains__)
        monkeypatch.setattr(apparmor, "ensure_default", lambda: on_host.add("docker-default"))
        loaded = kit.host(apparmor=True)

        def profile(on: Any, *options: str, privileged: bool = False) -> str | None:
            return apparmor_profile(parse_security_options(options), on, privileged=privileged)

        assert profile(kit.host(), "apparmor=mine") is None
        assert profile(loaded) == "docker-default"
        assert "docker-default" in on_host
        assert profile(loaded, privileged=True) == "unconfined"
        assert profile(loaded, "apparmor=mine", privileged=True) == "mine"
        assert profile(loaded, "apparmor=unconfined") == "unconfined"
        with pytest.raises(InvalidArgumentError, match="not loaded: other"):
            profile(loaded, "apparmor=other")

    def test_an_apparmor_profile_that_cannot_be_loaded(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(apparmor, "ensure_default", _refuse_profile)
        with pytest.raises(InternalError, match="docker-default profile could not be loaded: no"):
            apparmor_profile(parse_security_options([]), kit.host(apparmor=True), privileged=False)

    def test_the_filter(self, tmp_path: Path) -> None:
        on = kit.host(seccomp=True)
        custom = 'seccomp={"defaultAction":"SCMP_ACT_ALLOW"}'

        def program(host_config: HostConfig) -> str | None:
            path: str | None = kit.build(host_config, on=on, seccomp_dir=tmp_path).cais["seccomp"]
            assert path is None or os.path.dirname(path) == str(tmp_path)
            return path

        default = program(HostConfig())
        assert default is not None
        assert program(HostConfig(security_opt=["seccomp=builtin"])) == default
        assert program(HostConfig(cap_add=["SYS_ADMIN"])) not in (None, default)
        assert program(HostConfig(security_opt=["seccomp=unconfined"])) is None
        assert program(HostConfig(privileged=True)) is None
        for privileged in (False, True):
            asked = HostConfig(privileged=privileged, security_opt=[custom])
            assert program(asked) not in (None, default)

    def test_a_profile_with_a_listener_is_left_to_the_runtime(self, tmp_path: Path) -> None:
        profile = (
            'seccomp={"defaultAction":"SCMP_ACT_ALLOW","listenerPath":"/a","listenerMetadata":"m",'
            '"syscalls":[{"names":["mkdir"],"action":"SCMP_ACT_NOTIFY"}]}'
        )
        host_config = HostConfig(security_opt=[profile])
        built = kit.build(host_config, on=kit.host(seccomp=True), seccomp_dir=tmp_path)
        assert built.cais.get("seccomp") is None
        rules = built.config["linux"]["seccomp"]
        assert (rules["listenerPath"], rules["listenerMetadata"]) == ("/a", "m")
        assert rules["syscalls"] == [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]

    def test_the_filter_is_made_again_when_it_is_gone(self, tmp_path: Path) -> None:
        on = kit.host(seccomp=True)
        for _ in range(2):
            path = kit.build(on=on, seccomp_dir=tmp_path).cais["seccomp"]
            assert os.path.exists(path)
            os.unlink(path)

    def test_a_kernel_without_filters(self) -> None:
        assert kit.build().warnings == [
            "seccomp is not enabled in your kernel, running container without default profile"
        ]
        with pytest.raises(InvalidArgumentError, match="cannot run a custom seccomp profile"):
            kit.build(HostConfig(security_opt=['seccomp={"defaultAction":"SCMP_ACT_ALLOW"}']))


class TestProcess:
    @pytest.mark.parametrize(
        ("overrides", "merged"),
        [
            ([], ["PATH=/a", "X=1"]),
            (["X=2"], ["PATH=/a", "X=2"]),
            (["X"], ["PATH=/a"]),
            (["X="], ["PATH=/a", "X="]),
            (["Y=1", "Y=2"], ["PATH=/a", "X=1", "Y=2"]),
            (["Z"], ["PATH=/a", "X=1"]),
            (["E=a=b"], ["PATH=/a", "X=1", "E=a=b"]),
        ],
    )
    def test_environment(self, overrides: list[str], merged: list[str]) -> None:
        assert replace_or_append(["PATH=/a", "X=1"], overrides) == merged

    def test_ulimits(self) -> None:
        asked = [Ulimit("nofile", 1, 1), Ulimit("nofile", 200, 100), Ulimit("core", -1, -1)]
        process = kit.build(HostConfig(ulimits=asked)).config["process"]
        assert process["rlimits"] == [
            {"type": "RLIMIT_NOFILE", "soft": 100, "hard": 200},
            {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1},
        ]

    def test_exec_is_like_the_container(self) -> None:
        config = ContainerConfig(cmd=["x"], user="u", working_dir="/w", env=["A=1"], hostname="h")
        limits = [Ulimit("nofile", 2, 2)]
        host_config = HostConfig(
            cap_drop=["ALL"], group_add=["g"], ulimits=limits, security_opt=["no-new-privileges"]
        )
        body = ExecBody(cmd=["ls"], env=["A=2", "B=3"])
        document = exec_document(body, config, host_config, kit.host())
        process = document["process"]
        assert document["user"] == "u"
        assert document["additional_groups"] == ["g"]
        assert (process["cwd"], process["args"]) == ("/w", ["ls"])
        assert process["env"][1:] == ["HOSTNAME=h", "A=2", "B=3"]
        assert process["capabilities"]["bounding"] == []
        assert process["noNewPrivileges"] is True
        assert process["rlimits"][0]["hard"] == 2
        assert "consoleSize" not in process

    def test_exec_has_the_container_s_profile_and_its_own_terminal(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(apparmor, "ensure_default", lambda: None)
        config = ContainerConfig(cmd=["x"], tty=True)
        on = kit.host(apparmor=True)
        for privileged in (False, True):
            body = ExecBody(cmd=["ls"], privileged=privileged)
            process = exec_document(body, config, HostConfig(), on)["process"]
            assert process["apparmorProfile"] == "docker-default"
            assert process["env"] == [f"PATH={DEFAULT_PATH}", "HOSTNAME="]

    def test_exec_s_own(self) -> None:
        body = ExecBody(
            cmd=["sh"], user="0", working_dir="/", tty=True, privileged=True, console_size=(5, 6)
        )
        document = exec_document(body, ContainerConfig(working_dir="/w"), HostConfig(), kit.host())
        assert document["user"] == "0"
        assert document["process"]["cwd"] == "/"
        assert "TERM=xterm" in document["process"]["env"]
        assert len(document["process"]["capabilities"]["bounding"]) == 41
        assert set(document["process"]["capabilities"]) == {"bounding", "permitted", "effective"}
        assert document["process"]["consoleSize"] == {"height": 5, "width": 6}

    @pytest.mark.parametrize(
        ("body", "text"),
        [
            (ExecBody(), "No exec command specified"),
            (ExecBody(cmd=["x"], working_dir="rel"), "must be an absolute path"),
        ],
    )
    def test_execs_that_cannot_be(self, body: ExecBody, text: str) -> None:
        with pytest.raises(InvalidArgumentError, match=text):
            exec_document(body, ContainerConfig(), HostConfig(), kit.host())


class TestResources:
    @pytest.mark.parametrize(
        ("asked", "expected"),
        [
            ({}, {}),
            ({"memory": 7, "memory_swap": 9}, {"memory": {"limit": 7, "swap": 9}}),
            ({"memory_swap": -1}, {"memory": {"swap": -1}}),
            ({"memory_swappiness": 0}, {"memory": {"swappiness": 0}}),
            ({"oom_kill_disable": False}, {}),
            ({"oom_kill_disable": True}, {"memory": {"disableOOMKiller": True}}),
            ({"nano_cpus": 500_000_000}, {"cpu": {"period": 100_000, "quota": 50_000}}),
            ({"nano_cpus": 10_000_000}, {"cpu": {"period": 100_000, "quota": 1000}}),
            ({"cpu_quota": -1, "cpu_period": 5}, {"cpu": {"period": 5, "quota": -1}}),
            ({"cpuset_cpus": "0", "cpu_shares": 2}, {"cpu": {"shares": 2, "cpus": "0"}}),
            ({"pids_limit": 5}, {"pids": {"limit": 5}}),
            ({"pids_limit": 0}, {"pids": {"limit": -1}}),
            ({"pids_limit": -1}, {"pids": {"limit": -1}}),
            ({"pids_limit": None}, {}),
            ({"blkio_weight": 10}, {"blockIO": {"weight": 10}}),
        ],
    )
    def test_conversion(self, asked: dict[str, Any], expected: object) -> None:
        assert resources_document(Resources(**asked)) == expected

    def test_a_block_device_that_is_none(self) -> None:
        for path, text in (
            ("/dev/nope", "stat /dev/nope: no such file or directory"),
            ("/dev/null", "/dev/null: not a block device"),
        ):
            with pytest.raises(InvalidArgumentError, match=text):
                resources_document(Resources(blkio_device_read_bps=[ThrottleDevice(path, 1)]))


class TestLists:
    @pytest.mark.parametrize(
        ("text", "numbers"),
        [("", set()), ("0", {0}), ("0-2,5", {0, 1, 2, 5}), ("1,1,1", {1}), ("8192", {8192})],
    )
    def test_lists(self, text: str, numbers: set[int]) -> None:
        assert parse_numbers(text) == numbers

    @pytest.mark.parametrize(
        "text",
        [  # CVE-2018-20699 (SECURITY.md G4)
            "0-9223372036854775807",
            "0-9223372036854775806,1",
            "8193",
            "0-8193",
            "9" * 100_000,
            "1," * 1_000_000,
            *("-1", "1-", "-", ",", "1,,2", "a", "1-2-3", "3-1", "٣", "1_0", "0x1", "1.5", "+1"),
        ],
    )
    def test_what_is_no_list_is_refused(self, text: str) -> None:
        with pytest.raises(InvalidListError) as refused:
            parse_numbers(text)
        assert len(str(refused.value)) < 200
