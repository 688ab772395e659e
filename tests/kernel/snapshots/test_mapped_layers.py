"""One copy of an image serves containers of every user mapping; on disk ids are the image's."""

import errno
import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import pytest
from driver_kit import layer, on_driver, opened

from cais.linux import mount
from cais.linux.syscalls import KernelError
from cais.runtime import apart
from cais.snapshots.differences import DifferenceSnapshotter
from cais.testing.bundles import Bundle, Result, make_rootfs
from cais.testing.isolation import children, isolated, remove_cgroups

BASES = (100_000, 300_000)
SHOW = (
    "stat -c '%u %g' /bin/busybox /home/file; stat -c %u /; touch /root/new && chown 7:8 /root/new"
)
# A tmpfs has ID-mapped mounts only since Linux 6.3.
mapped_drivers = pytest.mark.parametrize("place", ["overlay2 on ext4", "vfs on ext4", "btrfs"])


def fill(top: Path) -> None:
    shutil.copytree(made_root(top.parent), top, symlinks=True, dirs_exist_ok=True)
    for name in ("home", "root"):
        (top / name).mkdir()
    (top / "home/file").write_text("text")
    os.chown(top / "home/file", 1000, 1001)


def made_root(directory: Path) -> Path:
    path = directory.parent / "busybox"
    if not path.exists():
        make_rootfs(path)
    return path


def run_mapped(
    snapshotter: DifferenceSnapshotter, directory: Path, key: str, base: int, script: str = SHOW
) -> Result:
    """Run a shell script as root of a user namespace, on an ID-mapped root."""
    snapshotter.prepare(key, "upper")
    directory.chmod(0o755)
    bundle = Bundle(directory / key)
    mapping = [{"containerID": 0, "hostID": base, "size": 65536}]
    bundle.linux["namespaces"].append({"type": "user"})
    bundle.linux.update(uidMappings=mapping, gidMappings=mapping)
    mounts = [asdict(each) for each in snapshotter.mounts(key)]
    for each in mounts:
        each["options"] = [*each["options"], "idmap"]
    bundle.extras["rootfs"] = mounts
    return bundle.shell(script)


def make_image(snapshotter: DifferenceSnapshotter) -> None:
    layer(snapshotter, "base", None, fill)
    layer(snapshotter, "upper", "base", lambda top: (top / "etc").mkdir())


def owner(path: str) -> tuple[int, int]:
    facts = os.lstat(path)
    return facts.st_uid, facts.st_gid


def check_two_containers(place: str, top: Path) -> None:
    with opened(place, top / "snapshots") as snapshotter:
        make_image(snapshotter)
        shared = snapshotter.usage("base")
        for base in BASES:
            result = run_mapped(snapshotter, top, f"of-{base}", base)
            assert (result.stderr, result.code) == ("", 0)
            assert result.stdout.splitlines() == ["0 0", "1000 1001", "0"]
            written = snapshotter.layer(f"of-{base}").path
            assert owner(f"{written}/root/new") == (7, 8)
            assert owner(f"{written}/root") == (0, 0)
        image = snapshotter.layer("base").path
        assert owner(f"{image}/home/file") == (1000, 1001)
        assert snapshotter.usage("base") == shared


@mapped_drivers
def test_two_mappings_share_one_copy(tmp_path: Path, place: str) -> None:
    on_driver(place, tmp_path, lambda top: check_two_containers(place, top))


def make_older(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a kernel before Linux 6.7, without ``lowerdir+``; snapshotters must be open already."""
    new_mount = mount.new_mount

    def older(kind: str, *arguments: object) -> int:
        if kind == "overlay":
            raise KernelError(errno.EINVAL, "fsconfig", "Unknown parameter 'lowerdir+'")
        return new_mount(kind, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(mount, "new_mount", older)
    monkeypatch.setattr("cais.snapshots.drivers._probe", lambda *_: None)


def test_kernels_that_take_layers_by_path_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def body(top: Path) -> None:
        home = os.getcwd()
        with opened("overlay2", top / "probed"):
            pass
        make_older(monkeypatch)
        check_two_containers("overlay2", top)
        assert os.getcwd() == home

    on_driver("overlay2 on ext4", tmp_path, body)


@pytest.mark.parametrize("killed", [False, True])
def test_layers_by_path_never_show_on_the_host(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    """Not while they are mounted, and not after the starter is killed just then."""

    def body(top: Path) -> None:
        top_fd = os.open(top, os.O_PATH)
        mount.set_attributes(top_fd, propagation=mount.MS_SHARED)  # as on a host of systemd
        os.close(top_fd)
        before = mounts_of("self")
        with opened("overlay2", top / "snapshots") as snapshotter:
            make_image(snapshotter)
            make_older(monkeypatch)
            if (starter := os.fork()) == 0:
                start_watched(snapshotter, top, monkeypatch, killed=killed)
            code = os.waitstatus_to_exitcode(os.waitpid(starter, 0)[1])
            while list(children()):  # what it had made is ours now, and ends by itself
                os.waitpid(-1, 0)
            remove_cgroups(f"test-{starter}")
            assert (top / "seen").read_text() == ""
            assert mounts_of("self") == before
            assert code == (-signal.SIGKILL if killed else 0)

    on_driver("overlay2 on ext4", tmp_path, body)


def start_watched(
    snapshotter: DifferenceSnapshotter, top: Path, monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    """Run a container; write down what the host has more while its layers are mounted. Exits."""
    starter, before, mount_over = os.getpid(), mounts_of("self"), mount.mount_over

    def watched(*arguments: str) -> None:
        mount_over(*arguments)
        (top / "seen").write_text("".join(mounts_of(starter) - before))
        if killed:
            os.kill(starter, signal.SIGKILL)

    code = 1
    try:
        monkeypatch.setattr(mount, "mount_over", watched)
        code = run_mapped(snapshotter, top, "watched", BASES[0]).code
    finally:
        os._exit(code)


@pytest.mark.parametrize(
    ("make", "code"),
    [
        (lambda: mount.clone_tree("/none/such"), errno.ENOENT),
        (lambda: os.kill(os.getpid(), signal.SIGKILL), errno.EIO),
    ],
)
def test_what_could_not_be_mounted_apart_is_told(make: Callable[[], int], code: int) -> None:
    def body() -> None:
        with pytest.raises(KernelError) as caught:
            apart.make_tree(make, [-1])
        assert caught.value.errno == code

    isolated(body)


def mounts_of(process: int | str) -> set[str]:
    return set(Path(f"/proc/{process}/mountinfo").read_text().splitlines(keepends=True))


def test_what_is_not_mapped_belongs_to_nobody(tmp_path: Path) -> None:
    """An id of the image that the mapping lacks is shown as nobody's, never as the host's."""

    def body(top: Path) -> None:
        with opened("overlay2", top / "snapshots") as snapshotter:
            layer(snapshotter, "base", None, fill)

            def foreign(path: Path) -> None:
                (path / "far").write_text("x")
                os.chown(path / "far", 70_000, 70_000)

            layer(snapshotter, "upper", "base", foreign)
            script = "stat -c %u /far; chown 0 /far 2>/dev/null || echo refused"
            result = run_mapped(snapshotter, top, "one", BASES[0], script)
            assert result.stdout.split() == ["65534", "refused"]

    on_driver("overlay2 on ext4", tmp_path, body)
