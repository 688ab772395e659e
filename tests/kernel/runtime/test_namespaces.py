"""Kernel tests of namespaces: those joined by path, user and time namespaces in all their ways."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from neighbours import BASE, holder
from peers import BOTH, Peer

from cais.errors import InvalidArgumentError
from cais.runtime import foreign_proc
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, Capture, end
from cais.testing.isolation import isolated

if TYPE_CHECKING:
    from collections.abc import Iterator

READ = "for n in user mnt pid net uts ipc cgroup time; do readlink /proc/self/ns/$n; done"


@pytest.fixture
def open_path() -> Iterator[Path]:
    """Give a directory that the root of a user namespace may walk to."""
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        yield Path(name)


def with_namespaces(bundle: Bundle, *new: str, **paths: object) -> None:
    bundle.linux["namespaces"] = [
        *({"type": kind} for kind in new),
        *({"type": kind, "path": str(path)} for kind, path in paths.items()),
    ]


def names(text: str) -> dict[str, str]:
    return {line.split(":")[0]: line for line in text.split()}


@pytest.mark.parametrize("kind", ["network", "uts", "ipc", "cgroup", "time", "mount"])
def test_a_namespace_by_path(tmp_path: Path, kind: str) -> None:
    # oci: linux.namespaces.type, .path
    name = {"network": "net", "mount": "mnt"}.get(kind, kind)

    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.config["hostname"] = ""
        others = [each for each in ("mount", "pid", "uts", "ipc", "network") if each != kind]
        with holder(f"--{'net' if name == 'net' else kind}") as pid:
            path = f"/proc/{pid}/ns/{name}"
            wanted = os.readlink(path)
            with_namespaces(bundle, *others, **{kind: path})
            found = names(bundle.shell(READ).stdout)
        assert found[name] == wanted
        assert found["user"] == os.readlink("/proc/self/ns/user")

    isolated(body)


USER = ("--user", "--net", "--uts")


@pytest.mark.parametrize("pid_kind", ["new", "host", "path"])
def test_a_user_namespace_by_path(tmp_path: Path, pid_kind: str) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.process["oomScoreAdj"] = 55
        subprocess.run(["chown", "-hR", f"{BASE}:{BASE}", bundle.rootfs], check=True)
        home_ipc = os.readlink("/proc/self/ns/ipc")
        # Only the owner of a namespace makes file systems of it.
        mounts = bundle.config["mounts"]
        mounts[:] = [entry for entry in mounts if entry["type"] != "mqueue"]
        if pid_kind == "host":
            mounts[0] |= {"type": "bind", "source": "/proc", "options": ["rbind"]}
        more = ["--pid"] if pid_kind == "path" else []
        with holder(*USER, *more) as pid:
            paths = {"user": f"/proc/{pid}/ns/user", "network": f"/proc/{pid}/ns/net"}
            paths |= {"uts": f"/proc/{pid}/ns/uts", "ipc": "/proc/self/ns/ipc"}
            if pid_kind == "path":
                paths["pid"] = f"/proc/{pid}/ns/pid"
            wanted = [os.readlink(f"/proc/{pid}/ns/{name}") for name in ("user", "net", "uts")]
            with_namespaces(bundle, "mount", *(["pid"] if pid_kind == "new" else []), **paths)
            script = f"{READ}; cat /proc/self/oom_score_adj; touch /made; stat -c %u:%t /dev/zero"
            result = bundle.shell(f"{script}; echo $$; cat /proc/self/uid_map")
            lines = result.stdout.split()
        found = names("\n".join(lines[:8]))
        assert [found[name] for name in ("user", "net", "uts")] == wanted
        assert found["ipc"] == home_ipc
        assert lines[8:10] == ["55", "65534:1"]
        assert (lines[10] == "1") == (pid_kind == "new")
        assert lines[11:] == ["0", str(BASE), "65536"]
        assert os.stat(bundle.rootfs / "made").st_uid == BASE

    isolated(body)


def test_exec_into_a_joined_user_namespace_and_a_terminal(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        subprocess.run(["chown", "-hR", f"{BASE}:{BASE}", bundle.rootfs], check=True)
        with holder(*USER) as pid:
            with_namespaces(bundle, "mount", "pid", "uts", "ipc", user=f"/proc/{pid}/ns/user")
            bundle.process.update(terminal=True)
            init = bundle.start("sleep", "60", stdio=None)
            assert init.terminal_fd is not None
            with Capture():
                result = bundle.execute(init, "sh", "-c", "id -u; readlink /proc/1/fd/0")
            os.kill(init.pid, 9)
            end(init)
            bundle.destroy()
        assert result.stdout.split() == ["0", "/dev/pts/0"]

    isolated(body)


def test_an_id_mapped_mount_has_the_joined_namespace_s_maps(tmp_path: Path) -> None:
    def body() -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data/file").touch()
        bundle = Bundle(tmp_path)
        subprocess.run(["chown", "-hR", f"{BASE}:{BASE}", bundle.rootfs], check=True)
        bundle.config["mounts"].append(
            {"destination": "/v", "type": "bind", "source": "data", "options": ["bind", "idmap"]}
        )
        with holder(*USER) as pid:
            with_namespaces(bundle, "mount", "pid", "uts", "ipc", user=f"/proc/{pid}/ns/user")
            result = bundle.shell("stat -c %u /v/file; touch /v/new")
        assert result.stdout == "0\n"
        assert os.stat(tmp_path / "data/new").st_uid == 0

    isolated(body)


@pytest.mark.parametrize("kind", ["network", "uts", "ipc", "cgroup", "time"])
def test_a_namespace_by_path_beside_a_new_user_namespace(tmp_path: Path, kind: str) -> None:
    name = {"network": "net"}.get(kind, kind)

    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.config["hostname"] = ""
        subprocess.run(["chown", "-hR", f"{BASE}:{BASE}", bundle.rootfs], check=True)
        mapping = [{"containerID": 0, "hostID": BASE, "size": 65536}]
        bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
        mounts = bundle.config["mounts"]
        mounts[:] = [entry for entry in mounts if entry["type"] != "mqueue"]
        home = os.readlink(f"/proc/self/ns/{name}")
        others = [each for each in ("mount", "pid", "uts", "ipc", "network") if each != kind]
        with holder(f"--{name}") as pid:
            path = f"/proc/{pid}/ns/{name}"
            wanted = os.readlink(path)
            with_namespaces(bundle, "user", *others, **{kind: path})
            found = names(bundle.shell(READ).stdout)
        assert found[name] == wanted
        assert os.readlink(f"/proc/self/ns/{name}") == home  # the parent is back where it was

    isolated(body)


def test_host_and_domain_name(tmp_path: Path) -> None:
    # oci: hostname, domainname

    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.config |= {"hostname": "inner", "domainname": "example.org"}
        host = os.uname().nodename
        result = bundle.run("cat", "/proc/sys/kernel/hostname", "/proc/sys/kernel/domainname")
        assert result.stdout.split() == ["inner", "example.org"]
        assert os.uname().nodename == host

    isolated(body)


def test_the_host_s_mount_namespace_keeps_its_root(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path)
    with_namespaces(bundle, "pid", "uts", mount="/proc/self/ns/mnt")
    with pytest.raises(InvalidArgumentError, match="mount namespace /proc/self/ns/mnt is the host"):
        bundle.start("true", stdio=None)


@pytest.mark.parametrize("name", ["hostname", "domainname"])
def test_the_host_keeps_its_names(tmp_path: Path, name: str) -> None:
    bundle = Bundle(tmp_path)
    bundle.config |= {"hostname": "", name: "taken"}
    with_namespaces(bundle, "pid", "mount", uts="/proc/self/ns/uts")
    with pytest.raises(InvalidArgumentError, match=f"unable to set {name} without a private UTS"):
        bundle.start("true", stdio=None)


def test_a_foreign_mount_namespace_is_no_part_of_a_new_user_namespace(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        mapping = [{"containerID": 0, "hostID": BASE, "size": 1}]
        bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
        with holder("--mount") as pid:
            with_namespaces(bundle, "pid", "uts", "user", mount=f"/proc/{pid}/ns/mnt")
            with pytest.raises(InvalidArgumentError, match="mount namespace by path"):
                bundle.start("true", stdio=None)

    isolated(body)


@pytest.mark.parametrize("kind", ["network", "pid", "uts", "user", "time", "mount"])
@pytest.mark.parametrize("path", ["/proc/self/ns/ipc", "/etc/passwd"])
def test_a_path_that_is_no_namespace_of_its_kind_is_refused(
    tmp_path: Path, kind: str, path: str
) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.config["hostname"] = ""
        others = [each for each in ("mount", "pid", "uts", "network") if each != kind]
        with_namespaces(bundle, *others, **{kind: path})
        with pytest.raises(LaunchError, match=f"{kind} namespace {path}: not a {kind} namespace"):
            bundle.run("true")

    isolated(body)


def test_a_missing_namespace_is_named(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        with_namespaces(bundle, "mount", "uts", user="/nowhere")
        with pytest.raises(LaunchError, match="user namespace /nowhere: no such file"):
            bundle.run("true")

    isolated(body)


@pytest.mark.parametrize("name", BOTH)
@pytest.mark.parametrize(
    ("kind", "filesystem", "flag"), [("pid", "proc", "--pid"), ("ipc", "mqueue", "--ipc")]
)
def test_what_belongs_to_another_user_cannot_be_shown(
    open_path: Path, name: str, kind: str, filesystem: str, flag: str
) -> None:
    """A new user namespace has no privilege over one that was there before it; ours says so."""

    def body() -> None:
        bundle = Bundle(open_path)
        subprocess.run(["chown", "-hR", f"{BASE}:{BASE}", bundle.rootfs], check=True)
        ids = [{"containerID": 0, "hostID": BASE, "size": 65536}]
        bundle.linux.update(uidMappings=ids, gidMappings=ids)
        others = [each for each in ("mount", "pid", "uts", "ipc", "network") if each != kind]
        with holder(flag) as pid:
            with_namespaces(bundle, "user", *others, **{kind: f"/proc/{pid}/ns/{kind}"})
            bundle.save()
            said = Peer(name, bundle, open_path)("run", f"{name}-{os.getpid()}", ok=False).stderr
        assert f'error mounting "{filesystem}" to rootfs at' in said.replace("\\", "")
        assert "operation not permitted" in said
        if name == "cais":
            assert f"(its {kind} namespace belongs to another user namespace)" in said

    isolated(body)


def uptime(text: str) -> float:
    return float(text.split(maxsplit=1)[0])


@pytest.mark.parametrize("user", [False, True])
def test_a_time_namespace_has_its_offsets(tmp_path: Path, user: bool) -> None:
    # oci: linux.timeOffsets.boottime, .monotonic, TimeOffsets.secs, .nanosecs

    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["namespaces"].append({"type": "time"})
        bundle.linux["timeOffsets"] = {
            "boottime": {"secs": 1_000_000, "nanosecs": 5},
            "monotonic": {"secs": 7, "nanosecs": 3},
        }
        if user:
            subprocess.run(["chown", "-hR", f"{BASE}:{BASE}", bundle.rootfs], check=True)
            mapping = [{"containerID": 0, "hostID": BASE, "size": 65536}]
            bundle.linux["namespaces"].append({"type": "user"})
            bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
        before = uptime(Path("/proc/uptime").read_text())
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            result = bundle.execute(init, "sh", "-c", "cat /proc/uptime /proc/1/timens_offsets")
            own = os.readlink(f"/proc/{init.pid}/ns/time")
            os.kill(init.pid, 9)
            end(init)
            bundle.destroy()
        shift = uptime(result.stdout) - before
        assert 1_000_000 <= shift < 1_000_060
        assert re.findall(r"(\w+) +(\d+) +(\d+)", result.stdout) == [
            ("monotonic", "7", "3"),
            ("boottime", "1000000", "5"),
        ]
        assert own != os.readlink("/proc/self/ns/time")

    isolated(body)


def test_offsets_need_a_new_time_namespace(tmp_path: Path) -> None:
    bundle = Bundle(tmp_path)
    bundle.linux["namespaces"].append({"type": "time", "path": "/proc/self/ns/time"})
    bundle.linux["timeOffsets"] = {"monotonic": {"secs": 7}}
    with pytest.raises(InvalidArgumentError, match="need a time namespace that is new"):
        bundle.start("true", stdio=None)


def test_an_impossible_offset_says_so(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        bundle.linux["namespaces"].append({"type": "time"})
        bundle.linux["timeOffsets"] = {"monotonic": {"secs": -(10**12)}}
        with pytest.raises(LaunchError, match="write timens_offsets 'monotonic -1000000000000 0'"):
            bundle.run("true")

    isolated(body)


def test_many_lines_of_identity_maps(tmp_path: Path) -> None:
    # oci: linux.uidMappings, linux.gidMappings

    def body() -> None:
        bundle = Bundle(tmp_path)
        subprocess.run(["chown", "-hR", f"{BASE}:{BASE}", bundle.rootfs], check=True)
        lines = [
            {"containerID": number, "hostID": BASE + 2 * number, "size": 1} for number in range(250)
        ]
        bundle.linux["namespaces"].append({"type": "user"})
        bundle.linux.update(uidMappings=lines, gidMappings=lines)
        result = bundle.shell("wc -l < /proc/self/uid_map; tail -n 1 /proc/self/gid_map")
        assert result.stdout.split() == ["250", "249", str(BASE + 498), "1"]

    isolated(body)


def test_a_pid_namespace_where_proc_cannot_be_made_from_outside(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before Linux 6.18 procfs has no ``pidns=``."""
    monkeypatch.setattr(foreign_proc, "knows_option", lambda: False)

    def body() -> None:
        bundle = Bundle(tmp_path)
        with holder("--pid") as pid:
            path = f"/proc/{pid}/ns/pid"
            with_namespaces(bundle, "mount", "uts", "ipc", "network", pid=path)
            wanted = os.readlink(path)
            result = bundle.shell("readlink /proc/self/ns/pid; echo $$; cat /proc/1/comm")
        assert result.stdout.split()[0] == wanted, result.stderr
        assert int(result.stdout.split()[1]) > 1
        assert result.stdout.split()[2] == "sleep"

    isolated(body)
