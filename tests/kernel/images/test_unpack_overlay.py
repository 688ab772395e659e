"""Kernel tests: what overlayfs shows of unpacked layers is what the layers say.

The oracles are umoci, which applies the same layers to a plain directory, and GNU tar.
"""

import io
import os
import stat
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from cais.images import archive
from cais.images.store import ImageStore
from cais.testing.image_store import docker_archive, open_image_store
from cais.testing.isolation import isolated
from cais.testing.raw_tar import Member, tar

DIR, SYM, HARD, FIFO = b"5", b"2", b"1", b"6"

BASE = [
    Member("./", kind=DIR, mode=0o755, mtime=1),
    Member("bin", kind=DIR, mode=0o755, uid=3, gid=4, mtime=2),
    Member("bin/tool", b"tool", mode=0o4755, mtime=3),
    Member("etc", kind=DIR, mode=0o711, mtime=4),
    Member("etc/passwd", b"root", mode=0o600, uid=5, mtime=5),
    Member("etc/conf.d", kind=DIR, mode=0o2750, uid=8, mtime=6),
    Member("etc/conf.d/one", b"1", mtime=7),
    Member("etc/conf.d/two", b"2", mtime=8),
    Member("opt", kind=DIR, mode=0o2775, gid=50, mtime=9),
    Member("opt/old", b"old", mtime=10),
    Member("opt/sub", kind=DIR, mode=0o755, mtime=11),
    Member("opt/sub/deep", b"deep", mtime=12),
    Member("run", kind=DIR, mode=0o755, mtime=13),
    Member("var/run", kind=SYM, link="/run", mtime=14),
    Member("var/log", kind=DIR, mode=0o755, mtime=15),
    Member("var/log/a", b"a", mtime=16),
    Member("gone", b"gone", mtime=17),
    Member("swap", b"a file", mtime=18),
    Member("dirswap", kind=DIR, mode=0o755, mtime=19),
    Member("dirswap/x", b"x", mtime=20),
    Member("pipe", kind=FIFO, mode=0o622, mtime=21),
]
UPPER_LAYERS: dict[str, Sequence[Member]] = {
    "whiteout-of-file": [Member(".wh.gone")],
    "whiteout-of-directory": [Member("opt/.wh.sub")],
    "whiteout-of-nothing": [Member(".wh.never"), Member("bin/.wh.never")],
    "whiteout-in-missing-directory": [Member("no/such/.wh.x")],
    "whiteout-then-file": [Member(".wh.gone"), Member("gone", b"back", mtime=50)],
    "file-then-whiteout": [Member("gone", b"back", mtime=50), Member(".wh.gone")],
    "whiteout-then-directory": [
        Member(".wh.opt"), Member("opt", kind=DIR, mode=0o700, mtime=51),
        Member("opt/new", b"n", mtime=52)],
    "directory-then-whiteout": [
        Member("opt", kind=DIR, mode=0o700, mtime=51), Member("opt/new", b"n", mtime=52),
        Member(".wh.opt")],
    "opaque": [
        Member("etc", kind=DIR, mode=0o700, mtime=53), Member("etc/.wh..wh..opq"),
        Member("etc/new", b"n", mtime=54)],
    "opaque-last": [
        Member("etc", kind=DIR, mode=0o700, mtime=53), Member("etc/new", b"n", mtime=54),
        Member("etc/.wh..wh..opq")],
    "opaque-below": [
        Member("etc", kind=DIR, mode=0o711, mtime=53), Member("etc/.wh..wh..opq"),
        Member("etc/conf.d", kind=DIR, mode=0o755, mtime=55),
        Member("etc/conf.d/three", b"3", mtime=56)],
    "opaque-root": [
        Member(".wh..wh..opq"), Member("bin", kind=DIR, mode=0o755, mtime=57),
        Member("bin/only", b"only", mtime=58)],
    "file-replaces-directory": [Member("dirswap", b"now a file", mtime=60)],
    "directory-replaces-file": [
        Member("swap", kind=DIR, mode=0o755, mtime=61), Member("swap/in", b"in", mtime=62)],
    "file-then-directory": [
        Member("dirswap", b"now a file", mtime=60),
        Member("dirswap", kind=DIR, mode=0o755, mtime=63),
        Member("dirswap/y", b"y", mtime=64)],
    "link-of-a-lower-file": [Member("bin/same", kind=HARD, link="bin/tool")],
    "link-of-a-lower-symlink": [Member("bin/same", kind=HARD, link="/var/run")],
    "link-of-a-lower-fifo": [Member("bin/same", kind=HARD, link="pipe")],
    "directory-metadata-only": [Member("opt", kind=DIR, mode=0o1777, uid=9, mtime=70)],
    "parent-left-out": [Member("opt/sub/new", b"n", mtime=71)],
    "through-a-lower-symlink": [Member("var/run/pid", b"1", mtime=72)],
    "whiteout-through-a-lower-symlink": [
        Member("run/x", b"x", mtime=73), Member("var/run/y", b"y", mtime=74)],
}  # fmt: skip


