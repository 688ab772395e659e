"""Copy-up beside the kernel's own merge: on random layers both must show the same tree."""

import ctypes
import os
import random
import shutil
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from cais.testing.isolation import isolated
from cais.volumes.copyup import copy_merged

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

NAMES = ("a", "b", "c", "d")
_libc = ctypes.CDLL(None, use_errno=True)


def grow(layer: Path, chance: random.Random, *, lowest: bool) -> None:
    """Put files, directories, links, devices, whiteouts and opaque directories into a layer."""
    for _ in range(12):
        path = layer.joinpath(*(chance.choice(NAMES) for _ in range(chance.randint(1, 3))))
        kind = chance.choice(("file", "directory", "link", "device", "whiteout", "opaque", "hard"))
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            make(path, kind, chance, lowest=lowest)
        except (FileExistsError, NotADirectoryError):
            continue


def make(path: Path, kind: str, chance: random.Random, *, lowest: bool) -> None:
    owner = chance.randint(0, 70000)
    if kind == "file":
        with path.open("x") as file:
            file.write(str(chance.random()) * chance.randint(0, 50))
        # Not user.*, which a tmpfs has since Linux 6.6 only.
        os.setxattr(path, "trusted.note", str(owner).encode())
        path.chmod(chance.choice((0o644, 0o755, 0o4711)))
    elif kind in {"directory", "opaque"}:
        path.mkdir()
        path.chmod(chance.choice((0o755, 0o700, 0o1777)))
        if kind == "opaque" and not lowest:
            os.setxattr(path, "trusted.overlay.opaque", b"y")
    elif kind == "link":
        path.symlink_to(chance.choice(("a", "/b", "../c", "nowhere")))
    elif kind == "device":
        os.mknod(path, stat.S_IFCHR | 0o600, os.makedev(1, 3))
    elif kind == "whiteout":
        if not lowest:
            os.mknod(path, stat.S_IFCHR, 0)
        return
    elif kind == "hard":
        with path.open("x") as file:
            file.write("linked")
        os.link(path, path.with_name(path.name + "2"))
    os.chown(path, owner, owner, follow_symlinks=False)


def shown(root: Path) -> dict[str, Any]:
    """Describe a tree by everything a copy must keep."""
    found = {}
    for path in [root, *root.rglob("*")]:
        try:
            status = path.lstat()
        except FileNotFoundError:
            continue  # overlayfs lists a whiteout in a directory that only one layer has
        kind = stat.S_IFMT(status.st_mode)
        content: Any = None
        if stat.S_ISREG(kind):
            content = path.read_bytes()
        elif stat.S_ISLNK(kind):
            content = os.readlink(path)
        attributes = {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in os.listxattr(path, follow_symlinks=False)
        }
        times = status.st_mtime_ns if not stat.S_ISDIR(kind) else None
        facts = (kind, status.st_mode & 0o7777, status.st_uid, status.st_gid, status.st_rdev)
        found[str(path.relative_to(root))] = (*facts, content, attributes, times)
    return found


@pytest.mark.parametrize("seed", range(5))
def test_the_copy_is_what_overlayfs_shows(tmp_path: Path, seed: int) -> None:
    def body() -> None:
        _mount("tmpfs", tmp_path, "")
        for turn in range(12):
            base = tmp_path / str(turn)
            layers = [base / f"l{number}" for number in range(3)]
            chance = random.Random(f"{seed}.{turn}")
            for layer in layers:
                layer.mkdir(parents=True)
                grow(layer, chance, lowest=layer is layers[-1])
            merged, target = base / "merged", base / "volume" / "_data"
            merged.mkdir()
            target.mkdir(parents=True)
            _mount("overlay", merged, f"lowerdir={':'.join(map(str, layers))}")
            for inside in ("", "a"):
                if not (merged / inside).is_dir() or (merged / inside).is_symlink():
                    continue
                empty = bool(inside)
                if empty:
                    shutil.rmtree(target)
                    target.mkdir()
                assert copy_merged([str(layer) for layer in layers], f"/{inside}", str(target))
                assert shown(target) == shown(merged / inside), (seed, turn, inside)
            assert _libc.umount2(os.fsencode(merged), 0) == 0
        assert _libc.umount2(os.fsencode(tmp_path), 0) == 0

    isolated(body)


def test_sockets_are_left_out_and_devices_kept(tmp_path: Path) -> None:
    layer, target = tmp_path / "layer", tmp_path / "volume" / "_data"
    (layer / "dev").mkdir(parents=True)
    target.mkdir(parents=True)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(layer / "dev" / "socket"))
    os.mknod(layer / "dev" / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    (layer / "dev" / "null").chmod(0o666)
    assert copy_merged([str(layer)], "/dev", str(target))
    assert os.listdir(target) == ["null"]
    status = (target / "null").stat()
    assert (stat.S_ISCHR(status.st_mode), status.st_rdev) == (True, os.makedev(1, 3))
    assert status.st_mode & 0o777 == 0o666


def test_file_capabilities_and_owners_survive(tmp_path: Path) -> None:
    layer, target = tmp_path / "layer", tmp_path / "volume" / "_data"
    layer.mkdir()
    target.mkdir(parents=True)
    (layer / "tool").write_bytes(b"#!")
    os.chown(layer / "tool", 7, 8)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep
    os.setxattr(layer / "tool", "security.capability", capability)
    os.chown(layer, 9, 10)
    assert copy_merged([str(layer)], "/", str(target))
    status = (target / "tool").stat()
    assert (status.st_uid, status.st_gid) == (7, 8)
    assert os.getxattr(target / "tool", "security.capability") == capability
    assert (target.stat().st_uid, target.stat().st_gid) == (9, 10)


def _mount(kind: str, where: Path, options: str) -> None:
    result = _libc.mount(kind.encode(), os.fsencode(where), kind.encode(), 0, options.encode())
    assert result == 0, os.strerror(ctypes.get_errno())
