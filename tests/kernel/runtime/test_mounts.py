"""Kernel tests of mounts: every option in effect, places found inside the root."""

from __future__ import annotations

import os
import resource
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from cais.errors import InvalidArgumentError, UnsupportedError
from cais.runtime.launch import LaunchError
from cais.testing.bundles import Bundle, Capture, Result, end
from cais.testing.isolation import isolated
from cais.testing.waiting import PATIENCE_S

if TYPE_CHECKING:
    from collections.abc import Iterator

RUNTIMES = ["ours", "runc"]


def run(bundle: Bundle, runtime: str, *args: str) -> Result:
    """Run the bundle to its end, by this runtime or by runc: a wrong test fails there, too."""
    if runtime == "ours":
        return bundle.run(*args)
    bundle.process["args"] = list(args)
    bundle.save()
    command = [
        "runc",
        "--root",
        str(bundle.path / "runc"),
        "run",
        "-b",
        str(bundle.path),
        bundle.id,
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    return Result(done.returncode, done.stdout, done.stderr, [])


def add(
    bundle: Bundle, destination: str, kind: str = "bind", source: object = "", **more: Any
) -> None:
    options = more.pop("options", "")
    entry = {"destination": destination, "type": kind, "source": str(source), **more}
    bundle.config["mounts"].append(entry | {"options": options.split(",") if options else []})


def mounted(text: str) -> dict[str, list[str]]:
    """Return mountinfo as mount point -> fields, the last mount at a place."""
    return {line.split()[4]: line.split() for line in text.splitlines()}


def tree(tmp_path: Path, *what: str) -> Path:
    """Make a directory with another mounted below, a tmpfs unless told, and return it."""
    source = tmp_path / "source"
    (source / "sub").mkdir(parents=True)
    subprocess.run(["mount", *(what or ("-t", "tmpfs", "sub")), source / "sub"], check=True)
    (source / "sub/file").write_text("below\n")
    return source


def untree(source: Path) -> None:
    subprocess.run(["umount", source / "sub"], check=True)


RECURSIVE = [
    *("rro", "rnosuid", "rnodev", "rnoexec", "rnodiratime", "rnosymfollow"),
    *("rnoatime", "rstrictatime"),
]


@pytest.mark.parametrize("runtime", RUNTIMES)
@pytest.mark.parametrize("option", RECURSIVE)
def test_a_recursive_option_reaches_the_mounts_below(
    tmp_path: Path, option: str, runtime: str
) -> None:
    # oci: mounts.options

    shown = {"rstrictatime": "relatime"}.get(option, option[1:])

    def body() -> None:
        source = tree(tmp_path)
        bundle = Bundle(tmp_path / "b")
        add(bundle, "/deep", source=source, options=f"rbind,{option}")
        add(bundle, "/flat", source=source, options=f"rbind,{option[1:]}")
        found = mounted(run(bundle, runtime, "cat", "/proc/self/mountinfo").stdout)
        untree(source)
        has = {place: shown in found[place][5].split(",") for place in ("/deep/sub", "/flat/sub")}
        wanted = option != "rstrictatime"  # which mountinfo shows by the absence of relatime
        assert has == {"/deep/sub": wanted, "/flat/sub": not wanted}

    (tmp_path / "b").mkdir()
    isolated(body)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_recursive_options_can_take_away(tmp_path: Path, runtime: str) -> None:
    def body() -> None:
        source = tree(tmp_path)
        subprocess.run(["mount", "-o", "remount,ro,noexec", source / "sub"], check=True)
        subprocess.run(["mount", "-o", "remount,rw", source / "sub"], check=True)
        bundle = Bundle(tmp_path / "b")
        add(bundle, "/v", source=source, options="rbind,ro,rrw,rexec")
        found = mounted(run(bundle, runtime, "cat", "/proc/self/mountinfo").stdout)
        untree(source)
        assert "noexec" not in found["/v/sub"][5]
        assert found["/v"][5].startswith("rw")

    (tmp_path / "b").mkdir()
    isolated(body)


MAPS: dict[str, Any] = {
    "uidMappings": [
        {"containerID": 0, "hostID": 5000, "size": 10},
        {"containerID": 1000, "hostID": 7000, "size": 5},
    ],
    "gidMappings": [{"containerID": 0, "hostID": 6000, "size": 2000}],
}


def test_an_id_mapped_bind_shows_other_owners(tmp_path: Path) -> None:
    # oci: mounts.uidMappings, mounts.gidMappings; IDMapping.containerID, .hostID, .size

    def body() -> None:
        (tmp_path / "below").mkdir()
        # Not a tmpfs, which cannot be id-mapped before Linux 6.3.
        source = tree(tmp_path, "--bind", str(tmp_path / "below"))
        for name, uid in (("a", 0), ("b", 1003), ("sub/c", 1)):
            (source / name).touch()
            os.chown(source / name, uid, uid)
        bundle = Bundle(tmp_path / "b")
        add(bundle, "/flat", source=source, options="rbind,idmap", **MAPS)
        add(bundle, "/deep", source=source, options="rbind,ridmap", **MAPS)
        script = (
            "cd /flat; stat -c %u:%g a b sub/c; cd /deep; stat -c %u:%g a b sub/c;"
            "touch new 2>&1 | grep -c Value; chown 5002:6002 a && stat -c %u:%g a"
        )
        result = bundle.shell(script)
        owner = (os.stat(source / "a").st_uid, os.stat(source / "a").st_gid)
        untree(source)
        assert result.stdout.split() == [
            *("5000:6000", "7003:7003", "1:1"),
            *("5000:6000", "7003:7003", "5001:6001"),
            *("1", "5002:6002"),  # root inside has no place in the mapping
        ]
        assert owner == (2, 2)

    (tmp_path / "b").mkdir()
    isolated(body)


def test_idmap_without_maps_uses_the_container_s(tmp_path: Path) -> None:
    def body() -> None:
        (tmp_path / "data").mkdir()
        (tmp_path / "data/file").touch()
        bundle = Bundle(tmp_path)
        subprocess.run(["chown", "-hR", "100000:100000", bundle.rootfs], check=True)
        mapping = [{"containerID": 0, "hostID": 100000, "size": 65536}]
        bundle.linux["namespaces"].append({"type": "user"})
        bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
        add(bundle, "/plain", source=tmp_path / "data", options="bind")
        add(bundle, "/mapped", source=tmp_path / "data", options="bind,idmap")
        result = bundle.shell("stat -c %u /plain/file /mapped/file; touch /mapped/new")
        assert result.stdout.split() == ["65534", "0"]
        assert os.stat(tmp_path / "data/new").st_uid == 0

    isolated(body)


def test_idmap_without_any_maps_is_refused(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        add(bundle, "/v", source=tmp_path, options="bind,idmap")
        with pytest.raises(InvalidArgumentError, match="mount /v: idmap needs mappings"):
            bundle.run("true")

    isolated(body)


def test_tmpcopyup_copies_what_the_image_has(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        place = bundle.rootfs / "data"
        (place / "d").mkdir(parents=True)
        (place / "d/file").write_text("kept\n")
        os.chown(place / "d/file", 3, 4)
        (place / "d/file").chmod(0o4751)
        os.setxattr(place / "d/file", "user.x", b"1")
        os.utime(place / "d/file", (1, 1))
        (place / "link").symlink_to("/etc/shadow")
        os.mkfifo(place / "fifo", 0o640)
        os.mknod(place / "null", 0o20666, os.makedev(1, 3))
        place.chmod(0o1751)
        add(bundle, "/data", "tmpfs", "tmpfs", options="tmpcopyup,ro,size=1m")
        script = (
            "cd /data; cat d/file; stat -c %a:%u:%g:%Y d/file; readlink link; stat -c %F:%a fifo;"
            "stat -c %t:%T null; stat -c %a .; touch new"
        )
        result = bundle.shell(script)
        assert result.stdout.splitlines() == [
            *("kept", "4751:3:4:1", "/etc/shadow", "fifo:640", "1:3", "1751"),
        ]
        assert "Read-only" in result.stderr
        assert sorted(os.listdir(place)) == ["d", "fifo", "link", "null"]

    isolated(body)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_tmpcopyup_of_plain_files(tmp_path: Path, runtime: str) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        (bundle.rootfs / "data/d").mkdir(parents=True)
        (bundle.rootfs / "data/d/file").write_text("kept\n")
        (bundle.rootfs / "data/link").symlink_to("d/file")
        add(bundle, "/data", "tmpfs", "tmpfs", options="tmpcopyup,nosuid")
        result = run(
            bundle, runtime, "sh", "-c", "cat /data/link; touch /data/new; stat -fc %T /data"
        )
        assert result.stdout.split() == ["kept", "tmpfs"]
        assert sorted(os.listdir(bundle.rootfs / "data")) == ["d", "link"]

    isolated(body)


DEEP = ["data", *["é" * 9] * 400]


def deepest(root: Path, *, make: bool) -> int:
    """Return the directory at the end of DEEP below ``root``, open."""
    fd = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
    for name in DEEP:
        if make:
            os.mkdir(name, 0o710, dir_fd=fd)
        parent_fd, fd = fd, os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(parent_fd)
    return fd


@pytest.fixture
def deep_path() -> Iterator[Path]:
    """Give a directory that goes however deep it has become: Python's rmtree cannot."""
    path = tempfile.mkdtemp()
    yield Path(path)
    subprocess.run(["rm", "-rf", path], check=True)


def test_tmpcopyup_of_a_tree_deeper_than_a_path(deep_path: Path) -> None:
    """Neither the stack nor the descriptors of whoever copies it may end it."""

    def body() -> None:
        bundle = Bundle(deep_path)
        fd = deepest(bundle.rootfs, make=True)
        os.close(os.open("end", os.O_CREAT | os.O_WRONLY, dir_fd=fd))
        os.utime(fd, (1, 1))
        os.close(fd)
        add(bundle, "/data", "tmpfs", "tmpfs", options="tmpcopyup")
        few = max(map(int, os.listdir("/proc/self/fd"))) + 40
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            fd = deepest(Path(f"/proc/{init.pid}/root"), make=False)
            assert os.listdir(fd) == ["end"]
            status = os.fstat(fd)
            assert (status.st_mode & 0o7777, status.st_mtime) == (0o710, 1)
            os.close(fd)
            os.kill(init.pid, signal.SIGKILL)
            end(init)
        bundle.destroy()

    isolated(body)


def test_tmpcopyup_that_does_not_fit_is_an_error(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        (bundle.rootfs / "data").mkdir()
        (bundle.rootfs / "data/big").write_bytes(bytes(1 << 20))
        add(bundle, "/data", "tmpfs", "tmpfs", options="tmpcopyup,size=64k")
        with pytest.raises(LaunchError, match='rootfs at "/data": no space left'):
            bundle.run("true")

    isolated(body)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_a_tmpfs_has_the_mode_of_what_it_covers(tmp_path: Path, runtime: str) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        (bundle.rootfs / "old").mkdir()
        (bundle.rootfs / "old").chmod(0o2710)
        add(bundle, "/old", "tmpfs", "tmpfs")
        add(bundle, "/new", "tmpfs")
        add(bundle, "/said", "tmpfs", "tmpfs", options="mode=0700")
        result = run(bundle, runtime, "stat", "-c", "%a", "/old", "/new", "/said")
        assert result.stdout.split() == ["2710", "1777", "700"]

    isolated(body)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_remount_changes_a_mount_of_before(tmp_path: Path, runtime: str) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        add(bundle, "/t", "tmpfs", "tmpfs", options="size=64k")
        add(bundle, "/t", "tmpfs", "tmpfs", options="remount,size=128k,noexec")
        add(bundle, "/sys", "none", "", options="remount,bind,rw,nosuid")
        found = mounted(run(bundle, runtime, "cat", "/proc/self/mountinfo").stdout)
        assert "noexec" in found["/t"][5]
        assert "size=128k" in found["/t"][-1]
        assert found["/sys"][5].startswith("rw,nosuid")

    isolated(body)


def test_mounts_are_made_in_their_order(tmp_path: Path) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        for number in range(3):
            (tmp_path / f"d{number}/below").mkdir(parents=True)
            (tmp_path / f"d{number}/file").write_text(f"{number}\n")
        add(bundle, "/v", source="d0", options="bind")
        add(bundle, "/v/below", source="d1", options="bind")  # in the one before
        add(bundle, "/w/below", source="d1", options="bind")  # hidden by the one after
        add(bundle, "/w", source="d2", options="bind")
        result = bundle.shell("cat /v/file /v/below/file /w/file; ls /w/below")
        assert result.stdout.split() == ["0", "1", "2"]

    isolated(body)


@pytest.mark.parametrize("runtime", RUNTIMES)
def test_relative_linked_and_missing_destinations_stay_in_the_root(
    tmp_path: Path, runtime: str
) -> None:
    # oci: mounts.destination, .source, .type

    def body() -> None:
        outside = tmp_path / "outside"
        outside.mkdir()
        (tmp_path / "data").mkdir()
        (tmp_path / "data/x").write_text("x\n")
        (tmp_path / "note").write_text("note\n")
        bundle = Bundle(tmp_path)
        (bundle.rootfs / "up").symlink_to("../../../outside")
        (bundle.rootfs / "absolute").symlink_to(str(outside))
        (bundle.rootfs / "hanging").symlink_to("/made/by/link")
        (bundle.rootfs / "filelink").symlink_to("/etc/note")
        for place in ("relative/a", "/up/b", "/absolute/c", "/hanging/d", "/e/../f"):
            add(bundle, place, source="data", options="bind")
        add(bundle, "/filelink", source="note", options="bind")
        add(bundle, "/deep/er/note", source="note", options="bind")
        script = f"cat /relative/a/x /outside/b/x {outside}/c/x /made/by/link/d/x /f/x /etc/note"
        result = run(bundle, runtime, "sh", "-c", f"{script} /deep/er/note")
        assert result.stdout.split() == ["x"] * 5 + ["note"] * 2, result.stderr
        assert os.listdir(outside) == []

    isolated(body)


@pytest.mark.parametrize(
    ("value", "flags"),
    [
        ("shared", {"/": True, "/v": False}),
        ("rshared", {"/": True, "/v": True}),
        ("private", {"/": False, "/v": False}),
        ("rslave", {"/": False, "/v": False}),
    ],
)
def test_propagation_of_the_root(tmp_path: Path, value: str, flags: dict[str, bool]) -> None:
    """runc 1.1 leaves the root private whatever is asked."""
    # oci: linux.rootfsPropagation

    def body() -> None:
        bundle = Bundle(tmp_path)
        add(bundle, "/v", "tmpfs", "tmpfs")
        bundle.linux["rootfsPropagation"] = value
        found = mounted(bundle.run("cat", "/proc/self/mountinfo").stdout)
        assert {place: found[place][6].startswith("shared") for place in flags} == flags

    isolated(body)


@pytest.mark.parametrize("value", ["unbindable", "runbindable"])
def test_an_unbindable_root(tmp_path: Path, value: str) -> None:
    def body() -> None:
        bundle = Bundle(tmp_path)
        add(bundle, "/v", "tmpfs", "tmpfs")
        bundle.linux["rootfsPropagation"] = value
        found = mounted(bundle.run("cat", "/proc/self/mountinfo").stdout)
        assert found["/"][6] == "unbindable"
        assert (found["/v"][6] == "unbindable") == (value == "runbindable")

    isolated(body)


@pytest.mark.parametrize("option", ["rslave", "slave", "rshared", "shared", "rprivate"])
def test_propagation_of_a_bind(tmp_path: Path, option: str) -> None:
    """What is mounted on the host while the container runs; what the container mounts itself."""

    def body() -> None:
        source = tmp_path / "source"
        source.mkdir()
        subprocess.run(["mount", "-t", "tmpfs", "source", source], check=True)
        subprocess.run(["mount", "--make-shared", source], check=True)
        for name in ("from-host", "from-inside"):
            (source / name).mkdir()
        bundle = Bundle(tmp_path / "b")
        bundle.process["capabilities"] = {
            name: ["CAP_SYS_ADMIN"] for name in ("bounding", "permitted", "effective")
        }
        add(bundle, "/v", source=source, options=f"rbind,{option}")
        with Capture() as capture:
            init = bundle.start("sleep", "60", stdio=capture.stdio)
            subprocess.run(["mount", "-t", "tmpfs", "x", source / "from-host"], check=True)
            script = "mount -t tmpfs x /v/from-inside; cat /proc/self/mountinfo"
            inside = mounted(bundle.execute(init, "sh", "-c", script).stdout)
            outside = mounted(Path("/proc/self/mountinfo").read_text())
            os.kill(init.pid, 9)
            end(init)
            bundle.destroy()
        for name in ("from-host", "from-inside"):
            subprocess.run(["umount", "-q", source / name], check=False)
        subprocess.run(["umount", source], check=True)
        assert ("/v/from-host" in inside) == (option != "rprivate")
        assert (f"{source}/from-inside" in outside) == (option in ("rshared", "shared"))

    (tmp_path / "b").mkdir()
    isolated(body)


def test_a_label_needs_selinux(tmp_path: Path) -> None:
    # oci: linux.mountLabel

    if os.path.exists("/sys/fs/selinux/enforce"):
        pytest.skip("this host has SELinux")

    bundle = Bundle(tmp_path)
    bundle.linux["mountLabel"] = "system_u:object_r:container_file_t:s0"
    with pytest.raises(UnsupportedError, match=r"linux\.mountLabel .* selinux is not enabled"):
        bundle.start("true", stdio=None)