OPAQUE_ETC = [Member("etc", kind=DIR, mode=0o700, mtime=53), Member("etc/.wh..wh..opq")]
HIDDEN_LAYERS: dict[str, Sequence[Member]] = {
    "whiteout-of-what-is-hidden": [Member("etc/.wh.passwd")],
    "parent-that-is-hidden": [Member("etc/conf.d/new", b"n", mtime=80)],
    "link-that-is-hidden": [Member("etc/.wh.conf.d"), Member("etc/conf.d/x", b"x", mtime=81)],
}


def listing(root: Path) -> list[tuple[object, ...]]:
    """Describe a tree without what differs between a plain directory and an overlay."""
    found = []
    for directory, names, files in os.walk(root):
        for name in [".", *names, *files]:
            path = Path(directory, name)
            facts = path.lstat()
            kind = stat.S_IFMT(facts.st_mode)
            content = path.read_bytes() if stat.S_ISREG(kind) else b""
            link = os.readlink(path) if stat.S_ISLNK(kind) else ""
            mtime = facts.st_mtime_ns
            found.append(
                (os.path.relpath(path, root), facts.st_mode, facts.st_uid, facts.st_gid, mtime,
                 content, link)
            )  # fmt: skip
    return sorted(set(found))


def load(store: ImageStore, layers: Sequence[Sequence[Member]]) -> str:
    return archive.load(io.BytesIO(docker_archive([tar(each) for each in layers])), store)[0].id


def mount_overlay(store: ImageStore, key: str, target: Path) -> None:
    [mount] = store.snapshotter.mounts(key)
    target.mkdir()
    subprocess.run(
        ["mount", "-t", mount.type, "-o", ",".join(mount.options), mount.source, target], check=True
    )


def umoci_rootfs(store: ImageStore, directory: Path) -> Path:
    layout = directory / "layout"
    layout.mkdir()
    saved = b"".join(archive.save(store, ["test:latest"]))
    subprocess.run(["tar", "-x", "-C", layout], input=saved, check=True)
    subprocess.run(
        ["umoci", "unpack", "--image", f"{layout}:latest", directory / "bundle"],
        check=True,
        capture_output=True,
    )
    return directory / "bundle/rootfs"


@pytest.mark.parametrize("name", [*UPPER_LAYERS, *HIDDEN_LAYERS])
def test_what_overlayfs_shows_is_what_umoci_unpacks(tmp_path: Path, name: str) -> None:
    hidden = [OPAQUE_ETC, HIDDEN_LAYERS[name]] if name in HIDDEN_LAYERS else []

    def body() -> None:
        with open_image_store(tmp_path / "data") as store:
            image_id = load(store, [BASE, *(hidden or [UPPER_LAYERS[name]])])
            store.snapshotter.prepare("container", store.resolve(image_id).chain_id)
            mount_overlay(store, "container", tmp_path / "merged")
            try:
                ours = listing(tmp_path / "merged")
            finally:
                subprocess.run(["umount", tmp_path / "merged"], check=True)
            theirs = listing(umoci_rootfs(store, tmp_path))
            if name in {"directory-then-whiteout", *HIDDEN_LAYERS}:  # umoci changes its time
                ours, theirs = without_times(ours), without_times(theirs)
            assert without_new_times(ours) == without_new_times(theirs)

    isolated(body)


def test_bookkeeping_of_aufs_is_left_out(tmp_path: Path) -> None:
    """Docker does so; umoci does not know it."""
    upper = [
        Member(".wh..wh.aufs", b"x"),
        Member(".wh..wh.plnk", kind=DIR, mode=0o700),
        Member(".wh..wh.plnk/1.2", b"x"),
        Member("opt/old", b"new", mtime=75),
    ]
    with open_image_store(tmp_path) as store:
        chain = store.resolve(load(store, [BASE, upper])).chain_id
        root = store.snapshotter.layer(chain or "").path
        assert os.listdir(root) == ["opt"]


@pytest.mark.parametrize("umask", [0o000, 0o077])
def test_the_umask_changes_nothing(tmp_path: Path, umask: int) -> None:
    def body() -> None:
        os.umask(umask)
        with open_image_store(tmp_path / "data") as store:
            chain = store.resolve(load(store, [BASE])).chain_id
            root = Path(store.snapshotter.layer(chain or "").path)
            modes = {name: stat.S_IMODE((root / name).lstat().st_mode) for name in os.listdir(root)}
            assert modes["pipe"] == 0o622
            assert modes["opt"] == 0o2775
            assert modes["etc"] == 0o711
            assert modes["var"] == 0o755  # not listed in the archive
            private = [tmp_path / "data/snapshots", tmp_path / "data/content"]
            assert {stat.S_IMODE(path.stat().st_mode) for path in private} == {0o700}

    isolated(body)


def without_times(found: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    return [(*item[:4], 0, *item[5:]) for item in found]


def without_new_times(found: list[tuple[object, ...]]) -> list[tuple[object, ...]]:
    """Leave out times nobody set: those of directories no layer lists."""
    recent = 1_600_000_000 * 10**9
    return [
        (*item[:4], item[4] if isinstance(item[4], int) and item[4] < recent else 0, *item[5:])
        for item in found
    ]


def test_a_real_file_system_comes_out_as_tar_unpacks_it(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    subprocess.run(["cp", "-a", "/usr/share/base-files", "/etc/alternatives", source], check=True)
    subprocess.run(["setcap", "cap_net_raw+ep", source / "base-files/dot.bashrc"], check=True)
    os.link(source / "base-files/dot.bashrc", source / "linked")
    packed = subprocess.run(
        ["tar", "-c", "--format=posix", "--xattrs", "--xattrs-include=*", "-C", source, "."],
        check=True,
        capture_output=True,
    ).stdout
    with open_image_store(tmp_path / "data") as store:
        image_id = archive.load(io.BytesIO(docker_archive([packed])), store)[0].id
        root = Path(store.snapshotter.layer(store.resolve(image_id).chain_id or "").path)
        assert listing(root) == listing(source)
        assert os.path.samefile(root / "linked", root / "base-files/dot.bashrc")
        capability = os.getxattr(root / "base-files/dot.bashrc", "security.capability")
        assert capability == os.getxattr(source / "base-files/dot.bashrc", "security.capability")


def test_a_hundred_and_twenty_eight_layers_can_be_mounted(tmp_path: Path) -> None:
    def body() -> None:
        with open_image_store(tmp_path / "d") as store:
            layers = [[Member(f"file{n}", b"x")] for n in range(128)]
            record = store.resolve(load(store, layers))
            store.snapshotter.prepare("container", record.chain_id)
            [mount] = store.snapshotter.mounts("container")
            assert mount.options[0].count(":") == 127
            os.chdir(tmp_path / "d/snapshots")
            options = ",".join(mount.options).replace(f"{tmp_path}/d/snapshots/", "")
            (tmp_path / "merged").mkdir()
            command = ["mount", "-t", "overlay", "-o", options, "overlay", tmp_path / "merged"]
            # Through mount(2): fsconfig(2), which newer mount(8) prefers, takes 256 bytes a value.
            environment = {**os.environ, "LIBMOUNT_FORCE_MOUNT2": "always"}
            subprocess.run(command, check=True, env=environment)
            assert len(os.listdir(tmp_path / "merged")) == 128
            subprocess.run(["umount", tmp_path / "merged"], check=True)

    isolated(body)
